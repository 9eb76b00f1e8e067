# SPDX-License-Identifier: Apache-2.0
"""Every comparer of the harness refuses what it must refuse."""

import math

import harness
import pytest

TOP = [[7, -1.0], [9, -2.0]]
pytestmark = pytest.mark.sanitizer


def test_the_mean_error_accepts_what_is_close():
    harness.check_mean_error(TOP, {7: -1.001, 9: -2.0}, 0.002)


@pytest.mark.parametrize(
    "found",
    [{7: -1.01, 9: -2.0}, {7: -1.0}, {}, {7: -1.0, 8: -2.0}, {7: math.nan, 9: -2.0}],
    ids=["far", "one missing", "none", "another token", "nan"],
)
def test_the_mean_error_refuses(found):
    with pytest.raises(AssertionError):
        harness.check_mean_error(TOP, found, 0.002)


@pytest.mark.parametrize(
    "found",
    [{7: -1.002, 9: -2.0}, {7: -1.0}, {7: math.nan, 9: -2.0}, {7: -1.0, 9: math.nan}],
    ids=["far", "one missing", "nan first", "nan last"],
)
def test_the_max_error_refuses(found):
    with pytest.raises(AssertionError):
        harness.check_max_error(TOP, found, 0.001)


def test_an_empty_reference_is_refused():
    with pytest.raises(AssertionError):
        harness.check_mean_error([], {}, 1)
    with pytest.raises(AssertionError):
        harness.check_max_error([], {}, 1)


def test_greedy_stops_comparing_at_a_narrow_margin():
    harness.check_greedy([1, 2, 3], [1.0, 0.01, 1.0], [1, 9, 9])


@pytest.mark.parametrize(
    "found", [[1, 9, 3], [1, 2], [1, 2, 3, 4], [9, 2, 3]], ids=["wide", "short", "long", "first"]
)
def test_greedy_refuses(found):
    with pytest.raises(AssertionError):
        harness.check_greedy([1, 2, 3], [0.5, 0.03, 1.0], found)


def test_one_different_reply_of_many_is_found():
    harness.check_same(["a"] * 40, ["a"] * 40, "reply")
    with pytest.raises(AssertionError):
        harness.check_same(["a"] * 40, ["a"] * 39 + ["a "], "reply")
    with pytest.raises(AssertionError):
        harness.check_same(["a"] * 40, ["a"] * 39, "reply")


@pytest.mark.parametrize(
    "page",
    [
        "x 1\n",
        "# TYPE x gauge\nx one two three\n",
        "# TYPE x gauge\nx 1\nx 2\n",
        '# TYPE x gauge\nx{a="b" c} 1\n',
        "# TYPE x gauge\n# TYPE x gauge\nx 1\n",
    ],
    ids=["untyped", "words", "twice", "broken label", "two types"],
)
def test_a_bad_metrics_page_is_refused(page):
    with pytest.raises((AssertionError, ValueError)):
        harness.parse_metrics(page)


def test_metrics_are_read_by_name_and_label():
    page = '# HELP x y\n# TYPE x gauge\nx{a="b",c="d\\"e"} 1.5\n'
    assert harness.parse_metrics(page) == {("x", (("a", "b"), ("c", 'd\\"e'))): 1.5}


@pytest.mark.parametrize(
    "lines",
    [["data: {}"], ["data: [DONE]", "data: {}"], ["event: x", "data: [DONE]"]],
    ids=["no end", "after the end", "another field"],
)
def test_a_bad_stream_is_refused(lines):
    with pytest.raises(AssertionError):
        list(harness.sse_events(lines))
