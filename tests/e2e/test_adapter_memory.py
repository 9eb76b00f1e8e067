# SPDX-License-Identifier: Apache-2.0
"""More adapters than memory: they leave and come back, and nobody's answer shows it."""

import concurrent.futures
import random
import re
import threading
import time

import pytest
from harness import TINY, Server, adapter_bytes, error_of, run_cli

PROMPT = list(range(40, 60))
TOKENS = 8
NAMES = [f"a{i}" for i in range(8)]


def files(tiny_config):
    """Adapters of one size, each of its own values."""
    return {n: adapter_bytes(tiny_config, 900 + i, ranks=(2,)) for i, n in enumerate(NAMES)}


def whole_answer(server, name):
    """All of an answer that depends on the adapter: tokens, texts, every log-probability."""
    reply = server.ask({
        "model": name, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "logprobs": 5,
        "ignore_eos": True, "return_token_ids": True, "return_tokens_as_token_ids": True,
    })  # fmt: skip
    return reply["choices"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_config):
    """A store of eight adapters, their answers while all are in memory, what each takes."""
    store = tmp_path_factory.mktemp("memory") / "store"
    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        cards = {n: server.put(n, data) for n, data in files(tiny_config).items()}
        answers = {n: whole_answer(server, n) for n in NAMES}
        assert set(states(server).values()) == {"resident"}
    assert len({str(a) for a in answers.values()}) == len(NAMES), "they must differ"
    sizes = {c["packed_bytes"] for c in cards.values()}
    assert len(sizes) == 1, "they must be of one size"
    return store, answers, sizes.pop()


def serve(store, memory, *options):
    server = Server(TINY / "llama", store, "--model-name", "tiny", "--adapter-memory", memory,
                    *options)  # fmt: skip
    server.name = "tiny"
    return server


def value(metrics, name):
    return metrics[name, ()]


def states(server):
    return {a["name"]: a["state"] for a in server.http.get("/v1/adapters").json()["data"]}


def wait_for_no_parts(store):
    """What came in goes right after the reply; a client that broke off is noticed by then."""
    for _ in range(400):
        if not list((store / "incoming").iterdir()):
            return
        time.sleep(0.05)
    raise AssertionError(f"left behind: {list((store / 'incoming').iterdir())}")


@pytest.mark.sanitizer
@pytest.mark.parametrize("room", [1, 3])
def test_answers_are_the_same_far_over_the_memory(filled, room):
    store, answers, size = filled
    clients, rounds = 6, 25
    with serve(store, room * size) as server:
        assert set(states(server).values()) == {"on_disk"}
        over, done = [], threading.Event()

        def watch():
            while not done.wait(0.01):
                resident = value(server.metrics(), "sora_adapter_bytes")
                over.extend([resident] if resident > room * size else [])

        def client(seed):
            choose = random.Random(seed)
            for _ in range(rounds):
                name = choose.choice(NAMES)
                assert whole_answer(server, name) == answers[name], name

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(clients) as pool:
                for work in [pool.submit(client, seed) for seed in range(clients)]:
                    work.result()
        finally:
            done.set()
            watcher.join()
        metrics = server.metrics()
        assert not over, over
        assert value(metrics, "sora_adapter_evictions_total") >= 2 * len(NAMES)
        loads = value(metrics, "sora_adapter_load_seconds_count")
        assert loads == value(metrics, "sora_adapter_loads_total") > 2 * len(NAMES)
        assert value(metrics, "sora_adapters_resident") <= room
        resident = [n for n, state in states(server).items() if state == "resident"]
        assert len(resident) == value(metrics, "sora_adapters_resident")
        series = [dict(labels) for name, labels in metrics if name == "sora_adapter_resident"]
        series = {labels["adapter"] for labels in series}
        assert series == set(resident)
        cards = [server.http.get(f"/v1/adapters/{n}").json() for n in NAMES]
        assert all(c["in_flight"] == 0 for c in cards)
        assert sum(c["requests"] for c in cards) == clients * rounds
        assert all(c["load_ms"] > 0 for c in cards if c["requests"])


