# SPDX-License-Identifier: Apache-2.0
"""OpenAI's Python client, unchanged, against the server."""

import openai
import pytest
from harness import GOLDEN, run_cli

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(base):
    return openai.OpenAI(base_url=base.url + "/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapter") / "a.safetensors"
    run_cli("import", GOLDEN / "adapters" / "ragged", "--out", out, check=0)
    base.put("team/ragged", out.read_bytes())
    return "team/ragged"


def test_a_completion(client):
    reply = client.completions.create(model="base", prompt="Hello", max_tokens=8, temperature=0)
    assert reply.choices[0].text and reply.usage.completion_tokens <= 8


def test_a_completion_of_an_adapter(client, adapter):
    fields = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    reply = client.completions.create(model=adapter, **fields)
    assert reply.model == adapter
    versioned = client.completions.create(model=adapter + "@1", **fields)
    assert versioned.choices[0].text == reply.choices[0].text


def test_a_streamed_completion_with_usage(client):
    chunks = list(
        client.completions.create(
            model="base", prompt="Hello", max_tokens=8, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
    )
    text = "".join(c.choices[0].text for c in chunks if c.choices)
    whole = client.completions.create(model="base", prompt="Hello", max_tokens=8, temperature=0)
    assert text == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_a_chat(client):
    reply = client.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=24, temperature=0
    )
    assert reply.object == "chat.completion"
    assert "Paris" in reply.choices[0].message.content
    assert reply.choices[0].message.role == "assistant"


def test_a_streamed_chat_with_usage(client):
    chunks = list(
        client.chat.completions.create(
            model="base", messages=MESSAGES, max_tokens=24, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices


def test_chat_logprobs(client):
    reply = client.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=2, temperature=0, logprobs=True, top_logprobs=3
    )
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 3


def test_content_in_parts_is_read(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
    fields = {"model": "base", "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(messages=MESSAGES, **fields)
    assert (
        client.chat.completions.create(messages=parts, **fields).choices[0].message.content
        == whole.choices[0].message.content
    )


def test_models_are_listed(client, adapter):
    models = {m.id: m for m in client.models.list()}
    assert models["base"].parent is None
    assert models[adapter].parent == "base" and len(models[adapter].root) == 64
    assert client.models.retrieve(adapter).id == adapter
    assert client.models.retrieve("base").object == "model"


def test_a_model_can_be_deleted(base, client, adapter):
    base.put("short-lived", base.http.get(f"/v1/adapters/{adapter}/content").content)
    assert client.models.delete("short-lived").deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("short-lived")
    # The same bytes under the other name stay.
    client.completions.create(model=adapter, prompt="a", max_tokens=1)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="nobody", prompt="a")
    assert caught.value.code == "model_not_found" and "nobody" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=MESSAGES)


def test_a_bad_value_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="base", prompt="a", temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="base", prompt="a", max_tokens=-1)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="base", messages=[])


def test_a_prompt_over_the_context_says_so(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="base", prompt=[5] * 20000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"


def test_a_prompt_with_a_suffix_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="base", prompt="a", suffix="b")
    assert caught.value.param == "suffix"


def test_the_client_closes_a_stream_early(base, client):
    chunks = client.completions.create(
        model="base", prompt="Hello", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(chunks))
    chunks.close()
    base.wait_idle(1.0)
