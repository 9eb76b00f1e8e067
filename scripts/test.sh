#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole test run, from a clean checkout on Debian 12 (as root or with sudo): packages, model,
# five builds, tidy, unit tests, corpus replay, end to end. Half an hour on two cores.
# Ends with one line "N passed, N failed, N skipped" and exit 1 when something failed.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/test.sh [--quick] [--peft] [--llama] [--fuzz SECONDS] [--no-deps]
  --quick         the Release build alone: tidy, unit tests, corpus replay, end to end
  --peft          also tests/e2e/test_peft_*.py with the real PEFT and transformers (several GB)
  --llama         also tests/e2e/test_llama_*.py with the real llama.cpp, built from source (10
                  minutes)
  --fuzz SECONDS  also runs every fuzz target under libFuzzer for that long
  --no-deps       installs no Debian packages
SORA_TEST_MODEL may name the default model's GGUF; without it scripts/fetch_model.sh brings it.
Logs and results are kept in build/test-results.
HELP
}

quick=0 peft=0 llama=0 fuzz_seconds=0 deps=1
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) quick=1 ;;
    --peft) peft=1 ;;
    --llama) llama=1 ;;
    --no-deps) deps=0 ;;
    --fuzz)
        fuzz_seconds=${2:?--fuzz needs a number of seconds}
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
results=$root/build/test-results
rm -rf "$results"
mkdir -p "$results"
started=$(date +%s)

say() {
    printf '== %4ds %s\n' $(($(date +%s) - started)) "$*"
}

# A step that everything after it needs not wait for: a failure is recorded and the run goes on.
record_failure() {
    say "FAILED $2"
    echo "$2" >"$results/$1.failed"
}

record_skip() {
    echo "$2" >"$results/$1.skipped"
}

# The sanitizers' fixed shadow addresses clash with a large vm.mmap_rnd_bits; no randomisation then.
plain_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    plain_addresses=(setarch "$(uname -m)" -R)
fi
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

prepare() {
    if [ "$deps" = 1 ]; then
        say "packages"
        scripts/install_deps.sh --tests
    fi
    say "python environment"
    if [ ! -x build/venv/bin/python ]; then
        python3 -m venv build/venv
    fi
    build/venv/bin/python -m pip install --quiet --disable-pip-version-check \
        -r tests/requirements.txt
    if [ -z "${SORA_TEST_MODEL:-}" ]; then
        say "model"
        if ! SORA_TEST_MODEL=$(scripts/fetch_model.sh); then
            unset SORA_TEST_MODEL
            say "the default model could not be fetched: the tests that need it are skipped by name"
        fi
    fi
    if [ -n "${SORA_TEST_MODEL:-}" ]; then
        export SORA_TEST_MODEL
    fi
}

