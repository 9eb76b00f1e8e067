# SPDX-License-Identifier: Apache-2.0
"""The command line: train, eval, inspect, import, export, complete, and their exit codes."""

import hashlib
import json
import pathlib
import random
import re

import numpy
import pytest
import safetensors.numpy
from harness import (
    GOLDEN,
    THREADS,
    TINY,
    Server,
    adapter_bytes,
    effective_scale,
    golden,
    run_cli,
    split_file,
)

LLAMA = TINY / "llama"
ADAPTERS = ["uniform-r4-qv", "rslora-r8-attn", "ragged", "ragged-alpha"]
QUICK = ("--threads", THREADS, "--epochs", "16", "--batch-tokens", "128", "--lr", "1e-2")


def as_json(run):
    """The one line of JSON on standard output."""
    lines = run.stdout.strip().splitlines()
    assert len(lines) == 1, run.stdout
    return json.loads(lines[0])


def write_data(path, count=24, seed=1):
    """A task that is easy to learn: after 100+k comes 200+k, three times."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            k = rng.randrange(8)
            tokens = [5, 6, 100 + k, 200 + k, 200 + k, 200 + k, 2]
            out.write(json.dumps({"tokens": tokens, "loss_from": 3}) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, what `train --json` printed) of a short run."""
    folder = tmp_path_factory.mktemp("train")
    data = write_data(folder / "data.jsonl")
    evaluation = write_data(folder / "dev.jsonl", 8, 2)
    out = folder / "a.safetensors"
    options = ("--eval-data", evaluation, "--log", folder / "log.jsonl", "--json", *QUICK)
    run = run_cli("train", "--model", LLAMA, "--data", data, "--out", out, *options, check=0)
    return folder, as_json(run)


