# SPDX-License-Identifier: Apache-2.0
"""What a client, an operator or the machine may get wrong: a clear answer, and serving goes on."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest
from harness import GOLDEN, TINY, Server, adapter_bytes, error_of, free_port, run_cli

pytestmark = pytest.mark.sanitizer
PROMPT = [5, 6, 7]


@pytest.fixture(autouse=True)
def still_serving(request):
    """Whatever a test here did to the shared server, it answers afterwards."""
    yield
    if "tiny" in request.fixturenames:
        tiny = request.getfixturevalue("tiny")
        assert len(tiny.greedy(PROMPT, 3)) == 3


def test_an_unknown_model_is_404_never_the_base(tiny):
    for model in ("nobody", "tiny@1", "nobody@1", "a/../b"):
        reply = tiny.post("/v1/completions", {"model": model, "prompt": PROMPT})
        error_of(reply, 404, "model_not_found")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"{}{}", b'{"model":"tiny",}', b"\xff\xfe", b'{"a":"\x00"}',
     b'{"prompt":' * 100 + b"1" + b"}" * 100, b'{"model":"tiny","model":"tiny","prompt":[1]}'],
    ids="empty half array null string two comma utf8 zero deep twice".split(),
)  # fmt: skip
def test_bad_json_is_400(tiny, body):
    for path in ("/v1/completions", "/v1/chat/completions"):
        reply = tiny.http.post(path, content=body, headers={"content-type": "application/json"})
        error_of(reply, 400)


@pytest.mark.parametrize(
    "field, value",
    [
        ("model", 7), ("model", []), ("prompt", 7), ("prompt", {}), ("prompt", [1.5]),
        ("prompt", [-1]), ("prompt", [320]), ("prompt", [2**40]), ("prompt", [[1], "x"]),
        ("prompt", []), ("prompt", [[]]), ("max_tokens", "x"), ("max_tokens", -1),
        ("max_tokens", 1.5), ("max_tokens", 2**60), ("temperature", "hot"), ("temperature", -0.1),
        ("temperature", 1e9), ("top_p", 0), ("top_p", 1.5), ("top_k", 1.5), ("top_k", -7),
        ("min_p", 2), ("n", 0), ("n", 1000), ("n", "2"), ("best_of", 0), ("stop", 7),
        ("stop", [7]), ("stop", ["a"] * 100), ("stop", "a" * 10000), ("seed", "x"), ("seed", 1.5),
        ("logit_bias", []), ("logit_bias", {"x": 1}), ("logit_bias", {"5": "x"}),
        ("logit_bias", {"999": 1}), ("logit_bias", {"5": 1000}), ("logprobs", 51),
        ("logprobs", -1), ("logprobs", "x"), ("echo", "yes"), ("suffix", "x"),
        ("presence_penalty", 3), ("frequency_penalty", "x"), ("repetition_penalty", 0),
        ("stream", "yes"), ("stream_options", 7), ("ignore_eos", 1), ("max_rank", -1),
        ("max_rank", "x"), ("return_token_ids", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_400_and_names_the_field(tiny, field, value):
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1, field: value}
    error = error_of(tiny.post("/v1/completions", body), 400)
    assert error["param"] == field or field in error["message"], error


@pytest.mark.parametrize(
    "messages",
    [None, [], "hi", [7], [{}], [{"role": "user"}], [{"role": 7, "content": "x"}],
     [{"role": "user", "content": 7}], [{"role": "user", "content": [{"type": "image_url"}]}]],
)  # fmt: skip
def test_wrong_messages_are_400(tiny, messages):
    error_of(tiny.post("/v1/chat/completions", {"model": "tiny", "messages": messages}), 400)


def test_unknown_fields_are_let_through(tiny):
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1, "user": "u", "made_up": {"a": 1}}
    assert tiny.post("/v1/completions", body).status_code == 200


def test_a_prompt_over_the_context_is_named(tiny):
    for prompt, tokens in (([5] * 300, 1), ([5] * 250, 100)):
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens}
        error = error_of(tiny.post("/v1/completions", body), 400, "context_length_exceeded")
        assert "256" in error["message"]


def test_a_body_over_the_bound_is_413(tiny):
    big = b'{"model":"tiny","prompt":"' + b"a" * (9 << 20) + b'"}'
    reply = tiny.http.post("/v1/completions", content=big)
    error_of(reply, 413)


def raw(server, data, seconds=10):
    """What the server answers to these bytes on a connection of their own."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        try:
            while not received.endswith(b"}") and (piece := connection.recv(65536)):
                received += piece
        except TimeoutError:
            pass
    return received


