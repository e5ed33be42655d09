"""Frames: literal bytes, round trips of every kind, cuts anywhere, and all that is refused."""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d1fleet import protocol
from d1fleet.changes import FILE, GONE, OTHER, Change
from d1fleet.changes import encode as encode_changes
from d1fleet.errors import ProtocolError
from d1fleet.protocol import Decoder, Message, encode
from d1fleet.server import toolchain

LITERAL: list[tuple[Message, bytes]] = [
    (protocol.Grant(seq=7), b"\0\0\0\x0d\x07\0\0\0\0" + b'\0\0\0\x09{"seq":7}'),
    (protocol.Pause(on=True), b"\0\0\0\x0f\x09\0\0\0\0" + b'\0\0\0\x0b{"on":true}'),
    (protocol.Data(2, 1, False, b"a\0\xff"), b"\0\0\0\x05\x1e\0\0\0\x02" + b"\x01\0a\0\xff"),
    (protocol.Data(0xFFFFFFFE, 2, True, b""), b"\0\0\0\x02\x1e\xff\xff\xff\xfe" + b"\x02\x01"),
    (protocol.Credit(4, 1, 65536), b"\0\0\0\x1f\x1f\0\0\0\x04" + b'\0\0\0\x1b{"stream":1,"amount":65536}'),
    (
        protocol.CheckTree(0, 1, b"/t\xfe", b"/t/n", b"x"),
        b"\0\0\0\x22\x04\0\0\0\0" + b'\0\0\0\x0a{"tree":1}' + b"\0\0\0\x03/t\xfe\0\0\0\x04/t/n\0\0\0\x01x",
    ),
    (
        protocol.Unfit(reason="kein \xe9"),
        b"\0\0\0\x26\x03\0\0\0\0" + b'\0\0\0\x22{"reason":"kein \\u00e9","mend":""}',
    ),
    (
        protocol.FencedLate(attempts=[2, 4], late_s=0.5),
        b"\0\0\0\x23\x08\0\0\0\0" + b'\0\0\0\x1f{"attempts":[2,4],"late_s":0.5}',
    ),
]


@pytest.mark.parametrize(("message", "frame"), LITERAL, ids=lambda value: type(value).__name__)
def test_literal_bytes(message: Message, frame: bytes) -> None:
    assert encode(message) == frame
    peer = "server" if message.SENDER == "server" else "coordinator"
    assert list(Decoder(peer).feed(frame)) == [message]


# -- round trips ---------------------------------------------------------------------------------

