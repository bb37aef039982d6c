"""Folder names and LIST patterns."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.sessions.imap import folder_names
from mailpod.sessions.imap.folder_names import canonical, matcher, parents, problem_with

NAMES = st.text("ab/é", max_size=12)


def test_canonical():
    """One folder would be seen as two by clients of different systems."""
    assert canonical("inbox") == "INBOX"
    assert canonical("InBox/x") == "INBOX/x"
    assert canonical("Inboxes") == "Inboxes"
    assert canonical("Bu\u0308ro") == "Büro"
    assert parents("a/b/c") == ["a", "a/b"]


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "",
        "a\0b",
        "a\nb",
        "a\u2028b",
        "a*",
        "a%",
        "a\\b",
        'a"b',
        " a",
        "a /b",
        "\udc80",
        "x" * 1001,
    ],
)
def test_bad_names(name):
    """A name could reach another key, another tenant, or break a client's listing."""
    assert problem_with(name) is not None


@pytest.mark.parametrize("name", ["INBOX", "a/b", "Gelöscht", "日本語/メール", "a.b", "...", "~x", "a&b", "x" * 1000])
def test_good_names(name):
    """People could not name their folders as they like."""
    assert problem_with(name) is None


@given(st.text("ab/%*é", max_size=8), NAMES)
@settings(max_examples=200)
def test_patterns_mean_what_rfc_9051_says(pattern, name):
    """LIST would show other folders than the client asked for; both ways of matching have to agree."""
    wanted = re.fullmatch("".join({"*": ".*", "%": "[^/]*"}.get(char) or re.escape(char) for char in pattern), name, re.DOTALL) is not None
    assert matcher(pattern)(name) == wanted
    assert folder_names._linear_match(pattern, name) == wanted


def test_inbox_in_any_case():
    """Old clients ask for "Inbox" and would find nothing."""
    assert matcher("inbox")("INBOX")
    assert matcher("In%")("INBOX")
    assert not matcher("work")("Work")


@pytest.mark.case(12)
def test_no_pattern_is_slow():
    """One LIST could hold up a pod."""
    started = time.process_time()
    for pattern in ("*a" * 100 + "b", "%a" * 100 + "b"):
        assert not matcher(pattern)("a" * 300)
    assert time.process_time() - started < 1
