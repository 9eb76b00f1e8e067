# SPDX-License-Identifier: Apache-2.0
"""Adapters come and go while requests run (DESIGN.md section 2, promise 3)."""

import concurrent.futures
import hashlib
import json
import threading

import pytest
import safetensors.numpy
from harness import (
    GOLDEN,
    TINY,
    Server,
    adapter_bytes,
    adapter_config,
    adapter_tensors,
    encode_adapter,
    error_of,
    run_cli,
    sse_events,
)

CLIENTS = 8
UPDATES = 40
PROMPT = list(range(40, 60))
TOKENS = 12


@pytest.mark.sanitizer
def test_updates_under_eight_clients_lose_nothing(tiny, tiny_config):
    files = [adapter_bytes(tiny_config, seed) for seed in (1, 2)]
    expected = []
    for index, data in enumerate(files):
        tiny.put(f"only-{index}", data)
        expected.append(tiny.greedy(PROMPT, TOKENS, model=f"only-{index}"))
    assert expected[0] != expected[1], "the two versions must differ for this to show anything"
    tiny.put("swapped", files[0])
    stop = threading.Event()

    def client():
        replies = []
        while not stop.is_set():
            replies.append(tiny.greedy(PROMPT, TOKENS, model="swapped"))
        return replies

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client) for _ in range(CLIENTS)]
        try:
            for update in range(1, UPDATES + 1):
                card = tiny.put("swapped", files[update % 2], expect=(200,))
                assert card["version"] == update + 1
                # Who asks after the update is answered gets the new version.
                assert tiny.greedy(PROMPT, TOKENS, model="swapped") == expected[update % 2]
        finally:
            stop.set()
        replies = sum((c.result() for c in clients), [])
    assert len(replies) > UPDATES
    for reply in replies:
        assert reply in expected
    assert all(e in replies for e in expected), "both versions were served"


@pytest.mark.sanitizer
def test_versions_and_rollback(tiny, tiny_config):
    files = [adapter_bytes(tiny_config, seed) for seed in (11, 12)]
    digests = [hashlib.sha256(f).hexdigest() for f in files]
    assert tiny.put("v", files[0], expect=(201,))["version"] == 1
    card = tiny.put("v", files[1], expect=(200,))
    assert card["version"] == 2 and card["digest"] == digests[1]
    # Same bytes: no new version.
    assert tiny.put("v", files[1], expect=(200,))["version"] == 2
    first = tiny.greedy(PROMPT, TOKENS, model="v@1")
    second = tiny.greedy(PROMPT, TOKENS, model="v@2")
    assert first != second and tiny.greedy(PROMPT, TOKENS, model="v") == second
    back = tiny.post("/v1/adapters/v/rollback", {"version": 1})
    assert back.status_code == 200 and back.json()["version"] == 1
    assert tiny.greedy(PROMPT, TOKENS, model="v") == first
    assert tiny.greedy(PROMPT, TOKENS, model="v@2") == second
    listed = tiny.http.get("/v1/adapters/v/versions").json()
    versions = listed.get("versions") or listed["data"]
    assert [v["version"] for v in versions] == [1, 2]
    assert [v["digest"] for v in versions] == digests
    error_of(tiny.post("/v1/adapters/v/rollback", {"version": 9}), 404)
    error_of(tiny.post("/v1/completions", {"model": "v@9", "prompt": PROMPT}), 404)


@pytest.mark.sanitizer
def test_an_upload_may_wait_for_its_turn(tiny, tiny_config):
    files = [adapter_bytes(tiny_config, seed) for seed in (21, 22)]
    tiny.put("later", files[0])
    before = tiny.greedy(PROMPT, TOKENS, model="later")
    tiny.put("later", files[1], params={"activate": "false"})
    assert tiny.greedy(PROMPT, TOKENS, model="later") == before
    tiny.post("/v1/adapters/later/rollback", {"version": 2})
    assert tiny.greedy(PROMPT, TOKENS, model="later") != before


@pytest.mark.sanitizer
def test_an_update_can_be_guarded_by_digest(tiny, tiny_config):
    files = [adapter_bytes(tiny_config, seed) for seed in (31, 32)]
    digest = tiny.put("guarded", files[0])["digest"]
    wrong = {"if-match": '"' + "0" * 64 + '"', "content-type": "application/octet-stream"}
    error_of(tiny.http.put("/v1/adapters/guarded", content=files[1], headers=wrong), 412)
    assert tiny.http.get("/v1/adapters/guarded").json()["digest"] == digest
    tiny.put("guarded", files[1], headers={"if-match": f'"{digest}"'})


