#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tidy.py must refuse: one small bad tree per rule, and a good tree that every rule accepts."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
TOP = SPDX + "// What this is. Any thread may call.\n"


def header(guard, body=""):
    return f"{TOP}#ifndef {guard}\n#define {guard}\n\n{body}#endif\n"


GOOD = {
    "include/sora/status.h": header("SORA_STATUS_H"),
    "src/base/buf.h": header("BASE_BUF_H", "int buf_size(int count);\n\n"),
    "src/base/buf.c": TOP
    + '#include "base/buf.h"\n\n#include <stdlib.h>\n\n#include "sora/status.h"\n\n'
    + "// A comment may say exit(1), strcpy(a, b) or 404.\nint buf_size(int count)\n{\n"
    + '    const char *text = "sprintf( 500";\n    void *p = malloc(2 * sizeof *text);\n'
    + "    free(p);\n    return text[0] + count;\n}\n",
    "tests/unit/base/test_buf.c": TOP + '#include "base/buf.h"\n',
    "scripts/run_me.sh": "#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\ntrue\n",
    "README.md": "See scripts/run_me.sh and /tmp/x and https://example.org/work/.\n",
}


def long_function(lines):
    return TOP + "static int f(void)\n{\n" + "    g();\n" * (lines - 4) + "    return 0;\n}\n"


