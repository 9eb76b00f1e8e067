# SPDX-License-Identifier: Apache-2.0
"""The fields of a completion request: stop, n, echo, seed, sampling, streams, logprobs."""

import json
import math

import pytest
from harness import adapter_tensors, encode_adapter, error_of, sse_events

PROMPT = "Once upon a time, in a small village"


def text_of(server, **fields):
    return server.ask({"prompt": PROMPT, "temperature": 0, "max_tokens": 24, **fields})


def stream(server, path, body):
    with server.http.stream("POST", path, json={"model": server.name, **body}) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers.get("x-request-id")
        return list(sse_events(reply.iter_lines()))


def test_a_reply_has_openais_fields(base):
    reply = text_of(base)
    assert reply["object"] == "text_completion" and reply["model"] == "base"
    assert reply["id"] and isinstance(reply["created"], int)
    (choice,) = reply["choices"]
    assert choice["index"] == 0 and choice["text"] and choice["logprobs"] is None
    usage = reply["usage"]
    assert usage["completion_tokens"] == 24 and choice["finish_reason"] == "length"
    assert usage["total_tokens"] == usage["prompt_tokens"] + 24
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 0


def test_max_tokens_is_16_unless_said(base):
    reply = base.ask({"prompt": PROMPT, "temperature": 0, "ignore_eos": True})
    assert reply["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("length", [1, 3])
def test_a_stop_string_ends_the_text_before_it(base, length):
    whole = text_of(base)["choices"][0]["text"]
    words = whole.split(" ")
    stop = " " + " ".join(words[4 : 4 + length])
    choice = text_of(base, stop=[stop])["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == whole[: whole.index(stop)]
    one = text_of(base, stop=stop)["choices"][0]
    assert one["text"] == choice["text"]


def test_a_stop_string_that_begins_inside_a_token_is_found(base):
    whole = text_of(base)["choices"][0]["text"]
    stop = whole[7:12]
    choice = text_of(base, stop=[stop])["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]


def test_a_stream_never_sends_what_a_stop_string_takes_back(base):
    whole = text_of(base)["choices"][0]["text"]
    stop = whole[20:31]
    body = {"prompt": PROMPT, "temperature": 0, "max_tokens": 24, "stop": [stop], "stream": True}
    events = stream(base, "/v1/completions", body)
    text = "".join(e["choices"][0]["text"] for e in events if e["choices"])
    assert text == whole[: whole.index(stop)]


def test_streamed_text_and_tokens_equal_the_whole_reply(base):
    whole = text_of(base, return_token_ids=True, ignore_eos=True)["choices"][0]
    body = {
        "prompt": PROMPT, "temperature": 0, "max_tokens": 24, "ignore_eos": True, "stream": True,
        "return_token_ids": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events = stream(base, "/v1/completions", body)
    parts = [e["choices"][0] for e in events if e["choices"]]
    assert "".join(p["text"] for p in parts) == whole["text"]
    assert sum((p.get("token_ids") or [] for p in parts), []) == whole["token_ids"]
    assert len(parts) > 5, "a stream comes in pieces"
    assert parts[-1]["finish_reason"] == "length"
    assert all(p["finish_reason"] is None for p in parts[:-1])
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 24


def test_text_beyond_ascii_is_never_cut_inside_a_character(base):
    body = {
        "prompt": "日本語の文章: 東京は日本の首都です。", "max_tokens": 24, "temperature": 0,
        "stream": True, "ignore_eos": True,
    }  # fmt: skip
    events = stream(base, "/v1/completions", body)
    streamed = "".join(e["choices"][0]["text"] for e in events if e["choices"])
    whole = base.ask({**body, "stream": False})["choices"][0]["text"]
    assert streamed == whole


def test_n_gives_that_many_choices(base):
    reply = base.ask({"prompt": PROMPT, "n": 3, "max_tokens": 12, "temperature": 1, "seed": 5})
    assert [c["index"] for c in reply["choices"]] == [0, 1, 2]
    assert len({c["text"] for c in reply["choices"]}) > 1
    assert reply["usage"]["completion_tokens"] <= 36


def test_several_prompts_give_their_choices_in_order(base):
    prompts = ["The capital of France is", PROMPT]
    together = base.ask({"prompt": prompts, "max_tokens": 6, "temperature": 0})["choices"]
    alone = [text_of(base, prompt=p, max_tokens=6)["choices"][0]["text"] for p in prompts]
    assert [c["text"] for c in together] == alone


def test_best_of_returns_the_likeliest(base):
    fields = {"prompt": PROMPT, "max_tokens": 8, "temperature": 1.2, "seed": 9, "logprobs": 0}
    every = base.ask({**fields, "n": 4})["choices"]
    best = base.ask({**fields, "n": 1, "best_of": 4})["choices"]
    assert len(best) == 1
    means = {
        c["text"]: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"])
        for c in every
    }
    assert best[0]["text"] == max(means, key=means.get)


def test_echo_puts_the_prompt_first(base):
    plain = text_of(base, max_tokens=4)["choices"][0]["text"]
    assert text_of(base, max_tokens=4, echo=True)["choices"][0]["text"] == PROMPT + plain


def test_echoed_logprobs_cover_prompt_and_answer(base):
    choice = text_of(base, max_tokens=4, echo=True, logprobs=2, ignore_eos=True)["choices"][0]
    logprobs = choice["logprobs"]
    count = len(logprobs["tokens"])
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    assert len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == count
    assert "".join(logprobs["tokens"]) == choice["text"]
    offsets = [choice["text"].index(logprobs["tokens"][0])]
    for token in logprobs["tokens"][:-1]:
        offsets.append(offsets[-1] + len(token))
    assert logprobs["text_offset"] == offsets
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])


def test_logprobs_are_a_distribution(base):
    top = text_of(base, max_tokens=1, logprobs=50)["choices"][0]["logprobs"]["top_logprobs"][0]
    total = sum(math.exp(value) for value in top.values())
    assert 49 <= len(top) <= 51 and 0.3 < total <= 1.0001


def test_a_seed_repeats_and_another_differs(base):
    fields = {"prompt": PROMPT, "temperature": 1, "max_tokens": 20}
    first = base.ask({**fields, "seed": 1})["choices"][0]["text"]
    assert base.ask({**fields, "seed": 1})["choices"][0]["text"] == first
    assert base.ask({**fields, "seed": 2})["choices"][0]["text"] != first


def test_without_a_seed_samples_differ(base):
    fields = {"prompt": PROMPT, "temperature": 1, "max_tokens": 20}
    texts = {base.ask(fields)["choices"][0]["text"] for _ in range(4)}
    assert len(texts) > 1


@pytest.mark.parametrize("fields", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_truncation_to_one_token_is_greedy(base, fields):
    greedy = text_of(base)["choices"][0]["text"]
    sampled = text_of(base, temperature=1.5, seed=3, **fields)["choices"][0]["text"]
    assert sampled == greedy


@pytest.mark.parametrize("fields", [{"top_k": 4}, {"min_p": 0.2}, {"top_p": 0.5}])
def test_truncated_sampling_stays_among_the_likely(base, fields):
    body = {
        "prompt": PROMPT, "max_tokens": 16, "temperature": 2, "seed": 8, "logprobs": 50,
        "ignore_eos": True, "return_tokens_as_token_ids": True,
    }  # fmt: skip
    logprobs = base.ask({**body, **fields})["choices"][0]["logprobs"]
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]
    ):
        ranked = sorted(top.values(), reverse=True)
        if "top_k" in fields:
            assert value >= ranked[3] - 1e-6
        if "min_p" in fields:
            # Truncation is by the tempered distribution: p^(1/2) of the best.
            assert value / 2 >= ranked[0] / 2 + math.log(0.2) - 1e-3
        assert token in top


def test_logit_bias_bans_and_forces(base):
    first = text_of(base, max_tokens=1, return_token_ids=True)["choices"][0]["token_ids"][0]
    other = text_of(
        base, max_tokens=1, return_token_ids=True, logit_bias={str(first): -100}
    )["choices"][0]["token_ids"][0]
    assert other != first
    forced = text_of(base, max_tokens=3, return_token_ids=True, logit_bias={"500": 100})
    assert forced["choices"][0]["token_ids"] == [500, 500, 500]


def test_a_frequency_penalty_ends_repetition(base):
    # Biased so that 500 is always a little ahead: one token repeats for ever.
    fields = {"return_token_ids": True, "max_tokens": 40, "logit_bias": {"500": 25}}
    assert set(text_of(base, **fields)["choices"][0]["token_ids"]) == {500}
    assert set(text_of(base, **fields, frequency_penalty=2)["choices"][0]["token_ids"]) != {500}


@pytest.mark.parametrize(
    "name, off, on",
    [("frequency_penalty", 0, 1), ("presence_penalty", 0, 2), ("repetition_penalty", 1, 1.5)],
)
def test_a_penalty_changes_what_is_sampled(base, name, off, on):
    fields = {"temperature": 1, "seed": 4, "max_tokens": 40, "ignore_eos": True}
    plain = text_of(base, **fields)["choices"][0]["text"]
    assert text_of(base, **fields, **{name: off})["choices"][0]["text"] == plain
    assert text_of(base, **fields, **{name: on})["choices"][0]["text"] != plain


def test_tokenization_routes_are_inverse(base):
    text = "Hello, wörld! 日本\n  two"
    reply = base.post("/tokenize", {"model": "base", "prompt": text}).json()
    assert reply["count"] == len(reply["tokens"]) and reply["max_model_len"] > 0
    back = base.post("/detokenize", {"model": "base", "tokens": reply["tokens"]}).json()
    assert back["prompt"] == text
    ids = text_of(base, prompt=text, max_tokens=1, return_token_ids=True)["choices"][0]
    assert ids["prompt_token_ids"] == reply["tokens"]


def test_a_chat_can_be_tokenized(base):
    messages = [{"role": "user", "content": "Hi"}]
    reply = base.post("/tokenize", {"model": "base", "messages": messages}).json()
    text = base.post("/detokenize", {"model": "base", "tokens": reply["tokens"]}).json()["prompt"]
    assert "Hi" in text and text.rstrip("\n").endswith("assistant")


def test_a_chat_stream_starts_with_the_role(base):
    body = {
        "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8,
        "temperature": 0, "stream": True,
    }  # fmt: skip
    events = stream(base, "/v1/chat/completions", body)
    deltas = [e["choices"][0]["delta"] for e in events if e["choices"]]
    assert deltas[0]["role"] == "assistant"
    whole = base.ask({**body, "stream": False}, "/v1/chat/completions")["choices"][0]
    text = "".join(d.get("content") or "" for d in deltas)
    assert text == whole["message"]["content"] and text
    assert all(e["object"] == "chat.completion.chunk" for e in events)


def test_chat_logprobs_have_bytes_and_alternatives(base):
    body = {
        "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3,
        "temperature": 0, "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip
    choice = base.ask(body, "/v1/chat/completions")["choices"][0]
    for token in choice["logprobs"]["content"]:
        assert len(token["top_logprobs"]) == 5
        assert bytes(token["bytes"]).decode("utf-8", "replace") == token["token"]
        assert token["logprob"] == token["top_logprobs"][0]["logprob"]


def test_max_rank_uses_the_first_ranks(tiny, tiny_config):
    """As an adapter would that was cut to these ranks, at the same scale."""
    tensors, pattern = adapter_tensors(tiny_config, 3)
    cut = {
        name: tensor[:2].copy() if "lora_A" in name else tensor[:, :2].copy()
        for name, tensor in tensors.items()
    }
    short = {name: min(2, rank) for name, rank in pattern.items()}
    tiny.put("elastic", encode_adapter(tensors, pattern))
    tiny.put("cut", encode_adapter(cut, short))
    body = {
        "prompt": list(range(10, 30)), "max_tokens": 1, "temperature": 0, "logprobs": 5,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip

    def choices(**fields):
        return json.dumps(tiny.ask({**body, **fields})["choices"])

    whole = choices(model="elastic")
    two = choices(model="elastic", max_rank=2)
    assert two == choices(model="cut")
    assert choices(model="elastic", max_rank=99) == whole
    assert len({whole, two, choices(model="elastic", max_rank=1), choices(model="tiny")}) == 4


def test_a_model_without_a_tokenizer_wants_token_ids(tiny):
    error = error_of(tiny.post("/v1/completions", {"model": "tiny", "prompt": "text"}), 400)
    assert "token" in error["message"]
    choice = tiny.ask({"prompt": [1, 2, 3], "max_tokens": 4, "return_token_ids": True})
    assert choice["choices"][0]["text"] == ""


# ---- LoRAX's /generate, with text


def test_generate_gives_the_text_of_a_completion(base):
    prompt = "The capital of France is"
    body = {"prompt": prompt, "max_tokens": 24, "temperature": 0}
    expected = base.ask(body)["choices"][0]["text"]
    parameters = {"max_new_tokens": 24, "details": True}
    whole = base.post("/generate", {"inputs": prompt, "parameters": parameters}).json()
    assert whole["generated_text"] == expected
    assert "".join(t["text"] for t in whole["details"]["tokens"]) == expected
    full = {**parameters, "return_full_text": True}
    reply = base.post("/generate", {"inputs": prompt, "parameters": full}).json()
    assert reply["generated_text"] == prompt + expected
    stream = base.post("/generate_stream", {"inputs": prompt, "parameters": parameters}).text
    events = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data:")]
    assert [e["token"] for e in events] == whole["details"]["tokens"]
    assert events[-1]["generated_text"] == expected


def test_a_stop_string_of_generate_ends_the_text_as_in_tgi(base):
    prompt = "Count: one, two, three,"
    text = base.ask({"prompt": prompt, "max_tokens": 16, "temperature": 0})["choices"][0]["text"]
    stop = text[4:7]
    parameters = {"max_new_tokens": 16, "details": True, "stop": [stop]}
    body = {"inputs": prompt, "parameters": parameters}
    whole = base.post("/generate", body).json()
    assert whole["generated_text"] == text[: text.index(stop) + len(stop)]
    assert whole["details"]["finish_reason"] == "stop_sequence"
    stream = base.post("/generate_stream", body).text
    events = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data:")]
    assert events[-1]["generated_text"] == whole["generated_text"]
    assert events[-1]["details"]["finish_reason"] == "stop_sequence"
    assert "".join(e["token"]["text"] for e in events) == whole["generated_text"]