@pytest.mark.parametrize(
    "path, kind, status",
    [
        (b"/v1/adapters/..bad", b"application/octet-stream", 400),
        (b"/v1/adapters/x", b"application/json", 415),
        (b"/nowhere", b"text/plain", 404),
        (b"/v1/completions", b"application/json", 405),
    ],
)
def test_who_sends_it_all_before_listening_hears_why_it_is_refused(tiny, path, kind, status):
    body = b"x" * (30 << 20)  # more than the sockets hold
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    reply = raw(tiny, head % (path, kind, len(body)) + body)
    assert int(reply.split(b" ")[1]) == status
    assert b"\r\nConnection: close\r\n" in reply


@pytest.mark.parametrize("expect", [b"Expect: 100-continue\r\n", b""])
def test_a_length_over_the_bound_is_refused_before_its_body_comes(tiny, expect):
    head = b"PUT /v1/adapters/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n"
    start = time.monotonic()
    assert raw(tiny, head + expect + b"\r\n").split(b" ")[1] == b"413"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "data",
    [b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"POST /v1/completions HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids="zeros short version no-host long-path tls negative-length bad-chunk".split(),
)  # fmt: skip
def test_what_is_not_http_is_answered_or_closed(tiny, data):
    answer = raw(tiny, data, 3)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5")


def test_a_chunked_body_is_read(tiny):
    def pieces():
        yield b'{"model":"tiny",'
        yield b'"prompt":[5,6],"max_tokens":2}'

    reply = tiny.http.post("/v1/completions", content=pieces())
    assert reply.status_code == 200, reply.text


def test_unknown_routes_and_methods(tiny):
    error_of(tiny.http.get("/v1/nothing"), 404)
    error_of(tiny.http.get("/v1/completions"), 405)
    error_of(tiny.http.request("PATCH", "/v1/models"), 405)


def test_a_request_id_is_echoed_when_sane(tiny):
    said = tiny.http.get("/health", headers={"x-request-id": "abc-123"})
    assert said.headers["x-request-id"] == "abc-123"
    odd = tiny.http.get("/health", headers={"x-request-id": "a" * 5000})
    assert len(odd.headers["x-request-id"]) < 200


@pytest.mark.parametrize(
    "name", [".hidden", "a..b", "tiny", "a@1", "a b", "x" * 200, "%2e%2e%2fetc", "a%00b"]
)
def test_a_bad_adapter_name_is_refused(tiny, tiny_config, name):
    reply = tiny.http.put(f"/v1/adapters/{name}", content=adapter_bytes(tiny_config, 1))
    assert reply.status_code in (400, 404, 405, 422), reply.text
    error_of(reply, reply.status_code)


def test_a_client_that_is_slow_or_silent_holds_nobody_up(tiny):
    host, port = tiny.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(16)]
    try:
        for connection in idle[:8]:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
            connection.sendall(head + b"{")
        start = time.monotonic()
        assert len(tiny.greedy(PROMPT, 3)) == 3
        assert time.monotonic() - start < 5
    finally:
        for connection in idle:
            connection.close()


def test_many_requests_at_once_all_get_an_answer(tiny):
    def one(index):
        body = {"model": "tiny", "prompt": [5 + index % 9] * 50, "max_tokens": 20}
        connection = http.client.HTTPConnection(tiny.url.removeprefix("http://"), timeout=100)
        connection.request("POST", "/v1/completions", json.dumps(body))
        status = connection.getresponse().status
        connection.close()
        return status

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        codes = list(pool.map(one, range(300)))
    assert set(codes) <= {200, 429} and codes.count(200) > 100


