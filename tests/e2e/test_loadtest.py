# SPDX-License-Identifier: Apache-2.0
"""sora-loadtest: against a stub server that stalls, lies, breaks and refuses, and the real one."""

import json
import math
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

import httpx
import pytest
from harness import BINARY, GOLDEN, Server, run_cli

PROGRAM = os.environ.get("SORA_LOADTEST_BIN", str(pathlib.Path(BINARY).parent / "sora-loadtest"))
STUB = pathlib.Path(__file__).with_name("stub_server.py")

pytestmark = pytest.mark.skipif(
    not pathlib.Path(PROGRAM).is_file(), reason=f"no {PROGRAM}: built without libcurl"
)


class Stub:
    def __init__(self, *options):
        command = [sys.executable, str(STUB), *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the stub did not start"

    def counts(self):
        return httpx.get(self.url + "/counts").json()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def stub():
    with Stub() as server:
        yield server


def load(*arguments, check=0, timeout=120, env=None):
    """Runs the load test to its end; returns the process, with its report in `.report`."""
    command = [PROGRAM, *map(str, arguments)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    said = f"{' '.join(command)}: exit {run.returncode}\n{run.stdout}\n{run.stderr}"
    assert run.returncode == check, said
    return run


def measure(tmp_path, *arguments, check=0, **options):
    """The JSON report of a run."""
    out = tmp_path / "report.json"
    load(*arguments, "-q", "--json", out, check=check, **options)
    return json.loads(out.read_text("utf-8"))


def outcomes_of(report):
    """How many requests ended how; none that did not happen."""
    summary = report["summary"]
    counts = {"ok": summary["ok"], "dropped": summary["dropped"], **summary["errors_by_kind"]}
    return {kind: count for kind, count in counts.items() if count}


QUICK = ("--rate", "200", "--requests", "12", "--output-tokens", "6")


@pytest.mark.sanitizer
def test_a_good_server_is_measured(stub, tmp_path):
    html = tmp_path / "report.html"
    report = measure(tmp_path, stub.url, *QUICK, "--chat", "0.3", "--stream", "0.7", "--html", html)
    summary = report["summary"]
    assert outcomes_of(report) == {"ok": 12}
    assert summary["output_tokens"] == 72
    assert len(report["per_adapter"]) == 2
    page = html.read_text("utf-8")
    assert "<svg" in page and "http://" not in page.replace(stub.url, "").replace(
        "http://www.w3.org/", ""
    )


@pytest.mark.sanitizer
@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ("cut", "truncated"), ("ends", "truncated"), ("lies-json", "stream"),
        ("lies-usage", "stream"), ("lies-type", "stream"), ("after-done", "stream"),
        ("error-event", "stream"), ("long-line", "stream"), ("hangs", "timeout"),
        ("slams", "truncated"), ("busy", "http_429"), ("broken", "http_5xx"),
        ("empty", "truncated"),
    ],
)  # fmt: skip
def test_a_bad_server_is_named_and_counted(stub, tmp_path, model, outcome):
    report = measure(tmp_path, stub.url, *QUICK, "--adapters", model, "--timeout", "1s")
    assert outcomes_of(report) == {outcome: 12}, model
    assert report["summary"]["ok_per_s"] == 0


@pytest.mark.sanitizer
def test_the_first_error_of_each_kind_is_shown(stub):
    run = load(stub.url, *QUICK, "-q", "--adapters", "good,broken,busy")
    assert "engine failure" in run.stderr and "too many requests" in run.stderr


@pytest.mark.sanitizer
def test_a_part_of_refusals_is_a_part_of_the_report(stub, tmp_path):
    report = measure(tmp_path, stub.url, "--rate", "200", "--requests", "30", "--adapters", "flaky")
    counted = outcomes_of(report)
    assert set(counted) == {"ok", "http_429"} and sum(counted.values()) == 30
    assert 8 <= counted["http_429"] <= 12


@pytest.mark.sanitizer
def test_connections_are_dropped_midway_as_planned(stub, tmp_path):
    arguments = ("--rate", "200", "--requests", "20", "--drop", "1", "--output-tokens", "20")
    report = measure(tmp_path, stub.url, *arguments)
    counted = outcomes_of(report)
    assert counted.get("dropped", 0) >= 15 and set(counted) <= {"ok", "dropped"}


@pytest.mark.sanitizer
def test_verify_passes_a_steady_server_and_catches_a_moody_one(stub):
    arguments = ("-q", "--clients", "4", "--requests", "30", "--output-tokens", "4", "--verify")
    run = load(stub.url, *arguments, "--adapters", "good,good-2", "--stream", "0.5")
    assert "0 different" in run.stdout
    run = load(stub.url, *arguments, "--adapters", "moody", check=1)
    assert "answered differently" in run.stderr and "--verify failed" in run.stderr


