# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests: one of the default model and one of a tiny model, shared by a module.

SORA_SERVER_BIN names the program, SORA_TEST_MODEL the default model's GGUF; tests that need the
model are skipped by name without it. Tests marked `sanitizer` need the tiny models alone and also
run against the program built with AddressSanitizer.
"""

import os
import pathlib

import pytest
from harness import BINARY, TINY, Server, golden

MODEL = os.environ.get("SORA_TEST_MODEL")


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitizer: also run with the ASan build; no real model")
    if not pathlib.Path(BINARY).is_file():
        pytest.exit(f"no program at {BINARY}: build it, or name it in SORA_SERVER_BIN", 2)


@pytest.fixture(scope="session")
def model_path():
    if not MODEL:
        pytest.skip("SORA_TEST_MODEL is not set")
    assert pathlib.Path(MODEL).is_file(), f"SORA_TEST_MODEL: no file {MODEL}"
    return MODEL


@pytest.fixture(scope="module")
def base(model_path, tmp_path_factory):
    """A server of the default model, exact arithmetic."""
    store = tmp_path_factory.mktemp("base") / "store"
    with Server(model_path, store, "--compute", "f32", "--model-name", "base") as server:
        server.name = "base"
        yield server


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A server of the tiny llama, which has no tokenizer."""
    store = tmp_path_factory.mktemp("tiny") / "store"
    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        server.name = "tiny"
        yield server


@pytest.fixture(scope="session")
def tiny_config():
    return golden("tiny", "llama", "config.json")
