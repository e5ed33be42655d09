"""Whatever a host says about its jobs and about what they call: nothing runs on the machine of the build,
nothing of it is a fault of ours, and the build goes on.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d1fleet import protocol
from d1fleet.jobserver import TokenPool
from d1fleet.protocol import Message
from tests.support.desk import OTHER, OURS, STRANGER, Desk

from .messages import EXAMPLES, broken
from .peer import same_descriptors

pytestmark = pytest.mark.timeout(300)

_NUMBERS = st.sampled_from([0, 1, 2, 2, 3, 3, 4, 5, 6, 8, (1 << 32) - 1])
_TEXTS = st.sampled_from(
    [b"make\0", b"make\0-n\0", b"make\0--eval=x\0-C\0/\0", b"\0", b"\xff\0-j\0", b"/bin/sh\0-j3\0install\0"]
)
_FLAGS = st.sampled_from(
    [
        b"",
        b"MAKEFLAGS=\0",
        b"MAKEFLAGS=k -j --jobserver-auth=3,4 -- A=\xff\0",
        b"MAKEFLAGS=\xff \\\0MAKEFLAGS\0=\0",
    ]
)


def _asks(tree: bytes) -> st.SearchStrategy[Message]:
    folders = st.sampled_from(
        [tree, tree, tree, tree + b"/a", b"/", b"//", b"/..", tree + b"/../x", b"/\xff", b"x"]
    )
    return st.builds(
        protocol.Ask,
        attempt=_NUMBERS,
        parent=_NUMBERS,
        limits=st.lists(st.integers(0, 70), max_size=4),
        streams=st.integers(0, 8),
        stdin=st.booleans(),
        jobserver=st.booleans(),
        hungry=st.booleans(),
        folder=folders,
        argv=_TEXTS,
        environment=_FLAGS,
    )


_SANE: dict[str, Any] = {
    "code": 0,
    "signal": 0,
    "infrastructure": "",
    "count": 1,
    "stream": 1,
    "amount": 5,
    "seq": 1,
}


def _messages(tree: bytes) -> st.SearchStrategy[Message]:
    others = [
        broken(cls, _SANE, {})
        for cls in protocol.KINDS.values()
        if cls.SENDER != "coordinator" and cls not in (protocol.Hello, protocol.Ask)
    ]
    return st.one_of(_asks(tree), _asks(tree), *others)


@settings(max_examples=150 * EXAMPLES, deadline=None)
@given(st.data())
def test_whatever_a_host_says(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    said = io.StringIO()
    with same_descriptors(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("d1fleet.words.say", said.write)
        desk = Desk(tmp_path_factory.mktemp("desk"))
        with contextlib.closing(desk):
            pool = TokenPool(3)
            desk.begin(slots=data.draw(st.integers(1, 3)), tokens=pool)
            tokens = 3
            for message in data.draw(st.lists(_messages(desk.tree), max_size=12)):
                with contextlib.suppress(UnicodeEncodeError):  # what we cannot even say
                    desk.say(STRANGER, message)
                for job in list(desk.coordinator._attempts.values()):
                    if job.link is desk.link(OTHER) and data.draw(st.booleans()):
                        desk.say(
                            OTHER, protocol.Data(job.attempt, 1, False, b"x"), protocol.Exit(job.attempt)
                        )
                desk.loop.pass_s(0.2)
                jobs = desk.coordinator._attempts.values()
                assert sum(job.tokens for job in jobs) + (pool._tokens or 0) == tokens
                assert all(machine.used >= 0 for machine in desk.coordinator._machines.values())
            assert not any(isinstance(each, protocol.Run) for name in OURS for each in desk.heard(name))
            assert not desk.coordinator.counts.here
            assert desk.link(OTHER).open
            assert "Traceback" not in said.getvalue()
            for name in desk.channels:
                desk.heard(name)
            desk.job("ours")
            assert any(isinstance(each, protocol.Run) for name in desk.channels for each in desk.heard(name))
