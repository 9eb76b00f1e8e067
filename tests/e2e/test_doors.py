# SPDX-License-Identifier: Apache-2.0
"""What clients of vLLM, llama.cpp and LoRAX send, and what they expect back."""

import concurrent.futures
import json
import os
import re

import pytest
import safetensors.numpy
from harness import (
    TINY, Server, adapter_bytes, adapter_config, adapter_tensors, error_of, golden, run_cli,
)  # fmt: skip

pytestmark = pytest.mark.sanitizer

CONFIG = golden("tiny", "llama", "config.json")
PROMPT = [(7 * i + 3) % 250 for i in range(30)]
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def write_peft(folder, seed):
    """A PEFT folder as save_pretrained leaves it."""
    tensors, pattern = adapter_tensors(CONFIG, seed)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(pattern)), "utf-8")
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server with a root that has good files, and everything that must not be read."""
    place = tmp_path_factory.mktemp("doors")
    root = place / "root"
    (root / "sub").mkdir(parents=True)
    (root / "one.safetensors").write_bytes(adapter_bytes(CONFIG, 1))
    (root / "sub" / "two.safetensors").write_bytes(adapter_bytes(CONFIG, 2))
    write_peft(root / "peft", 1)
    (root / "broken.safetensors").write_bytes(adapter_bytes(CONFIG, 1)[:100])
    (root / "empty").write_bytes(b"")
    (place / "secret.safetensors").write_bytes(adapter_bytes(CONFIG, 3))
    write_peft(place / "outside", 3)
    options = ("--model-name", "tiny", "--adapter-root", root)
    with Server(TINY / "llama", place / "store", *options) as server:
        server.name, server.root, server.place = "tiny", root, place
        yield server


def tokens(server, model="tiny", **fields):
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True, **fields,
    }  # fmt: skip
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["token_ids"]


def models(server):
    return {card["id"]: card for card in server.http.get("/v1/models").json()["data"]}


def load(server, name, path, **fields):
    return server.post(LOAD, {"lora_name": name, "lora_path": str(path), **fields})


def expect_plain(reply, text):
    assert reply.status_code == 200, reply.text
    assert reply.text == text
    assert reply.headers["content-type"].startswith("text/plain")


def expect_vllm(reply, status, kind, text=None):
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["type"] == kind and error["code"] == status and error["param"] is None, error
    if text is not None:
        assert error["message"] == text
    return error["message"]


# ---- vLLM


def test_load_and_unload_in_the_words_of_vllm(world):
    expect_plain(
        load(world, "vllm", "one.safetensors"), "Success: LoRA adapter 'vllm' added successfully."
    )
    world.put("direct", adapter_bytes(CONFIG, 1))
    assert tokens(world, "vllm") == tokens(world, "direct") != tokens(world)
    assert models(world)["vllm"]["parent"] == "tiny"
    expect_vllm(
        load(world, "vllm", "one.safetensors"), 400, "InvalidUserInput",
        "The lora adapter 'vllm' has already been loaded. If you want to load the adapter in "
        "place, set 'load_inplace' to True.",
    )  # fmt: skip
    body = {"lora_name": "vllm", "lora_int_id": 7}
    expect_plain(world.post(UNLOAD, body), "Success: LoRA adapter 'vllm' removed successfully.")
    assert "vllm" not in models(world)
    expect_vllm(
        world.post(UNLOAD, body), 404, "NotFoundError",
        "The lora adapter 'vllm' cannot be found.",
    )  # fmt: skip
    body = {"model": "vllm", "prompt": [1]}
    error_of(world.post("/v1/completions", body), 404, "model_not_found")


def test_load_in_place_is_the_next_version(world):
    for path in ("one.safetensors", world.root / "sub" / "two.safetensors"):
        expect_plain(
            load(world, "place", path, load_inplace=True),
            "Success: LoRA adapter 'place' added successfully.",
        )
    assert world.http.get("/v1/adapters/place").json()["version"] == 2
    world.put("direct2", adapter_bytes(CONFIG, 2))
    assert tokens(world, "place") == tokens(world, "direct2") != tokens(world, "place@1")


def test_a_peft_folder_is_loaded_also_through_links_within_the_root(world):
    (world.root / "blobs").mkdir()
    (world.root / "snapshot").mkdir()
    for number, name in enumerate(("adapter_config.json", "adapter_model.safetensors")):
        (world.root / "blobs" / str(number)).write_bytes((world.root / "peft" / name).read_bytes())
        (world.root / "snapshot" / name).symlink_to(f"../blobs/{number}")
    (world.root / "latest").symlink_to("snapshot")
    world.put("peft-direct", adapter_bytes(CONFIG, 1))
    for path in ("peft", "peft/", world.root / "peft", "snapshot", "latest"):
        reply = load(world, "peft", path, load_inplace=True)
        expect_plain(reply, "Success: LoRA adapter 'peft' added successfully.")
        assert tokens(world, "peft") == tokens(world, "peft-direct")


def test_fields_that_are_missing_or_wrong(world):
    both = "Both 'lora_name' and 'lora_path' must be provided."
    for body in ({}, {"lora_name": "x"}, {"lora_path": "one.safetensors"},
                 {"lora_name": "", "lora_path": "one.safetensors"},
                 {"lora_name": "x", "lora_path": ""},
                 {"lora_name": None, "lora_path": None}):  # fmt: skip
        expect_vllm(world.post(LOAD, body), 400, "InvalidUserInput", both)
    name = "'lora_name' needs to be provided to unload a LoRA adapter."
    for body in ({}, {"lora_name": ""}, {"lora_int_id": 3}):
        expect_vllm(world.post(UNLOAD, body), 400, "InvalidUserInput", name)
    for path in (LOAD, UNLOAD):
        for body in ([], 3, {"lora_name": 3}, {"lora_name": "x", "lora_int_id": "y"},
                     {"lora_name": "x", "lora_path": ["one"]},
                     {"lora_name": "x", "lora_path": "p", "load_inplace": "yes"}):  # fmt: skip
            expect_vllm(world.post(path, body), 400, "BadRequestError")
        expect_vllm(world.http.post(path, content=b"{"), 400, "BadRequestError")
        assert world.http.get(path).status_code == 405
    for bad in ("tiny", "a b", "../x", "x@1", "x" * 200, "~a"):
        expect_vllm(load(world, bad, "one.safetensors"), 400, "BadRequestError")
    for bad in ("a b", "nobody@1", "place@1", "x" * 200):
        expect_vllm(world.post(UNLOAD, {"lora_name": bad}), 404, "NotFoundError")
    assert not {"x", "a b", "x@1"} & set(models(world))


def test_what_is_not_there_is_not_found_in_the_words_of_the_engine(world):
    (world.root / "hollow").mkdir(exist_ok=True)
    for path in ("nothing", "sub/nothing", "one.safetensors/deeper", "hollow", world.root / "no"):
        expect_vllm(
            load(world, "missing", path), 404, "NotFoundError",
            f"Loading lora missing failed: No adapter found for {path}",
        )  # fmt: skip


def test_what_is_no_adapter_is_a_bad_request(world):
    (world.root / "wrong-base.safetensors").write_bytes(
        adapter_bytes({**CONFIG, "hidden_size": 2 * CONFIG["hidden_size"]}, 1)
    )
    for path in ("broken.safetensors", "empty", "wrong-base.safetensors"):
        message = expect_vllm(load(world, "bad", path), 400, "BadRequestError")
        assert len(message) > 20, message
    assert "bad" not in models(world)


def test_nothing_outside_the_root_is_read(world):
    root, place = world.root, world.place
    os.mkfifo(root / "pipe")
    (root / "link-file").symlink_to(place / "secret.safetensors")
    (root / "link-up").symlink_to("..")
    (root / "link-folder").symlink_to(place / "outside")
    (root / "link-dev").symlink_to("/dev/zero")
    mixed = root / "mixed"  # a folder inside whose weights lie outside
    mixed.mkdir()
    (mixed / "adapter_config.json").write_bytes((root / "peft/adapter_config.json").read_bytes())
    (mixed / "adapter_model.safetensors").symlink_to(place / "outside/adapter_model.safetensors")
    piped = root / "piped"
    piped.mkdir()
    os.mkfifo(piped / "adapter_config.json")
    nested = root / "nested"
    (nested / "adapter_config.json").mkdir(parents=True)
    hostile = [
        "../secret.safetensors", "sub/../../secret.safetensors", "sub/../one.safetensors", "..",
        place / "secret.safetensors", "/etc/passwd", "/", "//etc/passwd", "/dev/zero",
        f"{root}/../secret.safetensors", f"{root}-2", "link-file", "link-up/secret.safetensors",
        "link-folder", "link-dev", "pipe", "mixed", "piped", "nested", "one.safetensors\n",
        "a" * 5000, "/proc/self/mem", "/proc/self/fd/0", "file:///etc/passwd",
        "https://example.org/x",
    ]  # fmt: skip
    for path in hostile:
        reply = load(world, "hostile", path)
        kinds = {400: "BadRequestError", 404: "NotFoundError"}
        assert reply.status_code in kinds, f"{path}: {reply.text}"
        expect_vllm(reply, reply.status_code, kinds[reply.status_code])
    assert "hostile" not in models(world)
    expect_vllm(load(world, "hostile", "a\0b"), 400, "BadRequestError")
    # The good ones are still good.
    reply = load(world, "h", "one.safetensors")
    expect_plain(reply, "Success: LoRA adapter 'h' added successfully.")


def test_of_many_that_load_one_name_one_succeeds(world):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: load(world, "race", "one.safetensors"), range(24)))
    assert sorted(r.status_code for r in replies) == [200] + [400] * 23
    assert world.http.get("/v1/adapters/race").json()["versions"] == 1


def test_changes_are_on_record(world):
    load(world, "noted", "one.safetensors")
    world.post(UNLOAD, {"lora_name": "noted"})
    records = world.http.get("/v1/audit?limit=1000").json()["data"]
    found = [(r["action"], r["outcome"]) for r in records if r["object"] == "noted"]
    assert found == [("adapter.publish", "begun"), ("adapter.publish", "done"),
                     ("adapter.delete", "begun"), ("adapter.delete", "done")]  # fmt: skip


def test_without_a_root_the_routes_are_not_there(tmp_path):
    with Server(TINY / "llama", tmp_path / "store") as server:
        for path in (LOAD, UNLOAD):
            body = {"lora_name": "x", "lora_path": "y"}
            error_of(server.post(path, body), 404, "route_not_found")
            error_of(server.http.get(path), 404, "route_not_found")


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_a_root_that_is_no_folder_is_an_error_at_the_start(tmp_path, root):
    (tmp_path / "file").write_bytes(b"x")
    run = run_cli("serve", "--model", TINY / "llama", "--store", tmp_path / "store", "--port", "0",
                  "--adapter-root", tmp_path / root, check=1)  # fmt: skip
    assert "--adapter-root" in run.stderr and root in run.stderr


def test_cards_have_what_vllm_has(world):
    world.put("card", adapter_bytes(CONFIG, 1))
    cards = models(world)
    digest = world.http.get("/v1/adapters/card").json()["digest"]
    assert cards["tiny"]["root"] == "tiny" and cards["tiny"]["parent"] is None
    assert cards["card"]["root"] == digest and cards["card"]["parent"] == "tiny"
    assert world.http.get("/v1/models/card").json().keys() == cards["card"].keys()
    assert cards["tiny"]["permission"] != cards["card"]["permission"]
    for card in (cards["tiny"], cards["card"]):
        (permission,) = card["permission"]
        assert re.fullmatch(r"modelperm-[0-9a-f]{32}", permission.pop("id"))
        assert permission.pop("created") == card["created"]
        assert permission == {
            "object": "model_permission", "allow_create_engine": False, "allow_sampling": True,
            "allow_logprobs": True, "allow_search_indices": False, "allow_view": True,
            "allow_fine_tuning": False, "organization": "*", "group": None, "is_blocking": False,
        }  # fmt: skip


# ---- llama.cpp


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    store = tmp_path_factory.mktemp("llama") / "store"
    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        server.name = "tiny"
        for name in ("b", "a", "c"):
            server.put(name, adapter_bytes(CONFIG, ord(name)))
        yield server


def listed(server):
    reply = server.http.get("/lora-adapters")
    assert reply.status_code == 200, reply.text
    return reply.json()


def scales(server):
    return {item["path"]: item["scale"] for item in listed(server)}


def ids(server):
    return {item["path"]: item["id"] for item in listed(server)}


def set_scales(server, items, status=200):
    reply = server.post("/lora-adapters", items)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_the_list_is_llama_cpps(llama):
    items = listed(llama)
    assert [item["path"] for item in items] == ["a", "b", "c"]
    for item in items:
        assert item == {"id": item["id"], "path": item["path"], "scale": 0.0, "task_name": "",
                        "prompt_prefix": ""}  # fmt: skip
    assert sorted(item["id"] for item in items) == [0, 1, 2]


def test_an_id_is_never_given_to_another_name(llama):
    before = ids(llama)
    llama.put("0-first", adapter_bytes(CONFIG, 9))
    assert {**ids(llama), **before} == ids(llama) and ids(llama)["0-first"] not in before.values()
    first = ids(llama)["0-first"]
    assert llama.http.delete("/v1/adapters/0-first").status_code == 200
    assert ids(llama) == before
    error = error_of(
        llama.post("/v1/completions", {"prompt": [1], "lora": [{"id": first, "scale": 1}]}),
        404, "adapter_not_found",
    )  # fmt: skip
    assert error["param"] == "lora" and str(first) in error["message"]
    llama.put("0-second", adapter_bytes(CONFIG, 9))
    assert ids(llama)["0-second"] not in {*before.values(), first}
    llama.http.delete("/v1/adapters/0-second")


def test_a_request_takes_scales_by_id(llama):
    of = ids(llama)
    both = [{"name": "a"}, {"name": "b", "scale": 0.5}]
    scaled = [{"id": of["a"], "scale": 1}, {"id": of["b"], "scale": 0.5}]
    expected = tokens(llama, adapters=both)
    assert tokens(llama, lora=scaled) == expected
    assert tokens(llama, lora=[*scaled, {"id": of["c"], "scale": 0}]) == expected
    assert tokens(llama, lora=[]) == tokens(llama) != expected
    for bad in (99, 2**31 - 1):
        error_of(llama.post("/v1/completions", {"prompt": [1], "lora": [{"id": bad, "scale": 1}]}),
                 404, "adapter_not_found")  # fmt: skip
    error_of(llama.post("/v1/completions", {"prompt": [1], "lora": {"id": 0}}), 400)


def test_global_scales_hold_for_whoever_names_nothing(llama):
    of, base = ids(llama), tokens(llama)
    a = tokens(llama, "a")
    ab = tokens(llama, adapters=[{"name": "a"}, {"name": "b", "scale": 0.25}])
    assert set_scales(llama, [{"id": of["a"], "scale": 1}]) == {"success": True}
    assert scales(llama) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert tokens(llama) == tokens(llama, None) == a
    assert tokens(llama, "c") != a  # what a request names counts
    assert tokens(llama, adapters=[]) == tokens(llama, lora=[]) == base
    set_scales(llama, [{"id": of["a"], "scale": 1}, {"id": of["b"], "scale": 0.25}])
    assert tokens(llama) == ab
    set_scales(llama, [{"id": of["b"], "scale": 0.25}])  # left out: back to 0
    assert scales(llama) == {"a": 0.0, "b": 0.25, "c": 0.0}
    llama.put("gone", adapter_bytes(CONFIG, 77))
    set_scales(llama, [{"id": ids(llama)["gone"], "scale": 1}])
    llama.http.delete("/v1/adapters/gone")
    assert tokens(llama) == base
    set_scales(llama, [])
    assert tokens(llama) == base
    actions = [r["object"] for r in llama.http.get("/v1/audit?limit=1000").json()["data"]
               if r["action"] == "adapter.scale" and r["outcome"] == "done"]  # fmt: skip
    assert actions == ["a", "b", "a", "b", "gone", "gone"]


def test_scales_that_cannot_be_set_change_nothing(llama):
    of = ids(llama)
    set_scales(llama, [{"id": of["c"], "scale": 2}])

    def refuse(body, text):
        error = set_scales(llama, body, 400)["error"]
        assert set(error) == {"code", "message", "type"} and error["code"] == 400, error
        assert error["type"] == "invalid_request_error" and text in error["message"], error

    refuse({"id": 0, "scale": 1}, "Request body must be an array")
    refuse([{"id": 12345, "scale": 1}], "invalid adapter id")
    refuse([{"id": -1, "scale": 1}], "-1")
    refuse([{"id": of["a"]}], "required")
    refuse([{"id": of["a"], "scale": "1"}], "scale")
    refuse([7], "id")
    assert llama.http.post("/lora-adapters", content=b"[").status_code == 400
    for letter in "defghi":
        llama.put(letter, adapter_bytes(CONFIG, ord(letter)))
    refuse([{"id": i, "scale": 1} for i in ids(llama).values()], "more than the 8")
    assert {i["path"]: i["scale"] for i in listed(llama) if i["scale"] != 0} == {"c": 2.0}
    set_scales(llama, [])


# ---- LoRAX


def test_parameters_name_an_adapter(llama):
    assert tokens(llama, parameters={"adapter_id": "b"}) == tokens(llama, "b") != tokens(llama)
    for base in ("", "tiny", None):
        assert tokens(llama, parameters={"adapter_id": base}) == tokens(llama)
    error_of(llama.post("/v1/completions", {"prompt": [1], "parameters": {"adapter_id": "nobody"}}),
             404, "model_not_found")  # fmt: skip
    merged = {"merged_adapters": {"ids": ["a", "b"], "weights": [1, 1]}}
    body = {"prompt": [1], "parameters": merged}
    error_of(llama.post("/v1/completions", body), 400, "unsupported")


def generate(server, path="/generate", inputs=PROMPT, **parameters):
    parameters = {"max_new_tokens": 8, "ignore_eos_token": True, **parameters}
    return server.post(path, {"inputs": inputs, "parameters": parameters})


def stream_of(server, **options):
    """The events of /generate_stream."""
    reply = generate(server, "/generate_stream", **options)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in reply.text
    lines = [line for line in reply.text.splitlines() if line and not line.startswith(":")]
    assert all(line.startswith("data:") for line in lines), lines
    return [json.loads(line[5:]) for line in lines]


def test_generate_takes_an_adapter_and_answers_as_lorax(llama):
    for name in ("a", "", None):
        expected = tokens(llama, name or "tiny")
        reply = generate(llama, adapter_id=name, adapter_source="local", details=True)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert set(body) == {"generated_text", "details"}
        details = body["details"]
        assert [t["id"] for t in details["tokens"]] == expected
        assert all(set(t) == {"id", "text", "logprob", "special"} for t in details["tokens"])
        assert details["finish_reason"] == "length" and details["prefill"] == []
        assert details["generated_tokens"] == 8 and details["prompt_tokens"] == len(PROMPT)
        assert details["seed"] is None
    assert set(generate(llama).json()) == {"generated_text"}
    seeds = [generate(llama, do_sample=True, seed=s, details=True).json() for s in (1, 1, 2)]
    assert seeds[0] == seeds[1] and seeds[0]["details"]["seed"] == 1


def test_generate_stream_sends_a_token_at_a_time(llama):
    whole = generate(llama, adapter_id="b", details=True).json()
    events = stream_of(llama, adapter_id="b", details=True)
    assert [e["token"] for e in events] == whole["details"]["tokens"]
    assert all(e["generated_text"] is None and e["details"] is None for e in events[:-1])
    last = events[-1]
    assert last["generated_text"] == whole["generated_text"]
    assert last["details"] == {k: whole["details"][k] for k in last["details"]}
    assert stream_of(llama)[-1]["details"] is None


def test_generate_composes_too(llama):
    listed = [{"name": "a"}, {"name": "b", "scale": 0.5}]
    body = {
        "inputs": PROMPT, "adapters": listed, "elastic": True,
        "parameters": {"max_new_tokens": 8, "ignore_eos_token": True, "details": True},
    }  # fmt: skip
    details = llama.post("/generate", body).json()["details"]
    assert [t["id"] for t in details["tokens"]] == tokens(llama, adapters=listed)
    assert details["sora"] == {"rank_limit": None}


def test_errors_of_generate_are_lorax_s(llama):
    def refuse(status, kind, reply):
        assert reply.status_code == status, reply.text
        assert set(reply.json()) == {"error", "error_type"}
        assert reply.json()["error_type"] == kind
        return reply.json()["error"]

    for path in ("/generate", "/generate_stream"):
        said = refuse(424, "generation", generate(llama, path, adapter_id="nobody"))
        assert "nobody" in said
        refuse(422, "validation", generate(llama, path, max_new_tokens=100000))
        refuse(422, "validation", generate(llama, path, truncate=4))
        refuse(422, "validation", generate(llama, path, merged_adapters={"ids": ["a"]}))
        refuse(422, "validation", generate(llama, path, inputs="text"))  # no tokenizer
        refuse(422, "validation", llama.http.post(path, content=b"{"))
        refuse(422, "validation", llama.post(path, {"parameters": {}}))
        big = llama.http.post(path, content=b'{"inputs":"' + b"a" * (9 << 20) + b'"}')
        refuse(413, "validation", big)
