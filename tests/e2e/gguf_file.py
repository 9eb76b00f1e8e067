# SPDX-License-Identifier: Apache-2.0
"""GGUF files, read and written by code that shares nothing with the program under test.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and the order of q
and k rows are those of llama.cpp's convert_hf_to_gguf.py and convert_lora_to_gguf.py.
"""

import json
import pathlib
import struct

import numpy
import safetensors.numpy

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
STEMS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def permute(rows, heads):
    """convert_hf_to_gguf.py's LlamaModel.permute: HF's order of q and k rows to GGML's."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def quantize_q8_0(values):
    """ggml's quantize_row_q8_0_ref: blocks of 32, f16 scale, signed bytes."""
    blocks = values.astype(numpy.float32).reshape(-1, 32)
    scale = (numpy.abs(blocks).max(1, keepdims=True) / 127).astype(numpy.float32)
    inverse = numpy.divide(1, scale, out=numpy.zeros_like(scale), where=scale > 0)
    quants = numpy.round(blocks * inverse).astype(numpy.int8)
    half = scale.astype(numpy.float16)
    data = b"".join(h.tobytes() + q.tobytes() for h, q in zip(half, quants))
    return data, (quants * half.astype(numpy.float32)).reshape(values.shape)


def to_bf16(values):
    """Bits of bf16, rounded to nearest even, as u16."""
    bits = numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def from_bf16(bits):
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def encode(values, kind):
    if kind == Q8_0:
        return quantize_q8_0(values)[0]
    if kind == BF16:
        return to_bf16(values).tobytes()
    return values.astype(numpy.float16 if kind == F16 else numpy.float32).tobytes()


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, list):
        return text(key) + struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(
            f"<{len(value)}i", *value
        )
    return text(key) + struct.pack("<II", 4, value)


def build(pairs, tensors):
    """pairs: {key: value}; tensors: [(name, float array, kind)]."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(pair(key, value) for key, value in pairs.items())
    data = b""
    for name, values, kind in tensors:
        shape = values.shape[::-1]
        head += text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}QIQ", *shape, kind, len(data))
        data += encode(values, kind)
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


class Reader:
    """Metadata (scalars and strings) and float tensors of a file of version 3."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}

    def __init__(self, data):
        self.data, self.at = data, 0
        assert data[:4] == b"GGUF"
        self.at = 4
        version, tensor_count, pair_count = self.take("<IQQ")
        assert version == 3
        self.pairs = {}
        for _ in range(pair_count):
            key = self.string()
            (kind,) = self.take("<I")
            self.pairs[key] = self.string() if kind == 8 else self.take("<" + self.SCALARS[kind])[0]
        entries = []
        for _ in range(tensor_count):
            name = self.string()
            (rank,) = self.take("<I")
            shape = self.take(f"<{rank}Q")
            entries.append((name, shape[::-1], *self.take("<IQ")))
        start = self.at + -self.at % 32
        self.tensors = {}
        for name, shape, kind, offset in entries:
            assert kind == F32 and offset % 32 == 0
            count = int(numpy.prod(shape))
            values = numpy.frombuffer(data, numpy.float32, count, start + offset)
            self.tensors[name] = values.reshape(shape)

    def take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self):
        (length,) = self.take("<Q")
        self.at += length
        return self.data[self.at - length : self.at].decode()


def adapter(config, modules, alpha, kind=F32, **more):
    """A llama.cpp adapter; modules: {(layer, "self_attn.q_proj"): (A, B)} in HF's order."""
    pairs = {
        "general.architecture": config["model_type"], "general.type": "adapter",
        "adapter.type": "lora", "adapter.lora.alpha": float(alpha), **more,
    }  # fmt: skip
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}
    tensors = []
    for (layer, path), (a, b) in modules.items():
        stem = f"blk.{layer}.{STEMS[path]}.weight"
        if path in heads and config["model_type"] == "llama":
            b = permute(b, config[heads[path]])
        fits = [k if k != Q8_0 or v.shape[1] % 32 == 0 else F16 for k, v in ((kind, a), (kind, b))]
        tensors += [(f"{stem}.lora_a", a, fits[0]), (f"{stem}.lora_b", b, fits[1])]
    return build(pairs, tensors)


def rope_factors(rope, head_dim):
    """convert_hf_to_gguf.py's divisors of the frequencies for Llama 3's scaling."""
    frequencies = rope["rope_theta"] ** (-numpy.arange(0, head_dim, 2) / head_dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * numpy.pi)
    smooth = numpy.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(numpy.float32)


def model(folder, kind=F32):
    """A small Hugging Face model as a GGUF model without a vocabulary."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["window"] = config["sliding_window"] if config["model_type"] == "mistral" else 0
    config["model_type"] = config["model_type"].replace("mistral", "llama")
    arch, rope = config["model_type"], config.get("rope_parameters") or config
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    pairs = {
        "general.architecture": arch, "general.type": "model", "tokenizer.ggml.model": "no_vocab",
        f"{arch}.vocab_size": config["vocab_size"],
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": config["num_attention_heads"],
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.key_length": head_dim, f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.freq_base": float(rope["rope_theta"]),
        f"{arch}.rope.dimension_count": head_dim,
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
    }  # fmt: skip
    tensors = []
    if config["window"]:
        pairs[f"{arch}.attention.sliding_window"] = config["window"]
    if rope.get("rope_type") == "llama3":
        tensors.append(("rope_freqs.weight", rope_factors(rope, head_dim), F32))
    for name, values in safetensors.numpy.load_file(folder / "model.safetensors").items():
        values = values.astype(numpy.float32)
        tensors.append(model_tensor(config, name, values, kind))
    return build(pairs, tensors)


def model_tensor(config, name, values, kind):
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
        "model.norm.weight": "output_norm.weight",
    }  # fmt: skip
    if name in fixed:
        return fixed[name], values, F32
    _, _, layer, rest = name.split(".", 3)
    module, part = rest.rsplit(".", 1)
    if config["model_type"] == "llama" and module == "self_attn.q_proj":
        values = permute(values, config["num_attention_heads"])
    if config["model_type"] == "llama" and module == "self_attn.k_proj":
        values = permute(values, config["num_key_value_heads"])
    stem = STEMS.get(module) or {"self_attn.q_norm": "attn_q_norm"}.get(module, "attn_k_norm")
    return f"blk.{layer}.{stem}.{part}", values, kind if values.ndim == 2 else F32
