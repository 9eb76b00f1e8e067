# SPDX-License-Identifier: Apache-2.0
"""A closed connection ends its request within a step (API.md section 2)."""

import json
import socket
import time

LONG = {"model": "base", "prompt": "Count:", "max_tokens": 1900, "ignore_eos": True}


def open_request(server, body):
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def wait_running(server, count, seconds=20):
    deadline = time.monotonic() + seconds
    while server.running() != count:
        assert time.monotonic() < deadline, f"{server.running()} running, expected {count}"
        time.sleep(0.02)


def test_a_closed_stream_is_cancelled(base):
    connection = open_request(base, {**LONG, "stream": True})
    assert b"200" in connection.recv(4096)
    wait_running(base, 1)
    connection.close()
    base.wait_idle(1.0)


def test_a_closed_waiting_connection_is_cancelled(base):
    connection = open_request(base, LONG)
    wait_running(base, 1)
    connection.close()
    base.wait_idle(1.0)


def test_a_connection_closed_while_queued_is_cancelled(base):
    connections = [open_request(base, {**LONG, "n": 8}) for _ in range(8)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    base.wait_idle(2.0)
    metrics = base.metrics()
    assert sum(v for k, v in metrics.items() if k[0] == "vllm:num_requests_waiting") == 0
    assert base.greedy("Hello", 4)


def test_a_client_that_does_not_read_stops_nobody(base):
    connection = open_request(base, {**LONG, "stream": True, "max_tokens": 400, "logprobs": 20})
    try:
        wait_running(base, 1)
        start = time.monotonic()
        assert len(base.greedy("Hello", 8)) == 8
        assert time.monotonic() - start < 20
    finally:
        connection.close()
    base.wait_idle(2.0)
