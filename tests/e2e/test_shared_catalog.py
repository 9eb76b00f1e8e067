# SPDX-License-Identifier: Apache-2.0
"""Several servers on one PostgreSQL: what one does the others know; without it they serve on."""

import concurrent.futures
import hashlib
import json
import time

import httpx
import pytest
from harness import TINY, Server, adapter_bytes, error_of, free_port, golden, run_cli
from postgres import PASSWORD, PROGRAMS, Postgres

pytestmark = [
    pytest.mark.sanitizer,
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed"),
]

CONFIG = golden("tiny", "llama", "config.json")
PROMPT = list(range(3, 40))


@pytest.fixture(scope="module")
def postgres():
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def catalog(postgres, request):
    """The URL of an empty catalog."""
    if postgres.process is None:
        postgres.start()
    schema = f"s{abs(hash(request.node.name)):x}"
    postgres.psql(f"CREATE SCHEMA {schema}")
    yield postgres.url(schema)
    postgres.psql(f"DROP SCHEMA {schema} CASCADE")


def replica(tmp_path, catalog, name, *options):
    options = ("--model-name", "tiny", "--catalog", catalog, "--log-level", "debug", *options)
    server = Server(TINY / "llama", tmp_path / name, *options)
    server.name = "tiny"
    return server


@pytest.fixture
def pair(tmp_path, catalog):
    with replica(tmp_path, catalog, "one") as one, replica(tmp_path, catalog, "two") as two:
        yield one, two
        for server in (one, two):
            assert PASSWORD not in server.log()


def within(seconds, check):
    """Seconds until check() is true; fails past the bound."""
    start = time.monotonic()
    while not check():
        assert time.monotonic() - start < seconds, f"it did not hold within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - start


def digest_of(server, name):
    reply = server.http.get(f"/v1/adapters/{name}")
    return reply.json()["digest"] if reply.status_code == 200 else None


def tokens(server, model):
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True,
    }  # fmt: skip
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["token_ids"]


def catalog_state(server):
    reply = server.http.get("/ready")
    assert reply.status_code == 200, reply.text
    return reply.json()["catalog"]


def upload(server, name, seed, **options):
    data = adapter_bytes(CONFIG, seed)
    return server.put(name, data, **options)


# ---- changes reach the others


def test_an_upload_is_served_by_the_other_within_a_second(pair, tmp_path):
    one, two = pair
    slowest = 0
    for seed in range(5):
        card = upload(one, "news", seed)
        slowest = max(slowest, within(1, lambda: digest_of(two, "news") == card["digest"]))
        assert tokens(two, "news") == tokens(one, "news")
        assert tokens(two, "news") != tokens(two, "tiny")
    print(f"slowest of 5: {slowest * 1000:.0f} ms")
    content = two.http.get("/v1/adapters/news/content").content
    assert hashlib.sha256(content).hexdigest() == card["digest"]
    # It has come without anybody's asking for it.
    copies = {p.name for p in (tmp_path / "two").rglob("*.safetensors")}
    assert f"{card['digest']}.safetensors" in copies


def test_rollbacks_and_deletions_reach_the_other(pair, tmp_path):
    one, two = pair
    first, second = upload(one, "a", 1), upload(one, "a", 2)
    within(1, lambda: digest_of(two, "a") == second["digest"])
    reply = two.post("/v1/adapters/a/rollback", {"version": 1})
    assert reply.status_code == 200, reply.text
    within(1, lambda: digest_of(one, "a") == first["digest"])
    assert tokens(one, "a@2") == tokens(two, "a@2") != tokens(one, "a")
    assert two.http.delete("/v1/adapters/a").status_code == 200
    within(1, lambda: one.http.get("/v1/adapters/a").status_code == 404)
    error_of(one.post("/v1/completions", {"model": "a", "prompt": PROMPT}), 404)
    # No copy is left anywhere, and a number is never given twice.
    for folder in ("one", "two"):
        within(2, lambda: not list((tmp_path / folder).rglob("*.safetensors")))
    again = upload(one, "a", 1)
    assert again["version"] == 3
    within(1, lambda: digest_of(two, "a") == again["digest"])


