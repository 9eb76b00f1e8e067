# SPDX-License-Identifier: Apache-2.0
"""How a server is set up: a file of options, and HTTPS."""

import contextlib
import json
import socket
import ssl
import subprocess
import time
import warnings

import httpx
import pytest
from harness import TINY, Server, adapter_bytes, golden, run_cli, sse_events

PROMPT = list(range(3, 40))


@pytest.fixture
def adapter_files(tmp_path):
    paths = []
    for seed in (1, 2):
        path = tmp_path / f"a{seed}=x.safetensors"  # a '=' of its own
        path.write_bytes(adapter_bytes(golden("tiny", "llama", "config.json"), seed))
        paths.append(path)
    return paths


def listed(server):
    return [m["id"] for m in server.http.get("/v1/models").json()["data"]]


def serve_without_model(tmp_path, *options):
    """A server whose model comes from the file of options."""
    server = Server(TINY / "llama", tmp_path / "store", *options)
    server.command = lambda: ["serve", "--store", str(server.store), "--port", "0", *server.options]
    return server


# ---- the file of options


@pytest.mark.sanitizer
def test_options_come_from_a_file_and_the_command_line_wins(tmp_path, adapter_files):
    one, two = adapter_files
    config = tmp_path / "serve.conf"
    config.write_text(
        "# our server\r\n"
        f"model = {TINY / 'llama'}\n"
        "  model-name =  from the file  \n"
        "ctx=64\n\n"
        "no-prefix-cache = true\n"
        "port = 1\n"
        f"adapter = one={one}\n"
        f"adapter = two={two}\n"
    )
    with serve_without_model(tmp_path, "--config", config) as server:
        assert server.is_ready(), "--port 0 won over port = 1"
        assert listed(server) == ["from the file", "one", "two"]
        server.name = "from the file"
        assert server.post("/v1/completions", {"prompt": [1] * 70}).status_code == 400, "ctx"
        for _ in range(2):
            usage = server.ask({"prompt": PROMPT, "max_tokens": 1})["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] == 0, "no prefix cache"
    options = ("--config", config, "--model-name", "ours", f"--adapter=three={one}", "--ctx", 96)
    with serve_without_model(tmp_path, *options) as server:
        server.name = "ours"
        # The other two are in the store by now; only "three" was published at this start.
        assert listed(server) == ["ours", "one", "three", "two"]
        assert server.log().rpartition("---- start")[2].count("event=preload") == 1
        assert server.post("/v1/completions", {"prompt": [1] * 70, "model": "ours"}).is_success


@pytest.mark.sanitizer
def test_a_bad_file_of_options_is_refused_by_line(tmp_path):
    config = tmp_path / "serve.conf"
    for text, code, said in (
        ("prot = 8080\n", 2, "line 1: unknown option"),
        ("prot = 8080\n", 2, "did you mean port?"),
        ("--port = 8080\n", 2, "did you mean port?"),
        ("# x\nport = 99999\n", 2, "line 2: port: expected a whole number from 0 to 65535"),
        ("compute = fast\n", 2, "auto|f32|int8"),
        ("no-prefix-cache = yes\n", 2, "true or false"),
        ("port = 1\nport = 2\n", 2, "line 2: port is given twice"),
        ("port\n", 2, "expected name = value"),
        ("port =\n", 2, "port has no value"),
        ("= 3\n", 2, "no name"),
        ("config = other.conf\n", 2, "names no other"),
        ("help = true\n", 2, "unknown option"),
        ("adapter = nofile\nmodel = m\n", 2, "NAME=FILE"),
        ("port = 1\0\n", 2, "zero"),
        ("port = 1\n", 2, "--model FILE is missing"),
        ("#" * (1 << 20) + "\n", 1, "bound of 1048576"),
        (None, 1, "serve.conf"),
    ):
        config.unlink(missing_ok=True)
        if text is not None:
            config.write_text(text)
        run = run_cli("serve", "--config", config)
        assert run.returncode == code and said in run.stderr, (text, run.returncode, run.stderr)
        assert str(config) in run.stderr or "missing" in said or "NAME=FILE" in said, run.stderr


# ---- HTTPS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "other"):
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.sanitizer
def test_https(tmp_path, certificates):
    files = ("--tls-cert", certificates / "ours.pem", "--tls-key", certificates / "ours.key")
    server = Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny", *files)
    server.name = "tiny"
    server.verify = ssl.create_default_context(cafile=certificates / "ours.pem")
    with server:
        assert server.url.startswith("https://")
        data = adapter_bytes(golden("tiny", "llama", "config.json"), 3, ranks=(8,)) + b""
        card = server.put("a", data)
        assert server.http.get("/v1/adapters/a/content").content == data
        whole = server.greedy(PROMPT, 20, model="a")
        body = {"model": "a", "prompt": PROMPT, "max_tokens": 20, "temperature": 0, "stream": True,
                "ignore_eos": True, "return_token_ids": True}  # fmt: skip
        with server.http.stream("POST", "/v1/completions", json=body) as reply:
            events = list(sse_events(reply.iter_lines()))
        assert sum((e["choices"][0].get("token_ids") or [] for e in events), []) == whole
        assert card["digest"] in server.http.get("/v1/models").text
        other = ssl.create_default_context(cafile=certificates / "other.pem")
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url + "/health", verify=other)
        with pytest.raises(httpx.TransportError):  # in the clear
            httpx.get(server.url.replace("https", "http") + "/health")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificates / "ours.pem")
        with warnings.catch_warnings(action="ignore"):  # they are old, which is the point
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url + "/health", verify=old)
        # Garbage instead of a handshake, and a connection that goes during one.
        port = int(server.url.rpartition(":")[2])
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x40\x00" + b"\0" * 40, b""):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                raw.sendall(garbage)
        assert server.http.get("/health").status_code == 200


