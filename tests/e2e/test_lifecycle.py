# SPDX-License-Identifier: Apache-2.0
"""Nothing that was acknowledged is lost, whatever ends the server or fills its disk.

Full and read-only file systems are small tmpfs mounts, which only root can make: without that those
tests are skipped by name.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import random
import sqlite3
import subprocess
import threading
import time

import httpx
import pytest
from harness import TINY, Server, adapter_bytes, error_of, run_cli

pytestmark = pytest.mark.sanitizer

PROMPT = list(range(40, 60))
WORKERS = 4
NAMES = 5  # of each worker
ACKNOWLEDGED_MIN = 300
KILLS_MIN = 8


def server_of(store, *options):
    server = Server(TINY / "llama", store, "--model-name", "tiny", *options)
    server.name = "tiny"
    return server


# ---- kill -9


class Worker:
    """Changes adapters of its own as fast as it can, and notes what was acknowledged."""

    def __init__(self, number, config):
        self.number, self.config = number, config
        self.random = random.Random(number)
        self.versions = {f"w{number}-{i}": {} for i in range(NAMES)}  # name -> version -> digest
        self.active = dict.fromkeys(self.versions, 0)  # acknowledged; 0: none
        self.unsure = {}  # name -> what was asked when the server died
        self.acknowledged, self.seed = 0, number * 1000000

    def bytes(self):
        # From one worker two files are the same now and then: the store keeps them once.
        self.seed += self.random.random() < 0.9
        return adapter_bytes(self.config, self.seed, ranks=(0, 1, 2))

    def change(self, http):
        """One change; raises when the server is gone."""
        name = self.random.choice(list(self.versions))
        kept = self.versions[name]
        kind = self.random.choices(("put", "rollback", "delete"), (8, 2, 1))[0] if kept else "put"
        data = self.bytes() if kind == "put" else b""
        self.unsure = {"name": name, "kind": kind, "digest": hashlib.sha256(data).hexdigest()}
        if kind == "put":
            reply = http.put(f"/v1/adapters/{name}", content=data)
            assert reply.status_code in (200, 201), reply.text
            card = reply.json()
            assert card["digest"] == self.unsure["digest"]
            kept[card["version"]], self.active[name] = card["digest"], card["version"]
        elif kind == "rollback":
            version = self.random.choice(list(kept))
            self.unsure["version"] = version
            reply = http.post(f"/v1/adapters/{name}/rollback", json={"version": version})
            assert reply.status_code == 200, reply.text
            self.active[name] = version
        else:
            reply = http.delete(f"/v1/adapters/{name}")
            assert reply.status_code == 200, reply.text
            self.versions[name], self.active[name] = {}, 0
        self.unsure = {}
        self.acknowledged += 1

    def run(self, server):
        with httpx.Client(base_url=server.url, timeout=60) as http:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    self.change(http)

    def check(self, server):
        """What the store says now is what was acknowledged, and at most the one change more that
        was under way."""
        for name in self.versions:
            reply = server.http.get(f"/v1/adapters/{name}/versions")
            assert reply.status_code in (200, 404), reply.text
            cards = reply.json()["data"] if reply.is_success else []
            found = {c["version"]: c["digest"] for c in cards}
            active = [c["version"] for c in cards if c["active"]]
            expected = (self.versions[name], [self.active[name]] if self.active[name] else [])
            if (found, active) != expected:
                assert self.unsure.get("name") == name, (name, found, active, expected)
                self.take_unsure(name, found, active)
        self.unsure = {}

    def take_unsure(self, name, found, active):
        """The change under way when the server died has happened, whole."""
        kept, unsure = self.versions[name], self.unsure
        if unsure["kind"] == "put":
            new = set(found) - set(kept)
            assert len(new) <= 1 and all(found[v] == unsure["digest"] for v in new), (kept, found)
            assert {v: d for v, d in found.items() if v not in new} == kept
            assert len(active) == 1 and found[active[0]] == unsure["digest"], (found, active)
        elif unsure["kind"] == "rollback":
            assert found == kept and active == [unsure["version"]], (kept, found, active)
        else:
            assert found == {} and active == [], (found, active)
        self.versions[name], self.active[name] = found, active[0] if active else 0


def blobs(store):
    return {p.name for p in (pathlib.Path(store) / "blobs").rglob("*") if p.is_file()}


def check_nothing_is_broken(server):
    """Every version of every name is there byte for byte and serves, and there is no litter."""
    digests = set()
    for card in server.http.get("/v1/adapters").json()["data"]:
        for version in server.http.get(f"/v1/adapters/{card['name']}/versions").json()["data"]:
            if version["digest"] in digests:
                continue
            digests.add(version["digest"])
            url = f"/v1/adapters/{card['name']}@{version['version']}/content"
            content = server.http.get(url).content
            assert hashlib.sha256(content).hexdigest() == version["digest"], url
        server.greedy(PROMPT, 1, model=card["name"])
    return digests


def test_kill_9_among_hundreds_of_changes_loses_nothing_and_breaks_nothing(tmp_path, tiny_config):
    server = server_of(tmp_path / "store")
    workers = [Worker(n, tiny_config) for n in range(WORKERS)]
    moments = random.Random(7)
    kills = 0
    while kills < KILLS_MIN or sum(w.acknowledged for w in workers) < ACKNOWLEDGED_MIN:
        assert kills < 100, "a hundred starts and not enough was acknowledged"
        server.start()
        for worker in workers:
            worker.check(server)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            begin = sum(w.acknowledged for w in workers)
            running = [pool.submit(w.run, server) for w in workers]
            # After so many changes, not after so long: machines and builds differ in speed.
            wanted, deadline = begin + moments.randint(1, 70), time.monotonic() + 120
            while sum(w.acknowledged for w in workers) < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.05))
            server.process.kill()
            for worker in running:
                worker.result()
        server.process.wait()
        server.close()
        kills += 1
    with server:
        for worker in workers:
            worker.check(server)
        digests = check_nothing_is_broken(server)
        acknowledged = {d for w in workers for kept in w.versions.values() for d in kept.values()}
        assert digests == acknowledged and len(digests) > 10
        assert blobs(server.store) == {f"{d}.safetensors" for d in digests}, "nothing lies about"
        # Each acknowledged publish is in the record as begun, and as done.
        after, records = 0, []
        while page := server.http.get(f"/v1/audit?limit=1000&after={after}").json()["data"]:
            records += page
            after = page[-1]["number"]
        done = [r for r in records if r["outcome"] == "done"]
        begun = {(r["request"], r["action"]) for r in records if r["outcome"] == "begun"}
        assert {(r["request"], r["action"]) for r in done} <= begun
        assert len(done) >= sum(w.acknowledged for w in workers)
        published = {r["digest"] for r in done if r["action"] == "adapter.publish"}
        assert len(digests - published) <= kills * WORKERS, "only what was cut off lacks its end"
    assert server.log().count("---- start") == kills + 1


# ---- updates under load


def logprobs_of(reply):
    choice = reply["choices"][0]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"]


def test_updates_in_a_loop_under_load_fail_no_request_and_mix_no_versions(tmp_path, tiny_config):
    """Six files take turns under one name; a reply's log-probabilities tell, to the last bit, which
    one it was computed with from its first token to its last."""
    files = [adapter_bytes(tiny_config, 900 + i, ranks=(1, 2, 3, 5)) for i in range(6)]
    body = {
        "prompt": PROMPT, "max_tokens": 100, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True, "logprobs": 0,
    }  # fmt: skip
    with server_of(tmp_path / "store") as server:
        expected = []
        for i, data in enumerate(files):
            server.put(f"only-{i}", data)
            expected.append(logprobs_of(server.ask({**body, "model": f"only-{i}"})))
        assert len({str(e) for e in expected}) == len(files)
        base = logprobs_of(server.ask(body))
        versions = {0: server.put("swapped", files[0])["version"]}  # of each file, the newest
        stop, updates, used = threading.Event(), [], set()

        def client(model):
            replies = []
            while not stop.is_set():
                begin = time.monotonic()
                found = logprobs_of(server.ask({**body, "model": model}))
                replies.append((begin, time.monotonic(), found))
                if model == "swapped":
                    used.add(str(found))
            return replies

        models = ["swapped"] * 6 + ["tiny", "only-3"]
        with concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
            running = [pool.submit(client, m) for m in models]
            try:
                for i in range(1, 601):
                    if i > 60 and len(used) >= 4:  # rounds may have met the same versions so far
                        break
                    index = i % len(files)
                    begin = time.monotonic()
                    back = "/v1/adapters/swapped/rollback"
                    if i % 5 == 0 and index in versions:
                        server.post(back, {"version": versions[index]}).raise_for_status()
                    elif i % 13 == 0:
                        card = server.put("swapped", files[index], params={"activate": "false"})
                        server.post(back, {"version": card["version"]}).raise_for_status()
                    else:
                        card = server.put("swapped", files[index], expect=(200,))
                        versions[index] = card["version"]
                    updates.append((begin, time.monotonic(), index))
                    ask = {**body, "model": "swapped", "max_tokens": 5}
                    after = logprobs_of(server.ask(ask))
                    assert after == tuple(part[:5] for part in expected[index]), "the newest"
            finally:
                stop.set()
            replies = [r.result() for r in running]
    crossed = 0
    for model, found in zip(models, replies):
        assert found
        for begin, end, reply in found:
            if model != "swapped":
                assert reply == (base if model == "tiny" else expected[3])
                continue
            assert reply in expected, "computed with two versions"
            crossed += any(begin < u[0] and u[1] < end for u in updates)
    assert crossed >= 20, f"only {crossed} requests lived through an update"
    assert len(used) >= 4, "the versions took turns"


# ---- a store that cannot be written, or that another program wrote


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip(f"mount: {run.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def digests_of(server):
    return {c["name"]: c["digest"] for c in server.http.get("/v1/adapters").json()["data"]}


def test_a_full_disk_is_507_and_loses_nothing(tmp_path, tiny_config):
    kept = {}
    with small_disk(tmp_path / "disk", "8m") as disk:
        server = server_of(disk / "store")
        server.log_path = tmp_path / "server.log"
        with server:
            for i in range(1000):
                data = adapter_bytes(tiny_config, 2000 + i, ranks=(16,))
                reply = server.http.put(f"/v1/adapters/n{i}", content=data)
                if not reply.is_success:
                    break
                kept[f"n{i}"] = reply.json()["digest"]
            error_of(reply, 507, "store_full")
            assert len(kept) > 3, "there was room for some"
            for again in range(3):  # and it stays so
                data = adapter_bytes(tiny_config, 5000 + again, ranks=(16,))
                error_of(server.http.put("/v1/adapters/more", content=data), 507, "store_full")
            assert digests_of(server) == kept
            check_nothing_is_broken(server)
            # Somebody else takes what is left, to the last byte.
            with contextlib.suppress(OSError), open(disk / "junk", "wb", buffering=0) as junk:
                while True:
                    junk.write(b"x" * 4096)
            data = adapter_bytes(tiny_config, 6000, ranks=(16,))
            error_of(server.http.put("/v1/adapters/more", content=data), 507, "store_full")
            assert server.greedy(PROMPT, 4, model="n0") and server.greedy(PROMPT, 4)
            assert digests_of(server) == kept
            for name in ("n2", "n3"):  # deleting writes, too: it happens or it does not
                reply = server.http.delete(f"/v1/adapters/{name}")
                if reply.is_success:
                    del kept[name]
                else:
                    error_of(reply, 507, "store_full")
                assert digests_of(server) == kept
            (disk / "junk").unlink()
            # Deleting makes room, which can be used at once.
            for name in ("n0", "n1"):
                assert server.http.delete(f"/v1/adapters/{name}").is_success, name
                del kept[name]
            kept["more"] = server.put("more", data, expect=(201,))["digest"]
            assert digests_of(server) == kept
        with open(disk / "junk", "wb", buffering=0) as junk, contextlib.suppress(OSError):
            while True:
                junk.write(b"x" * 4096)
        run = run_cli(*server.command(), timeout=60)
        assert run.returncode == 1, run.stderr
        assert "adapter store" in run.stderr and "full" in run.stderr, run.stderr
        (disk / "junk").unlink()
        with server:
            assert digests_of(server) == kept
            assert set(check_nothing_is_broken(server)) == set(kept.values())


def test_a_read_only_store_is_named_and_loses_nothing(tmp_path, tiny_config):
    with small_disk(tmp_path / "disk", "32m") as disk:
        server = server_of(disk / "store")
        server.log_path = tmp_path / "server.log"
        data = adapter_bytes(tiny_config, 1)
        with server:
            kept = {"a": server.put("a", data)["digest"]}
            said = server.greedy(PROMPT, 8, model="a")
        # At the start: an error that names it.
        remount(disk, "ro")
        run = run_cli(*server.command(), timeout=60)
        assert run.returncode == 1 and str(disk / "store") in run.stderr, run.stderr
        assert "read-only" in run.stderr.lower() or "readonly" in run.stderr.lower(), run.stderr
        run = run_cli("keys", "make", "--store", disk / "store")
        assert run.returncode == 1 and run.stdout == "", "no key that is not kept is shown"
        remount(disk, "rw")
        # While it runs: what is there is served, nothing is half done.
        files = disk / "store" / "blobs"
        with server:
            assert server.greedy(PROMPT, 8, model="a") == said
            for name in ("b", "gone"):
                kept[name] = server.put(name, adapter_bytes(tiny_config, len(kept) + 1))["digest"]
            subprocess.run(["mount", "--bind", files, files], check=True)
            try:
                subprocess.run(["mount", "-o", "remount,ro,bind", files], check=True)
                new = adapter_bytes(tiny_config, 9)
                for name in ("c", "a"):
                    error = error_of(server.http.put(f"/v1/adapters/{name}", content=new), 500)
                    assert "Read-only file system" in error["message"], error
                assert server.greedy(PROMPT, 8, model="a") == said
                assert server.greedy(PROMPT, 8, model="b")
                assert digests_of(server) == kept
                assert server.http.delete("/v1/adapters/gone").is_success
                del kept["gone"]
                error_of(server.http.get("/v1/adapters/gone"), 404)
            finally:
                subprocess.run(["umount", files], check=True)
            kept["c"] = server.put("c", new)["digest"]
        with server:
            assert digests_of(server) == kept
            digests = check_nothing_is_broken(server)
            assert digests == set(kept.values())
            assert blobs(server.store) == {f"{d}.safetensors" for d in digests}, "swept"


def test_a_store_of_a_newer_program_is_refused_and_left_alone(tmp_path, tiny_config):
    server = server_of(tmp_path / "store")
    with server:
        kept = {"a": server.put("a", adapter_bytes(tiny_config, 1))["digest"]}
    catalog = tmp_path / "store" / "catalog.sqlite"

    def set_version(version):
        with contextlib.closing(sqlite3.connect(catalog)) as db:
            known = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version}")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode = DELETE")
        return known

    known = set_version(99)
    before = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    for command in (
        server.command(),
        ("keys", "list", "--store", server.store),
        ("keys", "make", "--store", server.store),
    ):
        run = run_cli(*command, timeout=60)
        assert run.returncode == 1 and run.stdout == "", (command, run.stdout)
        for part in (str(server.store), "schema version 99", f"up to {known}", "newer"):
            assert part in run.stderr, run.stderr
    after = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert before == after, "not a byte of it has changed"
    set_version(known)
    with server:
        assert digests_of(server) == kept
        check_nothing_is_broken(server)


def test_a_store_of_the_first_version_is_brought_up(tmp_path, tiny_config):
    """Before keys and records there were names and versions alone."""
    server = server_of(tmp_path / "store")
    with server:
        kept = {"a": server.put("a", adapter_bytes(tiny_config, 1))["digest"]}
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "catalog.sqlite")) as db:
        tables = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in tables - {"adapter", "version", "sqlite_sequence"}:
            db.execute(f"DROP TABLE {table}")
        columns = {r[1] for r in db.execute("PRAGMA table_info(adapter)")}
        for column in columns - {"name", "next_version", "active"}:
            db.execute(f"ALTER TABLE adapter DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    run_cli("keys", "make", "--store", server.store, "--tenant", "t", check=0)
    run_cli("keys", "list", "--store", server.store, check=0)
    with sqlite3.connect(tmp_path / "store" / "catalog.sqlite") as db:
        db.execute("DELETE FROM api_key")
    with server:
        assert digests_of(server) == kept
        check_nothing_is_broken(server)


def test_two_servers_never_share_a_store(tmp_path):
    server = server_of(tmp_path / "store")
    with server:
        run = run_cli(*server.command(), timeout=60)
        assert run.returncode == 1 and "another process" in run.stderr, run.stderr
        assert server.is_ready()