@pytest.mark.sanitizer
def test_verify_without_anything_to_compare_fails(stub):
    run = load(
        stub.url, "-q", "--requests", "3", "--rate", "100", "--adapters", "broken", "--verify",
        check=1,
    )  # fmt: skip
    assert "0 of 0" in run.stderr


@pytest.mark.sanitizer
def test_the_objective_decides_the_exit_code(stub):
    load(stub.url, *QUICK, "-q", "--slo", "ttft_p95=5s,e2e_max=20s")
    run = load(stub.url, *QUICK, "-q", "--slo", "ttft_p95=1ms", check=1)
    assert "does not hold" in run.stderr
    load(stub.url, *QUICK, "-q", "--slo", "ttft_p95=5s", "--adapters", "broken,good", check=1)


@pytest.mark.sanitizer
def test_made_adapters_come_and_go(stub, tmp_path):
    before = stub.counts()
    report = measure(
        tmp_path, stub.url, *QUICK, "--make", "5", "--churn-rate", "40", "--churn-served",
        "--requests", "60", "--rate", "60",
    )  # fmt: skip
    after = stub.counts()
    assert outcomes_of(report) == {"ok": 60}
    assert len(report["per_adapter"]) == 5
    assert sum(m["kind"] in ("upload", "update", "delete") for m in report["marks"]) >= 10
    assert after["uploads"] - before["uploads"] >= 10
    assert after["adapters"] == before["adapters"]
    load(stub.url, *QUICK, "-q", "--make", "2", "--keep-adapters")
    kept = set(stub.counts()["adapters"]) - set(before["adapters"])
    assert kept == {"loadtest-00000", "loadtest-00001"}
    for name in kept:
        httpx.delete(f"{stub.url}/v1/adapters/{name}")


@pytest.mark.sanitizer
def test_every_scenario_runs_with_one_flag(stub, tmp_path):
    names = [line.split()[0] for line in load("--list-scenarios").stdout.splitlines()]
    assert len(names) == 6
    for name in names:
        # As they stand they take minutes: the same, cut short, with fewer adapters.
        short = ("--duration", "500ms", "--warmup", "100ms", "--rate", "40", "--make", "3")
        report = measure(tmp_path, stub.url, "--scenario", name, *short, "--output-tokens", "3")
        assert set(outcomes_of(report)) == {"ok"}, name
        own = tmp_path / "own.json"
        own.write_text(load("--print-scenario", name).stdout)
        plan = load("--scenario", own, "--print-plan", "--adapters", "a,b,c", "--base", "m").stdout
        assert plan == load(
            "--scenario", name, "--print-plan", "--adapters", "a,b,c", "--base", "m"
        ).stdout  # fmt: skip


@pytest.mark.sanitizer
def test_the_plan_does_not_depend_on_the_server(stub):
    arguments = ("--print-plan", "--rate", "5", "--duration", "20s", "--popularity", "zipf:1")
    offline = load(*arguments, "--adapters", "good,good-2").stdout
    assert load(stub.url, *arguments).stdout == offline
    assert offline.count("\n") > 60
    assert load(*arguments, "--adapters", "good,good-2", "--seed", "2").stdout != offline