@pytest.mark.sanitizer
def test_the_content_is_the_bytes_that_were_sent(tiny, tiny_config):
    data = adapter_bytes(tiny_config, 41)
    digest = tiny.put("content", data)["digest"]
    reply = tiny.http.get("/v1/adapters/content/content")
    assert reply.content == data and hashlib.sha256(data).hexdigest() == digest
    assert reply.headers["etag"] == f'"{digest}"'


@pytest.mark.sanitizer
def test_a_peft_pair_is_taken_as_multipart(tiny, tiny_config):
    tensors, pattern = adapter_tensors(tiny_config, 43)
    parts = {
        "name": (None, "pair"),
        "config": ("adapter_config.json", json.dumps(adapter_config(pattern))),
        "weights": ("adapter_model.safetensors", safetensors.numpy.save(tensors)),
    }
    reply = tiny.http.post("/v1/adapters", files=parts)
    assert reply.status_code == 201, reply.text
    tiny.put("whole", encode_adapter(tensors, pattern))
    assert tiny.greedy(PROMPT, TOKENS, model="pair") == tiny.greedy(PROMPT, TOKENS, model="whole")
    del parts["config"]
    error_of(tiny.http.post("/v1/adapters", files=parts), 400)


@pytest.mark.sanitizer
def test_a_card_tells_what_the_adapter_is(tiny, tiny_config):
    data = adapter_bytes(tiny_config, 42)
    card = tiny.put("card", data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__")
    numbers = sum(t["shape"][0] * t["shape"][1] for t in header.values())
    assert card["parameters"] == numbers and card["bytes"] == len(data)
    tiny.greedy(PROMPT, 1, model="card")
    card = tiny.http.get("/v1/adapters/card").json()
    assert card["state"] == "resident" and card["requests"] >= 1 and card["in_flight"] == 0
    ranks = [header[n]["shape"][0] for n in header if n.endswith("lora_A.weight")]
    assert card["rank_max"] == max(ranks)
    assert card["rank_mean"] == pytest.approx(sum(ranks) / (7 * tiny_config["num_hidden_layers"]))
    listed = tiny.http.get("/v1/adapters").json()
    assert "card" in [a["name"] for a in listed.get("data") or listed["adapters"]]


@pytest.mark.sanitizer
def test_a_restart_keeps_everything(tmp_path, tiny_config):
    server = Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny")
    server.name = "tiny"
    with server:
        for seed in (51, 52):
            server.put("kept", adapter_bytes(tiny_config, seed))
        server.put("gone", adapter_bytes(tiny_config, 53))
        server.post("/v1/adapters/kept/rollback", {"version": 1})
        assert server.http.delete("/v1/adapters/gone").status_code == 200
        reply = server.greedy(PROMPT, TOKENS, model="kept")
        newer = server.greedy(PROMPT, TOKENS, model="kept@2")
    with server:
        assert server.greedy(PROMPT, TOKENS, model="kept") == reply
        assert server.greedy(PROMPT, TOKENS, model="kept@2") == newer
        error_of(server.post("/v1/completions", {"model": "gone", "prompt": PROMPT}), 404)


def test_a_running_request_finishes_on_a_deleted_adapter(base, tmp_path):
    out = tmp_path / "a.safetensors"
    run_cli("import", GOLDEN / "adapters" / "ragged", "--out", out, check=0)
    base.put("doomed", out.read_bytes())
    prompt, tokens = [504, 3575, 282, 4649], 200
    whole = base.greedy(prompt, tokens, model="doomed")
    body = {
        "model": "doomed", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True, "stream": True, "return_token_ids": True,
    }  # fmt: skip
    streamed, deleted = [], False
    with base.http.stream("POST", "/v1/completions", json=body) as reply:
        for event in sse_events(reply.iter_lines()):
            streamed += event["choices"][0].get("token_ids") or []
            if streamed and not deleted:
                gone = base.http.delete("/v1/adapters/doomed")
                assert gone.status_code == 200, gone.text
                deleted = True
                assert len(streamed) < tokens // 2, "it must still be running"
                error_of(base.post("/v1/completions", {"model": "doomed", "prompt": "a"}), 404)
    assert streamed == whole
    error_of(base.http.get("/v1/adapters/doomed"), 404)
