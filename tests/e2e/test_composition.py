# SPDX-License-Identifier: Apache-2.0
"""Several adapters on one request, fewer ranks, and fewer ranks under load."""

import concurrent.futures
import json
import threading
import time

import numpy
import pytest
from harness import (
    TINY, Server, adapter_bytes, adapter_tensors, encode_adapter, error_of, golden, sse_events,
)  # fmt: skip

pytestmark = pytest.mark.sanitizer

PROMPT = [(7 * i + 3) % 250 for i in range(70)]
CONFIG = golden("tiny", "llama", "config.json")
COUNT_MAX = 8  # SORA_REQUEST_ADAPTERS_MAX


def cut(seed, ranks):
    """The adapter of a seed with the first ranks of each module."""
    tensors, pattern = adapter_tensors(CONFIG, seed)
    for name in pattern:
        for matrix, part in (("A", slice(None, ranks)), ("B", (slice(None), slice(None, ranks)))):
            key = f"base_model.model.{name}.lora_{matrix}.weight"
            tensors[key] = numpy.ascontiguousarray(tensors[key][part])
        pattern[name] = min(pattern[name], ranks)
    return encode_adapter(tensors, pattern)


def concatenation(parts):
    """One adapter of the ranks of (seed, scale) after another; scales are powers of two."""
    tensors, pattern = {}, {}
    for seed, scale in parts:
        own, ranks = adapter_tensors(CONFIG, seed)
        for name, rank in ranks.items():
            a = own[f"base_model.model.{name}.lora_A.weight"] * numpy.float32(scale)
            b = own[f"base_model.model.{name}.lora_B.weight"]
            for matrix, value, axis in (("A", a, 0), ("B", b, 1)):
                key = f"base_model.model.{name}.lora_{matrix}.weight"
                before = [tensors[key]] if key in tensors else []
                tensors[key] = numpy.ascontiguousarray(numpy.concatenate([*before, value], axis))
            pattern[name] = pattern.get(name, 0) + rank
    return encode_adapter(tensors, pattern)


def body_of(model="tiny", prompt=PROMPT, tokens=10, **fields):
    return {
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 5,
        "ignore_eos": True, "return_token_ids": True, "return_tokens_as_token_ids": True, **fields,
    }  # fmt: skip


