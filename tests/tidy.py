#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The style and layout of the tree, as a test: `tests/tidy.py [ROOT]`.

One function per rule; each takes a Tree and yields (path, line, text). Exceptions are listed by
name with a reason in EXCEPTIONS, and one that is no longer needed is a finding too. Every rule has
a tree that it must refuse in tidy_test.py.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

COLUMNS_MAX = 100
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
TRACKED_BYTES_MAX = 4 << 20  # the largest golden adapter is 3.7 MB
CLANG_FORMAT_MAJOR = 14  # what Debian 12 ships

# (rule, "path" or "path:function") -> reason. Nothing else is exempt from anything.
EXCEPTIONS = {
    ("calls", "src/base/assert.c:abort"): "this is assert_failed",
    ("calls", "src/base/clock.c:time"): "this is clock_unix_s",
}

COMMON = {"sora/status.h", "sora/limits.h"}
# Folder -> what its files may include, as prefixes ("base/") or whole names ("sora/lora.h").
INCLUDES = {
    "include/sora": {"sora/"},
    "src/base": {"base/"} | COMMON,
    "src/kernel": {"kernel/", "base/", "sora/lora.h"} | COMMON,
    "src/model": {
        "model/", "kernel/", "base/",
        "sora/engine.h", "sora/lora.h", "sora/machine.h", "sora/merge.h",
    } | COMMON,
    "src/text": {"text/", "base/", "sora/text.h"} | COMMON,
    "src/sample": {"sample/", "base/", "sora/sampler.h"} | COMMON,
    "src/train": {
        "train/", "model/", "kernel/", "text/", "base/",
        "sora/train.h", "sora/adapter.h", "sora/engine.h", "sora/text.h", "sora/lora.h",
    } | COMMON,
    "adapters": {"adapters/", "base/", "sora/"},
    "server": {"server/", "base/", "sora/"},
    "loadtest": {"loadtest/", "base/"} | COMMON,
}  # fmt: skip
# Library header -> the folders that know that library.
LIBRARIES = {
    r"civetweb\.h": ("server",),
    r"sqlite3\.h": ("adapters",),
    r"libpq-fe\.h": ("adapters",),
    r"cblas\.h": ("src/kernel",),
    r"pcre2\.h": ("src/text", "adapters"),
    r"utf8proc\.h": ("src/text",),
    r"openssl/.*": ("src/base",),
    r"curl/.*": ("loadtest", "server"),
}

# Call -> what to use. Held in every C file, tests included.
BANNED = {
    "strcpy": "memcpy with a checked length, or base/buf.h",
    "strcat": "base/buf.h",
    "strncat": "base/buf.h",
    "strncpy": "memcpy or snprintf: strncpy may leave no zero",
    "stpcpy": "base/buf.h",
    "sprintf": "snprintf or buf_printf",
    "vsprintf": "vsnprintf or buf_vprintf",
    "gets": "fgets",
    "strtok": "strtok_r, or strcspn on a view",
    "atoi": "strtol with its end checked, or json_get_int",
    "atol": "strtol with its end checked",
    "atoll": "strtoll with its end checked",
    "atof": "strtod with its end checked",
    "alloca": "the heap or an arena",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
    "asctime": "strftime",
    "ctime": "strftime",
    "gmtime": "gmtime_r",
    "localtime": "localtime_r",
    "rand": "base/rng.h",
    "srand": "base/rng.h",
    "random": "base/rng.h",
    "assert": "ASSERT of base/assert.h (kept in release), or a sora_status for input",
    "mg_handle_form_request": "server/multipart.c: CivetWeb 1.15 has a known hole there",
}
# Held outside the tests.
BANNED_IN_PRODUCT = {
    "system": "fork and exec with an argument list",
    "usleep": "clock_sleep_us",
    "popen": "fork and exec with an argument list",
    "abort": "assert_failed",
    "time": "clock_unix_s for records, clock_now_us for durations",
    "gettimeofday": "clock_now_us",
}
EXITS = {"exit", "_exit", "_Exit", "quick_exit"}
MAIN_FILES = {"server/main.c", "loadtest/main.c", "loadtest/sora_load.c"}