@pytest.mark.sanitizer
def test_requests_for_several_adapters_never_hold_each_other_up(filled):
    """Room for one pair: who held half of a pair and waited for the other half would wait 30 s."""
    store, _, size = filled

    def ask(server, pair):
        began = time.monotonic()
        reply = server.ask({
            "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 5, "ignore_eos": True,
            "adapters": [{"name": n, "scale": 1} for n in pair],
        })  # fmt: skip
        return reply["choices"], time.monotonic() - began

    pairs = [(a, b) for a in NAMES[:4] for b in NAMES[:4] if a != b]
    with serve(store, 8 * size) as server:
        alone = {pair: ask(server, pair)[0] for pair in pairs}
    assert len({str(a) for a in alone.values()}) == len(pairs), "they must differ"
    with serve(store, 2 * size) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        order = random.Random(5).sample(pairs * 4, 4 * len(pairs))
        for pair, work in [(p, pool.submit(ask, server, p)) for p in order]:
            answer, seconds = work.result()
            assert answer == alone[pair], pair
            assert seconds < 25, f"{pair} waited {seconds:.1f} s"


@pytest.mark.sanitizer
def test_a_herd_loads_an_adapter_once(filled):
    store, answers, size = filled
    with serve(store, 2 * size) as server:
        start = threading.Barrier(16)

        def client():
            start.wait()
            return whole_answer(server, "a3")

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for work in [pool.submit(client) for _ in range(16)]:
                assert work.result() == answers["a3"]
        assert value(server.metrics(), "sora_adapter_loads_total") == 1


@pytest.mark.sanitizer
def test_what_can_never_fit_is_refused_with_the_numbers(filled, tiny_config):
    store, answers, size = filled
    with serve(store, size - 1) as server:
        body = {"model": "a0", "prompt": PROMPT}
        error = error_of(server.post("/v1/completions", body), 422, "over_limit")
        assert str(size) in error["message"] and str(size - 1) in error["message"]
        data = adapter_bytes(tiny_config, 990, ranks=(2,))
        reply = server.http.put("/v1/adapters/large", content=data)
        error = error_of(reply, 422, "over_limit")
        assert str(size) in error["message"] and str(size - 1) in error["message"]
        error_of(server.http.get("/v1/adapters/large"), 404)
        assert server.greedy(PROMPT, TOKENS)  # the base needs no room
    with serve(store, size) as server:
        assert whole_answer(server, "a0") == answers["a0"]
    run_cli("serve", "--model", TINY / "llama", "--adapter-memory", "no", check=2)


@pytest.mark.sanitizer
def test_pins_stay_through_churn_and_restart(filled):
    store, answers, size = filled
    pin = "/v1/adapters/{}/pin".format
    with serve(store, 3 * size) as server:
        card = server.post(pin("a1"), {"pinned": True}).json()
        assert card["pinned"] is True and card["state"] == "resident" and card["requests"] == 0
        for _ in range(2):
            for name in NAMES:
                assert whole_answer(server, name) == answers[name]
        assert states(server)["a1"] == "resident"
        assert server.post(pin("a2"), {"pinned": True}).json()["pinned"]
        assert server.post(pin("a3"), {"pinned": True}).json()["pinned"]
        error = error_of(server.post(pin("a4"), {"pinned": True}), 422, "over_limit")
        assert str(3 * size) in error["message"] and str(size) in error["message"]
        error = error_of(server.post("/v1/completions", {"model": "a4", "prompt": PROMPT}), 422)
        assert "pinned" in error["message"]
        error_of(server.http.post("/v1/adapters/a1/unload"), 412)
        assert value(server.metrics(), "sora_adapter_pinned_bytes") == 3 * size
        # What is wrong changes nothing.
        error_of(server.post(pin("a1"), {}), 400)
        error_of(server.post(pin("a1"), {"pinned": "yes"}), 400)
        error_of(server.http.post(pin("a1"), content=b"{"), 400)
        error_of(server.post(pin("a1@1"), {"pinned": False}), 400)
        error_of(server.post(pin("none"), {"pinned": True}), 404)
        error_of(server.http.get(pin("a1")), 405)
        server.post(pin("a3"), {"pinned": False})
        assert whole_answer(server, "a4") == answers["a4"]
    with serve(store, 3 * size) as server:
        now = {a["name"]: a for a in server.http.get("/v1/adapters").json()["data"]}
        assert {n for n, a in now.items() if a["pinned"]} == {"a1", "a2"}
        assert {n for n, a in now.items() if a["state"] == "resident"} == {"a1", "a2"}
        audit = server.http.get("/v1/audit").json()["data"]
        done = [(r["action"], r["object"]) for r in audit if r["outcome"] == "done"]
        assert ("adapter.pin", "a1") in done and ("adapter.unpin", "a3") in done
        for name in ("a1", "a2"):
            server.post(pin(name), {"pinned": False})


