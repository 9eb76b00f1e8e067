# SPDX-License-Identifier: Apache-2.0
"""Adapters from and to other programs' formats, checked against small readers and writers of the
tests' own. The programs themselves are asked in test_llama_reference.py and test_peft_reference.py.
"""

import json
import math

import gguf_file
import numpy
import pytest
import safetensors.numpy
from harness import (
    PROJECTIONS, TINY, Server, adapter_bytes, adapter_config, adapter_tensors, by_token_id,
    dimensions, effective_scale, encode_adapter, error_of, golden, run_cli,
)  # fmt: skip

pytestmark = pytest.mark.sanitizer
ARCHITECTURES = ["llama", "qwen3"]  # with and without permuted rows


def top(server, name, prompt=(7, 8, 9, 10)):
    body = {
        "model": name, "prompt": list(prompt), "max_tokens": 1, "temperature": 0, "logprobs": 20,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip
    return by_token_id(server.ask(body)["choices"][0]["logprobs"]["top_logprobs"][0])


def check_same(left, right, bound):
    assert left.keys() == right.keys()
    assert all(abs(left[token] - right[token]) <= bound for token in left), (left, right)


def read_adapter(data):
    """{(layer, projection): (A, B, scale)} of our file, and its config."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    config = json.loads(header["__metadata__"]["adapter_config"])
    tensors, modules = safetensors.numpy.load(data), {}
    for name, a in tensors.items():
        if ".lora_A." not in name:
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        layer, projection = int(module.split(".")[2]), module.split(".")[4]
        b = tensors[name.replace("lora_A", "lora_B")]
        modules[layer, projection] = a, b, effective_scale(config, module, a.shape[0])
    return modules, config


def mixed_scales(config, seed):
    tensors, pattern = adapter_tensors(config, seed)
    fields = adapter_config(pattern)
    fields["alpha_pattern"] = {n: 0.7 * r + i % 3 for i, (n, r) in enumerate(pattern.items())}
    return encode_adapter(tensors, pattern, fields)


def one_alpha(config, seed):
    tensors, pattern = adapter_tensors(config, seed)
    return encode_adapter(
        tensors, pattern, adapter_config(pattern, alpha_pattern={}, lora_alpha=5.0)
    )


def path_of(projection):
    return f"{PROJECTIONS[projection]}.{projection}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("make", [mixed_scales, one_alpha])
def test_export_to_gguf_holds_every_number(tmp_path, architecture, make):
    config = golden("tiny", architecture, "config.json")
    ours, exported = tmp_path / "a.safetensors", tmp_path / "a.gguf"
    ours.write_bytes(make(config, 4))
    modules, _ = read_adapter(ours.read_bytes())
    run_cli("export", ours, "--format", "gguf", "--model", TINY / architecture, "--out", exported,
            check=0)  # fmt: skip
    file = gguf_file.Reader(exported.read_bytes())
    alpha = file.pairs["adapter.lora.alpha"]
    assert file.pairs["general.type"] == "adapter" and file.pairs["adapter.type"] == "lora"
    assert file.pairs["general.architecture"] == architecture
    assert alpha == (5.0 if make is one_alpha else 0.0)
    assert len(file.tensors) == 2 * len(modules)
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for (layer, projection), (a, b, scale) in modules.items():
        stem = f"blk.{layer}.{gguf_file.STEMS[path_of(projection)]}.weight"
        # llama.cpp's rule: alpha / rank, or 1 where alpha is 0.
        theirs = alpha / a.shape[0] if alpha else 1.0
        folded = b if alpha else b * numpy.float32(scale)
        if architecture == "llama" and projection in heads:
            folded = gguf_file.permute(folded, config[heads[projection]])
        assert numpy.array_equal(file.tensors[stem + ".lora_a"], a)
        assert numpy.array_equal(file.tensors[stem + ".lora_b"], folded)
        assert math.isclose(theirs if alpha else scale, scale, rel_tol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gguf_goes_out_and_comes_back_without_the_base(tmp_path, architecture):
    config = golden("tiny", architecture, "config.json")
    ours, exported, again = tmp_path / "a.safetensors", tmp_path / "a.gguf", tmp_path / "b"
    ours.write_bytes(mixed_scales(config, 4))
    run_cli("export", ours, "--format", "gguf", "--model", TINY / architecture, "--out", exported,
            check=0)  # fmt: skip
    told = json.loads(run_cli("import", exported, "--out", again, "--json", check=0).stdout)
    left, right = read_adapter(ours.read_bytes())[0], read_adapter(again.read_bytes())[0]
    assert left.keys() == right.keys() and told["modules"] == len(left)
    assert told.keys() == {"out", "digest", "parameters", "modules"}
    for key, (a, b, scale) in left.items():
        found_a, found_b, found_scale = right[key]
        assert numpy.array_equal(a, found_a) and found_scale == 1.0
        assert numpy.array_equal(b * numpy.float32(scale), found_b)


def llama_modules(config, random, rank=4):
    widths = dimensions(config)
    return {
        (layer, path_of(projection)): (
            random.normal(0, 0.3, (rank, d_in)).astype(numpy.float32),
            random.normal(0, 0.3, (d_out, rank)).astype(numpy.float32),
        )
        for layer in range(config["num_hidden_layers"])
        for projection, (d_in, d_out) in widths.items()
    }


def stored(values, kind):
    """What is left of the numbers in a type."""
    if kind == gguf_file.Q8_0 and values.shape[1] % 32 == 0:
        return gguf_file.quantize_q8_0(values)[1]
    if kind == gguf_file.BF16:
        return gguf_file.from_bf16(gguf_file.to_bf16(values))
    half = kind in (gguf_file.F16, gguf_file.Q8_0)
    return values.astype(numpy.float16).astype(numpy.float32) if half else values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "kind", [gguf_file.F32, gguf_file.F16, gguf_file.BF16, gguf_file.Q8_0]
)  # fmt: skip
def test_a_llama_cpp_adapter_is_read_with_every_number(tmp_path, architecture, kind):
    config = golden("tiny", architecture, "config.json")
    modules = llama_modules(config, numpy.random.default_rng(3))
    made, ours = tmp_path / "theirs.gguf", tmp_path / "a.safetensors"
    made.write_bytes(gguf_file.adapter(config, modules, 6.0, kind))
    run_cli("import", made, "--model", TINY / architecture, "--out", ours, check=0)
    told = json.loads(run_cli("inspect", made, "--json", check=0).stdout)
    assert told["format"] == "gguf" and told["bytes"] == made.stat().st_size
    assert len(told["modules"]) == len(modules) and told["rank_max"] == 4
    assert {m["scale"] for m in told["modules"]} == {1.5}
    header = json.loads(ours.read_bytes()[8 : 8 + int.from_bytes(ours.read_bytes()[:8], "little")])
    for (layer, path), (a, b) in modules.items():
        stem = f"base_model.model.model.layers.{layer}.{path}."
        for part, values in (("lora_A", a), ("lora_B", b)):
            entry = header[f"{stem}{part}.weight"]
            first, last = entry["data_offsets"]
            start = 8 + int.from_bytes(ours.read_bytes()[:8], "little")
            data = ours.read_bytes()[start + first : start + last]
            types = {"F32": numpy.float32, "F16": numpy.float16, "BF16": numpy.uint16}
            found = numpy.frombuffer(data, types[entry["dtype"]]).reshape(entry["shape"])
            found = gguf_file.from_bf16(found) if entry["dtype"] == "BF16" else found
            assert numpy.array_equal(found.astype(numpy.float32), stored(values, kind)), stem


def test_a_llama_cpp_adapter_is_served_and_preloaded(tmp_path, tiny_config):
    ours, exported = tmp_path / "a.safetensors", tmp_path / "a.gguf"
    ours.write_bytes(mixed_scales(tiny_config, 4))
    run_cli("export", ours, "--format", "gguf", "--model", TINY / "llama", "--out", exported,
            check=0)  # fmt: skip
    with Server(TINY / "llama", tmp_path / "s", "--adapter", f"loaded={exported}") as server:
        server.put("ours", ours.read_bytes())
        card = server.put("put", exported.read_bytes(), expect=(201,))
        assert card["parameters"] == server.http.get("/v1/adapters/ours").json()["parameters"]
        plain = top(server, server.name)
        assert max(abs(plain.get(t, 0) - v) for t, v in top(server, "ours").items()) > 0.05
        check_same(top(server, "ours"), top(server, "put"), 1e-4)
        check_same(top(server, "put"), top(server, "loaded"), 0)
        wrong = gguf_file.adapter({**tiny_config, "model_type": "qwen3"}, {}, 1.0)
        reply = server.http.put("/v1/adapters/wrong", content=wrong)
        assert "qwen3" in error_of(reply, 422)["message"]
        reply = server.http.put("/v1/adapters/wrong", content=exported.read_bytes()[:300])
        error_of(reply, 400 if reply.status_code == 400 else 422)
        assert server.http.get("/v1/adapters/wrong").status_code == 404


def refused_gguf(config):
    a, b = numpy.ones((2, 64), numpy.float32), numpy.ones((64, 2), numpy.float32)
    good = {(0, "self_attn.q_proj"): (a, b)}
    pairs = {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
        "adapter.lora.alpha": 1.0,
    }  # fmt: skip

    def tensors(*names, kind=gguf_file.F32):
        return gguf_file.build(pairs, [(n, v, kind) for n, v in zip(names, (a, b))])

    yield "token_embd", tensors("token_embd.weight.lora_a", "token_embd.weight.lora_b")
    yield "output head", tensors("output.weight.lora_a", "output.weight.lora_b")
    yield "norm", tensors("blk.0.attn_norm.weight")
    yield "experts", tensors("blk.0.ffn_gate_exps.weight.lora_a")
    yield "matches no module", tensors("blk.0.ssm_in.weight.lora_a")
    yield "no lora_B beside it", tensors("blk.0.attn_v.weight.lora_a")
    yield "layer below 3, found 9", tensors("blk.9.attn_v.weight.lora_a")
    yield "GGML type 24", tensors("blk.0.attn_v.weight.lora_a", kind=24)
    yield "general.type", gguf_file.build({**pairs, "general.type": "model"}, [])
    yield "adapter.type", gguf_file.build({**pairs, "adapter.type": "loha"}, [])
    yield "mamba", gguf_file.build({**pairs, "general.architecture": "mamba"}, [])
    alora = {"adapter.alora.invocation_tokens": [1, 2]}
    yield "activated LoRA", gguf_file.adapter(config, good, 1.0, **alora)
    nan = (numpy.full((2, 64), numpy.nan, numpy.float32), b)
    yield "finite", gguf_file.adapter(config, {(0, "self_attn.o_proj"): nan}, 1.0)
    yield "alpha", gguf_file.adapter(config, good, math.inf)
    wide = numpy.ones((2, 60), numpy.float32)
    yield "expected shape", gguf_file.adapter(config, {(0, "self_attn.q_proj"): (wide, b)}, 1.0)
    yield "truncated", gguf_file.adapter(config, good, 1.0)[:90]


def test_what_is_no_adapter_here_is_refused_by_name(tmp_path, tiny_config):
    for part, data in refused_gguf(tiny_config):
        made = tmp_path / "bad.gguf"
        made.write_bytes(data)
        run = run_cli("import", made, "--model", TINY / "llama", "--out", tmp_path / "o", check=1)
        assert part in run.stderr and "bad.gguf" in run.stderr, (part, run.stderr)
        assert not (tmp_path / "o").exists()


def test_what_an_export_needs_is_asked_for(tmp_path, tiny_config):
    ours, made = tmp_path / "a.safetensors", tmp_path / "theirs.gguf"
    ours.write_bytes(adapter_bytes(tiny_config, 4))
    modules = llama_modules(tiny_config, numpy.random.default_rng(3))
    made.write_bytes(gguf_file.adapter(tiny_config, modules, 6.0))
    out = tmp_path / "out"
    said = run_cli("export", ours, "--format", "gguf", "--out", out, check=1).stderr
    assert "--model" in said
    said = run_cli("import", made, "--out", out, check=1).stderr
    assert "attn_q" in said and "--model" in said
    assert "--model" in run_cli("export", ours, "--merge", "--out", out, check=2).stderr
    assert "--merge" in run_cli("export", ours, "--dtype", "f32", "--out", out, check=2).stderr
    merge = ("export", ours, "--merge", "--model", TINY / "llama", "--out", out)
    assert "--format" in run_cli(*merge, "--format", "gguf", check=2).stderr
    assert not out.exists()
    run_cli(*merge, check=0)
    said = run_cli(*merge, check=1).stderr
    assert "already" in said and str(out) in said


# ---- merging


@pytest.mark.parametrize("source", ["folder", "gguf"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen2", "llama3-rope", "mistral-window"])
def test_a_merged_model_computes_what_base_and_adapter_do(tmp_path, architecture, source):
    config, base = golden("tiny", architecture, "config.json"), TINY / architecture
    if source == "gguf":
        base = tmp_path / "base.gguf"
        base.write_bytes(gguf_file.model(TINY / architecture))
    adapter, merged = tmp_path / "a.safetensors", tmp_path / "merged"
    adapter.write_bytes(mixed_scales(config, 4))
    run_cli("export", adapter, "--merge", "--model", base, "--dtype", "f32", "--out", merged,
            check=0)  # fmt: skip
    prompt = list(range(20, 60))
    with Server(TINY / architecture, tmp_path / "s1", "--compute", "f32") as server:
        server.put("a", adapter.read_bytes())
        expected = top(server, "a", prompt)
    with Server(merged, tmp_path / "s2", "--compute", "f32") as server:
        check_same(expected, top(server, server.name, prompt), 2e-4)


@pytest.mark.parametrize("dtype", ["auto", "f32", "f16", "bf16"])
def test_the_merged_tensors_are_w_plus_scale_b_a(tmp_path, tiny_config, dtype):
    adapter, merged = tmp_path / "a.safetensors", tmp_path / "merged"
    adapter.write_bytes(mixed_scales(tiny_config, 4))
    run_cli("export", adapter, "--merge", "--model", TINY / "llama", "--dtype", dtype, "--out",
            merged, check=0)  # fmt: skip
    data = (merged / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, modules = json.loads(data[8:start]), read_adapter(adapter.read_bytes())[0]
    base = safetensors.numpy.load_file(TINY / "llama" / "model.safetensors")
    assert header.keys() - {"__metadata__"} == base.keys()
    told = json.loads((merged / "config.json").read_text("utf-8"))
    kind = {"auto": "F32", "f32": "F32", "f16": "F16", "bf16": "BF16"}[dtype]
    assert told["dtype"] == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[kind]
    for name, values in base.items():
        part = name.split(".")
        if len(part) == 6 and (int(part[2]), part[4]) in modules:
            a, b, scale = modules[int(part[2]), part[4]]
            values = values + scale * (b.astype(numpy.float64) @ a.astype(numpy.float64))
        first, last = header[name]["data_offsets"]
        assert header[name]["dtype"] == kind
        raw = numpy.frombuffer(
            data[start + first : start + last],
            {"F32": numpy.float32, "F16": numpy.float16, "BF16": numpy.uint16}[kind],
        )
        found = (gguf_file.from_bf16(raw) if kind == "BF16" else raw).reshape(values.shape)
        bound = {"F32": 1e-6, "F16": 1e-3, "BF16": 8e-3}[kind]
        assert numpy.abs(found.astype(numpy.float64) - values).max() <= bound * max(
            1.0, numpy.abs(values).max()
        ), name


def test_tokenizer_files_come_along(tmp_path, tiny_config):
    base, adapter, merged = tmp_path / "base", tmp_path / "a.safetensors", tmp_path / "merged"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        (base / name).write_bytes((TINY / "llama" / name).read_bytes())
    (base / "tokenizer_config.json").write_text('{"a": 1}', "utf-8")
    adapter.write_bytes(adapter_bytes(tiny_config, 4))
    run_cli("export", adapter, "--merge", "--model", base, "--out", merged, check=0)
    assert (merged / "tokenizer_config.json").read_text("utf-8") == '{"a": 1}'
    assert sorted(p.name for p in merged.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_sum_beyond_f16_is_refused(tmp_path, tiny_config):
    tensors, pattern = adapter_tensors(tiny_config, 4)
    tensors = {n: v * (1e8 if ".lora_B." in n else 1) for n, v in tensors.items()}
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes(encode_adapter(tensors, pattern))
    merge = ("export", adapter, "--merge", "--model", TINY / "llama", "--out", tmp_path / "m")
    said = run_cli(*merge, "--dtype", "f16", check=1).stderr
    assert "_proj.weight" in said and "--dtype f32" in said
    assert not list((tmp_path / "m").iterdir())
    run_cli(*merge, "--dtype", "f32", check=0)


# ---- AdaLoRA


def adalora(folder, config, alpha=9, damage=None):
    """A folder as PEFT saves it, ranks pruned by rank_pattern; returns what it computes."""
    random, init_r = numpy.random.default_rng(8), 6
    tensors, pattern, expected = {}, {}, {}
    for layer in range(config["num_hidden_layers"]):
        for projection in ("q_proj", "down_proj"):
            d_in, d_out = dimensions(config)[projection]
            kept = [bool(k) for k in random.random(init_r) < 0.6]
            kept = [False] * init_r if (layer, projection) == (1, "q_proj") else kept
            rank, name = sum(kept), f"model.layers.{layer}.{path_of(projection)}"
            a = random.normal(0, 0.3, (rank, d_in)).astype(numpy.float32)
            b = random.normal(0, 0.3, (d_out, rank)).astype(numpy.float32)
            e = random.normal(0, 1, (rank, 1)).astype(numpy.float32)
            for part, values in (("A", a), ("B", b), ("E", e)):
                tensors[f"base_model.model.{name}.lora_{part}"] = values
            pattern[f"{name}.lora_E"] = kept
            scale = (alpha if alpha > 0 else rank) / (numpy.float32(init_r) + numpy.float32(1e-5))
            expected[layer, projection] = float(scale) * (b @ (a * e)), rank
    fields = {
        "peft_type": "ADALORA", "init_r": init_r, "target_r": 3, "r": 8, "lora_alpha": alpha,
        "rank_pattern": pattern, "bias": "none", "target_modules": ["q_proj", "down_proj"],
    }  # fmt: skip
    if damage:
        damage(fields, tensors)
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields), "utf-8")
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    return expected


@pytest.mark.parametrize("alpha", [9, 0])
def test_adalora_is_folded_as_peft_computes_it(tmp_path, tiny_config, alpha):
    expected = adalora(tmp_path / "peft", tiny_config, alpha)
    ours = tmp_path / "a.safetensors"
    run_cli("import", tmp_path / "peft", "--model", TINY / "llama", "--out", ours, check=0)
    modules, config = read_adapter(ours.read_bytes())
    assert config["peft_type"] == "LORA"
    assert modules.keys() == {key for key, (_, rank) in expected.items() if rank > 0}
    for key, (a, b, scale) in modules.items():
        delta, rank = expected[key]
        assert a.shape[0] == rank
        assert numpy.abs(scale * (b @ a) - delta).max() <= 1e-5
        weight = numpy.linalg.norm(a, axis=1) * numpy.linalg.norm(b, axis=0)
        assert all(weight[:-1] >= weight[1:] * 0.99999), "the heaviest rank comes first"
    assert run_cli("inspect", tmp_path / "peft", check=0).stdout.startswith("format")


def test_adalora_ranks_that_are_zero_are_left_out(tmp_path, tiny_config):
    def zero(_, tensors):
        for name, values in tensors.items():
            if name.endswith("lora_E") and len(values) > 1:
                values[0] = 0

    adalora(tmp_path / "whole", tiny_config)
    adalora(tmp_path / "zeroed", tiny_config, damage=zero)
    ranks = []
    for name in ("whole", "zeroed"):
        told = json.loads(run_cli("inspect", tmp_path / name, "--json", check=0).stdout)
        ranks.append({(m["layer"], m["module"]): (m["rank"], m["scale"]) for m in told["modules"]})
    assert ranks[0].keys() == ranks[1].keys()
    for key, (rank, scale) in ranks[0].items():
        assert ranks[1][key] == (rank - (rank > 1), scale)


def change(**fields):
    return lambda config, _: config.update(fields)


def drop_e(_, tensors):
    del tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_E"]


def lie_about_rank(config, _):
    config["rank_pattern"]["model.layers.0.self_attn.q_proj.lora_E"] = [True] * 6


def foreign_key(config, _):
    config["rank_pattern"]["model.layers.0.self_attn.q_proj"] = [True] * 6


def short_mask(config, _):
    config["rank_pattern"]["model.layers.0.self_attn.q_proj.lora_E"] = [True] * 5


def endless(_, tensors):
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_E"][0] = numpy.inf


def overflow(_, tensors):
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors[stem + "E"][:] = 1e30
    tensors[stem + "B"][:] = 1e30


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (change(peft_type="LORA"), "rank_pattern"),
        (change(peft_type="LORA", rank_pattern={}), "named as AdaLoRA"),
        (change(use_rslora=True), "use_rslora"),
        (change(alpha_pattern={"q_proj": 1}), "alpha_pattern"),
        (change(bias="all"), "bias"),
        (change(init_r=None), "init_r"),
        (change(init_r=7), "init_r = 7"),
        (change(modules_to_save=["lm_head"]), "modules_to_save"),
        (drop_e, "no lora_E beside it"),
        (lie_about_rank, "expected shape"),
        (foreign_key, ".lora_E"),
        (short_mask, "init_r = 6"),
        (endless, "finite"),
        (overflow, "not finite"),
    ],
)
def test_damaged_adalora_is_refused_by_name(tmp_path, tiny_config, damage, part):
    adalora(tmp_path / "peft", tiny_config, damage=damage)
    said = run_cli("import", tmp_path / "peft", "--out", tmp_path / "o", check=1).stderr
    assert part in said, said
    assert not (tmp_path / "o").exists()