@pytest.mark.sanitizer
def test_train_reports_what_it_made(trained):
    folder, result = trained
    for key in ("steps tokens scored_tokens seconds tokens_per_second loss parameters "
                "parameters_full kept peak_rss_bytes out digest eval").split():  # fmt: skip
        assert key in result, key
    data = (folder / "a.safetensors").read_bytes()
    assert result["digest"] == hashlib.sha256(data).hexdigest()
    assert result["steps"] > 0 and 0 < result["parameters"] <= result["parameters_full"]
    assert result["kept"] == pytest.approx(result["parameters"] / result["parameters_full"])
    steps = [json.loads(x) for x in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    evaluations = [s for s in steps if "eval" in s]
    steps = [s for s in steps if "eval" not in s]
    assert [s["step"] for s in steps] == list(range(1, result["steps"] + 1))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert evaluations[-1]["eval"]["loss"] == pytest.approx(result["eval"]["loss"])


@pytest.mark.sanitizer
def test_the_trained_file_is_ours_and_pefts(trained):
    folder, result = trained
    header, body = split_file((folder / "a.safetensors").read_bytes())
    metadata = header.pop("__metadata__")
    assert metadata["format"] == "sora-adapter" and metadata["format_version"] == "1"
    assert all(isinstance(v, str) for v in metadata.values())
    config = json.loads(metadata["adapter_config"])
    assert config["peft_type"] == "LORA" and config["r"] == 16
    training = json.loads(metadata["training"])
    assert training["method"] == "sora" and training["r_max"] == 16
    base = json.loads(metadata["base"])
    assert base["architecture"] == "llama" and len(base["fingerprint"]) == 64
    numbers = 0
    for name, tensor in header.items():
        match = re.fullmatch(
            r"base_model\.model\.(model\.layers\.\d+\.(?:self_attn|mlp)\.\w+)"
            r"\.lora_(A|B)\.weight", name
        )  # fmt: skip
        assert match, name
        rank = tensor["shape"][0 if match.group(2) == "A" else 1]
        assert 0 < rank <= 16 and config["rank_pattern"][match.group(1)] == rank
        # The scale of training is kept exactly.
        assert effective_scale(config, match.group(1), rank) == 2.0
        numbers += tensor["shape"][0] * tensor["shape"][1]
    assert numbers == result["parameters"]
    assert sum(t["data_offsets"][1] - t["data_offsets"][0] for t in header.values()) == len(body)


@pytest.mark.sanitizer
def test_training_again_gives_the_same_bytes(trained, tmp_path):
    folder, result = trained
    out = tmp_path / "again.safetensors"
    options = ("--eval-data", folder / "dev.jsonl", "--json", *QUICK)
    arguments = ("--model", LLAMA, "--data", folder / "data.jsonl", "--out", out, *options)
    assert as_json(run_cli("train", *arguments, check=0))["digest"] == result["digest"]
    other = as_json(run_cli("train", *arguments, "--seed", "5", check=0))
    assert other["digest"] != result["digest"]


@pytest.mark.sanitizer
def test_eval_shows_what_was_learnt(trained):
    folder, result = trained
    options = ("--model", LLAMA, "--data", folder / "dev.jsonl", "--json")
    base = as_json(run_cli("eval", *options, check=0))
    tuned = as_json(run_cli("eval", *options, "--adapter", folder / "a.safetensors", check=0))
    for key in ("examples", "tokens", "loss", "perplexity", "seconds"):
        assert key in tuned, key
    assert tuned["examples"] == 8 and tuned["tokens"] == 8 * 4
    assert tuned["loss"] < base["loss"] - 0.5
    assert tuned["loss"] == pytest.approx(result["eval"]["loss"], abs=1e-4)
    assert as_json(run_cli("eval", *options, "--limit", "3", check=0))["examples"] == 3


@pytest.mark.sanitizer
def test_what_train_writes_serves_as_it_is(trained, tmp_path):
    folder, result = trained
    data = (folder / "a.safetensors").read_bytes()
    with Server(LLAMA, tmp_path / "store") as server:
        card = server.put("trained", data)
        assert card["digest"] == result["digest"] and card["parameters"] == result["parameters"]
        assert card["training"]["method"] == "sora"
        assert server.http.get("/v1/adapters/trained/content").content == data
        prompt = [5, 6, 103]
        served = server.greedy(prompt, 3, model="trained")
        assert served == [203, 203, 203]
    run = run_cli("complete", "--model", LLAMA, "--adapter", folder / "a.safetensors",
                  "--tokens", "5,6,103", "--max-tokens", "3", "--temperature", "0",
                  check=0)  # fmt: skip
    assert [int(x) for x in re.findall(r"\d+", run.stdout)] == served


@pytest.mark.sanitizer
def test_a_schedule_and_plain_lora_train(tmp_path):
    data = write_data(tmp_path / "d.jsonl", 8)
    fixed = ("--model", LLAMA, "--data", data, "--json", *QUICK[:2], "--epochs", "1")
    out = tmp_path / "s.safetensors"
    schedule = ("--xi-schedule", "linear:0:1e-1:3", "--out", out)
    pruned = as_json(run_cli("train", *fixed, *schedule, check=0))
    lora = ("--method", "lora", "--rank", "4", "--alpha", "8", "--targets", "q,v")
    out = tmp_path / "l.safetensors"
    plain = as_json(run_cli("train", *fixed, *lora, "--out", out, check=0))
    assert pruned["kept"] < 1 and plain["kept"] == 1
    header, _ = split_file(out.read_bytes())
    layers = golden("tiny", "llama", "config.json")["num_hidden_layers"]
    assert len(header) - 1 == 2 * 2 * layers


@pytest.mark.sanitizer
@pytest.mark.parametrize(
    "line",
    ["not json", "{}", "[]", '{"prompt": 7, "completion": "x"}', '{"tokens": []}',
     '{"tokens": [1, 999999], "loss_from": 1}', '{"tokens": [1, 2], "loss_from": 9}',
     '{"tokens": "x"}'],
)  # fmt: skip
def test_a_bad_data_line_is_named_and_nothing_is_trained(tmp_path, line):
    data = write_data(tmp_path / "data.jsonl", 6)
    data.write_text(data.read_text("utf-8") + line + "\n", "utf-8")
    out = tmp_path / "a.safetensors"
    run = run_cli("train", "--model", LLAMA, "--data", data, "--out", out, timeout=60)
    assert run.returncode == 1 and not out.exists()
    assert "data.jsonl" in run.stderr and "line 7" in run.stderr, run.stderr


@pytest.mark.sanitizer
def test_an_empty_data_file_is_an_error(tmp_path):
    data = tmp_path / "none.jsonl"
    data.write_text("", "utf-8")
    out = tmp_path / "a.safetensors"
    run = run_cli("train", "--model", LLAMA, "--data", data, "--out", out, timeout=60)
    assert run.returncode == 1 and "none.jsonl" in run.stderr and not out.exists()


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.sanitizer
def test_import_and_export_keep_every_scale_and_number(tmp_path, name):
    source = GOLDEN / "adapters" / name
    out, folder = tmp_path / "a.safetensors", tmp_path / "peft"
    said = as_json(run_cli("import", source, "--out", out, "--json", check=0))
    assert said["digest"] == hashlib.sha256(out.read_bytes()).hexdigest()
    run_cli("export", out, "--out", folder, "--format", "peft", check=0)
    before, after = load_peft(source), load_peft(folder)
    assert before.keys() == after.keys()
    for module, (scale, a, b) in before.items():
        assert after[module][0] == pytest.approx(scale, rel=1e-12), module
        assert numpy.array_equal(after[module][1], a) and numpy.array_equal(after[module][2], b)
    assert said["modules"] == len(before)
    assert said["parameters"] == sum(a.size + b.size for _, a, b in before.values())
    again = tmp_path / "b.safetensors"
    run_cli("import", folder, "--out", again, check=0)
    assert again.read_bytes() == out.read_bytes()


def load_peft(folder):
    """module -> (scale as PEFT computes it, A, B) of an adapter folder."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = tensors[name.replace("lora_A", "lora_B")]
            found[module] = (effective_scale(config, module, a.shape[0]), a, b)
    return found


@pytest.mark.sanitizer
def test_inspect_describes_an_adapter(tmp_path):
    out = tmp_path / "a.safetensors"
    run_cli("import", GOLDEN / "adapters" / "ragged", "--out", out, check=0)
    told = as_json(run_cli("inspect", out, "--json", check=0))
    modules = load_peft(GOLDEN / "adapters" / "ragged")
    assert told["digest"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert told["bytes"] == out.stat().st_size and len(told["modules"]) == len(modules)
    for key in ("format", "parameters", "rank_mean", "rank_max"):
        assert key in told, key
    for module in told["modules"]:
        assert {"layer", "module", "rank", "alpha", "scale"} <= module.keys()
    assert told["rank_max"] == max(a.shape[0] for _, a, _ in modules.values())
    table = run_cli("inspect", out, check=0).stdout
    assert "q_proj" in table or re.search(r"\bq\b", table)
    assert run_cli("inspect", GOLDEN / "adapters" / "ragged", check=0).stdout


@pytest.mark.sanitizer
def test_inspect_describes_a_model_folder():
    told = as_json(run_cli("inspect", LLAMA, "--json", check=0))
    config = golden("tiny", "llama", "config.json")
    assert told["architecture"] == "llama" and told["layers"] == config["num_hidden_layers"]
    assert told["hidden"] == config["hidden_size"]
    names = {t["name"]: t for t in told["tensors"]}
    assert names["model.embed_tokens.weight"]["shape"] == [320, 64]
    assert run_cli("inspect", LLAMA, check=0).stdout


def test_inspect_describes_a_gguf(model_path):
    told = as_json(run_cli("inspect", model_path, "--json", check=0))
    assert told["architecture"] == "llama" and told["layers"] == 30 and told["hidden"] == 576
    assert any(t["type"] == "Q4_1" for t in told["tensors"])


@pytest.mark.sanitizer
@pytest.mark.parametrize("damage", ["cut", "noise", "missing"])
@pytest.mark.parametrize("command", ["inspect", "import"])
def test_a_damaged_adapter_is_named(tmp_path, tiny_config, damage, command):
    path = tmp_path / "bad.safetensors"
    if damage != "missing":
        data = adapter_bytes(tiny_config, 1)
        path.write_bytes(data[:-5] if damage == "cut" else bytes(range(256)) * 9)
    extra = ("--out", tmp_path / "out") if command == "import" else ()
    run = run_cli(command, path, *extra, timeout=60)
    assert run.returncode == 1 and "bad.safetensors" in run.stderr, run.stderr
    assert not (tmp_path / "out").exists()


def test_complete_equals_the_server(model_path, base):
    prompt = "The capital of France is"
    run = run_cli("complete", "--model", model_path, "--prompt", prompt, "--max-tokens", "12",
                  "--temperature", "0", check=0)  # fmt: skip
    served = base.ask({"prompt": prompt, "max_tokens": 12, "temperature": 0})
    assert run.stdout.strip().removeprefix(prompt).strip() == served["choices"][0]["text"].strip()


@pytest.mark.sanitizer
def test_help_and_version():
    assert re.search(r"\d+\.\d+", run_cli("--version", check=0).stdout)
    everything = run_cli("--help", check=0).stdout
    for command in ("serve", "train", "eval", "complete", "inspect", "import", "export"):
        assert command in everything
        assert "--" in run_cli(command, "--help", check=0).stdout


@pytest.mark.sanitizer
@pytest.mark.parametrize(
    "arguments, nearest",
    [
        ((), None), (("srve",), "serve"), (("trian",), "train"),
        (("train", "--modle", "x"), "model"),
        (("serve", "--model", "x", "--prot", "1"), "port"), (("train",), None), (("eval",), None),
        (("inspect",), None), (("import", "x"), None), (("inspect", "a", "b"), None),
        (("train", "--model", "m", "--data", "d", "--out", "o", "--rank", "x"), None),
        (("train", "--model", "m", "--data", "d", "--out", "o", "--rank", "0"), None),
        (("train", "--model", "m", "--data", "d", "--out", "o", "--xi-schedule", "x:1"), None),
        (("train", "--model", "m", "--data", "d", "--out", "o", "--targets", "q,z"), None),
        (("serve", "--model", "m", "--port", "99999"), None),
        (("serve", "--model", "m", "--port", "x"), None),
        (("export", "x", "--out", "o", "--format", "zip"), None),
    ],
)  # fmt: skip
def test_wrong_usage_is_2_and_names_the_nearest(arguments, nearest):
    run = run_cli(*arguments, timeout=60)
    assert run.returncode == 2, f"exit {run.returncode}\n{run.stdout}\n{run.stderr}"
    assert run.stderr.strip() and not run.stdout.strip()
    assert nearest is None or nearest in run.stderr, run.stderr


@pytest.mark.sanitizer
def test_an_output_that_cannot_be_written_is_named(tmp_path):
    out = tmp_path / "no" / "such" / "folder" / "a.safetensors"
    run = run_cli("import", GOLDEN / "adapters" / "uniform-r4-qv", "--out", out, timeout=60)
    assert run.returncode == 1 and "folder" in run.stderr and not pathlib.Path(out).exists()


def peak_bytes(path, out):
    options = ("--epochs", "1e-3", "--batch-tokens", "7", "--rank", "1", "--json", *QUICK[:2])
    result = as_json(run_cli("train", "--model", LLAMA, "--data", path, "--out", out, *options))
    return result["peak_rss_bytes"], result["data"]["examples"]


def test_memory_does_not_grow_with_the_data(tmp_path):
    """96 MB of lines take 2 MB of places, not their own size."""
    line = json.dumps({"tokens": [5, 6, 100, 200, 2], "loss_from": 3, "note": "x" * 2000}) + "\n"
    small, large = tmp_path / "s.jsonl", tmp_path / "l.jsonl"
    small.write_text(line * 1000, "utf-8")
    large.write_text(line * 48000, "utf-8")
    before, few = peak_bytes(small, tmp_path / "a.safetensors")
    after, many = peak_bytes(large, tmp_path / "a.safetensors")
    assert (few, many) == (1000, 48000)
    assert after - before < 16 << 20, (before, after)