IMPURE = (
    r"\b(fopen|fread|fwrite|open|openat|mmap|read|write|socket|printf|fprintf|puts|fputs|perror"
    r"|log_(?:write|debug|info|warn|error))\s*\("
)
HTTP_NUMBERS = "400 401 403 404 405 408 409 411 412 413 415 416 422 429 431 500 501 503 507".split()
# Built from pieces so that this file passes its own rules.
UNFINISHED = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|X" + "XX)\\b")
MACHINE_PATH = re.compile("(?<![\\w.])/" + r"(work|root|home/[a-z]\w*|tmp/(pm|b-\w+|bash\w*))/")

C_LIKE = (".c", ".h")
SOURCES = (".c", ".h", ".py", ".sh")
TEXTS = SOURCES + (".md", ".txt", ".cmake", ".yml", ".yaml", ".toml", ".html", ".js", ".css")


def strip_c(text, keep_strings=False):
    """C text with comments (and strings) blanked; every line and column stays where it was."""
    pattern = r'//(?:\\\n|[^\n])*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

    def blank(match):
        piece = match.group(0)
        if piece[0] in "\"'":
            if keep_strings:
                return piece
            return piece[0] + re.sub(r"[^\n]", " ", piece[1:-1]) + piece[-1]
        return re.sub(r"[^\n]", " ", piece)

    return re.sub(pattern, blank, text, flags=re.S)


def drop_directives(code):
    """Preprocessor lines blanked, with their continuations."""
    return re.sub(
        r"^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code, flags=re.M
    )


class Tree:
    """The files that are in git or would be added to it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.paths = sorted(p for p in self._list() if (self.root / p).is_file())
        self._texts, self._codes = {}, {}

    def _list(self):
        command = ["git", "-C", str(self.root), "ls-files", "-z", "-c", "-o", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return [p for p in listed.stdout.split("\0") if p]
        skip = re.compile(r"\.git|build.*|models|__pycache__|\.pytest_cache|sora-store")
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if not skip.fullmatch(f)]
            found += [str((pathlib.Path(folder) / n).relative_to(self.root)) for n in names]
        return found

    def files(self, *suffixes):
        return [
            p
            for p in self.paths
            if p.endswith(suffixes) and not p.startswith(("tests/golden/", "tests/fuzz/corpus/"))
        ]

    def text(self, path):
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_text("utf-8", errors="replace")
        return self._texts[path]

    def code(self, path):
        if path not in self._codes:
            self._codes[path] = strip_c(self.text(path))
        return self._codes[path]

    def lines(self, path):
        return self.text(path).splitlines()


def line_at(text, offset):
    return text.count("\n", 0, offset) + 1


def folder_of(path):
    return next((f for f in INCLUDES if path.startswith(f + "/")), None)


def in_tests(path):
    return path.startswith("tests/")


def rule_columns(tree):
    """No line is wider than 100 columns."""
    for path in tree.files(*SOURCES):
        for number, line in enumerate(tree.lines(path), 1):
            if len(line) > COLUMNS_MAX:
                yield path, number, f"{len(line)} columns, the bound is {COLUMNS_MAX}"


def rule_blank_ends(tree):
    """No tabs in C or Python, no spaces at the end of a line, one newline at the end of a file."""
    for path in tree.files(*SOURCES):
        for number, line in enumerate(tree.lines(path), 1):
            if line != line.rstrip():
                yield path, number, "spaces at the end of the line"
            if "\t" in line and not path.endswith(".sh"):
                yield path, number, "a tab"
        if tree.text(path) and not re.search(r"[^\n]\n\Z", tree.text(path)):
            yield path, len(tree.lines(path)), "the file must end with exactly one newline"


def rule_file_lines(tree):
    """No file is longer than 800 lines."""
    for path in tree.files(*SOURCES):
        count = len(tree.lines(path))
        if count > FILE_LINES_MAX:
            yield path, count, f"{count} lines, the bound is {FILE_LINES_MAX}"


def functions(code):
    """(name, first line, last line) of every function body at file level."""
    code = drop_directives(code)
    depth, start = 0, None
    for match in re.finditer(r"[{}]", code):
        if match.group(0) == "{":
            if depth == 0:
                start = match.start()
            depth += 1
            continue
        depth = max(0, depth - 1)
        if depth == 0 and start is not None:
            head_start = max(code.rfind(mark, 0, start) for mark in ";}") + 1
            head = code[head_start:start]
            name = re.search(r"(\w+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", head))
            if name and re.search(r"\)[^=()]*\Z", head):
                first = head_start + len(head) - len(head.lstrip())
                yield name.group(1), line_at(code, first), line_at(code, match.start())
            start = None


def rule_function_lines(tree):
    """No function is longer than 70 lines."""
    for path in tree.files(".c", ".h"):
        for name, first, last in functions(tree.code(path)):
            count = last - first + 1
            if count > FUNCTION_LINES_MAX:
                yield path, first, f"{name}: {count} lines, the bound is {FUNCTION_LINES_MAX}"


def rule_unique_names(tree):
    """A file's name is unique in the tree."""
    seen = {}
    for path in tree.files(*SOURCES):
        name = os.path.basename(path)
        if name in seen and name != "__init__.py":
            yield path, 1, f"the name is taken by {seen[name]}"
        seen.setdefault(name, path)


