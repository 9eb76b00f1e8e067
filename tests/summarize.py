#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One line from all runners: `summarize.py RESULTS`, the folder that scripts/test.sh fills.

Read are *.ctest (the output of `ctest -V`), *.junit.xml (pytest's) and *.tidy (lines of tidy.py and
tidy_test.py). Every cmocka test function counts as one test, and so does a program of ctest that
holds none. A runner that left no result counts as failed: an empty file is no success.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as xml

CMOCKA = re.compile(r"\[\s+(OK|FAILED|SKIPPED)\s+\] (\w+)\s*$")
CTEST = re.compile(r"^\s*\d+/\d+ Test\s+#(\d+): (\S+) \.+\s*(?:\*+)?\s*(\w[\w :]*?)\s+[\d.]+ sec")
REASON = re.compile(r"SKIPPED ([^:]+): (.*)")


class Counts:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []

    def add(self, verdict, name):
        if verdict == "passed":
            self.passed += 1
        else:
            getattr(self, verdict).append(name)


def read_ctest(text, label, counts):
    """`ctest -V`: lines of test N begin with "N: "; its verdict is a line of its own."""
    cases, reasons, names, ends = {}, {}, {}, {}
    for line in text.splitlines():
        started = re.match(r"\s+Start\s+(\d+): (\S+)", line)
        if started:
            names[started.group(1)] = started.group(2)
        end = CTEST.match(line)
        if end:
            ends[end.group(1)] = end.group(3)
        said = re.match(r"(\d+): (.*)", line)
        if not said:
            continue
        number, rest = said.groups()
        case = CMOCKA.search(rest)
        if case:
            verdict = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}[case.group(1)]
            known = cases.setdefault(number, {})
            # A failure stands, whatever the lists at the end repeat.
            if known.get(case.group(2)) != "failed":
                known[case.group(2)] = verdict
        reason = REASON.search(rest)
        if reason:
            reasons.setdefault(number, {})[reason.group(1).strip()] = reason.group(2).strip()
    for number, program in sorted(names.items(), key=lambda item: int(item[0])):
        end = ends.get(number, "no end")
        why = reasons.get(number, {})
        found = cases.get(number, {})
        for case, verdict in found.items():
            text_of = f"{label} {program}.{case}"
            counts.add(verdict, text_of + (f": {why[case]}" if case in why else ""))
        if end != "Passed" and "failed" not in found.values():
            counts.add("failed", f"{label} {program} ({end})")
        elif not found:
            skipped = why and end == "Passed"
            reason = "; ".join(why.values())
            name = f"{label} {program}" + (f": {reason}" if skipped else "")
            counts.add("skipped" if skipped else "passed", name)
    if not names:
        counts.add("failed", f"{label}: ctest ran nothing")


def read_junit(text, label, counts):
    cases = xml.fromstring(text).iter("testcase")
    total = 0
    for case in cases:
        total += 1
        name = f"{label} {case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts.add("failed", name)
        elif skipped is not None:
            counts.add("skipped", f"{name}: {skipped.get('message', '')}")
        else:
            counts.add("passed", name)
    if not total:
        counts.add("failed", f"{label}: pytest ran nothing")


def read_tidy(text, label, counts):
    total = re.search(r"(\d+) passed, (\d+) failed, (\d+) skipped", text)
    if not total:
        counts.add("failed", f"{label}: no result")
        return
    counts.passed += int(total.group(1))
    for line in text.splitlines():
        if line.startswith("FAILED "):
            counts.add("failed", line[len("FAILED ") :])
        elif line.startswith("SKIPPED "):
            counts.add("skipped", line[len("SKIPPED ") :])


def read_folder(folder):
    counts = Counts()
    readers = {".ctest": read_ctest, ".xml": read_junit, ".tidy": read_tidy}
    for path in sorted(pathlib.Path(folder).iterdir()):
        if path.suffix == ".failed":  # a step that broke: the file holds what it was
            counts.add("failed", path.read_text("utf-8").strip())
        elif path.suffix == ".skipped":
            counts.add("skipped", path.read_text("utf-8").strip())
        elif path.suffix in readers:
            text = path.read_text("utf-8", errors="replace")
            label = path.name.split(".")[0]
            try:
                readers[path.suffix](text, label, counts)
            except xml.ParseError as error:
                counts.add("failed", f"{label}: {error}")
    return counts


def main():
    counts = read_folder(sys.argv[1])
    for name in counts.skipped:
        print("SKIPPED", name)
    for name in counts.failed:
        print("FAILED", name)
    if not counts.passed + len(counts.failed) + len(counts.skipped):
        counts.add("failed", "nothing ran")
    print(f"{counts.passed} passed, {len(counts.failed)} failed, {len(counts.skipped)} skipped")
    sys.exit(1 if counts.failed else 0)


if __name__ == "__main__":
    main()
