"""What a host is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .core import Core
from .documents import Document
from .model import Host


@dataclass(frozen=True)
class Answer:
    """An answer, and the documents in it.

    Attributes:
        head: all but the projects' documents.
        documents: of those projects that differ from what the host knows.
    """

    head: Mapping[str, object]
    documents: Mapping[str, Document]

    def body(self) -> bytes:
        """JSON. Documents are the same for all members, so their text is made once."""
        projects = b",".join(
            json.dumps(name).encode() + b":" + found.text for name, found in self.documents.items()
        )
        head = json.dumps(self.head, separators=(",", ":")).encode()
        return head[:-1] + b',"projects":{' + projects + b"}}"


def differs(core: Core, host: Host, known: Mapping[str, str]) -> bool:
    """Is there anything that the host does not know yet?"""
    projects = _projects(core, host)
    return set(projects) != set(known) or any(
        core.pool.document(project).revision != known[project] for project in projects
    )


def answer(core: Core, host: Host, known: Mapping[str, str], credential: str = "") -> Answer:
    """What a host is told that knows these revisions.

    Args:
        credential: a new one, if the host is to have one.
    """
    projects = _projects(core, host)
    found = {project: core.pool.document(project) for project in projects}
    why = [
        f"{project}: {each.left_out[host.name]}"
        for project, each in found.items()
        if host.name in each.left_out
    ]
    head: dict[str, object] = {
        "epoch": core.epoch,
        "beat_s": core.timing.beat_s,
        "jitter": core.timing.jitter,
        "gone_after_s": core.timing.gone_after_s,
        "name": host.name,
        "state": core.pool.state(host, core.clocks.monotonic()).value,
        "message": "; ".join(why),
        "all": projects,
    }
    if credential:
        head["credential"] = credential
    news = {project: each for project, each in found.items() if known.get(project) != each.revision}
    return Answer(head, news)


def _projects(core: Core, host: Host) -> list[str]:
    return [project for project in host.projects if project in core.pool.projects]