def ask(server, **fields):
    """The choice digit by digit, and how many tokens were in the cache."""
    reply = server.post("/v1/completions", body_of(**fields))
    assert reply.status_code == 200, reply.text
    tree = json.loads(reply.text, parse_float=lambda text: f"float {text}")
    return tree["choices"][0], tree["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    store = tmp_path_factory.mktemp("compose") / "store"
    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        server.name = "tiny"
        for seed in range(COUNT_MAX):
            server.put(f"a{seed}", adapter_bytes(CONFIG, seed))
        yield server


def names(*seeds, **fields):
    return [{"name": f"a{seed}", **fields} for seed in seeds]


def test_composed_adapters_answer_as_their_concatenation(world):
    for number, parts in enumerate([[(0, 1), (1, 0.5)], [(3, -1), (2, 2), (5, 0.25)],
                                    [(seed, 1) for seed in range(COUNT_MAX)]]):  # fmt: skip
        world.put(f"whole{number}", concatenation(parts))
        listed = [{"name": f"a{seed}", "scale": scale} for seed, scale in parts]
        expected, _ = ask(world, model=f"whole{number}")
        assert ask(world, adapters=listed)[0] == expected
        assert ask(world, adapters=listed[:-1])[0] != expected
        listed[0]["scale"] *= 1.5
        assert ask(world, adapters=listed)[0] != expected


def test_one_of_a_list_is_that_adapter(world):
    expected, _ = ask(world, model="a1")
    assert ask(world, adapters=names(1))[0] == expected
    assert ask(world, adapters=names(1) + names(2, scale=0))[0] == expected
    assert ask(world, adapters=[{"name": "tiny"}, *names(1)])[0] == expected
    base, _ = ask(world)
    assert base != expected
    assert ask(world, adapters=[])[0] == ask(world, adapters=names(1, scale=0))[0] == base


def test_max_rank_is_an_adapter_cut_to_it(world):
    for ranks in (1, 2, 3):
        world.put(f"cut{ranks}", cut(4, ranks))
        expected, _ = ask(world, model=f"cut{ranks}")
        assert ask(world, model="a4", max_rank=ranks)[0] == expected
        assert ask(world, adapters=names(4, max_rank=ranks), max_rank=5)[0] == expected
        both, _ = ask(world, adapters=names(0) + [{"name": f"cut{ranks}"}])
        assert ask(world, adapters=names(0) + names(4, max_rank=ranks))[0] == both
    whole, _ = ask(world, model="a4")
    assert ask(world, model="a4", max_rank=5)[0] == ask(world, model="a4", max_rank=99)[0] == whole
    two, _ = ask(world, adapters=[{"name": "cut2"}, {"name": "cut2"}])
    assert ask(world, adapters=names(4, 4), max_rank=2)[0] == two


def test_a_composed_request_has_the_same_bits_alone_and_in_any_mix(world):
    lists = [
        [], names(0), names(1, 0), names(0, 1), names(2, 1, 0), names(5, max_rank=1),
        names(0, scale=0.5), names(1, scale=-2) + names(0), names(*range(COUNT_MAX)),
    ]  # fmt: skip
    requests = [
        {"adapters": lists[i % len(lists)], "prompt": PROMPT[i % 5 : 20 + 3 * i],
         "tokens": 4 + i % 9, "max_rank": 2 if i % 4 == 3 else None}
        for i in range(36)
    ]  # fmt: skip
    alone = [ask(world, **fields)[0] for fields in requests]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        for _ in range(2):
            together = list(pool.map(lambda fields: ask(world, **fields)[0], requests))
            assert together == alone


def test_a_cached_prefix_is_of_the_same_adapters_scales_ranks_and_order(tmp_path):
    views = [
        {}, {"adapters": names(0)}, {"adapters": names(0, 1)}, {"adapters": names(1, 0)},
        {"adapters": names(0) + names(1, scale=0.5)}, {"adapters": names(0, 2)},
        {"adapters": names(0, 1, 1)}, {"adapters": names(0, 1), "max_rank": 1},
        {"adapters": names(0) + names(1, max_rank=1)},
    ]  # fmt: skip
    files = [adapter_bytes(CONFIG, seed) for seed in range(4)]
    with Server(TINY / "llama", tmp_path / "plain", "--no-prefix-cache") as plain:
        plain.name = "tiny"
        for seed in range(3):
            plain.put(f"a{seed}", files[seed])
        expected = [ask(plain, model="llama", **view)[0] for view in views]
    assert len({json.dumps(e) for e in expected}) == len(views)
    with Server(TINY / "llama", tmp_path / "store") as server:
        for seed in range(3):
            server.put(f"a{seed}", files[seed])
        for cached in (0, 64):
            for view, choice in zip(views, expected):
                assert ask(server, model="llama", **view) == (choice, cached), view
        server.put("a1", files[3])  # the second of a list gets another file
        assert ask(server, model="llama", **views[2])[1] == 0
        assert ask(server, model="llama", **views[1])[1] == 64


def test_what_is_unknown_or_too_much_is_refused(world):
    def refuse(status, code, **fields):
        return error_of(world.post("/v1/completions", body_of(**fields)), status, code)

    error = refuse(404, "model_not_found", adapters=[*names(0), {"name": "nobody"}])
    assert "nobody" in error["message"] and error["param"] == "adapters"
    refuse(404, "model_not_found", adapters=[{"name": "a0@7"}])
    refuse(400, "invalid_value", model="a0", adapters=names(1))
    refuse(400, "over_limit", adapters=names(*range(COUNT_MAX), 0))
    refuse(400, "invalid_value", adapters=[{"scale": 1}])
    for fields in ({"elastic": "yes"}, {"max_rank": 0}, {"adapters": "a0"}, {"adapters": [[]]}):
        error_of(world.post("/v1/completions", body_of(**fields)), 400)
    # Nothing stays pinned behind a refusal.
    assert all(card["in_flight"] == 0 for card in world.http.get("/v1/adapters").json()["data"])


def card_of(server, name):
    return server.http.get(f"/v1/adapters/{name}").json()


def delete_while_it_runs(server, body, name):
    """The first sequence of a stream whose adapter is deleted meanwhile; None: too late."""
    with server.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
        events = sse_events(reply.iter_lines())
        seen = [next(events)]
        held = [card_of(server, each)["in_flight"] for each in ("a0", name)]
        assert server.http.delete(f"/v1/adapters/{name}").status_code == 200
        seen += events
    if held != [1, 1]:
        return None
    choices = [event["choices"][0] for event in seen]
    return [t for choice in choices if choice["index"] == 0 for t in choice["token_ids"]]


def test_every_adapter_of_a_request_is_held_and_counted(world):
    body = body_of(prompt=[PROMPT] * 32, adapters=[*names(0), {"name": "goes"}], tokens=150)
    for _ in range(20):
        world.put("goes", adapter_bytes(CONFIG, 11))
        expected = whole(world, adapters=body["adapters"], tokens=150)["choices"][0]["token_ids"]
        before = card_of(world, "a0")["tokens"]
        found = delete_while_it_runs(world, body, "goes")
        assert card_of(world, "a0")["in_flight"] == 0
        assert card_of(world, "a0")["tokens"] == before + 32 * (len(PROMPT) + 150)
        error_of(world.post("/v1/completions", body), 404, "model_not_found")
        if found is not None:
            assert found == expected
            return
    raise AssertionError("it was always too late")


def test_lists_in_opposite_orders_never_block_each_other(world):
    lists = [names(*order) for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1))]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(ask, world, adapters=lists[i % 4], tokens=2) for i in range(64)]
        for job in jobs:
            job.result(timeout=60)


