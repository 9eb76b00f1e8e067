#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""summarize.py must not lose a failure: results of every runner, good, bad and missing."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import summarize  # noqa: E402

CTEST = """test 1
    Start 1: test_a

1: [==========] Running 3 test(s).
1: [ RUN      ] one
1: [       OK ] one
1: [ RUN      ] two
1: SKIPPED two: SORA_TEST_MODEL is not set
1: [  SKIPPED ] two
1: [ RUN      ] three
1: [{three}] three
1: [  PASSED  ] 1 test(s).
1/2 Test #1: test_a ..................{end_a}    0.01 sec
test 2
    Start 2: fuzz_b
2: replayed 4 files
2/2 Test #2: fuzz_b ..................{end_b}    0.02 sec
"""
GOOD = {"three": "       OK ", "end_a": "   Passed", "end_b": "   Passed"}
JUNIT = (
    '<testsuites><testsuite><testcase classname="t.test_x" name="a">{}</testcase>'
    "</testsuite></testsuites>"
)

# (what, file name, text, (passed, failed, skipped))
CASES = [
    ("counts cmocka functions", "r.ctest", CTEST.format(**GOOD), (3, 0, 1)),
    (
        "sees a failed function",
        "r.ctest",
        CTEST.format(**{**GOOD, "three": "  FAILED  ", "end_a": "***Failed"}),
        (2, 1, 1),
    ),
    (
        "sees a crash after the last good function",
        "r.ctest",
        CTEST.format(**{**GOOD, "end_a": "***Exception: SegFault"}),
        (3, 1, 1),
    ),
    ("sees a timeout", "r.ctest", CTEST.format(**{**GOOD, "end_b": "***Timeout"}), (2, 1, 1)),
    ("sees one not run", "r.ctest", CTEST.format(**{**GOOD, "end_b": "***Not Run"}), (2, 1, 1)),
    ("sees a log that ends early", "r.ctest", CTEST.format(**GOOD).split("1/2 Test")[0], (2, 1, 1)),
    ("does not take no tests for success", "r.ctest", "No tests were found!!!\n", (0, 1, 0)),
    ("counts a passed pytest case", "e.junit.xml", JUNIT.format(""), (1, 0, 0)),
    ("sees a pytest failure", "e.junit.xml", JUNIT.format("<failure/>"), (0, 1, 0)),
    ("sees a pytest error", "e.junit.xml", JUNIT.format("<error/>"), (0, 1, 0)),
    ("names a pytest skip", "e.junit.xml", JUNIT.format('<skipped message="m"/>'), (0, 0, 1)),
    ("sees a broken pytest result", "e.junit.xml", "<testsuites>", (0, 1, 0)),
    ("sees an empty pytest result", "e.junit.xml", "<testsuites/>", (0, 1, 0)),
    ("reads tidy", "t.tidy", "FAILED tidy x: y\ntidy: 2 passed, 1 failed, 0 skipped\n", (2, 1, 0)),
    ("sees a tidy that broke", "t.tidy", "Traceback\n", (0, 1, 0)),
    ("sees a step that broke", "b.failed", "build x\n", (0, 1, 0)),
]


def main():
    passed, failed = 0, 0
    for what, name, text, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, name).write_text(text, "utf-8")
            counts = summarize.read_folder(folder)
        found = (counts.passed, len(counts.failed), len(counts.skipped))
        passed += found == expected
        failed += found != expected
        if found != expected:
            print(f"FAILED summarize_test {what}: expected {expected}, found {found}")
    print(f"summarize_test: {passed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
