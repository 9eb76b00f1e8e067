# SPDX-License-Identifier: Apache-2.0
"""What we write is what PEFT reads: run by `scripts/test.sh --peft`, with the real libraries."""

import json
import shutil

import gguf_file
import numpy
import pytest
from harness import THREADS, TINY, Server, adapter_bytes, by_token_id, run_cli

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LLAMA = TINY / "llama"
PROMPTS = [[7, 8, 9, 10], list(range(20, 60)), [300]]


def train(folder, *options):
    data, out = folder / "data.jsonl", folder / "a.safetensors"
    lines = [{"tokens": [5, 6, 100 + k, 200 + k, 2], "loss_from": 3} for k in range(8)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run_cli("train", "--model", LLAMA, "--data", data, "--out", out, "--threads", THREADS,
            "--lr", "1e-2", *options, check=0)  # fmt: skip
    return out


def reference(folder, prompts):
    """Log-probabilities [vocab] after each prompt by PEFT, in float32."""
    base = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, folder)
    model.eval()
    result = []
    with torch.no_grad():
        for prompt in prompts:
            logits = model(torch.tensor([prompt])).logits[0, -1]
            result.append(torch.log_softmax(logits.double(), -1).numpy())
    return result


def check_against_peft(adapter, folder, store):
    expected = reference(folder, PROMPTS)
    plain = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    with torch.no_grad():
        base = torch.log_softmax(plain(torch.tensor([PROMPTS[0]])).logits[0, -1].double(), -1)
    assert numpy.abs(base.numpy() - expected[0]).max() > 0.01, "the adapter must do something"
    with Server(LLAMA, store) as server:
        server.put("a", adapter.read_bytes())
        for prompt, values in zip(PROMPTS, expected):
            body = {
                "model": "a", "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 20,
                "return_tokens_as_token_ids": True,
            }  # fmt: skip
            top = server.ask(body)["choices"][0]["logprobs"]["top_logprobs"][0]
            for token, value in by_token_id(top).items():
                assert abs(values[token] - value) <= 1e-3


@pytest.mark.parametrize("options", [(), ("--xi", "0.2"), ("--method", "lora")])
def test_a_trained_adapter_computes_the_same_in_peft(tmp_path, options):
    adapter = train(tmp_path, *options)
    run_cli("export", adapter, "--out", tmp_path / "peft", "--format", "peft", check=0)
    check_against_peft(adapter, tmp_path / "peft", tmp_path / "store")


def test_our_file_is_pefts_weights_file_as_it_stands(tmp_path):
    adapter = train(tmp_path)
    run_cli("export", adapter, "--out", tmp_path / "peft", "--format", "peft", check=0)
    shutil.copy(adapter, tmp_path / "peft" / "adapter_model.safetensors")
    check_against_peft(adapter, tmp_path / "peft", tmp_path / "store")


def test_ragged_ranks_compute_the_same_in_peft(tmp_path, tiny_config):
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes(adapter_bytes(tiny_config, 4))
    run_cli("export", adapter, "--out", tmp_path / "peft", "--format", "peft", check=0)
    check_against_peft(adapter, tmp_path / "peft", tmp_path / "store")


def merged_logprobs(folder, prompts):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    with torch.no_grad():
        return [
            torch.log_softmax(model(torch.tensor([p])).logits[0, -1].double(), -1).numpy()
            for p in prompts
        ]


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_transformers_computes_the_same_with_a_merged_model(tmp_path, tiny_config, source):
    adapter, base = tmp_path / "a.safetensors", LLAMA
    adapter.write_bytes(adapter_bytes(tiny_config, 4))
    if source == "gguf":
        base = tmp_path / "base.gguf"
        base.write_bytes(gguf_file.model(LLAMA))
    run_cli("export", adapter, "--out", tmp_path / "peft", check=0)
    run_cli("export", adapter, "--merge", "--model", base, "--out", tmp_path / "merged", check=0)
    for found, expected in zip(
        merged_logprobs(tmp_path / "merged", PROMPTS), reference(tmp_path / "peft", PROMPTS)
    ):
        assert numpy.abs(found - expected).max() <= 1e-3


def test_transformers_computes_what_we_serve_with_a_merged_quantized_model(model_path, tmp_path):
    config = {
        "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    }  # fmt: skip
    adapter, merged = tmp_path / "a.safetensors", tmp_path / "merged"
    adapter.write_bytes(adapter_bytes(config, 3, size=0.1))
    run_cli("export", adapter, "--merge", "--model", model_path, "--dtype", "f32",
            "--out", merged, check=0)  # fmt: skip
    prompts = [[504, 3575, 282, 4649, 314], [198, 504, 1104]]
    with Server(model_path, tmp_path / "store", "--compute", "f32") as server:
        server.put("a", adapter.read_bytes())
        for prompt, values in zip(prompts, merged_logprobs(merged, prompts)):
            body = {
                "model": "a", "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 20,
                "return_tokens_as_token_ids": True,
            }  # fmt: skip
            top = server.ask(body)["choices"][0]["logprobs"]["top_logprobs"][0]
            for token, value in by_token_id(top).items():
                assert abs(values[token] - value) <= 5e-3


def adalora(folder, pruned, alpha=9):
    """An AdaLoRA adapter as PEFT saves it; `pruned`: with the ranks that its allocator left."""
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    config = peft.AdaLoraConfig(
        init_r=6, target_r=3, lora_alpha=alpha, target_modules=["q_proj", "v_proj", "down_proj"],
        task_type="CAUSAL_LM", total_step=10, tinit=1, tfinal=2,
    )  # fmt: skip
    model = peft.get_peft_model(base, config)
    pattern = {}
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            continue
        with torch.no_grad():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        if "lora_E" in name:
            kept = torch.rand(6) < 0.5
            kept[:] = False if ".layers.1.self_attn.v_proj" in name else kept
            with torch.no_grad():
                parameter[~kept] = 0
            pattern[name.removeprefix("base_model.model.")] = kept.tolist()
    if pruned:
        model.peft_config["default"].rank_pattern = pattern
    model.save_pretrained(folder)
    return pattern


@pytest.mark.parametrize("pruned", [False, True])
def test_adalora_computes_the_same_here(tmp_path, pruned):
    pattern = adalora(tmp_path / "peft", pruned)
    adapter = tmp_path / "a.safetensors"
    run_cli("import", tmp_path / "peft", "--out", adapter, check=0)
    told = json.loads(run_cli("inspect", adapter, "--json", check=0).stdout)
    ranks = {(m["layer"], m["module"]): m["rank"] for m in told["modules"]}
    for name, kept in pattern.items():
        layer, module = int(name.split(".")[2]), name.split(".")[4]
        assert ranks.get((layer, module), 0) == sum(kept), "what E zeroes is cut away"
    assert sum(pattern["model.layers.1.self_attn.v_proj.lora_E.default"]) == 0
    check_against_peft(adapter, tmp_path / "peft", tmp_path / "store")


@pytest.mark.parametrize("use_rslora", [False, True])
def test_an_adapter_that_peft_saved_computes_the_same_here(tmp_path, use_rslora):
    torch.manual_seed(3)
    base = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    config = peft.LoraConfig(
        r=6, lora_alpha=9, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 3}, alpha_pattern={"down_proj": 4},
        use_rslora=use_rslora, task_type="CAUSAL_LM", init_lora_weights=False,
    )  # fmt: skip
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "peft")
    adapter = tmp_path / "a.safetensors"
    run_cli("import", tmp_path / "peft", "--out", adapter, check=0)
    check_against_peft(adapter, tmp_path / "peft", tmp_path / "store")
