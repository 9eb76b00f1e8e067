# SPDX-License-Identifier: Apache-2.0
"""Two hundred damaged adapter files: each is refused with a reason, and nothing is left behind."""

import json
import random
import struct

import pytest
from harness import (
    adapter_bytes,
    adapter_config,
    adapter_tensors,
    error_of,
    join_file,
    module_name,
    split_file,
)

COUNT = 200
RSS_GROWTH_BYTES_MAX = 12 << 20


def damaged_lengths(data, rng):
    """Cut short, grown, and with a header length that is not true."""
    for _ in range(50):
        yield "cut", data[: rng.randrange(len(data))]
    for extra in (1, 2, 7, 8, 100, 4096):
        yield f"{extra} bytes more", data + b"\0" * extra
    true = int.from_bytes(data[:8], "little")
    for length in (0, 1, 2, true - 8, true - 1, true + 1, true + 8, len(data), len(data) - 8,
                   2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):  # fmt: skip
        yield f"header of {length}", length.to_bytes(8, "little") + data[8:]
    for count in (0, 1, 7, 8, 9, 100, 5000):
        yield f"{count} bytes of noise", rng.randbytes(count)
    for count in (100, 5000):
        yield "noise behind a header length", (16).to_bytes(8, "little") + rng.randbytes(count)
    yield "a GGUF's first bytes", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)
    yield "a zip", b"PK\3\4" + bytes(100)
    yield "JSON", b'{"model": "x"}'