# ---- elastic


class Load:
    """Requests that run until they are let go; always more than two of them."""

    def __init__(self, server, count=6):
        self.server, self.count, self.stop = server, count, threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(count)

    def run(self):
        body = body_of(prompt=[[5], [6], [7], [8]], tokens=250, stream=True)
        while not self.stop.is_set():
            with self.server.http.stream("POST", "/v1/completions", json=body) as reply:
                for _ in reply.iter_lines():
                    if self.stop.is_set():
                        return

    def __enter__(self):
        self.jobs = [self.pool.submit(self.run) for _ in range(self.count)]
        deadline = time.monotonic() + 30
        while self.server.running() < self.count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __exit__(self, *_):
        self.stop.set()
        for job in self.jobs:
            job.result()
        self.pool.shutdown()
        self.server.wait_idle(30)


def shortened(server):
    return server.metrics()["sora_requests_shortened_total", ()]


def whole(server, **fields):
    reply = server.post("/v1/completions", body_of(**fields))
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_only_elastic_requests_are_shortened_and_only_under_load(tmp_path):
    options = ("--model-name", "tiny", "--elastic-at", "2", "--elastic-rank", "2")
    with Server(TINY / "llama", tmp_path / "store", *options) as server:
        server.name = "tiny"
        for seed in (4, 5):
            server.put(f"a{seed}", adapter_bytes(CONFIG, seed))
            server.put(f"cut{seed}", cut(seed, 2))
        full, short = whole(server, model="a4"), whole(server, model="cut4")
        assert full["choices"] != short["choices"] and "sora" not in full
        calm = whole(server, model="a4", elastic=True)
        assert calm["sora"] == calm["usage"]["sora"] == {"rank_limit": None}
        assert calm["choices"] == full["choices"] and shortened(server) == 0
        with Load(server):
            tight = whole(server, model="a4", elastic=True)
            assert tight["sora"] == tight["usage"]["sora"] == {"rank_limit": 2}
            assert tight["choices"] == short["choices"]
            assert shortened(server) == 1
            # The others are as they were, and what was cached for one is not taken for the other.
            for fields in ({}, {"elastic": False}):
                stiff = whole(server, model="a4", **fields)
                assert stiff["choices"] == full["choices"] and "sora" not in stiff
            two = whole(server, adapters=[{"name": "cut4"}, {"name": "cut5"}])
            both = whole(server, adapters=[{"name": "a4"}, {"name": "a5"}], elastic=True)
            assert both["choices"] == two["choices"] and both["sora"] == {"rank_limit": 2}
            one = whole(server, model="a4", max_rank=1, elastic=True)  # has fewer anyway
            assert one["sora"] == {"rank_limit": None}
            assert whole(server, elastic=True)["sora"] == {"rank_limit": None}  # the base
            assert shortened(server) == 2
            body = body_of(
                "a4", elastic=True, stream=True, stream_options={"include_usage": True}
            )
            with server.http.stream("POST", "/v1/completions", json=body) as reply:
                events = list(sse_events(reply.iter_lines()))
            assert all(event["sora"] == {"rank_limit": 2} for event in events)
            assert events[-1]["usage"]["sora"] == {"rank_limit": 2}
            found = [t for e in events[:-1] for t in e["choices"][0]["token_ids"]]
            assert found == short["choices"][0]["token_ids"]
        after = whole(server, model="a4", elastic=True)
        assert after["sora"] == {"rank_limit": None} and after["choices"] == full["choices"]


def test_elastic_never_is_never(tmp_path):
    options = ("--model-name", "tiny", "--elastic-at", "0", "--elastic-rank", "1")
    with Server(TINY / "llama", tmp_path / "store", *options) as server:
        server.name = "tiny"
        server.put("a4", adapter_bytes(CONFIG, 4))
        full = whole(server, model="a4")
        with Load(server):
            reply = whole(server, model="a4", elastic=True)
        assert reply["choices"] == full["choices"] and reply["sora"] == {"rank_limit": None}