_INTS = st.integers(0, (1 << 64) - 1)
_COUNTS = st.integers(0, (1 << 16) - 1)
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_PATHS = st.binary(max_size=60).filter(lambda path: b"\0" not in path)
_BLOCKS = st.lists(_PATHS, max_size=5).map(protocol.pack_block)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": _INTS,
    "bool": st.booleans(),
    "float": st.floats(0, 1e14),
    "str": _TEXT,
    "list[int]": st.lists(_INTS, max_size=5),
    "list[str]": st.lists(_TEXT, max_size=5),
    "dict[str, str]": st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=5),
    "bytes": st.binary(max_size=60),
}
_LIMITS = st.lists(st.tuples(st.integers(0, 63), _INTS), max_size=3).map(
    lambda pairs: [number for pair in pairs for number in pair]
)
_ARGV = st.lists(_PATHS, min_size=1, max_size=5).map(protocol.pack_block)
_CHANGES = st.lists(
    st.builds(
        Change,
        st.lists(_PATHS.filter(lambda name: b".." not in name), min_size=1).map(
            lambda names: b"/" + b"/".join(names)
        ),
        st.sampled_from([FILE, OTHER, GONE]),
        st.integers(0, 10**19),
        st.integers(0, 10**12),
    ),
    max_size=5,
).map(lambda changes: b"".join(encode_changes(changes)))
_RANGES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Hello": {"slots": _COUNTS, "cpus": _COUNTS},
    "Welcome": {
        "slots": _COUNTS,
        "nice": st.integers(0, 19),
        "lease_s": st.floats(0.001, 1e5),
        "heartbeat_s": st.floats(0.001, 1e5),
        "environment": _BLOCKS,
        "folder": st.just(b"") | _PATHS.map(lambda path: b"/" + path),
    },
    "Examine": {"limit_s": st.floats(0.001, protocol.LONGEST_EXAMINATION_S), "environment": _BLOCKS},
    "CheckTree": {"folder": _PATHS, "nonce": _PATHS},
    "Run": {
        "umask": st.integers(0, 0o777),
        "limits": _LIMITS,
        "streams": st.integers(0, 7),
        "jobserver": st.lists(st.integers(3, 65535), min_size=2, max_size=2, unique=True),
        "weight": _COUNTS,
        "program": st.sampled_from(["make", "gmake", "m\xe4ke"]),
        "folder": _PATHS,
        "argv": _ARGV,
        "environment": _BLOCKS,
    },
    "Ask": {
        "umask": st.integers(0, 0o777),
        "limits": _LIMITS,
        "streams": st.integers(0, 7),
        "folder": _PATHS.map(lambda path: b"/" + path),
        "argv": _ARGV,
        "environment": _BLOCKS,
    },
    "Watch": {"recent_s": st.floats(0.0, 1e5), "folder": _PATHS.map(lambda path: b"/" + path)},
    "Changed": {"changes": _CHANGES},
    "See": {"changes": _CHANGES},
    "Unseen": {"path": _PATHS.map(lambda path: b"/" + path)},
    "Called": {"folder": _PATHS.map(lambda path: b"/" + path), "argv": _ARGV, "environment": _BLOCKS},
    "Signal": {"signal": st.integers(1, 64)},
    # An exit code or a deadly signal, never both.
    "Exit": {
        "code": st.integers(0, 255),
        "signal": st.just(0),
        "infrastructure": st.sampled_from(["", protocol.LOST, protocol.FENCED]),
        "short": st.sampled_from(["", "memory", "room"]),
    },
    "Data": {"stream": st.integers(0, 2)},
    "Credit": {"stream": st.integers(0, 2)},
    "Close": {"stream": st.integers(0, 2)},
    **{name: {"count": _COUNTS} for name in ("Want", "Offer", "Return", "Recall", "Credited")},
}
"""What each field may hold where its type alone says too little."""


def _messages(cls: type[Message]) -> st.SearchStrategy[Message]:
    values = {each.name: _VALUES[str(each.type)] for each in fields(cls) if each.name != "attempt"}
    values |= _RANGES.get(cls.__name__, {})
    return st.builds(cls, attempt=st.integers(0, (1 << 32) - 1), **values)


def _from(sender: str) -> st.SearchStrategy[Message]:
    return st.one_of([_messages(cls) for cls in protocol.KINDS.values() if cls.SENDER in (sender, "either")])


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", protocol.KINDS)
def test_round_trip(kind: int, data: st.DataObject) -> None:
    message = data.draw(_messages(protocol.KINDS[kind]))
    decoder = Decoder("server" if message.SENDER == "server" else "coordinator")
    assert list(decoder.feed(encode(message))) == [message]
    assert not decoder.partial


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["coordinator", "server"]), st.data())
def test_cut_anywhere(sender: str, data: st.DataObject) -> None:
    messages = data.draw(st.lists(_from(sender), min_size=1, max_size=6))
    stream = b"".join(map(encode, messages))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    decoder = Decoder(sender)
    found: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert found == messages
    assert not decoder.partial


def test_byte_by_byte_and_no_message_early() -> None:
    frame = encode(protocol.Run(2, job=1, argv=b"make\0", folder=b"/"))
    decoder = Decoder("coordinator")
    for at in range(len(frame) - 1):
        assert list(decoder.feed(frame[at : at + 1])) == []
        assert decoder.partial
    assert len(list(decoder.feed(frame[-1:]))) == 1
    assert not decoder.partial


def test_an_empty_feed_is_nothing() -> None:
    decoder = Decoder("server")
    assert list(decoder.feed(b"")) == []
    assert not decoder.partial


# -- what is refused -----------------------------------------------------------------------------


def _frame(kind: int, payload: bytes, attempt: int = 0, length: int | None = None) -> bytes:
    return struct.pack("!IBI", len(payload) if length is None else length, kind, attempt) + payload


def _control(kind: int, control: object | bytes, *raw: bytes) -> bytes:
    head = control if isinstance(control, bytes) else json.dumps(control).encode()
    return _frame(kind, b"".join(struct.pack("!I", len(part)) + part for part in (head, *raw)))


