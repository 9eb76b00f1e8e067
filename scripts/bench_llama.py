#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's own pace on this machine, beside `sora-server bench` (same file and threads).

usage: bench_llama.py MODEL.gguf [--threads 2] [--batch 1,16] [--prompt 512] [--steps 30]
                      [--lora A.gguf B.gguf ...]

Calls llama_decode alone (PyPI: llama-cpp-python, see tests/requirements-llama.txt): no server, no
sampling, no Python in what is timed but the call. Decoding starts at 64 tokens of context, as in
`sora-server bench`. A context of llama.cpp has one adapter at a time, so with --lora a step of as
many sequences as adapters is that many calls, each after llama_set_adapter_lora, as its server
does with slots of different adapters. Prints medians over all rounds as one JSON object.
"""

import argparse
import json
import statistics
import time

import llama_cpp as ll

CONTEXT = 64


@ll.llama_log_callback
def say_nothing(_level, _text, _data):
    pass


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lora", nargs="+", default=[], help="adapters, one for each sequence")
    return parser.parse_args()


def open_context(model, threads, sequences, tokens):
    params = ll.llama_context_default_params()
    params.n_ctx = sequences * (tokens + 8)
    params.n_batch = params.n_ubatch = max(512, tokens)
    params.n_seq_max = sequences
    params.n_threads = params.n_threads_batch = threads
    context = ll.llama_init_from_model(model, params)
    assert context, "llama.cpp could not make a context"
    return context


def fill(batch, rows):
    """rows: (token, position, sequence, wants logits)."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, wanted


def timed_decode(context, batch):
    start = time.perf_counter()
    code = ll.llama_decode(context, batch)
    ll.llama_synchronize(context)
    assert code == 0, f"llama_decode: {code}"
    return time.perf_counter() - start


def decode_seconds(model, threads, sequences, steps):
    context = open_context(model, threads, sequences, CONTEXT + steps + 1)
    batch = ll.llama_batch_init(max(512, sequences), 0, 1)
    for s in range(sequences):
        fill(batch, [(1000 + 7 * i + s, i, s, i == CONTEXT - 1) for i in range(CONTEXT)])
        timed_decode(context, batch)
    seconds = []
    for step in range(steps + 1):
        fill(batch, [(2000 + step + s, CONTEXT + step, s, 1) for s in range(sequences)])
        seconds.append(timed_decode(context, batch))
    ll.llama_batch_free(batch)
    ll.llama_free(context)
    return seconds[1:]  # the first one warms up


def mixed_seconds(model, threads, adapters, steps):
    context = open_context(model, threads, len(adapters), CONTEXT + steps + 1)
    batch = ll.llama_batch_init(512, 0, 1)

    def decode_of(sequence, rows):
        ll.llama_clear_adapter_lora(context)
        code = ll.llama_set_adapter_lora(context, adapters[sequence], 1.0)
        assert code == 0, f"llama_set_adapter_lora: {code}"
        fill(batch, rows)
        timed_decode(context, batch)

    for s in range(len(adapters)):
        decode_of(s, [(1000 + 7 * i + s, i, s, i == CONTEXT - 1) for i in range(CONTEXT)])
    seconds = []
    for step in range(steps + 1):
        start = time.perf_counter()
        for s in range(len(adapters)):
            decode_of(s, [(2000 + step + s, CONTEXT + step, s, 1)])
        seconds.append(time.perf_counter() - start)
    ll.llama_batch_free(batch)
    ll.llama_free(context)
    return seconds[1:]


def open_adapters(model, paths):
    adapters = [ll.llama_adapter_lora_init(model, path.encode()) for path in paths]
    for path, adapter in zip(paths, adapters):
        assert adapter, f"{path}: llama.cpp could not open it"
    return adapters


def prompt_seconds(model, threads, tokens):
    context = open_context(model, threads, 1, tokens)
    batch = ll.llama_batch_init(tokens, 0, 1)
    fill(batch, [(1000 + 7 * i, i, 0, i == tokens - 1) for i in range(tokens)])
    seconds = timed_decode(context, batch)
    ll.llama_batch_free(batch)
    ll.llama_free(context)
    return seconds


def main():
    options = arguments()
    ll.llama_log_set(say_nothing, None)
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(
        options.model.encode(), ll.llama_model_default_params()
    )
    assert model, f"{options.model}: llama.cpp could not open it"
    batches = [int(b) for b in options.batch.split(",")]
    decode = {b: [] for b in batches}
    prompt, mixed = [], []
    adapters = open_adapters(model, options.lora)
    for _ in range(options.rounds):
        for b in batches:
            decode[b] += decode_seconds(model, options.threads, b, options.steps)
        prompt.append(prompt_seconds(model, options.threads, options.prompt))
        if adapters:
            mixed += mixed_seconds(model, options.threads, adapters, options.steps)
    print(json.dumps({
        "threads": options.threads,
        "decode": [
            {"batch": b, "tok_per_s": round(b / statistics.median(decode[b]), 1)} for b in batches
        ],
        "prefill": {
            "tokens": options.prompt,
            "tok_per_s": round(options.prompt / statistics.median(prompt), 1),
        },
        "mixed": {
            "adapters": len(adapters),
            "tok_per_s": round(len(adapters) / statistics.median(mixed), 1),
        } if adapters else None,
    }))  # fmt: skip
    ll.llama_model_free(model)


if __name__ == "__main__":
    main()
