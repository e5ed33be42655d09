"""What a registry answers, checked as a whole: it is taken as it is, or nothing of it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import projects, strictjson, values
from .projects import Project
from .strictjson import BadDocumentError

MOST_BYTES = 8 << 20
"""Of an answer; 5,000 peers in five projects are half of that."""

STATES = ("up", "suspect", "drained", "gone", "left", "cloned", "expunged")

SHORTEST_BEAT_S = 1.0
LONGEST_BEAT_S = 3600.0
"""A registry that asks for other beats is taken for broken."""

STILL_SENDS = ("drained by an operator", "its compile server does not answer")
"""Why a host compiles for nobody, and may have others compile all the same. For any other reason it must
not: what comes back from another toolchain is wrong.
"""

_NEEDED = ("epoch", "beat_s", "jitter", "gone_after_s", "name", "state", "message", "all", "projects")
_PROJECT = ("revision", "ranges", "options", "peers", "members", "left_out")


@dataclass(frozen=True)
class News:
    """A project that is another than the host knew.

    Attributes:
        ranges: from which its hosts may come.
    """

    revision: str
    project: Project
    ranges: tuple[values.Network, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A registry's answer to a host that it knows.

    Attributes:
        epoch: of this start of the registry.
        beat_s, jitter: how often to check in, and by which part of that to vary it.
        gone_after_s: of silence, peers do not get a host any more.
        message: why peers do not get this host, or "".
        every: all projects of this host.
        news: of those that differ from what the host knew.
        credential: to be used from now on, or "" for the old one.
        id: of a host that has just joined, or "".
    """

    epoch: str
    beat_s: float
    jitter: float
    gone_after_s: float
    name: str
    state: str
    message: str
    every: tuple[str, ...]
    news: Mapping[str, News]
    credential: str = ""
    id: str = ""


@dataclass(frozen=True)
class Refusal:
    """A registry's answer to what it does not do."""

    status: int
    code: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    @property
    def is_outcast(self) -> bool:
        """Is it certain that this host is not a member any more?"""
        return (self.status, self.code) in _OUTCAST


_OUTCAST = {(401, "credential"), (403, "expunged"), (403, "cloned"), (403, "left")}


def read(data: bytes, networks: tuple[values.Network, ...] | None) -> Answer:
    """An answer of status 200 or 201.

    Args:
        networks: in which peers have to be; None for the ranges that the answer itself has.

    Raises:
        BadDocumentError: anything in it is not as it was agreed on.
    """
    found = strictjson.members(strictjson.read(data, MOST_BYTES), "the answer", _NEEDED, ("credential", "id"))
    beat_s = strictjson.real(found["beat_s"], "beat_s", SHORTEST_BEAT_S, LONGEST_BEAT_S)
    listed = strictjson.items(found["all"], "all", values.MOST_PROJECTS)
    every = [values.project_name(each, "all") for each in listed]
    if len(set(every)) != len(every):
        raise BadDocumentError("all has a project twice")
    news = strictjson.mapping(found["projects"], "projects", values.MOST_PROJECTS)
    if strange := [name for name in news if name not in every]:
        raise BadDocumentError(f"projects has {strictjson.plain(strange[0])!r}, which is not in all")
    return Answer(
        strictjson.text(found["epoch"], "epoch", 128, values.REVISION),
        beat_s,
        strictjson.real(found["jitter"], "jitter", 0.0, 0.9),
        strictjson.real(found["gone_after_s"], "gone_after_s", beat_s, 100 * LONGEST_BEAT_S),
        values.host_name(found["name"], "name"),
        strictjson.one_of(found["state"], "state", STATES),
        strictjson.text(found["message"], "message", values.MOST_PROJECTS * values.LONGEST_REASON),
        tuple(every),
        {name: _news(value, name, networks) for name, value in news.items()},
        strictjson.text(found["credential"], "credential", 8192, values.CREDENTIAL)
        if "credential" in found
        else "",
        strictjson.text(found["id"], "id", 32, values.ID) if "id" in found else "",
    )


def _news(value: object, name: str, networks: tuple[values.Network, ...] | None) -> News:
    found = strictjson.members(value, name, _PROJECT)
    ranges = tuple(values.networks(found["ranges"], f"{name}: ranges", values.MOST_RANGES))
    for each in strictjson.items(found["options"], f"{name}: options", 8):
        strictjson.text(each, f"{name}: options", 20)
    revision = strictjson.text(found["revision"], f"{name}: revision", 128, values.REVISION)
    return News(revision, projects.read(found, name, ranges if networks is None else networks), ranges)


def read_credential(data: bytes) -> str:
    """The credential in an answer of which nothing else is looked at; "" where there is none.

    Raises:
        BadDocumentError: it is no answer, or no credential.
    """
    found = strictjson.mapping(strictjson.read(data, MOST_BYTES), "the answer", 100)
    return (
        strictjson.text(found["credential"], "credential", 8192, values.CREDENTIAL)
        if "credential" in found
        else ""
    )


def read_refusal(status: int, data: bytes) -> Refusal:
    """An answer of status 4xx or 5xx.

    Raises:
        BadDocumentError: it does not come from a registry.
    """
    found = strictjson.members(strictjson.read(data, 1 << 16), "the answer", ("error",))
    error = strictjson.members(found["error"], "error", ("code", "message"), ("field", "mend"))
    return Refusal(
        status,
        strictjson.text(error["code"], "code", 64),
        strictjson.text(error["message"], "message", values.LONGEST_REASON),
        strictjson.text(error.get("mend") or "", "mend", values.LONGEST_REASON),
    )