def test_uploads_of_one_name_at_one_moment_get_versions_of_their_own(pair):
    def put(number):
        return upload(pair[number % 2], "same", 100 + number)["version"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(put, range(24)))
    assert sorted(versions) == list(range(1, 25))
    one, two = pair
    within(2, lambda: digest_of(one, "same") == digest_of(two, "same"))
    lists = [s.http.get("/v1/adapters/same/versions").json()["data"] for s in pair]
    facts = [[(v["version"], v["digest"], v["active"]) for v in data] for data in lists]
    assert facts[0] == facts[1] and len(facts[0]) == 24


def test_if_match_holds_across_servers(pair):
    one, two = pair
    digest = upload(one, "guarded", 1)["digest"]
    within(1, lambda: digest_of(two, "guarded") == digest)

    def put(number):
        headers = {"If-Match": f'"{digest}"', "content-type": "application/octet-stream"}
        data = adapter_bytes(CONFIG, 200 + number)
        return pair[number % 2].http.put("/v1/adapters/guarded", content=data, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = [reply.status_code for reply in pool.map(put, range(12))]
    assert sorted(codes) == [200] + [412] * 11


def test_keys_made_on_the_catalog_hold_on_both(pair, catalog):
    one, two = pair
    made = run_cli("keys", "make", "--catalog", catalog, "--scope", "admin", "--json", check=0)
    key = json.loads(made.stdout)
    headers = {"authorization": f"Bearer {key['key']}"}
    for server in pair:
        within(2, lambda: server.http.get("/v1/models").status_code == 401)
        assert server.http.get("/v1/models", headers=headers).status_code == 200
    upload(one, "audited", 1, headers=headers)
    audit = two.http.get("/v1/audit", headers=headers).json()["data"]
    assert [r["action"] for r in audit] == ["key.make", "adapter.publish", "adapter.publish"]
    run_cli("keys", "revoke", key["id"], "--catalog", catalog, check=0)
    for server in pair:
        within(2, lambda: server.http.get("/v1/models", headers=headers).status_code == 401)


# ---- without the database


def test_without_the_database_all_that_is_here_is_served(pair, postgres):
    one, two = pair
    card = upload(one, "kept", 1)
    within(1, lambda: digest_of(two, "kept") == card["digest"])
    expected = tokens(one, "kept")
    within(2, lambda: tokens(two, "kept") == expected)
    postgres.stop()
    for server in pair:
        within(2, lambda: not catalog_state(server)["connected"])
        assert server.metrics()["sora_catalog_connected", ()] == 0
        started = time.monotonic()
        for _ in range(5):
            assert tokens(server, "kept") == expected
        assert time.monotonic() - started < 20
        data = adapter_bytes(CONFIG, 2)
        for method, path, body in (("PUT", "/v1/adapters/new", {"content": data}),
                                   ("DELETE", "/v1/adapters/kept", {}),
                                   ("POST", "/v1/adapters/kept/rollback",
                                    {"json": {"version": 1}})):  # fmt: skip
            reply = server.http.request(method, path, **body)
            error = error_of(reply, 503, "catalog_unavailable")
            assert "cannot be reached" in error["message"]
            assert int(reply.headers["retry-after"]) >= 1
        assert server.http.get("/v1/adapters/kept").json()["digest"] == card["digest"]
        # Changes go on being tried: each failure lets the server wait longer for its next try.
        refused_until = time.monotonic() + 3
        while time.monotonic() < refused_until:
            assert server.http.delete("/v1/adapters/kept").status_code == 503
    postgres.start()
    back = max(within(5, lambda: catalog_state(server)["connected"]) for server in pair)
    print(f"connected again after {back:.2f} s")
    assert one.metrics()["sora_catalog_disconnects_total", ()] == 1
    newer = upload(one, "kept", 3)
    within(1, lambda: digest_of(two, "kept") == newer["digest"])


def test_what_happened_while_a_server_was_away_is_caught_up(tmp_path, catalog):
    one, two = replica(tmp_path, catalog, "one"), replica(tmp_path, catalog, "two")
    with one:
        with two:
            for name in ("stays", "goes", "moves"):
                upload(one, name, 1)
            within(1, lambda: digest_of(two, "moves") is not None)
        assert one.http.delete("/v1/adapters/goes").status_code == 200
        moved = upload(one, "moves", 2)
        added = upload(one, "comes", 3)
        with two:
            assert two.http.get("/v1/adapters/goes").status_code == 404
            assert digest_of(two, "moves") == moved["digest"]
            assert digest_of(two, "comes") == added["digest"]
            assert tokens(two, "comes") == tokens(one, "comes")


def test_a_killed_server_loses_nothing_it_acknowledged(tmp_path, catalog):
    one, two = replica(tmp_path, catalog, "one"), replica(tmp_path, catalog, "two")
    acknowledged = {}
    with two:
        for number in range(3):
            one.start()

            def send(worker):
                done = {}
                for index in range(1000):
                    name = f"k{number}-{worker}-{index}"
                    data = adapter_bytes(CONFIG, number * 10000 + worker * 1000 + index)
                    try:
                        reply = one.http.put(f"/v1/adapters/{name}", content=data)
                    except httpx.TransportError:
                        return done
                    assert reply.status_code == 201, reply.text
                    done[name] = reply.json()["digest"]
                return done

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                workers = [pool.submit(send, w) for w in range(4)]
                time.sleep(0.7 + 0.2 * number)
                one.process.kill()
                for worker in workers:
                    acknowledged.update(worker.result())
            one.process.wait()
            one.close()
        assert len(acknowledged) > 10
        within(2, lambda: all(digest_of(two, n) == d for n, d in acknowledged.items()))
        with one:
            for server in (one, two):
                for name, digest in acknowledged.items():
                    content = server.http.get(f"/v1/adapters/{name}/content").content
                    assert hashlib.sha256(content).hexdigest() == digest, name


# ---- at the start


def refused_start(tmp_path, url):
    started = time.monotonic()
    run = run_cli("serve", "--model", TINY / "llama", "--store", tmp_path / "refused",
                  "--port", "0", "--catalog", url, check=1)  # fmt: skip
    assert time.monotonic() - started < 20
    assert PASSWORD not in run.stdout + run.stderr
    return run.stderr


def test_a_catalog_that_cannot_be_reached_ends_the_start(tmp_path, catalog, postgres):
    port = free_port()
    text = refused_start(tmp_path, f"postgresql://sora:{PASSWORD}@127.0.0.1:{port}/db")
    assert f"postgresql://sora@127.0.0.1:{port}/db: cannot connect" in text, text
    text = refused_start(tmp_path, f"postgresql://sora:{PASSWORD}@/none?host={postgres.folder}")
    assert 'database "none" does not exist' in text, text
    for bad in (f"postgresql://sora:{PASSWORD}@[::1/db", f"mysql://sora:{PASSWORD}@h/db",
                f"postgresql://sora:{PASSWORD}@h/db?nonsense=1"):  # fmt: skip
        assert "the catalog's URL cannot be read" in refused_start(tmp_path, bad)


def test_a_newer_schema_ends_the_start(tmp_path, catalog, postgres):
    run_cli("keys", "make", "--catalog", catalog, check=0)  # makes the tables
    schema = catalog.rpartition("%3D")[2]
    postgres.psql(f"UPDATE {schema}.sora_schema SET version = 9")
    assert "schema version 9 of a newer program" in refused_start(tmp_path, catalog)


def test_a_store_with_a_catalog_of_its_own_is_left_alone(tmp_path, catalog):
    run_cli("keys", "make", "--store", tmp_path / "refused", check=0)
    before = sorted(p.name for p in (tmp_path / "refused").iterdir())
    assert "adapters of its own" in refused_start(tmp_path, catalog)
    assert {"catalog.sqlite"} <= set(before)


def test_keys_of_a_catalog_that_is_not_there(catalog):
    run = run_cli("keys", "list", "--catalog", catalog, check=1)
    assert "there is no catalog here" in run.stderr and PASSWORD not in run.stderr
