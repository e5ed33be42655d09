"""JSON of somebody who means harm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.checkin import strictjson
from d1fleet.checkin.strictjson import BadDocumentError
from tests.unit.checkin.documents import json_values

MIB = 1 << 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"a":1,"a":2}', "twice"),
        (b"NaN", "no number"),
        (b"[-Infinity]", "no number"),
        (b"1" * 30, "too long"),
        (b"1." + b"0" * 30, "too long"),
        (b"[" * 5000 + b"]" * 5000, "no JSON|too deep"),
        (b"[" * 13 + b"]" * 13, "too deep"),
        (b'{"a":' * 13 + b"1" + b"}" * 13, "too deep"),
        (b"[" + b"[]," * (strictjson.MOST_CONTAINERS + 1) + b"1]", "too many parts"),
        (b'"' + b"a" * MIB * 3 + b'"', "more than"),
    ],
)
def test_it_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadDocumentError, match=words):
        strictjson.read(data, 2 * MIB)


def test_a_long_number_takes_no_time() -> None:
    before = time.process_time()
    with pytest.raises(BadDocumentError, match="too long"):
        strictjson.read(b"9" * (2 * MIB), 2 * MIB)
    assert time.process_time() - before < 5


def test_twelve_deep_is_not_too_deep() -> None:
    assert strictjson.read(b"[" * 12 + b"]" * 12, MIB) == json.loads(b"[" * 12 + b"]" * 12)


@given(json_values)
def test_all_else_is_what_was_written(value: Any) -> None:
    assert strictjson.read(json.dumps(value).encode(), MIB) == value


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        strictjson.read(data, 100)
    except BadDocumentError as error:
        assert str(error).isascii() and str(error).isprintable()


READERS: list[tuple[Callable[[object], object], Callable[[Any], bool]]] = [
    (lambda value: strictjson.text(value, "it", 8), lambda found: isinstance(found, str) and len(found) <= 8),
    (lambda value: strictjson.whole(value, "it", 1, 9), lambda found: type(found) is int and 1 <= found <= 9),
    (
        lambda value: strictjson.real(value, "it", 0, 9),
        lambda found: type(found) is float and 0 <= found <= 9,
    ),
    (lambda value: strictjson.flag(value, "it"), lambda found: type(found) is bool),
    (lambda value: strictjson.items(value, "it", 3), lambda found: type(found) is list and len(found) <= 3),
    (lambda value: strictjson.mapping(value, "it", 3), lambda found: type(found) is dict and len(found) <= 3),
    (lambda value: strictjson.one_of(value, "it", ("a", "b")), lambda found: found in ("a", "b")),
    (lambda value: strictjson.members(value, "it", ("a",), ("b",)), lambda found: "a" in found),
]


@pytest.mark.parametrize(("reader", "is_right"), READERS)
def test_readers_return_what_they_are_asked_for_or_refuse(
    reader: Callable[[object], object], is_right: Callable[[Any], bool]
) -> None:
    @given(json_values)
    def tried(value: Any) -> None:
        try:
            assert is_right(reader(value))
        except BadDocumentError as error:
            assert str(error).startswith("it ")

    tried()


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, 0, 10])
def test_a_whole_number_is_no_truth_and_no_text(value: object) -> None:
    with pytest.raises(BadDocumentError, match="it is no whole number from 1 to 9"):
        strictjson.whole(value, "it", 1, 9)


@pytest.mark.parametrize("value", ["a\nb", "a\0", "\x1b", "a\x85b", "\ud800", "\u2028", "\u202e"])
def test_a_text_has_no_control_characters(value: str) -> None:
    with pytest.raises(BadDocumentError, match="cannot be meant"):
        strictjson.text(value, "it", 8)


def test_members_are_all_there_and_no_others() -> None:
    assert strictjson.members({"a": 1, "b": 2}, "it", ("a",), ("b",)) == {"a": 1, "b": 2}
    with pytest.raises(BadDocumentError, match="it has no a"):
        strictjson.members({"b": 1}, "it", ("a",), ("b",))
    with pytest.raises(BadDocumentError, match="which nobody knows"):
        strictjson.members({"a": 1, "c": 2}, "it", ("a",), ("b",))
