# SPDX-License-Identifier: Apache-2.0
"""Training runs as a person has them: budgets, killed and resumed runs, ladders, data reports."""

import json
import pathlib
import random
import signal
import subprocess
import time
import xml.etree.ElementTree

import pytest
from harness import BINARY, THREADS, TINY, run_cli

pytestmark = pytest.mark.sanitizer
LLAMA = TINY / "llama"


def as_json(run):
    lines = run.stdout.strip().splitlines()
    assert len(lines) == 1, run.stdout
    return json.loads(lines[0])


def write_data(path, count=24, seed=1, answers=3):
    """After 100+k comes 200+k, `answers` times."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            k = rng.randrange(8)
            tokens = [5, 6, 100 + k, *[200 + k] * answers, 2]
            out.write(json.dumps({"tokens": tokens, "loss_from": 3}) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_data(folder / "train.jsonl"), write_data(folder / "dev.jsonl", 8, 2)


def train(data, out, *options, check=0, timeout=300):
    command = ("train", "--model", LLAMA, "--data", data[0], "--out", out, "--threads", THREADS)
    return run_cli(*command, "--json", *options, check=check, timeout=timeout)


def steps_of(log):
    """The log's lines without what is a matter of time."""
    lines = [json.loads(x) for x in pathlib.Path(log).read_text("utf-8").splitlines()]
    for line in lines:
        for key in ("seconds", "tokens_per_second"):
            line.pop(key, None)
            line.get("eval", {}).pop(key, None)
    return lines


# A run that takes a while on any machine: its steps are small and many.
LONG = ("--epochs", "60", "--batch-tokens", "14", "--lr", "1e-2", "--target-params", "40%",
        "--dropout", "0.1", "--eval-every", "97", "--seed", "7")  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    options = ("--eval-data", data[1], "--log", folder / "log.jsonl", *LONG)
    result = as_json(train(data, folder / "a.safetensors", *options))
    return folder, result


def start(data, folder, *options, every="3"):
    command = [BINARY, "train", "--model", LLAMA, "--data", data[0], "--eval-data", data[1]]
    command += ["--out", folder / "a.safetensors", "--log", folder / "log.jsonl", "--json"]
    command += ["--threads", THREADS, "--checkpoint", folder / "ck", "--checkpoint-every", every]
    return subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_steps(process, log, count):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} lines in {log}")


