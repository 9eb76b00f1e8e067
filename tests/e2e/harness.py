# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: the server as a process, requests, goldens and comparers.

The tests know the program by its command line and its HTTP routes alone.
"""

import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import httpx
import numpy
import safetensors.numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TINY = GOLDEN / "tiny"
BINARY = os.environ.get("SORA_SERVER_BIN", str(ROOT / "build" / "sora-server"))
THREADS = str(min(2, os.cpu_count() or 1))
START_SECONDS = 120  # under a sanitizer the default model takes its time

PROJECTIONS = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip


def run_cli(*arguments, timeout=300, check=None):
    """Runs the program to its end; check: the exit code that is expected."""
    command = [BINARY, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check is not None:
        said = f"{' '.join(command)}: exit {run.returncode}\n{run.stdout}\n{run.stderr}"
        assert run.returncode == check, said
    return run


class Server:
    """`sora-server serve` on a free port. The log is kept for the message of a failure."""

    def __init__(self, model, store, *options):
        self.model, self.store = str(model), pathlib.Path(store)
        self.options = [str(o) for o in options]
        self.log_path = self.store.parent / (self.store.name + ".log")
        self.process, self.url, self.http = None, None, None
        self.verify = True  # or the ssl.SSLContext that knows the server's certificate
        self.name = pathlib.Path(self.model).name.removesuffix(".gguf")

    def command(self):
        command = ["serve", "--model", self.model, "--store", str(self.store)]
        for name, value in (("--port", "0"), ("--threads", THREADS)):
            command += [] if name in self.options else [name, value]
        return command + self.options

    def start(self):
        command = [BINARY, *self.command()]
        with open(self.log_path, "ab") as log:
            log.write(b"---- start\n")
            log.flush()
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            said = self.log().rpartition("---- start\n")[2]
            found = re.search(r"listening on (https?://[0-9.]+:\d+)", said)
            if found:
                self.url = found.group(1)
                self.http = httpx.Client(base_url=self.url, timeout=300, verify=self.verify)
                if self.is_ready():
                    return self
            assert self.process.poll() is None, f"serve ended early:\n{said}"
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"serve was not ready in {START_SECONDS} s:\n{self.log()}")

    def is_ready(self):
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def log(self):
        return self.log_path.read_text("utf-8", errors="replace")

    def stop(self, seconds=60):
        """Ends it as an operator would; returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"serve did not end in {seconds} s:\n{self.log()}") from None
        self.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self):
        if self.http:
            self.http.close()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        code = self.stop()
        if kind is None:
            assert code in (0, None), f"serve ended with {code}:\n{self.log()}"

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) << 10

    # Requests. `ask` wants success, `post` gives the reply as it is.

    def post(self, path, body, **options):
        return self.http.post(path, json=body, **options)

    def ask(self, body, path="/v1/completions"):
        reply = self.post(path, {"model": self.name, **body})
        assert reply.status_code == 200, f"{reply.status_code}: {reply.text}"
        return reply.json()

    def greedy(self, prompt, tokens, **fields):
        """Token ids of a greedy continuation."""
        body = {
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **fields,
        }  # fmt: skip
        return self.ask(body)["choices"][0]["token_ids"]

    def put(self, name, data, expect=(200, 201), **options):
        headers = {"content-type": "application/octet-stream", **options.pop("headers", {})}
        url = f"/v1/adapters/{name}"
        reply = self.http.put(url, content=data, headers=headers, **options)
        assert reply.status_code in expect, f"{reply.status_code}: {reply.text}"
        return reply.json()

    def metrics(self):
        return parse_metrics(self.http.get("/metrics").text)

    def running(self):
        return sum(v for k, v in self.metrics().items() if k[0] == "vllm:num_requests_running")

    def wait_idle(self, seconds):
        """Seconds until nothing runs; fails past the bound."""
        start = time.monotonic()
        while self.running() > 0:
            assert time.monotonic() - start < seconds, f"still running after {seconds} s"
            time.sleep(0.02)
        return time.monotonic() - start


def error_of(reply, status, code=None):
    """The error object of a reply that must be refused with this status."""
    assert reply.status_code == status, f"expected {status}, got {reply.status_code}: {reply.text}"
    error = reply.json()["error"]
    assert isinstance(error["message"], str) and error["message"], error
    assert "type" in error and "param" in error and "code" in error, error
    assert error["code"] is None or isinstance(error["code"], str), error
    if code is not None:
        assert error["code"] == code, error
    assert reply.headers.get("x-request-id")
    return error


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sse_events(lines):
    """The JSON of each `data:` line; checks that [DONE] comes last and once."""
    done = False
    for line in lines:
        if not line or line.startswith(":"):
            continue
        assert line.startswith("data: "), line
        assert not done, f"after [DONE]: {line}"
        if line == "data: [DONE]":
            done = True
        else:
            yield json.loads(line[len("data: ") :])
    assert done, "no [DONE]"


METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    """(name, labels) -> value of a Prometheus page; refuses a line that is not well formed."""
    values, typed = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name not in typed, f"two TYPE lines for {name}"
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            typed[name] = kind
        elif line and not line.startswith("#"):
            match = METRIC.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            name, inside, value = match.groups()
            labels = tuple(sorted(LABEL.findall(inside or "")))
            assert len(re.sub(LABEL, "", inside or "").strip(",")) == 0, f"labels: {line!r}"
            family = re.sub(r"_(bucket|sum|count|total)$", "", name)
            assert name in typed or family in typed, f"no TYPE for {name}"
            assert (name, labels) not in values, f"twice: {line!r}"
            values[name, labels] = float(value)
    return values


# ---- goldens and comparers (each has a case that must fail in test_comparers.py)


def golden(*parts):
    return json.loads(GOLDEN.joinpath(*parts).read_text("utf-8"))


def by_token_id(top):
    """{"token_id:7": -1.5} -> {7: -1.5}"""
    return {int(name.removeprefix("token_id:")): value for name, value in top.items()}


def logprob_errors(expected, found):
    """Absolute error of each expected [token, log-probability]; a missing one is infinite."""
    return [abs(value - found.get(token, math.inf)) for token, value in expected]


def check_mean_error(expected, found, bound):
    errors = logprob_errors(expected, found)
    mean = sum(errors) / len(errors) if errors else math.inf
    assert mean <= bound, f"mean error {mean} > {bound}"


def check_max_error(expected, found, bound):
    errors = logprob_errors(expected, found)
    # Every one by itself: max() of a list may step over a NaN.
    assert errors and all(e <= bound for e in errors), f"errors {errors}, bound {bound}"


def check_greedy(expected, margins, found, margin=0.02):
    """Equal up to the first step that the reference itself decides by less than the margin."""
    assert len(found) == len(expected), f"{len(found)} tokens, expected {len(expected)}"
    for step, (want, have, gap) in enumerate(zip(expected, found, margins)):
        if want != have:
            said = f"step {step}: {have}, expected {want} with margin {gap}\n{expected}\n{found}"
            assert gap <= margin, said
            return


def check_same(expected, found, what):
    assert len(expected) == len(found)
    different = [i for i, (a, b) in enumerate(zip(expected, found)) if a != b]
    if different:
        first = different[0]
        said = f"{len(different)} of {len(expected)} differ, first {what} {first}"
        raise AssertionError(f"{said}:\n{expected[first]}\n{found[first]}")


# ---- adapters made here


def dimensions(config):
    """d_in, d_out of each projection of a Llama-like config.json."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    return {
        "q_proj": (hidden, q), "k_proj": (hidden, kv), "v_proj": (hidden, kv),
        "o_proj": (q, hidden), "gate_proj": (hidden, inner), "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }  # fmt: skip


def module_name(layer, projection):
    return f"model.layers.{layer}.{PROJECTIONS[projection]}.{projection}"


def adapter_tensors(config, seed, size=0.3, ranks=(0, 1, 2, 3, 5)):
    """Random A and B with a rank of its own for every module, sometimes zero."""
    random = numpy.random.default_rng(seed)
    tensors, pattern = {}, {}
    for layer in range(config["num_hidden_layers"]):
        for projection, (d_in, d_out) in dimensions(config).items():
            rank = int(random.choice(ranks))
            if rank == 0:
                continue
            name = module_name(layer, projection)
            pattern[name] = rank
            a = random.normal(0, size / math.sqrt(d_in), (rank, d_in))
            b = random.normal(0, size, (d_out, rank))
            tensors[f"base_model.model.{name}.lora_A.weight"] = a.astype(numpy.float32)
            tensors[f"base_model.model.{name}.lora_B.weight"] = b.astype(numpy.float32)
    return tensors, pattern


def adapter_config(pattern, rank_max=8, scale=2.0, **fields):
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank_max,
        "lora_alpha": rank_max * scale, "lora_dropout": 0.0, "bias": "none",
        "base_model_name_or_path": "tiny", "target_modules": sorted(pattern),
        "rank_pattern": pattern, "alpha_pattern": {n: scale * r for n, r in pattern.items()},
        "use_rslora": False, "use_dora": False, "fan_in_fan_out": False, "inference_mode": True,
        "modules_to_save": None, "init_lora_weights": True, **fields,
    }  # fmt: skip


def encode_adapter(tensors, pattern, config=None):
    metadata = {
        "format": "sora-adapter", "format_version": "1",
        "adapter_config": json.dumps(config or adapter_config(pattern)),
    }  # fmt: skip
    return safetensors.numpy.save(tensors, metadata)


def adapter_bytes(config, seed, **options):
    """A whole adapter file for the base that config.json describes."""
    return encode_adapter(*adapter_tensors(config, seed, **options))


def split_file(data):
    """(header as a dict, tensor bytes) of a .safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_file(header, body):
    """header: a dict, or the JSON text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def effective_scale(config, name, rank):
    """The scale that PEFT computes for a module of a config without regular expressions."""
    alpha = config.get("alpha_pattern", {}).get(name, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