run_tidy() {
    say "tidy"
    python3 tests/tidy_test.py >"$results/rules.tidy" || true
    python3 tests/tidy.py >"$results/tree.tidy" || true
    python3 tests/summarize_test.py >"$results/summary.tidy" || true
    cat "$results"/*.tidy
}

# build NAME FOLDER TARGETS... -- CMAKE OPTIONS...
build() {
    local name=$1 folder=$2
    shift 2
    local targets=()
    while [ "$1" != -- ]; do
        targets+=("$1")
        shift
    done
    shift
    say "build $name"
    if ! { cmake -S . -B "$folder" -G Ninja "$@" && ninja -C "$folder" -k 0 "${targets[@]}"; } \
        >"$results/$name.build.log" 2>&1; then
        grep -E 'error|undefined|FAILED' "$results/$name.build.log" | head -20 || true
        record_failure "$name.build" "build $name (see build/test-results/$name.build.log)"
        return 1
    fi
}

# unit_targets PATTERN: the names of the unit programs that match it.
unit_targets() {
    find tests/unit -name 'test_*.c' -printf '%f\n' | sed 's/\.c$//' | grep -E "$1" | sort
}

# units NAME FOLDER [CTEST OPTIONS...]
units() {
    local name=$1 folder=$2
    shift 2
    say "unit tests and corpus replay: $name"
    "${plain_addresses[@]}" ctest --test-dir "$folder" -V --timeout 600 "$@" \
        >"$results/$name.ctest" 2>&1 || true
    grep -E 'tests passed|\*\*\*' "$results/$name.ctest" || true
}

# e2e NAME FOLDER PYTHON [PYTEST OPTIONS...]
e2e() {
    local name=$1 folder=$2 python=$3
    shift 3
    say "end to end: $name"
    if [ ! -x "$folder/sora-server" ]; then
        record_failure "$name" "$name: no $folder/sora-server"
        return
    fi
    SORA_SERVER_BIN=$root/$folder/sora-server \
        "${plain_addresses[@]}" "$python" -m pytest -q -p no:cacheprovider \
        --junitxml="$results/$name.junit.xml" "$@" 2>&1 | tee "$results/$name.log" || true
    [ -f "$results/$name.junit.xml" ] || record_failure "$name" "$name: pytest left no result"
}

# What asks other programs runs in environments of its own.
references=(--ignore-glob='*/test_peft_*' --ignore-glob='*/test_llama_*')
release() {
    build release build -- -DCMAKE_BUILD_TYPE=Release || return 0
    units release build
    e2e e2e build build/venv/bin/python tests/e2e "${references[@]}"
}

# Passes over the whole model take minutes under a sanitizer: those programs go without it.
asan_slow='^test_(engine|train_model)$'
asan() {
    build asan build-asan -- -DCMAKE_BUILD_TYPE=Debug -DSORA_ASAN=ON || return 0
    units asan build-asan -E "$asan_slow"
    (
        unset SORA_TEST_MODEL
        units asan-tiny build-asan -R "$asan_slow"
    )
    e2e e2e-asan build-asan build/venv/bin/python tests/e2e -m sanitizer "${references[@]}"
}

# The thread sanitizer needs only what runs on several threads.
tsan_pattern='^test_(.*pool.*|.*queue.*|.*request.*|.*ring|engine_loop.*|.*_threads'
tsan_pattern+='|conn_watch|auth|catalog_shared)$'
tsan() {
    # shellcheck disable=SC2046  # one target a word
    build tsan build-tsan sora-server $(unit_targets "$tsan_pattern") -- \
        -DCMAKE_BUILD_TYPE=Debug -DSORA_TSAN=ON || return 0
    units tsan build-tsan -R "$tsan_pattern"
    e2e e2e-tsan build-tsan build/venv/bin/python -m sanitizer \
        tests/e2e/test_hot_swap.py tests/e2e/test_batch_invariance.py tests/e2e/test_tenants.py
}

# The kernels for AVX-512, by means of AVX2. Where AVX-512 is there the other builds ran them.
emulated_pattern='^test_(activation|attention|matmul|matmul_int8|weight|tile_product)$'
emulated_pattern+='|^test_(sample_passes|engine)$'
emulated_avx512() {
    if grep -qw avx512_vnni /proc/cpuinfo; then
        return
    fi
    # shellcheck disable=SC2046  # one target a word
    build emulated build-emulated $(unit_targets "$emulated_pattern") -- \
        -DCMAKE_BUILD_TYPE=Debug -DSORA_EMULATE_AVX512=ON || return 0
    (
        unset SORA_TEST_MODEL # the whole model would take minutes
        units emulated build-emulated -R "$emulated_pattern"
    )
}

# A second compiler's warnings are errors too; nothing of it is run.
clang_build() {
    build clang build-clang -- -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug \
        -DCMAKE_C_FLAGS_DEBUG=-O0 || return 0
    echo "clang_build: 1 passed, 0 failed, 0 skipped" >"$results/clang.tidy"
}

fuzz() {
    build fuzz build-fuzz -- -DCMAKE_BUILD_TYPE=Release -DSORA_FUZZ=ON \
        -DCMAKE_C_COMPILER=clang || return 0
    local target name
    for target in build-fuzz/fuzz_*; do
        [ -x "$target" ] || continue
        name=$(basename "$target")
        say "fuzz $name"
        mkdir -p "build-fuzz/found/$name"
        if "${plain_addresses[@]}" "$target" -max_total_time="$fuzz_seconds" -timeout=10 \
            -rss_limit_mb=4096 -artifact_prefix="build-fuzz/found/$name-" \
            "build-fuzz/found/$name" "tests/fuzz/corpus/$name" >"$results/$name.log" 2>&1; then
            echo "$name: 1 passed, 0 failed, 0 skipped" >"$results/$name.tidy"
        else
            record_failure "$name" "$name (the input is in build-fuzz/found)"
        fi
    done
}

peft_tests() {
    say "environment with PEFT and transformers"
    [ -x build/venv-peft/bin/python ] || python3 -m venv build/venv-peft
    if ! build/venv-peft/bin/python -m pip install --quiet --disable-pip-version-check \
        -r tests/requirements-peft.txt; then
        record_failure peft "peft: its packages could not be installed"
        return
    fi
    e2e peft build build/venv-peft/bin/python tests/e2e/test_peft_*.py
}

llama_tests() {
    say "environment with llama.cpp"
    [ -x build/venv-llama/bin/python ] || python3 -m venv build/venv-llama
    if ! CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF" \
        build/venv-llama/bin/python -m pip install --quiet --disable-pip-version-check \
        -r tests/requirements-llama.txt; then
        record_failure llama "llama: its packages could not be built"
        return
    fi
    e2e llama build build/venv-llama/bin/python tests/e2e/test_llama_*.py
}

prepare
run_tidy
release
if [ "$quick" = 0 ]; then
    asan
    tsan
    emulated_avx512
    clang_build
fi
if [ "$peft" = 1 ]; then
    peft_tests
else
    record_skip peft "tests/e2e/test_peft_*.py: run with --peft"
fi
if [ "$llama" = 1 ]; then
    llama_tests
else
    record_skip llama "tests/e2e/test_llama_*.py: run with --llama"
fi
if [ "$fuzz_seconds" != 0 ]; then
    fuzz
fi
say "done"
python3 tests/summarize.py "$results"