REFUSED: dict[str, tuple[bytes, str]] = {
    "too long": (_frame(7, b"", length=protocol.MAX_PAYLOAD + 1), "longest allowed"),
    "longest length of all": (b"\xff\xff\xff\xff\x07\0\0\0\0", "longest allowed"),
    "unknown kind": (_frame(99, b""), "unknown kind 99"),
    "kind 0": (_frame(0, b""), "unknown kind 0"),
    "wrong direction": (encode(protocol.Gone(left=1)), "not for this direction"),
    "empty payload": (_frame(7, b""), "cut off"),
    "section cut off": (_frame(7, b'\0\0\0\x0a{"seq":1}'), "cut off"),
    "raw section missing": (_control(4, {"tree": 1}, b"/a", b"/b"), "cut off"),
    "raw section too many": (_control(7, {"seq": 1}, b"x"), "too many"),
    "bytes left over": (_frame(7, b'\0\0\0\x09{"seq":1}x'), "too many"),
    "not JSON": (_control(7, b"seq=1"), "not JSON"),
    "not UTF-8": (_control(7, b'{"seq":1,"\xff\xfe":1}'), "not JSON"),
    "cut JSON": (_control(7, b'{"seq":1'), "not JSON"),
    "no object": (_control(7, [1]), "no JSON object"),
    "null": (_control(7, b"null"), "no JSON object"),
    "deep JSON": (_control(7, b"[" * 100_000), "not JSON"),
    "deep closed JSON": (_control(7, b'{"seq":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "seq|not JSON"),
    "many digits": (_control(7, b'{"seq":' + b"1" * 10_000 + b"}"), "seq|not JSON"),
    "missing field": (_control(7, {}), "seq is missing"),
    "unknown field": (_control(7, {"seq": 1, "hops": 2}), "unknown fields hops"),
    "text for a number": (_control(7, {"seq": "1"}), "seq is not of type int"),
    "float for a number": (_control(7, {"seq": 1.0}), "seq is not of type int"),
    "bool for a number": (_control(7, {"seq": True}), "seq is not of type int"),
    "null for a number": (_control(7, {"seq": None}), "seq is not of type int"),
    "negative": (_control(7, {"seq": -1}), "seq is not of type int"),
    "more than 64 bits": (_control(7, {"seq": 1 << 64}), "seq is not of type int"),
    "number for a bool": (_control(9, {"on": 1}), "on is not of type bool"),
    "number for text": (
        _control(10, {"on": True, "reason": 1, "everybody": False}),
        "reason is not of type str",
    ),
    "stream 3": (_frame(30, b"\x03\0x"), "no such stream 3"),
    "data cut off": (_frame(30, b"\x01"), "cut off"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("frame", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(frame: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        list(Decoder("coordinator").feed(frame))


def _run_fields(**changed: object) -> dict[str, object]:
    values = {name: getattr(protocol.Run(), name) for name, _ in protocol.Run._JSON}
    return values | changed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits", 5),
        ("limits", [1, -1]),
        ("limits", [1, "2"]),
        ("limits", [True]),
        ("limits", [1 << 64]),
        ("limits", [[]]),
        ("program", b"x".hex),
        ("program", ["make"]),
        ("same", "yes"),
    ],
)
def test_refused_in_a_run(name: str, value: object) -> None:
    if callable(value):
        value = {"a": 1}
    frame = _control(20, _run_fields(**{name: value}), b"/", b"make\0", b"")
    with pytest.raises(ProtocolError, match=f"{name} is not of type"):
        list(Decoder("coordinator").feed(frame))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([["cc", "x"]], "not of type dict"),
        ("cc", "not of type dict"),
        (None, "not of type dict"),
        ({"cc": 1}, "not of type str"),
        ({"cc": None}, "not of type str"),
        ({"cc": {"cc": "x"}}, "not of type str"),
        ({"cc": "\0"}, "not of type str"),
        ({"c\0": ""}, "not of type str"),
        ({"cc": "\ud800"}, "not of type str"),
        ({"": "x"}, "out of range"),
        ({"c" * (toolchain.LONGEST_NAME + 1): "x"}, "out of range"),
        ({"cc": "x" * (toolchain.LONGEST_VALUE + 1)}, "out of range"),
        ({str(number): "x" for number in range(toolchain.MOST_PARTS + 1)}, "more than 64 parts"),
    ],
)
@pytest.mark.parametrize("name", ["toolchain", "toolchain_places", "project_toolchain"])
def test_toolchains_that_are_refused(name: str, parts: object, words: str) -> None:
    fields = {name: getattr(protocol.Hello(), name) for name, _ in protocol.Hello._JSON}
    with pytest.raises(ProtocolError, match=f"{name} .*{words}"):
        list(Decoder("server").feed(_control(2, fields | {name: parts})))


def test_the_greatest_toolchain_is_not_refused() -> None:
    parts = {
        f"{number:{toolchain.LONGEST_NAME}}": "x" * toolchain.LONGEST_VALUE
        for number in range(toolchain.MOST_PARTS)
    }
    hello = protocol.Hello(toolchain=parts, project_toolchain=parts)
    assert list(Decoder("server").feed(encode(hello))) == [hello]


def test_a_projects_name_is_bounded() -> None:
    with pytest.raises(ProtocolError, match="name of project or host is too long"):
        list(Decoder("coordinator").feed(encode(protocol.Welcome(project="p" * 401))))


def test_a_whole_run_is_not_refused() -> None:
    assert len(list(Decoder("coordinator").feed(_control(20, _run_fields(), b"/", b"make\0", b"")))) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-0.5", "1" + "0" * 400])
def test_a_float_that_is_no_finite_amount_is_refused(number: str) -> None:
    """A lease of NaN seconds would never end."""
    head = json.dumps({name: getattr(protocol.Welcome(), name) for name, _ in protocol.Welcome._JSON})
    assert '"lease_s": 10.0' in head
    frame = _control(1, head.replace('"lease_s": 10.0', f'"lease_s": {number}').encode(), b"", b"")
    with pytest.raises(ProtocolError, match="lease_s"):
        list(Decoder("coordinator").feed(frame))


def test_the_right_direction_decides() -> None:
    assert list(Decoder("server").feed(encode(protocol.Gone(left=1)))) == [protocol.Gone(left=1)]
    with pytest.raises(ProtocolError, match="not for this direction"):
        list(Decoder("server").feed(encode(protocol.Bye())))


def test_a_header_alone_is_enough_to_refuse() -> None:
    """Nobody waits for 16 MiB of a kind that does not exist."""
    with pytest.raises(ProtocolError):
        list(Decoder("server").feed(struct.pack("!IBI", protocol.MAX_PAYLOAD, 200, 0)))


def test_messages_before_a_bad_frame_still_come() -> None:
    found = []
    with pytest.raises(ProtocolError):
        for message in Decoder("server").feed(encode(protocol.Gone(left=3)) + _frame(99, b"")):
            found.append(message)
    assert found == [protocol.Gone(left=3)]


def test_the_longest_message_and_one_byte_more() -> None:
    longest = protocol.Data(2, 1, False, b"x" * (protocol.MAX_PAYLOAD - 2))
    assert list(Decoder("server").feed(encode(longest))) == [longest]
    with pytest.raises(ProtocolError, match="longest allowed"):
        encode(protocol.Data(2, 1, False, b"x" * (protocol.MAX_PAYLOAD - 1)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["coordinator", "server"]))
def test_random_bytes_end_in_messages_or_a_protocol_error(data: bytes, peer: str) -> None:
    try:
        for message in Decoder(peer).feed(data):
            assert isinstance(message, Message)
    except ProtocolError as error:
        assert error.exit_code == 95


@settings(max_examples=300, deadline=None)
@given(_from("coordinator"), st.data())
def test_a_frame_with_changed_bytes_too(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=4)):
        frame[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        list(Decoder("coordinator").feed(bytes(frame)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=10).filter(lambda item: b"\0" not in item), max_size=8))
def test_blocks(items: list[bytes]) -> None:
    assert protocol.unpack_block(protocol.pack_block(items)) == items


@pytest.mark.parametrize("block", [b"x", b"a\0b", b"\0x"])
def test_a_block_without_its_last_nul_is_refused(block: bytes) -> None:
    with pytest.raises(ProtocolError, match="cut off"):
        protocol.unpack_block(block)