def rule_spdx(tree):
    """The licence stands first, then a paragraph that says what the file is."""
    tag = "SPDX-License-Identifier: Apache-2.0"
    for path in tree.files(*SOURCES):
        lines = tree.lines(path)
        if not lines:
            continue
        if path.endswith(C_LIKE):
            if lines[0] != "// " + tag:
                yield path, 1, f"the first line must be `// {tag}`"
            elif len(lines) < 2 or not re.match(r"//\s*\S", lines[1]):
                yield path, 2, "after the licence: what this is, who owns it, which thread"
        elif "# " + tag not in lines[:2]:
            yield path, 1, f"`# {tag}` must be in the first two lines"


def rule_includes(tree):
    """Who may include whom (DESIGN.md section 5), and which folder knows which library."""
    for path in tree.files(*C_LIKE):
        if in_tests(path):
            continue
        folder = folder_of(path)
        code = strip_c(tree.text(path), keep_strings=True)
        for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', code, re.M):
            kind, name = match.groups()
            where = line_at(code, match.start())
            if kind == "<":
                for library, owners in LIBRARIES.items():
                    if re.fullmatch(library, name) and folder not in owners:
                        yield path, where, f"<{name}> belongs to {' and '.join(owners)}"
                continue
            if folder is None:
                yield path, where, "the folder is not in the include table"
                continue
            allowed = INCLUDES[folder]
            if not any(name == a or (a.endswith("/") and name.startswith(a)) for a in allowed):
                yield path, where, f'{folder} may not include "{name}"'


def include_of(path):
    """The name by which a header is included."""
    for prefix in ("include/", "src/", "tests/support/"):
        if path.startswith(prefix):
            return path[len(prefix) :]
    return path


def rule_dead_files(tree):
    """Every header is included, every source is built, every script is named somewhere."""
    included = set()
    for path in tree.files(*C_LIKE):
        code = strip_c(tree.text(path), keep_strings=True)
        included |= set(re.findall(r'#[ \t]*include[ \t]*["<]([^">]+)[">]', code))
    built = re.compile(
        r"(src/[a-z]+|adapters|server|loadtest|tests/support|tests/unit/[a-z]+|tests/fuzz/[a-z]+)/"
        r"[a-z0-9_]+\.c|tests/fuzz/replay\.c"
    )
    for path in tree.files(".h"):
        if include_of(path) not in included and os.path.basename(path) not in included:
            yield path, 1, "no file includes this header"
    for path in tree.files(".c"):
        if not built.fullmatch(path):
            yield path, 1, "no CMake glob builds this file"
        elif re.match(r"tests/(unit|fuzz)/[a-z]+/", path):
            if not re.match(r"(test|fuzz)_", os.path.basename(path)):
                yield path, 1, "a file here must be named test_*.c or fuzz_*.c to be built"
    texts = [p for p in tree.paths if p.endswith(TEXTS) or p.startswith(".ci/")]
    for path in tree.files(".sh"):
        name = os.path.basename(path)
        if not any(name in tree.text(p) for p in texts if p != path):
            yield path, 1, "nothing names this script"


