"""Messages as a peer may send them that is broken, or means ill: each field now sane, now at its limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from d1fleet import protocol
from d1fleet.protocol import Message

EXAMPLES = int(os.environ.get("D1FLEET_TEST_FUZZ", "1"))
"""Factor on the number of examples."""

ATTEMPTS = st.sampled_from([0, 1, 2, 2, 2, 4, 6, (1 << 32) - 1])

_INTS = st.one_of(
    st.integers(0, 10), st.sampled_from([64, 200, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 60, (1 << 64) - 1])
)
_BYTES = st.one_of(
    st.sampled_from([b"", b"/", b"x", b"x\0", b"\0", b"a=b\0", b"\xff\0"]), st.binary(max_size=20)
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": _INTS,
    "bool": st.booleans(),
    "float": st.sampled_from([0.0, 0.5, 1e-9, 3.0, 1e9, 1e300]),
    "str": st.one_of(
        st.sampled_from(["", "make", "\0", "\ud800", "a/b", "x\x1b[31m\n"]), st.text(max_size=10)
    ),
    "list[int]": st.lists(_INTS, max_size=4),
    "list[str]": st.lists(st.text(max_size=4), max_size=3),
    "dict[str, str]": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    "bytes": _BYTES,
}


def broken(
    cls: type[Message], sane: Mapping[str, Any], fixed: Mapping[str, Any]
) -> st.SearchStrategy[Message]:
    """Messages of one kind: any fields odd, the others as in `sane`, those in `fixed` always so."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for each in fields(cls):
        if each.name in fixed:
            values[each.name] = st.just(fixed[each.name])
        elif each.name == "attempt":
            values[each.name] = ATTEMPTS
        elif each.name in sane:
            likely = st.just(sane[each.name])
            values[each.name] = st.one_of(likely, likely, likely, likely, VALUES[str(each.type)])
        else:
            values[each.name] = VALUES[str(each.type)]
    if cls is protocol.Data:
        values["stream"] = st.integers(0, 2)
    return st.builds(cls, **values)


@st.composite
def mutated(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> bytes:
    """A stream with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(streams))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["change", "change", "cut", "double", "insert", "end"]))
        if how == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif how == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=4))
        else:
            del data[at:]
    return bytes(data)
