"""A sub-make that a job here has called: what the job's own make hears of its end."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from d1fleet import makeflags, protocol
from d1fleet.loop import Loop
from d1fleet.server.asked import Asked
from d1fleet.shims import EXIT, LOCAL, SIGNAL


@pytest.fixture
def loop() -> Any:
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_make_is_asked_for_more_when_one_has_ended(loop: Loop, elsewhere: bool) -> None:
    """Not when one stays: then it only begins."""
    events: list[Any] = []
    tokens = SimpleNamespace(stirred=lambda: events.append("stirred"))
    attempt: Any = SimpleNamespace(
        id=2, tokens=tokens, asked=set(), children_changed=lambda: None, calls=lambda *_: None
    )
    unseen: list[tuple[int | None, Callable[[], None]]] = []
    view = SimpleNamespace(when_seen=lambda then, number=None: unseen.append((number, then)))
    door: Any = SimpleNamespace(
        loop=loop,
        send=lambda message: None,
        forget=lambda asked: None,
        outgoing=lambda block: block,
        view=view,
    )
    shim: Any = SimpleNamespace(pid=1, reply=lambda verb, value: events.append(verb))
    request: Any = SimpleNamespace(
        close=lambda: None, fds={}, ask=protocol.Ask, folder=b"/", arguments=[b"make"], environment=b""
    )
    asked = Asked(door, 1, attempt, shim, request, makeflags.parse(b""))
    asked.placed = elsewhere
    asked.handle(protocol.Exit(1, code=0) if elsewhere else protocol.Stay(1, sees=7))
    assert events == []  # not before this host sees what was made elsewhere
    ((number, go_on),) = unseen
    assert number == (None if elsewhere else 7)
    go_on()
    # The make waits for the answer before it goes on.
    assert events == ([EXIT, "stirred"] if elsewhere else [LOCAL])
    go_on()
    assert len(events) == (2 if elsewhere else 1)


def test_a_signal_before_anybody_has_heard_of_it(loop: Loop) -> None:
    events: list[Any] = []
    asks: list[Callable[[], None]] = []
    attempt: Any = SimpleNamespace(id=2, tokens=None, asked=set(), hungry=True)
    view = SimpleNamespace(tell_before=asks.append)
    door: Any = SimpleNamespace(loop=loop, send=events.append, forget=lambda asked: None, view=view)
    shim: Any = SimpleNamespace(pid=1, reply=lambda verb, value: events.append((verb, value)))
    request: Any = SimpleNamespace(close=lambda: None, ask=protocol.Ask)
    Asked(door, 1, attempt, shim, request, makeflags.parse(b"")).ask(b"")
    shim.on_signal(15)
    asks[0]()
    assert events == [(SIGNAL, 15)]
