# SPDX-License-Identifier: Apache-2.0
"""`sora-server bench`: what it prints, and what it refuses. No figure is judged here."""

import json

import pytest
from harness import THREADS, TINY, run_cli

SMALL = ("bench", "-m", TINY / "llama", "--threads", THREADS, "--steps", "3", "--batch", "1,16",
         "--prompts", "16,48", "--ranks", "4,ragged,zipf", "--adapters", "6", "--quiet")


def test_json_has_every_part():
    run = run_cli(*SMALL, "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["threads"] == int(THREADS)
    for key in ("sgemm_gflops", "stream_gbps", "load_seconds"):
        assert result[key] > 0, key
    assert [p["tokens"] for p in result["prefill"]] == [16, 48]
    assert [d["batch"] for d in result["decode"]] == [1, 16]
    assert [(m["ranks"], m["batch"]) for m in result["mixed"]] == [
        (r, b) for r in ("4", "ragged", "zipf") for b in (1, 16)]
    for row in result["prefill"] + result["decode"] + result["mixed"]:
        assert row["tok_per_s"] > 0
    split = result["step_split"]["base"]
    # Four figures, each rounded to six digits.
    assert sum(split.values()) == pytest.approx(1, abs=4 * 0.5e-6 + 1e-12)
    sums = [p["rank_sum"] for p in result["rank_sum"]["points"]]
    assert sums == sorted(sums) and len(set(sums)) == len(sums)
    assert 0 < result["sampling"]["greedy"] < 1


def test_only_the_parts_asked_for():
    run = run_cli(*SMALL, "--json", "--only", "decode")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["decode"] and not result.get("prefill") and not result.get("mixed")


def test_a_table_for_people():
    run = run_cli(*SMALL, "--only", "decode,prefill")
    assert run.returncode == 0, run.stderr
    assert "of sgemm" in run.stdout and "of stream" in run.stdout


@pytest.mark.parametrize("options, complaint", [
    (("--batch", "0"), "'0' is no number from 1 to 256"),
    (("--ranks", "wide"), "'wide' is neither a rank"),
    (("--only", "decode,everything"), "'everything' is none of"),
    (("--steps", "2"), "--steps"),
])
def test_bad_lists_are_wrong_usage(options, complaint):
    run = run_cli("bench", "-m", TINY / "llama", *options)
    assert run.returncode == 2
    assert complaint in run.stderr


def test_prompts_beyond_the_context_fail_by_name():
    run = run_cli("bench", "-m", TINY / "llama", "--prompts", "100000", "--quiet")
    assert run.returncode == 1
    assert "100000" in run.stderr and "context" in run.stderr