def test_health_ready_version_and_metrics(tiny):
    assert tiny.http.get("/health").status_code == 200
    assert tiny.http.get("/ready").status_code == 200
    assert tiny.http.get("/version").json()["version"]
    before = tiny.metrics()
    tiny.greedy(PROMPT, 5)
    after = tiny.metrics()
    names = {name for name, _ in after}
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                 "vllm:kv_cache_usage_perc", "vllm:lora_requests_info"):  # fmt: skip
        assert name in names
    assert any(n.startswith("sora_") for n in names)
    grown = [n for (n, labels), v in after.items() if v > before.get((n, labels), 0)]
    assert any("token" in n for n in grown), grown
    for (name, labels), value in after.items():
        if name.endswith("_bucket") and ("le", "+Inf") in labels:
            rest = tuple(x for x in labels if x[0] != "le")
            assert after[name.removesuffix("_bucket") + "_count", rest] == value


# ---- the operator's mistakes


def failing(*arguments, code=1):
    run = run_cli(*arguments, timeout=60)
    assert run.returncode == code, f"exit {run.returncode}\n{run.stdout}\n{run.stderr}"
    assert run.stderr.strip(), "a failure says why"
    return run.stderr


def test_a_truncated_model_is_named(tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(TINY / "llama", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    said = failing("serve", "--model", folder, "--store", tmp_path / "s", "--port", "0")
    assert "model.safetensors" in said


@pytest.mark.parametrize("size", [0, 3, 24, 1000, 100000])
def test_a_truncated_gguf_is_named(model_path, tmp_path, size):
    cut = tmp_path / "cut.gguf"
    with open(model_path, "rb") as whole:
        cut.write_bytes(whole.read(size))
    said = failing("serve", "--model", cut, "--store", tmp_path / "s", "--port", "0")
    assert "cut.gguf" in said


def test_a_missing_model_is_named(tmp_path):
    said = failing("serve", "--model", tmp_path / "none.gguf", "--store", tmp_path / "s")
    assert "none.gguf" in said


def test_a_port_in_use_is_named(tiny, tmp_path):
    port = tiny.url.rpartition(":")[2]
    said = failing(
        "serve", "--model", TINY / "llama", "--store", tmp_path / "s", "--port", port
    )
    assert port in said


def test_a_store_in_use_is_named(tiny):
    said = failing("serve", "--model", TINY / "llama", "--store", tiny.store, "--port", "0")
    assert str(tiny.store) in said


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x", "utf-8")
    said = failing(
        "serve", "--model", TINY / "llama", "--store", tmp_path / "file" / "s", "--port", "0"
    )
    assert "file" in said


def test_a_preloaded_adapter_serves_or_stops_the_start(tmp_path, tiny_config):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    good.write_bytes(adapter_bytes(tiny_config, 1))
    bad.write_bytes(adapter_bytes(tiny_config, 1)[:-1])
    with Server(TINY / "llama", tmp_path / "s", "--adapter", f"pre={good}") as server:
        assert len(server.greedy(PROMPT, 2, model="pre")) == 2
    options = ("--store", tmp_path / "t", "--port", "0", "--adapter", f"pre={bad}")
    assert "bad.safetensors" in failing("serve", "--model", TINY / "llama", *options)


def test_a_chosen_port_is_used(tmp_path):
    port = free_port()
    with Server(TINY / "llama", tmp_path / "s", "--port", port) as server:
        assert server.url.endswith(f":{port}")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_while_importing_leaves_nothing(small_disk, tmp_path):
    out = small_disk / "out.safetensors"
    run = run_cli("import", GOLDEN / "adapters" / "ragged", "--out", out, timeout=60)
    assert run.returncode == 1 and str(out) in run.stderr
    assert list(small_disk.iterdir()) == []


def test_a_model_folder_without_a_config_is_named(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    said = failing("serve", "--model", folder, "--store", tmp_path / "s", "--port", "0")
    assert "config.json" in said


def test_a_terminated_server_finishes_what_runs(tmp_path):
    server = Server(TINY / "llama", tmp_path / "s", "--model-name", "tiny").start()
    server.name = "tiny"
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 200, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.post, "/v1/completions", body) for _ in range(8)]
        time.sleep(0.05)
        process = server.process
        process.terminate()
        codes = [a.result().status_code for a in asked]
    assert process.wait(60) == 0, server.log()
    server.close()
    assert set(codes) <= {200, 503} and 200 in codes
    assert pathlib.Path(server.store).is_dir()
