# SPDX-License-Identifier: Apache-2.0
"""What we write is what PEFT reads: run by `scripts/test.sh --peft`, with the real libraries."""

import json
import shutil

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
