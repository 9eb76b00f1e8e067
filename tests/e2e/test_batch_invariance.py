# SPDX-License-Identifier: Apache-2.0
"""A request answers with the same bits alone and in any mix (DESIGN.md section 2, promise 2)."""

import concurrent.futures
import json
import random

import pytest
from harness import GOLDEN, adapter_bytes, check_same, run_cli

REQUESTS = 40


def make_requests(models, vocab, lengths, outputs_max):
    rng = random.Random(20)
    return [
        {
            "model": models[i % len(models)],
            "prompt": [rng.randrange(3, vocab) for _ in range(length)],
            "max_tokens": rng.randint(1, outputs_max),
            "temperature": 0 if i % 4 else 0.8,
            "seed": i,
            "logprobs": 5,
            "ignore_eos": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        for i, length in enumerate(lengths)
    ]


def answer(server, body):
    """The choices of a reply as JSON text, numbers digit by digit as they were sent."""
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    choices = json.loads(reply.text, parse_float=lambda text: f"float {text}")["choices"]
    assert len(choices[0]["token_ids"]) == body["max_tokens"]
    return json.dumps(choices, sort_keys=True)


def check_alone_and_together(server, requests):
    alone = [answer(server, body) for body in requests]
    order = list(range(len(requests)))
    random.Random(7).shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        futures = {i: pool.submit(answer, server, requests[i]) for i in order}
        together = [futures[i].result() for i in range(len(requests))]
    check_same(alone, together, "request")


def spread(shortest, longest, count):
    """Lengths from shortest to longest, most of them short."""
    share = [(i / (count - 1)) ** 2.5 for i in range(count)]
    lengths = [shortest + int((longest - shortest) * s) for s in share]
    assert lengths[0] == shortest and lengths[-1] == longest
    random.Random(3).shuffle(lengths)
    return lengths


def test_forty_requests_are_bit_identical_alone_and_all_at_once(base, tmp_path):
    models = ["base"]
    for folder in sorted((GOLDEN / "adapters").iterdir()):
        out = tmp_path / f"{folder.name}.safetensors"
        run_cli("import", folder, "--out", out, check=0)
        base.put(folder.name, out.read_bytes())
        models.append(folder.name)
    requests = make_requests(models, 49152, spread(1, 700, REQUESTS), 24)
    check_alone_and_together(base, requests)


@pytest.mark.sanitizer
def test_forty_requests_of_a_tiny_model_are_bit_identical(tiny, tiny_config):
    models = ["tiny"]
    for seed in range(4):
        tiny.put(f"mix-{seed}", adapter_bytes(tiny_config, seed))
        models.append(f"mix-{seed}")
    requests = make_requests(models, 320, spread(1, 220, REQUESTS), 24)
    check_alone_and_together(tiny, requests)


@pytest.mark.sanitizer
def test_an_adapter_changes_the_answer(tiny, tiny_config):
    """The other tests here would pass if adapters did nothing."""
    tiny.put("effect", adapter_bytes(tiny_config, 5))
    body = make_requests(["tiny", "effect"], 320, [20, 20], 1)
    body[1]["prompt"] = body[0]["prompt"]
    body[0]["max_tokens"] = body[1]["max_tokens"] = 8
    body[0]["seed"] = body[1]["seed"] = 1
    body[0]["temperature"] = body[1]["temperature"] = 0
    assert answer(tiny, body[0]) != answer(tiny, body[1])
