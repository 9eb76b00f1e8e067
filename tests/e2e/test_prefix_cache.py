# SPDX-License-Identifier: Apache-2.0
"""Shared beginnings are computed once, reported, and never taken from another adapter."""

import concurrent.futures

from harness import TINY, Server, adapter_bytes

PROMPT = [(7 * i + 3) % 250 for i in range(70)]  # four full blocks and a rest
TOKENS = 12


def ask(server, prompt=PROMPT, **fields):
    body = {"model": "llama", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    body |= {"logprobs": 5, "ignore_eos": True, "return_token_ids": True} | fields
    reply = server.ask(body)
    return reply["choices"][0], reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def hit_tokens(server):
    return server.metrics()["sora_prefix_hit_tokens_total", ()]


def test_hits_are_reported_and_change_nothing(tmp_path):
    with Server(TINY / "llama", tmp_path / "a", "--no-prefix-cache") as plain:
        expected = [ask(plain), ask(plain, PROMPT[:40] + [9])]
        assert [cached for _, cached in expected] == [0, 0]
    with Server(TINY / "llama", tmp_path / "b") as server:
        before = hit_tokens(server)
        first, again = ask(server), ask(server)
        branch = ask(server, PROMPT[:40] + [9])
        assert [first[1], again[1], branch[1]] == [0, 64, 32]
        assert first[0] == again[0] == expected[0][0]
        assert branch[0] == expected[1][0]
        assert hit_tokens(server) - before == 96


def test_answers_are_found_too_and_scores_are_computed(tmp_path):
    with Server(TINY / "llama", tmp_path) as server:
        first, _ = ask(server)
        longer = PROMPT + first["token_ids"]
        assert ask(server, longer + [1])[1] == len(longer) // 16 * 16
        scored, cached = ask(server, echo=True)
        assert cached == 0 and len(scored["logprobs"]["tokens"]) == len(PROMPT) + TOKENS


def test_a_name_that_is_given_to_another_file_finds_nothing(tmp_path, tiny_config):
    files = [adapter_bytes(tiny_config, seed) for seed in (1, 2)]
    with Server(TINY / "llama", tmp_path / "fresh") as fresh:
        fresh.put("name", files[1])
        expected, _ = ask(fresh, model="name")
    with Server(TINY / "llama", tmp_path / "store") as server:
        ask(server)  # the base's blocks are not an adapter's
        server.put("name", files[0])
        old, cached = ask(server, model="name")
        assert cached == 0 and ask(server, model="name")[1] == 64
        server.put("name", files[1])
        new, cached = ask(server, model="name")
        assert cached == 0 and new == expected and new != old
        server.put("twin", files[1])  # the same bytes: the same adapter
        twin, cached = ask(server, model="twin")
        assert cached == 64 and twin == expected
        server.put("name", files[0])
        assert ask(server, model="name") == (old, 64)  # it is still known by its digest


def test_many_at_once_with_little_memory(tmp_path, tiny_config):
    """Blocks are shared, evicted and taken back, and every answer stays what it is alone."""
    prompts = [[(i * p + p) % 250 for i in range(20 + 16 * (p % 4))] for p in range(3, 15)]
    with Server(TINY / "llama", tmp_path / "a", "--no-prefix-cache") as plain:
        expected = [ask(plain, prompt)[0] for prompt in prompts]
    with Server(TINY / "llama", tmp_path / "b", "--ctx", "128", "--kv-memory", "256K") as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [(p, pool.submit(ask, server, prompts[p])) for p in list(range(12)) * 6]
            for p, job in jobs:
                assert job.result()[0] == expected[p]
