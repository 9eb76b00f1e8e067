# SPDX-License-Identifier: Apache-2.0
"""scripts/reproduce.sh with a stand-in for the program: runs, resuming, results and claims."""

import json
import stat
import subprocess
import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import reproduce  # noqa: E402

# Says what it was asked, and "measures" by its options: pruned runs are better by `gain`.
STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
calls = pathlib.Path("{calls}")
stop = pathlib.Path("{stop}")
of = lambda name: words[words.index(name) + 1]
if stop.exists() and len(calls.read_text().splitlines() if calls.exists() else []) >= 5:
    sys.exit(130)
with open(calls, "a") as out:
    out.write(" ".join(words) + "\\n")
gain = {gain} * ("--method" not in words) + 0.001 * int(of("--seed"))
value = {{"accuracy": 0.8 + gain, "mcc": {mcc} + gain, "loss": 0.3, "examples": 100}}
stage = {{"stage": 0, "xi": 0.0, "parameters": 7, "kept": 1.0, "eval": value, "seconds": 1.0}}
if "--xi-schedule" in words:
    pathlib.Path(of("--out")).with_suffix(".ladder.svg").write_text("<svg/>")
print(json.dumps({{"eval": value, "parameters": 1000, "kept": 0.5, "seconds": 2.0, "tokens": 99,
                  "peak_rss_bytes": 5000000, "stages": [stage, stage]}}))
"""


def make(tmp_path, gain, mcc=0.5):
    binary = tmp_path / "stand-in"
    calls, stop = tmp_path / "calls", tmp_path / "stop"
    text = STAND_IN.format(python=sys.executable, calls=calls, stop=stop, gain=gain, mcc=mcc)
    binary.write_text(text, "utf-8")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    data = tmp_path / "data"
    for task in ("cola", "sst2", "mrpc", "e2e"):
        (data / task).mkdir(parents=True)
        for split in ("train", "dev"):
            (data / task / f"{split}.jsonl").write_text('{"text":"a"}\n' * 9, "utf-8")
    return binary, calls, stop


def run(tmp_path, *options):
    command = [ROOT / "scripts" / "reproduce.sh", "--data", tmp_path / "data", "--rows", "4"]
    command += ["--binary", tmp_path / "stand-in", "--work", tmp_path / "work", "--model", "m"]
    command += ["--out", tmp_path / "results", "--jobs", "2", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_all_runs_are_made_once_and_a_stopped_series_goes_on(tmp_path):
    _, calls, stop = make(tmp_path, 0.01)
    stop.write_text("", "utf-8")
    tasks = ("--part", "cola", "--part", "mrpc", "--seeds", "2")
    assert "goes on from here" in run(tmp_path, *tasks).stderr
    assert 1 <= len(calls.read_text("utf-8").splitlines()) < 16
    stop.unlink()
    run(tmp_path, *tasks)
    lines = calls.read_text("utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 2 * 2 * len(reproduce.METHODS)
    assert all("--checkpoint" in line and "--resume" in line for line in lines)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert len(results["tasks"]) == len(lines)
    run(tmp_path, *tasks)
    assert calls.read_text("utf-8").splitlines() == lines  # nothing is done twice
    train = tmp_path / "work" / "rows-4" / "cola-train-4.jsonl"
    assert len(train.read_text("utf-8").splitlines()) == 4
    run(tmp_path, *tasks, "--part", "compute", "--part", "curve")
    page = (tmp_path / "results.md").read_text("utf-8")
    assert "Not run yet: e2e, pace, cola with 1 of 3 seeds, sst2 with 3 of 3 seeds" in page
    for heading in ("## cola", "## mrpc", "int8 forwards", "Quality against size", "## Claims"):
        assert heading in page
    assert "](results-curve.svg)" in page
    assert (tmp_path / "results-curve.svg").read_text("utf-8") == "<svg/>"
    assert "| SoRA r_max=8, 50% | 2 | 0.81" in page and "± 0.001 |" in page  # mrpc, two seeds


@pytest.mark.parametrize(("gain", "mcc", "answer"), [
    (0.01, 0.5, "holds"), (-0.2, 0.5, "does not hold"), (-0.03, 0.0, "learnt nothing"),
])  # fmt: skip
def test_claims_say_what_the_numbers_say(tmp_path, gain, mcc, answer):
    make(tmp_path, gain, mcc)
    done = run(tmp_path, "--part", "cola", "--seeds", "3")
    lines = [x for x in done.stdout.splitlines() if x.startswith("cola:")]
    assert len(lines) == len(reproduce.METHODS) - 1
    assert all(answer in line and "3 seeds" in line for line in lines), lines


def test_a_difference_within_its_error_is_called_that():
    def rows(values):
        evals = {"accuracy": 0.8, "mcc": 0.5, "examples": 400}
        return [{"seed": i, "quality": v, "eval": evals} for i, v in enumerate(values)]

    mean, error, seeds = reproduce.compare(rows([0.8, 0.82, 0.81]), rows([0.81, 0.80, 0.81]))
    assert seeds == 3 and abs(mean + 0.01 / 3) < 1e-12
    assert abs(error - 0.0152752523 / 3**0.5) < 1e-8
    assert reproduce.verdict(mean, error) == "below, by less than its standard error"
    # One seed: what a share of 400 rows is uncertain by, twice.
    mean, error, seeds = reproduce.compare(rows([0.8]), rows([0.7]))
    assert seeds == 1 and abs(error - (2 * 0.16 / 400) ** 0.5) < 1e-12
    plain, pruned = ([{**r, "metric": "mcc"} for r in rows([x])] for x in (0.1, 0.0))
    assert abs(reproduce.compare(plain, pruned)[1] - (2 / 400) ** 0.5) < 1e-12
    assert reproduce.verdict(mean, error) == "does not hold"