@pytest.mark.parametrize("kills", [(20,), (7, 150, 300)])
def test_a_killed_run_resumes_to_the_same_bytes(data, uninterrupted, tmp_path, kills):
    whole, result = uninterrupted
    for lines in kills:
        process = start(data, tmp_path, *LONG, "--resume")
        wait_for_steps(process, tmp_path / "log.jsonl", lines)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "a.safetensors").exists()
    process = start(data, tmp_path, *LONG, "--resume")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "goes on after step" in err
    resumed = json.loads(out)
    assert resumed["digest"] == result["digest"] and resumed["loss"] == result["loss"]
    mine, theirs = tmp_path / "a.safetensors", whole / "a.safetensors"
    assert mine.read_bytes() == theirs.read_bytes()
    assert steps_of(tmp_path / "log.jsonl") == steps_of(whole / "log.jsonl")
    assert [p.name for p in (tmp_path / "ck").iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_saves_and_leaves(data, uninterrupted, tmp_path, number, code):
    whole, result = uninterrupted
    process = start(data, tmp_path, *LONG, every="100000")
    wait_for_steps(process, tmp_path / "log.jsonl", 25)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "goes on from there" in err and str(tmp_path / "ck") in err
    process = start(data, tmp_path, *LONG, "--resume")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["digest"] == result["digest"]
    assert steps_of(tmp_path / "log.jsonl") == steps_of(whole / "log.jsonl")


def test_a_checkpoint_in_the_way_or_of_another_run_is_refused(data, tmp_path):
    out, log = tmp_path / "a.safetensors", tmp_path / "log.jsonl"
    fixed = ("--checkpoint", tmp_path / "ck", "--log", log, "--epochs", "1")
    train(data, out, *fixed, "--lr", "1e-2")
    said = log.read_bytes()
    run = train(data, out, *fixed, "--lr", "1e-2", check=1)
    assert "resume" in run.stderr
    run = train(data, out, *fixed, "--lr", "2e-2", "--rank", "8", "--resume", check=1)
    assert 'lr was "0.01' in run.stderr and 'rank was "16", is "8"' in run.stderr, run.stderr
    other = write_data(tmp_path / "other.jsonl", 24, 9)
    run = train((other,), out, *fixed, "--lr", "1e-2", "--resume", check=1)
    assert "data was" in run.stderr
    assert log.read_bytes() == said, "a refused run changed the log of the earlier one"
    again = as_json(train(data, out, *fixed, "--lr", "1e-2", "--resume"))
    assert again["steps"] > 0


def test_by_default_half_of_the_parameters_are_left(data, tmp_path):
    for options in ((), ("--epochs", "1"), ("--epochs", "40", "--batch-tokens", "64")):
        result = as_json(train(data, tmp_path / "a.safetensors", *options))
        assert 0.485 <= result["kept"] <= 0.5, (options, result["kept"])


@pytest.mark.parametrize("epochs", ["0.05", "1", "25"])
@pytest.mark.parametrize("lr", ["1e-4", "5e-2"])
@pytest.mark.parametrize("target", ["30%", "80%", "9000"])
def test_a_budget_holds_whatever_the_length_and_the_rates(data, tmp_path, epochs, lr, target):
    options = ["--epochs", epochs, "--lr", lr, "--gate-lr", lr, "--batch-tokens", "21"]
    result = as_json(train(data, tmp_path / "a.safetensors", *options, "--target-params", target))
    full = result["parameters_full"]
    budget = float(target[:-1]) / 100 * full if target.endswith("%") else float(target)
    assert 0.97 * budget <= result["parameters"] <= budget, (result["parameters"], budget)


def test_a_budget_holds_with_the_references_threshold(data, tmp_path):
    options = ("--target-params", "50%", "--threshold", "reference", "--epochs", "5")
    result = as_json(train(data, tmp_path / "a.safetensors", *options, "--gate-lr", "1e-2"))
    assert 0.485 <= result["kept"] <= 0.5


LADDER = ("--xi-schedule", "linear:0:2e-1:4", "--epochs", "2", "--lr", "1e-2",
          "--batch-tokens", "64")  # fmt: skip


def test_a_schedule_leaves_an_adapter_for_every_stage_and_a_picture(data, tmp_path):
    out = tmp_path / "a.safetensors"
    result = as_json(train(data, out, "--eval-data", data[1], *LADDER))
    stages = result["stages"]
    assert [s["stage"] for s in stages] == [1, 2, 3, 4] and result["picked"] == 4
    kept = [s["parameters"] for s in stages]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1]
    for i, stage in enumerate(stages, 1):
        assert stage["out"] == str(tmp_path / f"a.xi-{i:04d}.safetensors")
        seen = as_json(run_cli("inspect", stage["out"], "--json", check=0))
        assert seen["parameters"] == stage["parameters"]
        assert seen["training"]["stage"] == i
        scored = run_cli("eval", "--model", LLAMA, "--adapter", stage["out"], "--data", data[1],
                         "--json", "--threads", THREADS, check=0)  # fmt: skip
        assert as_json(scored)["loss"] == pytest.approx(stage["eval"]["loss"], abs=1e-6)
    assert out.read_bytes() == pathlib.Path(stages[-1]["out"]).read_bytes()
    picture = xml.etree.ElementTree.parse(result["ladder"]).getroot()
    circles = [c for c in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(circles) == 4 + 1  # the picked one has a ring
    assert "http" not in pathlib.Path(result["ladder"]).read_text("utf-8").replace(
        "http://www.w3.org/2000/svg", ""
    )


@pytest.mark.parametrize(
    "pick",
    [("--pick", "best"), ("--pick", "smallest-within", "5%"), ("--pick", "smallest-within 5%"),
     ("--pick=smallest-within=5%",)],
)  # fmt: skip
def test_pick_chooses_what_goes_out(data, tmp_path, pick):
    out = tmp_path / "a.safetensors"
    result = as_json(train(data, out, "--eval-data", data[1], *LADDER, *pick))
    losses = [s["eval"]["loss"] for s in result["stages"]]
    best = min(losses)
    if pick[1:] == ("best",):
        want = losses.index(best)
    else:
        near = [i for i, loss in enumerate(losses) if loss <= best * 1.05]
        want = min(near, key=lambda i: result["stages"][i]["parameters"])
    chosen = result["stages"][want]
    assert result["picked"] == want + 1
    assert out.read_bytes() == pathlib.Path(chosen["out"]).read_bytes()
    assert result["parameters"] == chosen["parameters"]
    assert result["eval"]["loss"] == chosen["eval"]["loss"]


def test_cut_ranks_change_little_and_kept_ones_may_return(data, tmp_path):
    cut = as_json(train(data, tmp_path / "a.safetensors", *LADDER))
    kept = as_json(train(data, tmp_path / "b.safetensors", *LADDER, "--keep-ranks"))
    assert cut["stages"][0]["parameters"] == kept["stages"][0]["parameters"]
    assert cut["parameters_full"] == kept["parameters_full"]
    assert abs(cut["loss"] - kept["loss"]) < 0.5


def test_patience_stops_early(data, tmp_path):
    options = ("--epochs", "50", "--lr", "0", "--gate-lr", "0", "--xi", "0", "--lambda", "0",
               "--eval-every", "2", "--patience", "2")  # fmt: skip
    result = as_json(train(data, tmp_path / "a.safetensors", "--eval-data", data[1], *options))
    assert result["steps"] == 6
    run = train(data, tmp_path / "a.safetensors", "--eval-every", "2", check=2)
    assert "--eval-data" in run.stderr


def test_a_plain_lora_is_compared_with(data, tmp_path):
    lora, out = tmp_path / "lora.safetensors", tmp_path / "a.safetensors"
    fixed = ("--eval-data", data[1], "--epochs", "10", "--lr", "1e-2")
    plain = as_json(train(data, lora, *fixed, "--method", "lora"))
    result = as_json(train(data, out, *fixed, "--compare", lora))
    assert result["compare"]["other"]["parameters"] == plain["parameters"]
    assert result["compare"]["other"]["eval"]["loss"] == pytest.approx(plain["eval"]["loss"])
    assert result["compare"]["base"]["eval"]["loss"] > plain["eval"]["loss"]
    shown = run_cli("train", "--model", LLAMA, "--data", data[0], "--out", out, *fixed,
                    "--compare", lora, "--threads", THREADS, check=0).stdout  # fmt: skip
    assert "this one" in shown and "lora" in shown
    run = train(data, out, "--compare", tmp_path / "none.safetensors", check=1)
    assert "none.safetensors" in run.stderr


def test_one_bad_line_in_ten_thousand_is_named(tmp_path):
    path = write_data(tmp_path / "d.jsonl", 10000)
    lines = path.read_text("utf-8").splitlines()
    lines[7776] = lines[7776].replace("200", "200000").replace("[5", "[-5")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    out = tmp_path / "a.safetensors"
    run = train((path,), out, "--log", tmp_path / "log.jsonl", check=1)
    assert "d.jsonl line 7777" in run.stderr, run.stderr
    assert not out.exists() and not (tmp_path / "log.jsonl").read_bytes()


def test_long_examples_are_cut_only_when_told_to(tmp_path):
    path = write_data(tmp_path / "d.jsonl", 6)
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps({"tokens": [5, 6, *range(100, 140)], "loss_from": 2}) + "\n")
    out = tmp_path / "a.safetensors"
    run = train((path,), out, "--example-tokens", "20", check=1)
    assert "d.jsonl line 7" in run.stderr and "20 tokens" in run.stderr
    run = train((path,), out, "--example-tokens", "20", "--cut", "--epochs", "1")
    data = as_json(run)["data"]
    assert data == {"examples": 7, "tokens": 62, "scored_tokens": 42, "longest": 20, "cut": 1}
    assert "1 cut" in run.stderr and "42 of them scored" in run.stderr


def test_recomputing_gives_the_same_file(data, tmp_path):
    options = ("--epochs", "4", "--batch-tokens", "70", "--dropout", "0.1")
    kept = as_json(train(data, tmp_path / "a.safetensors", *options))
    again = as_json(train(data, tmp_path / "b.safetensors", *options, "--recompute"))
    assert again["digest"] == kept["digest"]
    assert again["loss"] == kept["loss"]