@pytest.mark.sanitizer
def test_a_trace_is_replayed(stub, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("t_ms,adapter,prompt_tokens,output_tokens\n0,good,5,3\n400,good-2,9,4\n"
                     "200,0,7,2\n")  # fmt: skip
    report = measure(tmp_path, stub.url, "--trace", trace, "--speed", "2")
    assert outcomes_of(report) == {"ok": 3}
    assert report["summary"]["output_tokens"] == 9
    requests = {a["name"]: a["requests"] for a in report["per_adapter"]}
    assert requests["good"] == 2 and requests["good-2"] == 1
    trace.write_text("0,good,5,3\n1,good,x,3\n")
    assert "line 2" in load(stub.url, "--trace", trace, check=2).stderr


@pytest.mark.sanitizer
def test_wrong_usage_is_exit_2(stub, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"ratee": 3}')
    for arguments, says in (
        (("--scenario", wrong), 'unknown key "ratee"; did you mean "rate"?'),
        (("--scenario", "chrun"), 'did you mean "churn"?'),
        (("--raet", "3"), "did you mean --rate?"),
        (("--rate", "fast"), "rate"),
        (("--find-rate",), "--slo"),
        (("--slo", "ttft=3"), "ttft"),
        (("--verify", "--temperature", "1"), "temperature"),
        (("--arrivals", "trace"), "trace"),
        (("--key-file", tmp_path / "none"), "none"),
        (("another",), "URL"),
    ):
        assert says in load(stub.url, *arguments, check=2).stderr, arguments
    assert "URL" in load(check=2).stderr
    assert "ftp" in load("ftp://x", check=2).stderr


@pytest.mark.sanitizer
def test_an_unreachable_server_is_exit_1(tmp_path):
    url = "http://127.0.0.1:1"
    assert "127.0.0.1" in load(url, "--rate", "9", check=1).stderr
    run = load(url, "-q", "--rate", "90", "--requests", "9", "--adapters", "a", check=1)
    assert "no request could be sent" in run.stderr


@pytest.mark.sanitizer
def test_keys_and_tls(tmp_path):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate,
         "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    with Stub("--tls", certificate, key, "--key", "s3cret") as server:
        good = ("--cacert", certificate, "--key-file", secret)
        assert outcomes_of(measure(tmp_path, server.url, *QUICK, *good)) == {"ok": 12}
        insecure = ("--insecure", "--adapters", "good")
        environment = {"SORA_API_KEY": "s3cret"}
        report = measure(tmp_path, server.url, *QUICK, *insecure, env=environment)
        assert outcomes_of(report) == {"ok": 12}
        report = measure(tmp_path, server.url, *QUICK, *insecure)
        assert outcomes_of(report) == {"http_4xx": 12}
        load(server.url, *QUICK, "-q", "--key-file", secret, "--adapters", "good", check=1)


def percentile(values, share):
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def closed_loop(url, clients, count, tokens, models):
    """The same load by other means: threads of httpx. (seconds, times to first token, gaps)"""
    lock, numbers = threading.Lock(), iter(range(count))
    ttft, gaps, rng = [], [], random.Random(1)

    def one(http):
        body = {
            "model": models[rng.randrange(len(models))], "prompt": "a few words to begin with",
            "max_tokens": tokens, "stream": True, "temperature": 0,
        }  # fmt: skip
        start = last = time.monotonic()
        with http.stream("POST", "/v1/completions", json=body) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                if not json.loads(line[6:])["choices"][0]["text"]:
                    continue
                now = time.monotonic()
                (ttft if last == start else gaps).append(now - last)
                last = now

    def work(http):
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            one(http)

    # Made before the clock starts: a client of httpx takes its time to read certificates.
    connections = [httpx.Client(base_url=url, timeout=60) for _ in range(clients)]
    threads = [threading.Thread(target=work, args=(http,)) for http in connections]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start, ttft, gaps


def two_clients(folder):
    """What a plain client in Python and this one say of the same stub, one after the other:
    (theirs, ours) of the throughput and of each percentile."""
    folder.mkdir()
    with Stub("--ttft", "0.15", "--gap", "0.03") as server:
        seconds, ttft, gaps = closed_loop(server.url, 4, 40, 24, ["good", "good-2"])
        report = measure(
            folder, server.url, "--clients", "4", "--requests", "40", "--output-tokens", "24"
        )
    summary = report["summary"]
    assert outcomes_of(report) == {"ok": 40}
    said = {"output_tokens_per_s": (40 * 24 / seconds, summary["output_tokens_per_s"])}
    for kind, values in (("ttft", ttft), ("itl", gaps)):
        for name, share in (("p50_us", 0.5), ("p95_us", 0.95)):
            ours = summary["latency"][kind][name] / 1e6
            said[kind, name] = (percentile(values, share), ours)
    return said


def test_another_client_measures_the_same(tmp_path):
    """Throughput within 3 %, p50 and p95 within 5 % (and 2 ms, which timers and Python take), in
    the median of three rounds: one that the machine held up does not decide, a wrong client does.
    """
    rounds = [two_clients(tmp_path / str(i)) for i in range(3)]
    for figure in rounds[0]:
        theirs, ours = (statistics.median(r[figure][side] for r in rounds) for side in (0, 1))
        bound = 0.03 * theirs if figure == "output_tokens_per_s" else 0.05 * theirs + 0.002
        assert abs(ours - theirs) <= bound, (figure, [r[figure] for r in rounds])


def test_a_paused_server_shows_in_the_tail(tmp_path):
    """SIGSTOP for two seconds: an open loop sees it in p99 and max, and hardly in the median."""
    with Stub() as server:
        timer = threading.Timer(2.0, server.process.send_signal, [signal.SIGSTOP])
        wake = threading.Timer(4.0, server.process.send_signal, [signal.SIGCONT])
        timer.start()
        wake.start()
        report = measure(
            tmp_path, server.url, "--arrivals", "constant", "--rate", "25", "--duration", "12s",
            "--output-tokens", "3",
        )  # fmt: skip
    latency = report["summary"]["latency"]
    assert outcomes_of(report) == {"ok": 299}
    for kind in ("ttft", "e2e"):
        assert 1.85e6 < latency[kind]["max_us"] < 2.6e6
        assert latency[kind]["p99_us"] > 1.6e6  # 50 of 300 requests were planned in the pause
        assert latency[kind]["p50_us"] < 0.3e6
    # Those planned in the pause wait for what is left of it: evenly spread, so 300 ms are exceeded
    # by 1.7 s of 12 s.
    slow = sum(b[-1] for b in report["histograms"]["ttft"] if b[0] > 0.3e6)
    assert 0.11 * 299 < slow < 0.19 * 299


def test_the_clients_own_cost_is_stated_and_small(tmp_path):
    """Under 2 % of a core for 1,000 events a second."""
    with Stub("--ttft", "0.1", "--gap", "0.05") as server:
        report = measure(
            tmp_path, server.url, "--clients", "60", "--duration", "6s", "--output-tokens", "100",
            "--warmup", "1s", timeout=60,
        )  # fmt: skip
    client = report["summary"]["client"]
    assert client["events"] > 4000
    assert client["core_share_per_1000_events_per_s"] < 0.02, client
    assert not client["bottleneck"], client


def test_the_limit_of_a_server_is_found(tmp_path):
    """A stub that serves one request at a time would hold 1/0.1 a second; here, errors decide."""
    with Stub("--ttft", "0.02", "--gap", "0") as server:
        report = measure(
            tmp_path, server.url, "--find-rate", "--slo", "ttft_p50=1s", "--rate", "20",
            "--duration", "1s", "--precision", "0.5", "--adapters", "good", "--output-tokens", "1",
            "--timeout", "5s", "--requests", "120", timeout=400,
        )  # fmt: skip
    assert report["search"]["found_rate"] > 20


def test_compare_puts_two_runs_side_by_side(stub, tmp_path):
    for name in ("a", "b"):
        out = tmp_path / f"{name}.json"
        load(stub.url, *QUICK, "-q", "--label", f"server {name}", "--json", out)
    page = tmp_path / "both.html"
    run = load("compare", tmp_path / "a.json", tmp_path / "b.json", "--html", page)
    assert "server a" in run.stdout and "server b" in run.stdout
    assert "<svg" in page.read_text("utf-8")
    load("compare", tmp_path / "none.json", tmp_path / "b.json", check=2)


def test_an_interrupt_reports_what_there_is(stub):
    command = [PROGRAM, stub.url, "--rate", "50", "--duration", "60s", "--make", "2"]
    before = stub.counts()["adapters"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "time to first token" in out
    assert stub.counts()["adapters"] == before


# The real server.


@pytest.fixture(scope="module")
def adapter(model_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapter") / "ragged.safetensors"
    run_cli(
        "import", GOLDEN / "adapters" / "ragged", "--out", out, "--model", model_path, check=0
    )
    return out


@pytest.fixture(scope="module")
def real(model_path, tmp_path_factory):
    store = tmp_path_factory.mktemp("load") / "store"
    with Server(model_path, store, "--model-name", "base") as server:
        yield server


def test_the_real_server_holds_under_churn_and_verify(real, adapter, tmp_path):
    report = measure(
        tmp_path, real.url, "--like", adapter, "--make", "4", "--ranks", "uniform:0:8", "--rate",
        "3", "--requests", "24", "--output-tokens", "8", "--stream", "0.7", "--chat", "0.3",
        "--base-share", "0.2", "--verify", "--drop", "0.1", "--churn-rate", "1", timeout=300,
    )  # fmt: skip
    counted = outcomes_of(report)
    assert set(counted) <= {"ok", "dropped"} and counted["ok"] >= 15
    assert not any(m["kind"] == "failed" for m in report["marks"])
    names = [m["id"] for m in real.http.get("/v1/models").json()["data"]]
    assert names == ["base"]


def test_the_real_servers_adapters_are_discovered(real, adapter, tmp_path):
    real.put("found", adapter.read_bytes())
    report = measure(
        tmp_path, real.url, "--clients", "2", "--requests", "6", "--output-tokens", "4", "--make",
        "0", timeout=300,
    )  # fmt: skip
    assert outcomes_of(report) == {"ok": 6}
    assert report["per_adapter"][0]["name"] == "found"
    # And the card of a loaded one tells how to make more.
    report = measure(
        tmp_path, real.url, "--clients", "2", "--requests", "6", "--output-tokens", "4", "--make",
        "2", timeout=300,
    )  # fmt: skip
    assert outcomes_of(report) == {"ok": 6}
    real.http.delete("/v1/adapters/found")


def test_an_unknown_adapter_of_the_real_server_is_a_404(real, tmp_path):
    report = measure(tmp_path, real.url, *QUICK, "--adapters", "nobody")
    assert outcomes_of(report) == {"http_4xx": 12}