def damaged_values(data, rng):
    """A value that is not finite, somewhere."""
    body = len(split_file(data)[1])
    start = len(data) - body
    for _ in range(40):
        at = start + 4 * rng.randrange(body // 4)
        bits = rng.choice([0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF])
        yield f"{bits:#x} at {at}", data[:at] + bits.to_bytes(4, "little") + data[at + 4 :]


def damaged_text(data, rng):
    """A header that is no JSON any more."""
    header, body = split_file(data)
    text = json.dumps(header).encode()
    marks = [i for i, c in enumerate(text) if c in b'{}[]:",']
    metadata_end = text.index(b"}", text.index(b"__metadata__"))
    outside = [i for i in marks if i > metadata_end + 2]
    for _ in range(20):
        at = rng.choice(outside)
        yield f"header byte {at}", join_file(text[:at] + b"\x01" + text[at + 1 :], body)
    yield "an array", join_file(b"[]", body)
    yield "a number", join_file(b"7", body)
    yield "two objects", join_file(b"{}{}", body)
    yield "nothing", join_file(b"", body)
    yield "deep", join_file(b'{"a":' * 5000 + b"1" + b"}" * 5000, body)
    yield "not UTF-8", join_file(text.replace(b"lora_A", b"lora_\xff", 1), body)


def damaged_tensors(data):
    """A table of tensors that does not fit itself, the bytes or the base."""
    header, body = split_file(data)
    names = [n for n in header if n != "__metadata__"]
    a = next(n for n in names if n.endswith("lora_A.weight"))
    b = a.replace("lora_A", "lora_B")

    def changed(**fields):
        return join_file({**header, a: {**header[a], **fields}}, body)

    def renamed(old, new):
        return join_file({new if n == old else n: t for n, t in header.items()}, body)

    rank, width = header[a]["shape"]
    begin, end = header[a]["data_offsets"]
    for shape in ([], [rank], [rank, width, 1], [width, rank], [rank + 1, width], [rank, width - 1],
                  [0, width], [-1, width], [rank, 2**63], [2**32, 2**32], [rank, 1.5], "x", None,
                  [1] * 9, [rank, "64"]):  # fmt: skip
        yield f"shape {shape}", changed(shape=shape)
    for dtype in ("F64", "I8", "f32", "", "F32 ", "BF16", None, 7, "Q4_0", "X" * 300):
        yield f"type {dtype}", changed(dtype=dtype)
    for offsets in ([end, begin], [begin, end + 4], [begin, end - 4], [begin + 4, end + 4],
                    [begin], [begin, end, end], [-4, end], [begin, 2**62], [begin, 2**64], None,
                    "x", [0.5, end], [2**63, 2**63 + 4]):  # fmt: skip
        yield f"offsets {offsets}", changed(data_offsets=offsets)
    yield "no shape", join_file({**header, a: {"dtype": "F32", "data_offsets": [begin, end]}}, body)
    yield "a tensor that is a list", join_file({**header, a: []}, body)
    middle = a.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    for new in ("", "x", a + "x", a.replace("lora_A", "lora_C"), a.replace("layers.", "layer."),
                a.replace(middle, "model.layers.99.self_attn.q_proj"),
                a.replace(middle, "model.layers.-1.self_attn.q_proj"),
                a.replace(middle, "model.layers.1e0.self_attn.q_proj"),
                a.replace(middle, "model.layers.0.self_attn.x_proj"),
                a.replace(middle, "model.layers.0.mlp.q_proj"),
                "base_model.model.lm_head.lora_A.weight",
                "base_model.model.model.embed_tokens.lora_embedding_A",
                a.replace("lora_A.weight", "lora_magnitude_vector"),
                a.replace("lora_A.weight", "lora_A.bias"), "n" * 5000):  # fmt: skip
        yield f"named {new[:60]}", renamed(a, new)
    yield "A without B", drop(header, body, b)
    yield "B without A", drop(header, body, a)
    yield "B as A", join_file({n: t for n, t in header.items() if n != b} | {b: header[a]}, body)
    text = json.dumps(header)
    entry = json.dumps(a) + ": " + json.dumps(header[a])
    yield "twice", join_file((text[:-1] + ", " + entry + "}").encode(), body)


def drop(header, body, name):
    """Without one tensor and its bytes: a file that is whole, but half a module."""
    begin, end = header[name]["data_offsets"]
    table = {}
    for key, value in header.items():
        if key == name:
            continue
        if key != "__metadata__" and value["data_offsets"][0] >= end:
            moved = [o - (end - begin) for o in value["data_offsets"]]
            value = {**value, "data_offsets": moved}
        table[key] = value
    return join_file(table, body[:begin] + body[end:])


def damaged_config(data, base_config):
    """A config that is none, or asks for what is not built."""
    header, body = split_file(data)
    metadata = header["__metadata__"]
    config = json.loads(metadata["adapter_config"])
    pattern = config["rank_pattern"]
    one = next(iter(pattern))

    def with_config(text):
        return join_file({**header, "__metadata__": {**metadata, "adapter_config": text}}, body)

    for text in ("", "x", "[]", "{}", "null", "{" * 100, json.dumps(config)[:-1]):
        yield f"config {text[:20]}", with_config(text)
    changes = [
        {"peft_type": "IA3"}, {"peft_type": 7}, {"use_dora": True}, {"bias": "all"},
        {"modules_to_save": ["lm_head"]}, {"fan_in_fan_out": True}, {"r": 0}, {"r": -1},
        {"r": "eight", "rank_pattern": {}}, {"lora_alpha": "x", "alpha_pattern": {}},
        {"rank_pattern": {**pattern, one: 100}}, {"rank_pattern": 7}, {"rank_pattern": {one: "x"}},
        {"alpha_pattern": []}, {"layer_replication": [[0, 1]]}, {"lora_bias": True},
        {"trainable_token_indices": [1]}, {"lora_alpha": None, "alpha_pattern": {}},
    ]  # fmt: skip
    for change in changes:
        yield f"config with {json.dumps(change)[:60]}", with_config(json.dumps(config | change))
    for version in ("2", "0", "", "x"):
        changed = {**header, "__metadata__": {**metadata, "format_version": version}}
        yield f"format version {version!r}", join_file(changed, body)
    yield "metadata that is a number", join_file({**header, "__metadata__": {"format": 1}}, body)
    yield "metadata that is a list", join_file({**header, "__metadata__": []}, body)
    base_record = {
        "architecture": "llama", "layers": base_config["num_hidden_layers"] + 1, "hidden": 64,
        "intermediate": 160, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab_size": 320,
        "fingerprint": "0" * 64, "weight_type": "F32",
    }  # fmt: skip
    changed = {**header, "__metadata__": {**metadata, "base": json.dumps(base_record)}}
    yield "another base", join_file(changed, body)


def damaged_files(config):
    """(what is wrong, bytes) of COUNT files or more, the same ones every time."""
    data, rng = adapter_bytes(config, 99), random.Random(99)
    yield from damaged_lengths(data, rng)
    yield from damaged_values(data, rng)
    yield from damaged_text(data, rng)
    yield from damaged_tensors(data)
    yield from damaged_config(data, config)
    # A base of other widths.
    other = {**config, "hidden_size": 96, "head_dim": 24}
    yield "for a wider base", adapter_bytes(other, 99)
    deeper = {**config, "num_hidden_layers": 9}
    yield "for a deeper base", adapter_bytes(deeper, 99)


@pytest.mark.sanitizer
def test_the_files_are_damaged_and_the_original_is_not(tiny, tiny_config):
    files = list(damaged_files(tiny_config))
    assert len(files) >= COUNT
    original = adapter_bytes(tiny_config, 99)
    assert all(data != original for _, data in files)
    tiny.put("original", original)
    header, body = split_file(original)
    tiny.put("rejoined", join_file(header, body))
    tensors, pattern = adapter_tensors(tiny_config, 99)
    assert adapter_config(pattern)["rank_pattern"] and tensors
    assert module_name(0, "q_proj") == "model.layers.0.self_attn.q_proj"


@pytest.mark.sanitizer
def test_every_damaged_file_is_refused_with_a_reason(tiny, tiny_config):
    accepted, vague = [], []
    for what, data in damaged_files(tiny_config):
        reply = tiny.http.put(
            "/v1/adapters/damaged",
            content=data,
            headers={"content-type": "application/octet-stream"},
        )
        if reply.status_code < 400:
            accepted.append(what)
        elif reply.status_code >= 500:
            raise AssertionError(f"{what}: {reply.status_code} {reply.text}")
        elif len(error_of(reply, reply.status_code)["message"]) < 10:
            vague.append((what, reply.text))
    assert not accepted and not vague, (accepted, vague)
    error_of(tiny.http.get("/v1/adapters/damaged"), 404)
    assert len(tiny.greedy([1, 2, 3], 5)) == 5


def test_damaged_files_leave_no_memory_behind(tiny, tiny_config):
    files = [data for _, data in damaged_files(tiny_config)]

    def send_all():
        for data in files:
            assert tiny.http.put("/v1/adapters/damaged", content=data).status_code < 500

    send_all()
    send_all()
    before = tiny.rss_bytes()
    for _ in range(3):
        send_all()
    grown = tiny.rss_bytes() - before
    assert grown <= RSS_GROWTH_BYTES_MAX, f"{grown} bytes more after {3 * len(files)} files"


@pytest.mark.sanitizer
def test_a_refusal_names_tensor_expected_and_found(tiny, tiny_config):
    header, body = split_file(adapter_bytes(tiny_config, 99))
    name = next(n for n in header if n.endswith("lora_A.weight"))
    rank, width = header[name]["shape"]
    table = {**header, name: {**header[name], "shape": [width, rank]}}
    reply = tiny.http.put("/v1/adapters/damaged", content=join_file(table, body))
    message = error_of(reply, reply.status_code)["message"]
    layer = name.split("layers.")[1].split(".")[0]
    assert name.split(".")[-3] in message and layer in message, message
    assert str(width) in message, message
