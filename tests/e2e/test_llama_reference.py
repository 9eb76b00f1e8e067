# SPDX-License-Identifier: Apache-2.0
"""What we write is what llama.cpp loads, and what it computes: run by `scripts/test.sh --llama`."""

import ctypes

import numpy
import pytest
from gguf_file import BF16, F16, F32, Q8_0, adapter, model
from harness import (
    TINY, Server, adapter_bytes, adapter_config, adapter_tensors, by_token_id, dimensions,
    encode_adapter, golden, run_cli,
)  # fmt: skip

llama = pytest.importorskip("llama_cpp")

ARCHITECTURES = ["llama", "qwen3"]  # with and without permuted rows
PROMPTS = [[7, 8, 9, 10], list(range(20, 60)), [300]]
# Both compute in f32, in another order of sums.
BOUND = 2e-4


@llama.llama_log_callback
def quiet(_level, _text, _context):
    """llama.cpp tells hundreds of lines about each model."""


llama.llama_log_set(quiet, ctypes.c_void_p(0))


class Llama:
    """A model of llama.cpp's in f32, with or without an adapter."""

    def __init__(self, path, adapter_path=None):
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # F32
        params.flash_attn = False
        self.context = llama.llama_init_from_model(self.model, params)
        assert self.context
        self.adapter = None
        if adapter_path:
            self.adapter = llama.llama_adapter_lora_init(self.model, str(adapter_path).encode())
            assert self.adapter, f"llama.cpp does not load {adapter_path}"
            assert llama.llama_set_adapter_lora(self.context, self.adapter, 1.0) == 0

    def logprobs(self, prompt):
        """Log-probabilities [vocab] after the prompt."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        tokens = (llama.llama_token * len(prompt))(*prompt)
        batch = llama.llama_batch_get_one(tokens, len(prompt))
        assert llama.llama_decode(self.context, batch) == 0
        vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        found = llama.llama_get_logits_ith(self.context, -1)
        logits = numpy.ctypeslib.as_array(
            ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (vocab,)
        ).astype(numpy.float64)
        return logits - numpy.log(numpy.exp(logits - logits.max()).sum()) - logits.max()

    def close(self):
        llama.llama_free(self.context)
        if self.adapter:
            llama.llama_adapter_lora_free(self.adapter)
        llama.llama_model_free(self.model)


def reference(path, adapter_path=None, prompts=PROMPTS):
    loaded = Llama(path, adapter_path)
    result = [loaded.logprobs(prompt) for prompt in prompts]
    loaded.close()
    return result


def check_served(server, name, expected, bound=BOUND, prompts=PROMPTS):
    for prompt, values in zip(prompts, expected):
        body = {
            "model": name, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 20,
            "return_tokens_as_token_ids": True,
        }  # fmt: skip
        top = server.ask(body)["choices"][0]["logprobs"]["top_logprobs"][0]
        assert len(top) == 20
        for token, value in by_token_id(top).items():
            assert abs(values[token] - value) <= bound, (token, values[token], value)


def differ(left, right):
    return max(numpy.abs(a - b).max() for a, b in zip(left, right))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request, tmp_path_factory):
    """(config, the GGUF model, a server of the Hugging Face folder it was made from)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = golden("tiny", request.param, "config.json")
    (folder / "base.gguf").write_bytes(model(TINY / request.param))
    with Server(TINY / request.param, folder / "store", "--compute", "f32") as server:
        yield config, folder / "base.gguf", server


def test_the_bases_agree(base):
    _, path, server = base
    check_served(server, server.name, reference(path))


@pytest.mark.parametrize("kind", ["one scale each", "one alpha", "rslora"])
def test_llama_cpp_computes_the_same_with_our_export(base, tmp_path, kind):
    config, path, server = base
    tensors, pattern = adapter_tensors(config, 4)
    if kind == "one scale each":
        fields = adapter_config(pattern)
        fields["alpha_pattern"] = {n: 0.7 * r + i % 3 for i, (n, r) in enumerate(pattern.items())}
    elif kind == "one alpha":
        fields = adapter_config(pattern, alpha_pattern={}, lora_alpha=5.0)
    else:
        fields = adapter_config(pattern, alpha_pattern={}, lora_alpha=3.0, use_rslora=True)
    ours, exported = tmp_path / "a.safetensors", tmp_path / "a.gguf"
    ours.write_bytes(encode_adapter(tensors, pattern, fields))
    run_cli("export", ours, "--format", "gguf", "--model", server.model, "--out", exported, check=0)
    expected = reference(path, exported)
    assert differ(expected, reference(path)) > 0.05, "the adapter must do something"
    server.put("exported", ours.read_bytes())
    check_served(server, "exported", expected)


@pytest.mark.parametrize("kind", [F32, F16, BF16, Q8_0])
def test_we_compute_the_same_with_llama_cpps_adapters(base, tmp_path, kind):
    config, path, server = base
    random = numpy.random.default_rng(11)
    shapes = {"self_attn.q_proj": 32, "self_attn.k_proj": 4, "mlp.down_proj": 2}
    widths = {name: dimensions(config)[name.split(".")[1]] for name in shapes}
    modules = {
        (layer, name): (
            random.normal(0, 0.3, (rank, widths[name][0])).astype(numpy.float32),
            random.normal(0, 0.3, (widths[name][1], rank)).astype(numpy.float32),
        )
        for layer in range(config["num_hidden_layers"])
        for name, rank in shapes.items()
    }
    made = tmp_path / "a.gguf"
    made.write_bytes(adapter(config, modules, 1.5, kind))
    server.put("theirs", made.read_bytes())
    # With halves or bytes llama.cpp also rounds what it multiplies them by.
    bound = {F32: BOUND, F16: 2e-2, BF16: 1e-1, Q8_0: 1e-1}[kind]
    check_served(server, "theirs", reference(path, made), bound)


def top_errors(server, name, prompt, values):
    body = {
        "model": name, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 20,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip
    top = server.ask(body)["choices"][0]["logprobs"]["top_logprobs"][0]
    return [abs(values[token] - value) for token, value in by_token_id(top).items()]


def test_llama_cpp_loads_the_default_models_adapter(model_path, tmp_path):
    """llama.cpp rounds activations to 8 bits beside quantized weights, so already the bases differ:
    with the adapter they may not differ much more, and far less than by the adapter."""
    config = {
        "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    }  # fmt: skip
    ours, exported = tmp_path / "a.safetensors", tmp_path / "a.gguf"
    ours.write_bytes(adapter_bytes(config, 3, size=0.3))
    run_cli("export", ours, "--format", "gguf", "--model", model_path, "--out", exported, check=0)
    prompts = [[504, 3575, 282, 4649, 314], [198, 504, 1104], list(range(500, 540))]
    plain, adapted = reference(model_path, None, prompts), reference(model_path, exported, prompts)
    errors = {"base": [], "adapter": [], "effect": []}
    with Server(model_path, tmp_path / "store", "--compute", "f32") as server:
        server.put("a", ours.read_bytes())
        for prompt, without, values in zip(prompts, plain, adapted):
            errors["base"] += top_errors(server, server.name, prompt, without)
            errors["adapter"] += top_errors(server, "a", prompt, values)
            errors["effect"] += top_errors(server, "a", prompt, without)
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    print(mean)
    assert mean["adapter"] <= 2 * mean["base"] + 0.05 and mean["effect"] >= 5 * mean["adapter"]
