# SPDX-License-Identifier: Apache-2.0
"""docs/peers.md: what users of other servers ran into. Every row names a test; those that no other
file has are here."""

import re

import pytest
from harness import ROOT, adapter_bytes, adapter_tensors, dimensions, encode_adapter, error_of

PROMPT = list(range(40, 60))


def test_every_row_names_tests_that_exist():
    text = (ROOT / "docs" / "peers.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \|(.+)\|$", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    for number, row in rows:
        cited = re.findall(r"`(test_\w+\.(?:py|c))::(\w+)`", row)
        assert cited, f"row {number} names no test"
        for file, name in cited:
            found = list((ROOT / "tests").rglob(file))
            assert len(found) == 1, f"row {number}: no {file}"
            define = rf"^def {name}\(" if file.endswith(".py") else rf"^static void {name}\("
            assert re.search(define, found[0].read_text("utf-8"), re.M), f"{file} has no {name}"


def counts(server):
    values = {name: value for (name, labels), value in server.metrics().items() if not labels}
    names = ("sora_adapters_resident", "sora_adapter_bytes", "sora_adapter_loads_total")
    return [values[n] for n in names]


@pytest.mark.sanitizer
def test_a_deletion_frees_the_memory_and_says_how_much(tiny, tiny_config):
    resident, memory, _ = counts(tiny)
    for _ in range(3):  # a slot that stayed taken would show the second time
        card = tiny.put("freed", adapter_bytes(tiny_config, 71, ranks=(8,)))
        tiny.greedy(PROMPT, 2, model="freed")
        assert counts(tiny)[:2] == [resident + 1, memory + card["packed_bytes"]]
        freed = tiny.http.delete("/v1/adapters/freed").json()["freed_bytes"]
        assert freed == card["bytes"] + card["packed_bytes"], "the file's and the memory's"
        assert counts(tiny)[:2] == [resident, memory]


@pytest.mark.sanitizer
def test_an_updated_adapter_is_read_once_however_often_it_is_used(tiny, tiny_config):
    tiny.put("reread", adapter_bytes(tiny_config, 72))
    tiny.put("reread", adapter_bytes(tiny_config, 73))
    before = counts(tiny)[2]
    for _ in range(20):
        tiny.greedy(PROMPT, 3, model="reread")
    assert counts(tiny)[2] == before
    card = tiny.http.get("/v1/adapters/reread").json()
    assert card["requests"] == 20 and card["load_ms"] > 0


@pytest.mark.sanitizer
def test_any_rank_up_to_a_modules_width_is_served_and_no_more(tiny, tiny_config):
    width = min(min(sizes) for sizes in dimensions(tiny_config).values())
    for rank in (1, 3, 7, width):
        data = adapter_bytes(tiny_config, 80 + rank, ranks=(rank,))
        card = tiny.put("ranks", data)
        assert card["rank_max"] == rank == card["rank_mean"]
        assert tiny.greedy(PROMPT, 4, model="ranks")
    tensors, pattern = adapter_tensors(tiny_config, 90, ranks=(width + 1,))
    reply = tiny.http.put("/v1/adapters/ranks", content=encode_adapter(tensors, pattern))
    message = error_of(reply, 422)["message"]
    assert "rank" in message and str(width + 1) in message, message
    assert tiny.http.get("/v1/adapters/ranks").json()["rank_max"] == width, "the old one serves on"


@pytest.mark.sanitizer
def test_a_bad_adapter_hurts_no_other(tiny, tiny_config):
    tiny.put("good", adapter_bytes(tiny_config, 95))
    said = tiny.greedy(PROMPT, 6, model="good")
    tensors, pattern = adapter_tensors(tiny_config, 96)
    name = next(iter(tensors))
    tensors["base_model.model.model.layers.0.self_attn.z_proj.lora_A.weight"] = tensors[name]
    for target in ("bad", "good"):
        reply = tiny.http.put(f"/v1/adapters/{target}", content=encode_adapter(tensors, pattern))
        assert "z_proj" in error_of(reply, 422)["message"]
    assert tiny.greedy(PROMPT, 6, model="good") == said
    assert tiny.http.get("/v1/adapters/good").json()["version"] == 1
    error_of(tiny.post("/v1/completions", {"model": "bad", "prompt": PROMPT}), 404)


@pytest.mark.sanitizer
def test_a_name_is_never_the_bases(tiny, tiny_config):
    error = error_of(
        tiny.http.put("/v1/adapters/tiny", content=adapter_bytes(tiny_config, 97)), 400
    )
    assert "base" in error["message"], "neither shadowed nor a 409, which clients repeat"
    tiny.put("echo", adapter_bytes(tiny_config, 98))
    for model in ("echo", "echo@1", "tiny"):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 1}
        assert tiny.post("/v1/completions", body).json()["model"] == model
    listed = {m["id"]: m for m in tiny.http.get("/v1/models").json()["data"]}
    assert listed["tiny"]["parent"] is None and listed["echo"]["parent"] == "tiny"
    assert listed["echo"]["root"] == tiny.http.get("/v1/adapters/echo").json()["digest"]