# (rule, what is wrong, files that differ from GOOD)
BAD = [
    ("columns", "101 columns", {"src/base/buf.c": TOP + "// " + "x" * 98 + "\n"}),
    ("blank-ends", "a tab", {"src/base/buf.c": TOP + "\tint x;\n"}),
    ("blank-ends", "spaces at an end", {"src/base/buf.c": TOP + "int x; \n"}),
    ("blank-ends", "no newline at the end", {"src/base/buf.c": TOP + "int x;"}),
    ("blank-ends", "two newlines at the end", {"src/base/buf.c": TOP + "int x;\n\n"}),
    ("file-lines", "801 lines", {"src/base/buf.c": TOP + "int x;\n" * 799}),
    ("function-lines", "71 lines", {"src/base/buf.c": long_function(71)}),
    (
        "function-lines",
        "71 lines with an attribute",
        {"src/base/buf.c": long_function(71).replace("static", "__attribute__((cold)) static")},
    ),
    ("unique-names", "buf.h twice", {"server/buf.h": header("SERVER_BUF_H")}),
    ("spdx", "no licence in C", {"src/base/buf.c": "// What this is.\nint x;\n"}),
    ("spdx", "no paragraph", {"src/base/buf.c": SPDX + "int x;\n"}),
    ("spdx", "no licence in a script", {"scripts/run_me.sh": "#!/bin/sh\ntrue\n"}),
    ("includes", "base upwards", {"src/base/buf.c": TOP + '#include "kernel/norm.h"\n'}),
    ("includes", "base to sora/lora.h", {"src/base/buf.c": TOP + '#include "sora/lora.h"\n'}),
    ("includes", "server to model", {"server/http.c": TOP + '#include "model/weights.h"\n'}),
    ("includes", "adapters to model", {"adapters/x.c": TOP + '# include "model/weights.h"\n'}),
    ("includes", "train to registry", {"src/train/x.c": TOP + '#include "sora/registry.h"\n'}),
    ("includes", "text to weights", {"src/text/x.c": TOP + '#include "model/weights.h"\n'}),
    ("includes", "a bare name", {"src/base/buf.c": TOP + '#include "buf.h"\n'}),
    ("includes", "an unknown folder", {"src/other/x.c": TOP + '#include "base/buf.h"\n'}),
    ("includes", "sqlite in server", {"server/http.c": TOP + "#include <sqlite3.h>\n"}),
    ("includes", "civetweb in adapters", {"adapters/x.c": TOP + "#include <civetweb.h>\n"}),
    ("dead-files", "a header nobody includes", {"src/base/old.h": header("BASE_OLD_H")}),
    (
        "dead-files",
        "a header that only a comment includes",
        {"src/base/o.h": header("BASE_O_H"), "src/base/x.c": TOP + '// #include "base/o.h"\n'},
    ),
    ("dead-files", "a source nobody builds", {"src/base/deep/x.c": TOP + "int x;\n"}),
    ("dead-files", "a test nobody builds", {"tests/unit/base/buf_test.c": TOP + "int x;\n"}),
    ("dead-files", "a script nobody names", {"README.md": "Nothing.\n"}),
    ("fuzz-corpus", "no corpus", {"tests/fuzz/base/fuzz_x.c": TOP + "int x;\n"}),
    ("fuzz-corpus", "a large corpus file", {"tests/fuzz/corpus/fuzz_x/a": "x" * (17 << 10)}),
    ("guards", "no guard", {"include/sora/status.h": TOP + "int x;\n"}),
    ("guards", "two names", {"include/sora/status.h": header("A_H").replace("e A", "e B", 1)}),
    ("guards", "a foreign name", {"include/sora/status.h": header("SORA_OTHER_H")}),
    ("guards", "code after the guard", {"src/base/buf.h": header("BASE_BUF_H") + "int x;\n"}),
    (
        "guards",
        "the same guard twice",
        {"server/x_buf.h": header("BASE_BUF_H"), "src/base/x.c": TOP + '#include "server/x_buf.h"'},
    ),
    ("calls", "strcpy", {"src/base/buf.c": TOP + "void f(void)\n{\n    strcpy(a, b);\n}\n"}),
    ("calls", "a call over two lines", {"src/base/buf.c": TOP + "int x = atoi\n    (y);\n"}),
    ("calls", "assert in a test", {"tests/unit/base/test_buf.c": TOP + "x = assert(y);\n"}),
    ("calls", "system", {"server/http.c": TOP + "int x = system(y);\n"}),
    ("exits", "exit in a library", {"src/base/buf.c": TOP + "void f(void)\n{\n    exit(1);\n}\n"}),
    ("products", "malloc(a * b)", {"src/base/buf.c": TOP + "p = malloc(rows * width);\n"}),
    ("products", "malloc(n * sizeof)", {"src/base/buf.c": TOP + "p = malloc(n * sizeof *p);\n"}),
    ("products", "a cast", {"src/base/buf.c": TOP + "p = malloc((size_t)n * sizeof(float));\n"}),
    ("products", "realloc", {"src/base/buf.c": TOP + "q = realloc(p, (n + 1) * sizeof(int *));\n"}),
    ("products", "calloc(a * b, c)", {"src/base/buf.c": TOP + "p = calloc(x->a * b, 4);\n"}),
    ("kernel-is-pure", "printf", {"src/kernel/x.c": TOP + "int x = printf(y);\n"}),
    ("kernel-is-pure", "a log", {"src/kernel/x.c": TOP + "int x = log_warn(y);\n"}),
    ("http-numbers", "404", {"server/http.c": TOP + "int x = reply(c, 404);\n"}),
    ("http-numbers", "a status line", {"server/http.c": TOP + 'x = "HTTP/1.1 200 OK";\n'}),
    ("unfinished", "in C", {"src/base/buf.c": TOP + "// TO" + "DO: more\n"}),
    ("unfinished", "in a page", {"README.md": "run_me.sh FIX" + "ME\n"}),
    ("machine-paths", "a home", {"README.md": "run_me.sh in /" + "root/x\n"}),
    ("machine-paths", "a work folder", {"src/base/buf.c": TOP + 'x = "/' + 'work/a";\n'}),
    ("tracked-files", "5 MB", {"tests/golden/big.json": " " * (5 << 20)}),
    ("tracked-files", "a model", {"models.gguf": "GGUF"}),
    ("clang-format", "an indent of two", {"src/base/buf.c": TOP + "int f(void)\n{\n  x();\n}\n"}),
]
STYLE = pathlib.Path(__file__).resolve().parent.parent / ".clang-format"


def findings(rule, files):
    """What the rule finds in a tree of these files, or None where it cannot be held here."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            target = pathlib.Path(root, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        pathlib.Path(root, ".clang-format").write_text(STYLE.read_text("utf-8"), "utf-8")
        try:
            return list(tidy.RULES[rule](tidy.Tree(root)))
        except tidy.Skip:
            return None


def main():
    passed, failed, skipped = 0, 0, 0

    def count(name, found, good):
        nonlocal passed, failed, skipped
        if found is None:
            print(f"SKIPPED tidy_test {name}: the rule cannot be held here")
            skipped += 1
        elif good(found):
            passed += 1
        else:
            print(f"FAILED tidy_test {name}: {found}")
            failed += 1

    for rule in tidy.RULES:
        count(f"{rule} accepts the good tree", findings(rule, GOOD), lambda f: not f)
    for rule, what, files in BAD:
        found = findings(rule, {**GOOD, **files})
        count(f"{rule} refuses {what}", found, bool)
    untested = set(tidy.RULES) - {rule for rule, _, _ in BAD}
    count("every rule has a case that must fail", untested, lambda f: not f)
    print(f"tidy_test: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