def rule_fuzz_corpus(tree):
    """Every fuzz target has a corpus, of small files."""
    for path in tree.files(".c"):
        match = re.fullmatch(r"tests/fuzz/[a-z]+/(fuzz_\w+)\.c", path)
        if match:
            folder = f"tests/fuzz/corpus/{match.group(1)}/"
            if not any(p.startswith(folder) for p in tree.paths):
                yield path, 1, f"no corpus in {folder}"
    for path in tree.paths:
        if path.startswith("tests/fuzz/corpus/"):
            size = (tree.root / path).stat().st_size
            if size > 16 << 10:
                yield path, 1, f"{size} bytes, the bound of a corpus file is {16 << 10}"


def rule_guards(tree):
    """A header is guarded by its own name."""
    seen = {}
    for path in tree.files(".h"):
        code = tree.code(path).strip()
        match = re.match(r"#ifndef (\w+)\n\s*#define (\w+)\n", code)
        if not match or match.group(1) != match.group(2) or not code.endswith("#endif"):
            yield path, 1, "no include guard around the whole header"
            continue
        guard = match.group(1)
        stem = re.sub(r"\W", "_", os.path.basename(path)).upper()
        if not guard.endswith(stem):
            yield path, 1, f"the guard {guard} must end with {stem}"
        if guard in seen:
            yield path, 1, f"the guard {guard} is used by {seen[guard]}"
        seen[guard] = path


def rule_calls(tree):
    """No call that has a better replacement."""
    for path in tree.files(*C_LIKE):
        code = tree.code(path)
        banned = dict(BANNED) if in_tests(path) else {**BANNED, **BANNED_IN_PRODUCT}
        for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", code):
            instead = banned.get(match.group(1))
            if instead:
                where = line_at(code, match.start())
                yield path, where, f"{match.group(1)}: use {instead}"


def rule_exits(tree):
    """Only main exits."""
    for path in tree.files(*C_LIKE):
        if in_tests(path) or path in MAIN_FILES:
            continue
        code = tree.code(path)
        for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", code):
            if match.group(1) in EXITS:
                where = line_at(code, match.start())
                yield path, where, f"{match.group(1)}: return a status; only main exits"


def call_arguments(code, offset):
    """The text between the parentheses that open at offset."""
    depth = 0
    for index in range(offset, min(len(code), offset + 400)):
        depth += {"(": 1, ")": -1}.get(code[index], 0)
        if depth == 0:
            return code[offset + 1 : index]
    return ""


def rule_products(tree):
    """No unchecked product as the size of an allocation."""
    # A star between two operands, neither a number; a star after "sizeof", "(" or "," takes what a
    # pointer points to.
    product = re.compile(r"(?:\b(?!sizeof\b)[A-Za-z_]\w*|[\])])\s*\*\s*[A-Za-z_(]")
    for path in tree.files(*C_LIKE):
        if in_tests(path):
            continue
        code = tree.code(path)
        for match in re.finditer(r"(?<![\w.>])(malloc|realloc|calloc|aligned_calloc)\s*\(", code):
            arguments = re.sub(r"\([\w\s]+\*+\)", "", call_arguments(code, match.end() - 1))
            arguments = re.sub(r"sizeof\s*\([^()]*\*\s*\)|\bsizeof\s*\*", "sizeof ", arguments)
            if product.search(re.sub(r"\bsizeof\s+\*", "sizeof ", arguments)):
                where = line_at(code, match.start())
                name = match.group(1)
                yield path, where, f"{name} of a product: use calloc, reallocarray or checked_mul"


def rule_kernel_is_pure(tree):
    """Kernels touch no file, no socket and no log."""
    for path in tree.files(*C_LIKE):
        if path.startswith("src/kernel/"):
            code = tree.code(path)
            for match in re.finditer(IMPURE, code):
                yield path, line_at(code, match.start()), f"{match.group(1)} in a kernel"