@pytest.mark.sanitizer
def test_pinning_is_the_operator_s(tmp_path, tiny_config):
    store = tmp_path / "store"
    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        server.put("shared", adapter_bytes(tiny_config, 7))
    scope = ("--scope", "infer,adapters", "--tenant", "acme")
    made = run_cli("keys", "make", "--store", store, *scope, check=0)
    key = {"x-api-key": made.stdout.split()[-1]}
    with Server(TINY / "llama", store, "--model-name", "tiny", "--port", "0") as server:
        server.http.put("/v1/adapters/own", content=adapter_bytes(tiny_config, 8), headers=key)
        for name in ("own", "shared"):
            url = f"/v1/adapters/{name}"
            error_of(server.http.post(f"{url}/pin", json={"pinned": True}, headers=key), 403)
            error_of(server.http.post(f"{url}/unload", headers=key), 403)


@pytest.mark.sanitizer
def test_unload_and_delete_tell_what_they_freed(filled, tiny_config):
    store, answers, size = filled
    with serve(store, 4 * size) as server:
        assert server.http.post("/v1/adapters/a5/unload").json()["freed_bytes"] == 0
        whole_answer(server, "a5")
        freed = server.http.post("/v1/adapters/a5/unload").json()
        assert freed["freed_bytes"] == size and freed["name"] == "a5"
        assert states(server)["a5"] == "on_disk"
        assert value(server.metrics(), "sora_adapter_bytes") == 0
        assert whole_answer(server, "a5") == answers["a5"]
        error_of(server.http.post("/v1/adapters/none/unload"), 404)
        data = adapter_bytes(tiny_config, 991, ranks=(2,))
        assert server.put("brief", data)["state"] == "resident"
        gone = server.http.delete("/v1/adapters/brief").json()
        assert gone["freed_bytes"] == size + len(data)


@pytest.mark.sanitizer
def test_the_store_has_a_limit(tmp_path, tiny_config):
    data = [adapter_bytes(tiny_config, 70 + i, ranks=(2,)) for i in range(3)]
    limit = len(data[0]) + len(data[1]) + 10
    store = tmp_path / "store"
    options = ("--model-name", "tiny", "--store-limit", limit)
    with Server(TINY / "llama", store, *options) as server:
        server.put("a", data[0])
        server.put("b", data[1])
        server.put("same", data[1])  # once on disk
        error = error_of(server.http.put("/v1/adapters/c", content=data[2]), 507, "store_full")
        numbers = set(map(int, re.findall(r"\d+", error["message"])))
        assert {len(data[0]) + len(data[1]), limit, len(data[2])} <= numbers, error
        error_of(server.http.get("/v1/adapters/c"), 404)
        error = error_of(server.http.put("/v1/adapters/c", content=b"x" * (limit + 1)), 507)
        assert str(limit + 1) in error["message"]
        wait_for_no_parts(store)
        metrics = server.metrics()
        assert value(metrics, "sora_store_bytes") == len(data[0]) + len(data[1])
        assert value(metrics, "sora_store_bytes_max") == limit
    with Server(TINY / "llama", store, *options) as server:
        error_of(server.http.put("/v1/adapters/c", content=data[2]), 507)
        server.http.delete("/v1/adapters/a")
        server.put("c", data[2], expect=(201,))


def test_an_upload_goes_to_disk_and_not_into_memory(tmp_path, tiny_config):
    piece, pieces = b"x" * (1 << 20), 96
    with Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny") as server:
        server.put("warm", adapter_bytes(tiny_config, 5))
        before = server.rss_bytes()
        seen, on_disk = [], []

        def body():
            for number in range(pieces):
                if number % 16 == 15:
                    seen.append(server.rss_bytes() - before)
                    parts = (tmp_path / "store" / "incoming").iterdir()
                    on_disk.append(sum(p.stat().st_size for p in parts))
                yield piece

        error_of(server.http.put("/v1/adapters/big", content=body()), 422)
        assert max(on_disk) > 64 << 20, on_disk
        assert max(seen) < 16 << 20, seen
        wait_for_no_parts(tmp_path / "store")


@pytest.mark.sanitizer
def test_a_broken_off_upload_leaves_nothing(tmp_path, tiny_config):
    with Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny") as server:
        data = adapter_bytes(tiny_config, 6)

        def half():
            yield data[: len(data) // 2]
            raise ConnectionError("the client goes away")

        with pytest.raises(ConnectionError):
            server.http.put("/v1/adapters/half", content=half())
        server.put("whole", data)
        wait_for_no_parts(tmp_path / "store")
        error_of(server.http.get("/v1/adapters/half"), 404)
