"""What hosts tell of themselves: read with types, and refused cleanly where it is anything else."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from d1fleet.doctor_facts import LONGEST_TEXT, MOST_ITEMS, Canary, Facts, Fresh, Log, read
from d1fleet.errors import ProtocolError
from d1fleet.server import probe
from tests.support.patients import canary, healthy


def told() -> dict[str, Any]:
    """What a healthy host tells."""
    answer: dict[str, Any] = json.loads(json.dumps(asdict(healthy("alder").facts)))  # type: ignore[arg-type]
    return answer


def test_what_a_host_tells_is_read_as_it_is() -> None:
    assert read(Facts, json.dumps(told()).encode()) == healthy("alder").facts
    assert read(Canary, json.dumps(asdict(canary())).encode()) == canary()
    assert read(Fresh, b'{"made_s": null, "grown_s": 1}') == Fresh(None, 1.0)
    assert read(Log, b'{"readable": true, "lines": []}') == Log(True, ())


def test_a_section_may_be_missing() -> None:
    answer = {**told(), "missing": {"memory": "late"}}
    del answer["memory"]
    found = read(Facts, json.dumps(answer).encode())
    assert found.memory is None and found.missing == {"memory": "late"}


def _set(path: str, value: Any) -> bytes:
    answer = told()
    at: Any = answer
    *above, last = path.split(".")
    for each in above:
        at = at[each]
    at[last] = value
    return json.dumps(answer).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"no": "such section"}',
        _set("identity", {}),
        _set("identity", []),
        _set("identity.uid", "0"),
        _set("identity.uid", True),
        _set("identity.uid", 1.0),
        _set("identity.uid", 1 << 70),
        _set("identity.user", None),
        _set("identity.user", "x" * (LONGEST_TEXT + 1)),
        _set("identity.addresses", ["x"] * (MOST_ITEMS + 1)),
        _set("identity.addresses", "x"),
        _set("identity.more", 1),
        _set("memory.total_bytes", float("nan")),
        _set("toolchain.parts", {"cc": 1}),
        _set("toolchain.parts", []),
        _set("distcc.units", {"x": {"y": {"z": "deep"}}}),
        _set("distcc.backoff", [{"path": "x"}]),
        _set("trees", [{"difference": ""}]),
        _set("trees", [[]]),
        _set("missing", [1]),
    ],
)  # fmt: skip
def test_anything_else_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="what the host tells of itself"):
        read(Facts, answer)


def test_infinite_ages_are_refused() -> None:
    for number in (b"NaN", b"Infinity", b"1e400", b"-1e300"):
        with pytest.raises(ProtocolError):
            read(Fresh, b'{"made_s": ' + number + b', "grown_s": 0}')


def test_this_machine_tells_what_can_be_read() -> None:
    """The two ends fit: what the host's side writes is what this side reads."""
    given = {"project": "demo", "installed": "/nowhere", "launcher": "/nowhere", "hash": "0", "folders": []}
    found = read(Facts, json.dumps(probe.facts(given, {"PATH": "/usr/bin:/bin"}, 10.0)).encode())
    assert found.missing == {}
    assert found.identity is not None and found.identity.cpus >= 1
    assert found.memory is not None and found.memory.available_bytes > 0
    assert found.disk is not None and {each.what for each in found.disk} == {"/tmp", "cache", "slots"}