def rule_http_numbers(tree):
    """HTTP status numbers stand in one file, server/api_error.c."""
    number = re.compile(r"(?<![\w.])(" + "|".join(HTTP_NUMBERS) + r")(?![\w.])")
    for path in tree.files(*C_LIKE):
        if not path.startswith("server/") or os.path.basename(path).startswith("api_error."):
            continue
        code = drop_directives(tree.code(path))
        for match in number.finditer(code):
            yield path, line_at(code, match.start()), f"{match.group(1)}: name it in api_error.c"
        strings = strip_c(tree.text(path), keep_strings=True)
        for match in re.finditer(r"HTTP/1\.[01] [2-5]\d\d", strings):
            yield path, line_at(strings, match.start()), f"{match.group(0)}: only in api_error.c"


def rule_unfinished(tree):
    """Nothing is left for later in the text."""
    for path in tree.files(*TEXTS):
        for number, line in enumerate(tree.lines(path), 1):
            match = UNFINISHED.search(line)
            if match:
                yield path, number, f"{match.group(1)}: finish it or open an issue"


def rule_machine_paths(tree):
    """No path of one machine."""
    texts = set(tree.files(*TEXTS)) | {p for p in tree.paths if p.startswith(".ci/")}
    for path in sorted(texts):
        for number, line in enumerate(tree.lines(path), 1):
            match = MACHINE_PATH.search(line)
            if match:
                yield path, number, f"{match.group(0)}: a path of one machine"


def rule_tracked_files(tree):
    """No large files and no build products in git."""
    for path in tree.paths:
        size = (tree.root / path).stat().st_size
        if size > TRACKED_BYTES_MAX:
            yield path, 1, f"{size} bytes, the bound is {TRACKED_BYTES_MAX}"
        if path.endswith((".gguf", ".o", ".a", ".so", ".pyc", ".sqlite", ".whl")):
            yield path, 1, "a build product or a download"


class Skip(Exception):
    """A rule that cannot be held here, with the reason."""


def rule_clang_format(tree):
    """Every C file is as clang-format leaves it."""
    program = shutil.which(f"clang-format-{CLANG_FORMAT_MAJOR}") or shutil.which("clang-format")
    if not program:
        raise Skip("clang-format is not installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if f"version {CLANG_FORMAT_MAJOR}." not in version.stdout:
        raise Skip(f"needs clang-format {CLANG_FORMAT_MAJOR}, found {version.stdout.strip()}")
    files = tree.files(*C_LIKE)
    if not files:
        return
    command = [program, "--dry-run", "-Werror", "--ferror-limit=1", *files]
    run = subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False)
    for path, number in re.findall(r"^(.+?):(\d+):\d+: error:", run.stderr, re.M):
        yield path, int(number), "clang-format would change this"
    if run.returncode and "error:" not in run.stderr:
        yield files[0], 1, f"clang-format failed: {run.stderr.strip()[:200]}"


RULES = {
    name[len("rule_") :].replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("rule_")
}


def exempt(rule, path, text, used):
    for key in (path, f"{path}:{text.split(':')[0]}"):
        if (rule, key) in EXCEPTIONS:
            used.add((rule, key))
            return True
    return False


def check(root, out=print):
    """Holds every rule; returns (passed, failed, skipped)."""
    tree = Tree(root)
    used, passed, failed, skipped = set(), 0, 0, 0
    for name, rule in RULES.items():
        try:
            found = [f for f in rule(tree) if not exempt(name, f[0], f[2], used)]
        except Skip as reason:
            out(f"SKIPPED tidy {name}: {reason}")
            skipped += 1
            continue
        for path, number, text in sorted(set(found)):
            out(f"{path}:{number}: {name}: {text}")
        passed, failed = passed + (not found), failed + bool(found)
        if found:
            out(f"FAILED tidy {name}: {rule.__doc__.splitlines()[0]}")
    for key in sorted(set(EXCEPTIONS) - used):
        if key[1].split(":")[0] in tree.paths:
            out(f"FAILED tidy exceptions: {key} is not needed any more")
            failed += 1
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("root", nargs="?", default=default, help="the tree (default: this one)")
    counts = check(parser.parse_args().root)
    print("tidy: %d passed, %d failed, %d skipped" % counts)
    sys.exit(1 if counts[1] else 0)


if __name__ == "__main__":
    main()