@pytest.mark.sanitizer
def test_silent_https_clients_hold_nobody_up_and_are_dropped(tmp_path, certificates):
    files = ("--tls-cert", certificates / "ours.pem", "--tls-key", certificates / "ours.key")
    server = Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny", *files)
    server.name = "tiny"
    server.verify = ssl.create_default_context(cafile=certificates / "ours.pem")
    with server, contextlib.ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        for _ in range(40):  # they never begin their handshake
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        start = time.monotonic()
        assert len(server.greedy(PROMPT, 4)) == 4
        assert time.monotonic() - start < 5
        silent.settimeout(30)
        assert silent.recv(1) == b"", "closed"


def test_a_closed_https_connection_is_cancelled(tmp_path, certificates, model_path):
    files = ("--tls-cert", certificates / "ours.pem", "--tls-key", certificates / "ours.key")
    server = Server(model_path, tmp_path / "store", "--model-name", "base", *files)
    server.verify = ssl.create_default_context(cafile=certificates / "ours.pem")
    with server:
        for stream in (True, False):
            body = {"model": "base", "prompt": "Count:", "max_tokens": 1900, "ignore_eos": True,
                    "stream": stream}  # fmt: skip
            data = json.dumps(body).encode()
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
            head += f"Content-Length: {len(data)}\r\n\r\n"
            port = int(server.url.rpartition(":")[2])
            raw = socket.create_connection(("127.0.0.1", port), timeout=60)
            connection = server.verify.wrap_socket(raw, server_hostname="localhost")
            connection.sendall(head.encode() + data)
            deadline = time.monotonic() + 20
            while server.running() != 1:
                assert time.monotonic() < deadline, "it never ran"
                time.sleep(0.02)
            connection.close()
            server.wait_idle(2.0)


@pytest.mark.sanitizer
def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path, certificates):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate\n")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", certificates / "ours.key", "-out", locked,
               "-passout", "pass:secret"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    ours, key = certificates / "ours.pem", certificates / "ours.key"
    serve = ("serve", "--model", TINY / "llama", "--store", tmp_path / "store", "--port", "0")
    for certificate, secret, said in (
        (ours, certificates / "other.key", "other.key: key values mismatch"),
        (tmp_path / "none.pem", key, "none.pem: No such file"),
        (ours, tmp_path / "none.key", "none.key: No such file"),
        (bad, key, "bad.pem: no start line"),
        (ours, bad, "the certificate's key"),
        (ours, locked, "locked.key"),
    ):
        run = run_cli(*serve, "--tls-cert", certificate, "--tls-key", secret, timeout=60)
        assert run.returncode == 1 and said in run.stderr, (said, run.stderr)
    for half in (("--tls-cert", ours), ("--tls-key", key)):
        run = run_cli(*serve, *half)
        assert run.returncode == 2 and "go together" in run.stderr, run.stderr


def test_the_help_names_them_all():
    said = run_cli("serve", "--help", check=0).stdout
    for option in ("--config=FILE", "--tls-cert=FILE", "--tls-key=FILE", "--adapter=NAME=FILE"):
        assert option in said, said
