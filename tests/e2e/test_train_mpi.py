# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training under mpirun: losses as of one process, one writer, failures, resuming."""

import os
import pathlib
import signal
import subprocess
import time

from harness import BINARY
from test_train_runs import LLAMA, as_json, steps_of, write_data

# As root too (containers), without ssh, and with more processes than processors.
MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
          "--mca", "plm", "isolated", "--mca", "btl", "self,vader,tcp")  # fmt: skip
COMMON = ("--threads", "1", "--batch-tokens", "70", "--seed", "5", "--lr", "5e-3")


def words(folder, data, *options):
    command = [BINARY, "train", "--model", LLAMA, "--data", data, "--out", folder / "a.safetensors"]
    return [*map(str, command), "--log", str(folder / "log.jsonl"), "--json", *COMMON, *options]


def run(folder, data, processes, *options, check=0):
    folder.mkdir(exist_ok=True)
    launcher = (*MPIRUN, "-n", str(processes)) if processes > 1 else ()
    done = subprocess.run([*launcher, *words(folder, data, *options)], capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == check, done.stderr
    return done


def test_two_processes_compute_what_one_does(tmp_path):
    data = write_data(tmp_path / "train.jsonl", 60)
    dev = write_data(tmp_path / "dev.jsonl", 8, 2)
    options = ("--epochs", "8", "--eval-data", str(dev), "--eval-every", "5")
    results, logs = [], []
    for processes in (1, 2, 3):
        folder = tmp_path / str(processes)
        results.append(as_json(run(folder, data, processes, *options)))
        logs.append([x for x in steps_of(folder / "log.jsonl") if "eval" not in x])
    assert len(logs[0]) == results[0]["steps"] >= 40
    for result, log in zip(results[1:], logs[1:]):
        assert [x["step"] for x in log] == [x["step"] for x in logs[0]]
        assert [x["tokens"] for x in log] == [x["tokens"] for x in logs[0]]
        assert max(abs(x["loss"] - y["loss"]) for x, y in zip(log, logs[0])) <= 1e-4
        assert result["parameters"] == results[0]["parameters"]
        assert abs(result["eval"]["loss"] - results[0]["eval"]["loss"]) <= 1e-3


def test_a_bad_line_ends_all_of_them(tmp_path):
    data = write_data(tmp_path / "train.jsonl", 10)
    with open(data, "a", encoding="utf-8") as out:
        out.write('{"prompt": 1}\n')
    done = run(tmp_path / "out", data, 2, check=1)
    assert "train.jsonl line 11" in done.stderr
    assert not (tmp_path / "out" / "a.safetensors").exists()


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [int(x) for x in tasks]


def test_a_killed_process_ends_the_run_and_the_checkpoint_goes_on(tmp_path):
    data = write_data(tmp_path / "train.jsonl", 60)
    long_run = ("--epochs", "60")
    whole = as_json(run(tmp_path / "whole", data, 2, *long_run))
    folder = tmp_path / "killed"
    folder.mkdir()
    options = (*long_run, "--checkpoint", str(folder / "ck"), "--checkpoint-every", "3")
    process = subprocess.Popen([*MPIRUN, "-n", "2", *words(folder, data, *options)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "ck" / "checkpoint.safetensors").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    assert not (folder / "a.safetensors").exists()
    resumed = as_json(run(folder, data, 2, *options, "--resume"))
    assert resumed["digest"] == whole["digest"]
    assert steps_of(folder / "log.jsonl") == steps_of(tmp_path / "whole" / "log.jsonl")
