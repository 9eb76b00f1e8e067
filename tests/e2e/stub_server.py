# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-like server that behaves as the model's name says, for the tests of sora-loadtest.

usage: stub_server.py [--ttft S] [--gap S] [--tls CERT KEY] [--key KEY]
Prints its URL, then serves.
Models: good (the reply depends on the prompt alone), moody (every reply is another), cut (the
connection breaks midway), ends (no [DONE], no finish reason), lies-json, lies-usage, lies-type,
after-done, error-event, long-line, hangs (headers, then nothing), slams (no reply at all), busy
(429), broken (500), flaky (every third is 429), empty (200 without a body).
A list of adapters is at /v1/models; PUT and DELETE on /v1/adapters/NAME keep one.
"""

import argparse
import asyncio
import hashlib
import json
import ssl

OPTIONS = None
ADAPTERS = {"good": b"", "good-2": b""}
COUNTS = {"requests": 0, "uploads": 0, "deletes": 0, "keys": 0}
BASE = {
    "architecture": "llama", "layers": 2, "hidden": 16, "intermediate": 24, "heads": 4,
    "kv_heads": 2, "head_dim": 4, "vocab_size": 99, "fingerprint": "00",
}  # fmt: skip


def words_of(body, salt=""):
    """The words of a reply, from what was asked."""
    asked = {k: body.get(k) for k in ("model", "prompt", "messages", "max_tokens")}
    digest = hashlib.sha256((json.dumps(asked, sort_keys=True) + salt).encode()).hexdigest()
    return [f" {digest[i % 60 : i % 60 + 4]}" for i in range(int(body.get("max_tokens", 16)))]


def head(status, kind="application/json", length=None):
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(value):
    return chunk(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode())
                 + b"\n\n")


def reply_json(writer, value, status=200):
    data = json.dumps(value).encode()
    writer.write(head(status, length=len(data)) + data)


def choice(chat, text, finish=None, stream=True):
    inner = {"delta" if stream else "message": {"content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, **inner, "finish_reason": finish}]}


def usage(body, count):
    return {"prompt_tokens": len(str(body.get("prompt", "")).split()), "completion_tokens": count}


async def stream_reply(writer, body, chat, model, words):
    kind = "application/json" if model == "lies-type" else "text/event-stream"
    writer.write(head(200, kind))
    await writer.drain()
    if model == "hangs":
        await asyncio.sleep(600)
    await asyncio.sleep(OPTIONS.ttft)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for i, word in enumerate(words):
        # Against a clock, so that lateness does not add up.
        await asyncio.sleep(max(0, start + i * OPTIONS.gap - loop.time()))
        if i == len(words) // 2:
            if model == "cut":
                writer.transport.abort()
                return False
            if model == "lies-json":
                writer.write(event(b'{"choices":[{"text":'))
            if model == "error-event":
                writer.write(event({"error": {"message": "the engine died"}}))
            if model == "long-line":
                writer.write(chunk(b"data: " + b"x" * (3 << 20)))
        writer.write(event(choice(chat, word)))
        await writer.drain()
    if model != "ends":
        writer.write(event(choice(chat, "", "length")))
        count = 100000 if model == "lies-usage" else len(words)
        if body.get("stream_options", {}).get("include_usage"):
            writer.write(event({"choices": [], "usage": usage(body, count)}))
        writer.write(event(b"[DONE]"))
    if model == "after-done":
        writer.write(event(choice(chat, "more")))
    writer.write(b"0\r\n\r\n")
    return True


async def generate(writer, body, chat):
    COUNTS["requests"] += 1
    model = body["model"]
    if model == "slams":
        writer.transport.abort()
        return False
    if model == "busy" or (model == "flaky" and COUNTS["requests"] % 3 == 0):
        reply_json(writer, {"error": {"message": "too many requests"}}, 429)
        return True
    if model == "broken":
        reply_json(writer, {"error": {"message": "engine failure"}}, 500)
        return True
    if model == "empty":
        writer.write(head(200, length=0))
        return True
    words = words_of(body, str(COUNTS["requests"]) if model == "moody" else "")
    if body.get("stream"):
        return await stream_reply(writer, body, chat, model, words)
    await asyncio.sleep(OPTIONS.ttft + OPTIONS.gap * len(words))
    value = choice(chat, "".join(words), "length", stream=False)
    reply_json(writer, {**value, "usage": usage(body, len(words))})
    return True


def adapters(writer, method, name, body):
    if method == "PUT":
        COUNTS["uploads"] += 1
        ADAPTERS[name] = body
        reply_json(writer, {"name": name}, 201)
    elif name not in ADAPTERS:
        reply_json(writer, {"error": {"message": f"no adapter {name}"}}, 404)
    elif method == "DELETE":
        COUNTS["deletes"] += 1
        del ADAPTERS[name]
        reply_json(writer, {"name": name})
    else:
        reply_json(writer, {"name": name, "base": BASE})


async def answer(writer, method, path, body):
    """True: the connection stays."""
    if path == "/v1/models":
        models = [{"id": "base", "parent": None}]
        models += [{"id": name, "parent": "base"} for name in ADAPTERS]
        reply_json(writer, {"object": "list", "data": models})
    elif path == "/counts":
        reply_json(writer, {**COUNTS, "adapters": list(ADAPTERS)})
    elif path.startswith("/v1/adapters/"):
        adapters(writer, method, path.rpartition("/")[2], body)
    elif path in ("/v1/completions", "/v1/chat/completions"):
        return await generate(writer, json.loads(body), "chat" in path)
    else:
        reply_json(writer, {"error": {"message": f"no route {path}"}}, 404)
    return True


async def read_request(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:] if x)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


async def serve_connection(reader, writer):
    try:
        while True:
            method, path, headers, body = await read_request(reader)
            if OPTIONS.key and headers.get("authorization") != f"Bearer {OPTIONS.key}":
                reply_json(writer, {"error": {"message": "wrong key"}}, 401)
            elif not await answer(writer, method, path, body):
                return
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    context = None
    if OPTIONS.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*OPTIONS.tls)
    server = await asyncio.start_server(
        serve_connection, "127.0.0.1", 0, ssl=context, limit=1 << 26, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    print(f"{'https' if context else 'http'}://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft", type=float, default=0.02)
    parser.add_argument("--gap", type=float, default=0.005)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--key")
    OPTIONS = parser.parse_args()
    asyncio.run(main())
