# SPDX-License-Identifier: Apache-2.0
"""How training computes on the default model: int8 forwards, activations computed again."""

import json

from harness import THREADS, run_cli
from test_train_runs import as_json, steps_of


def test_recomputing_takes_less_memory(model_path, tmp_path):
    """400 tokens in one step: 30 layers' activations are well over what the base takes besides."""
    with open(tmp_path / "long.jsonl", "w", encoding="utf-8") as out:
        tokens = [(7 * i) % 1000 for i in range(400)]
        out.write(json.dumps({"tokens": tokens, "loss_from": 390}) + "\n")
    command = ("train", "--model", model_path, "--data", tmp_path / "long.jsonl", "--json")
    command += ("--epochs", "1", "--threads", THREADS, "--out", tmp_path / "a.safetensors")
    kept = as_json(run_cli(*command, check=0))
    again = as_json(run_cli(*command, "--recompute", check=0))
    assert again["digest"] == kept["digest"]
    assert again["peak_rss_bytes"] < 0.8 * kept["peak_rss_bytes"]


def test_int8_learns_on_what_serving_computes(model_path, tmp_path):
    lines = [("red", " apple"), ("blue", " sky"), ("green", " leaf"), ("white", " snow")]
    with open(tmp_path / "few.jsonl", "w", encoding="utf-8") as out:
        for prompt, completion in lines:
            out.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    command = ("train", "--model", model_path, "--data", tmp_path / "few.jsonl", "--json")
    command += ("--epochs", "10", "--batch-tokens", "8", "--rank", "4", "--lr", "5e-3")
    command += ("--checkpoint", tmp_path / "ck", "--resume", "--threads", THREADS)
    losses = {}
    for compute in ("f32", "int8"):
        name = tmp_path / f"{compute}.safetensors"
        options = ("--compute", compute, "--out", name, "--log", tmp_path / f"{compute}.jsonl")
        if compute == "int8":
            # The checkpoint of the f32 run is another run's.
            refused = run_cli(*command, *options, check=1)
            assert 'compute was "f32", is "int8"' in refused.stderr
            (tmp_path / "ck" / "checkpoint.safetensors").unlink()
        as_json(run_cli(*command, *options, check=0))
        losses[compute] = [x["loss"] for x in steps_of(tmp_path / f"{compute}.jsonl")]
    # The first step moves nothing yet: the same adapter, computed in two ways.
    assert losses["int8"][0] != losses["f32"][0]
    assert abs(losses["int8"][0] - losses["f32"][0]) < 0.02 * losses["f32"][0]
    assert sum(losses["int8"][-4:]) < 0.5 * sum(losses["int8"][:4])  # and it learns
