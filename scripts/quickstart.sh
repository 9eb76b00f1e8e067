#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone on Debian 12 to a trained adapter in a running server, alone: installs the
# packages, builds, fetches the default model, trains a small SoRA adapter on demo/pirate.jsonl,
# starts the server, uploads the adapter into it and shows the base's answer beside the adapter's.
# Run it again: what is done is not done again. --keep leaves the server running.
set -euo pipefail

question=${QUESTION:-How do I make a cup of tea?}
name=pirate
keep=no

usage() {
    cat <<TEXT
usage: scripts/quickstart.sh [--keep]
  --keep   leave the server running and print a request to try
Environment: QUESTION  what both are asked (default: How do I make a cup of tea?)
TEXT
}
case "${1:-}" in
--keep) keep=yes ;;
-h | --help)
    usage
    exit 0
    ;;
"") ;;
*)
    usage >&2
    exit 2
    ;;
esac

cd "$(dirname "$0")/.."
out=demo/out
adapter=$out/$name.safetensors
binary=build/sora-server
server_pid=
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }

stop_server() {
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
}
trap stop_server EXIT
trap 'exit 130' INT TERM

say "Debian packages"
scripts/install_deps.sh

say "building $binary and build/sora-loadtest"
if [ ! -f build/build.ninja ]; then
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >"$out/cmake.log" ||
        { cat "$out/cmake.log"; exit 1; }
fi
ninja -C build sora-server sora-loadtest | tail -n 1

say "base model"
model=$(scripts/fetch_model.sh)
echo "$model"

# An adapter made of the same data, base and options is not trained again.
say "training $adapter"
train_options=(--rank 8 --alpha 16 --epochs 1 --batch-tokens 256 --lr 2e-3 --gate-lr 8e-3
    --xi 9e-3 --clip 1 --seed 1)
made_of="$(sha256sum <demo/pirate.jsonl) $(stat -c %s "$model") ${train_options[*]}"
if [ -f "$adapter" ] && [ "$(cat "$out/$name.made_of" 2>/dev/null)" = "$made_of" ]; then
    echo "done before, not repeated"
else
    rm -f "$out/$name.made_of"
    "$binary" train --model "$model" --data demo/pirate.jsonl --out "$adapter" \
        --log "$out/$name.log.jsonl" "${train_options[@]}"
    echo "$made_of" >"$out/$name.made_of"
fi

say "starting the server"
log=$out/serve.log
if [ "$keep" = yes ]; then
    setsid "$binary" serve --model "$model" --model-name base --store "$out/store" --port 0 \
        >"$log" 2>&1 </dev/null &
else
    "$binary" serve --model "$model" --model-name base --store "$out/store" --port 0 \
        >"$log" 2>&1 </dev/null &
fi
server_pid=$!
url=
for _ in $(seq 300); do
    if ! kill -0 "$server_pid" 2>/dev/null; then
        echo "the server ended:" >&2
        cat "$log" >&2
        exit 1
    fi
    url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$log" | head -n 1 || true)
    if [ -n "$url" ] && curl -sf -o "$out/ready" "$url/ready"; then
        break
    fi
    url=
    sleep 0.2
done
if [ -z "$url" ]; then
    echo "the server is not ready after a minute:" >&2
    cat "$log" >&2
    exit 1
fi
echo "$url"

# ask MODEL FILE: one chat completion into a file; an error's text ends the script.
ask() {
    python3 - "$1" "$question" <<'PY' >"$out/request.json"
import json, sys
print(json.dumps({"model": sys.argv[1], "temperature": 0, "max_tokens": 100,
                  "messages": [{"role": "user", "content": sys.argv[2]}]}))
PY
    curl -sS --fail-with-body -H 'content-type: application/json' -d @"$out/request.json" \
        -o "$2" "$url/v1/chat/completions" || { cat "$2" >&2; exit 1; }
}

say "asking the base"
ask base "$out/base.json"

say "uploading the adapter into the running server"
curl -sS --fail-with-body -X PUT -H 'content-type: application/octet-stream' \
    --data-binary @"$adapter" -o "$out/card.json" "$url/v1/adapters/$name" ||
    { cat "$out/card.json" >&2; exit 1; }

say "asking the adapter"
ask "$name" "$out/adapted.json"

say "$question"
python3 - "$out/base.json" "$out/adapted.json" "$name" <<'PY'
import itertools, json, sys, textwrap
columns = []
for path in sys.argv[1:3]:
    with open(path, encoding="utf-8") as file:
        text = json.load(file)["choices"][0]["message"]["content"]
    lines = [textwrap.wrap(line, 46) or [""] for line in text.strip().splitlines()]
    columns.append([part for line in lines for part in line])
print(f"{'model: base':46} | model: {sys.argv[3]}")
print("-" * 47 + "+" + "-" * 47)
for left, right in itertools.zip_longest(*columns, fillvalue=""):
    print(f"{left:46} | {right}")
PY

say "what is left of the adapter's ranks"
"$binary" inspect "$adapter" | sed -n '/^parameters/p; /^rank /p; /^modules/p; /^layer/,$p'
echo "all of it: $binary inspect $adapter"

if [ "$keep" = yes ]; then
    cat <<TEXT

The server goes on at $url. Try:
  curl -s $url/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model":"$name","temperature":0,
         "messages":[{"role":"user","content":"How do I learn to dance?"}]}'
Stop it with: kill $server_pid
TEXT
    server_pid=
fi
