"""A real coordinator whose hosts, clock and shims are the test's: no process, no network, nothing is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d1fleet import protocol
from d1fleet.askers import Send
from d1fleet.coordinator import Coordinator
from d1fleet.environment import TravellingEnvironment
from d1fleet.experience import Experience
from d1fleet.history import History
from d1fleet.hostlink import HostLink
from d1fleet.job import Job
from d1fleet.jobserver import TokenPool, TokenSource
from d1fleet.machines import Machine
from d1fleet.model import Host
from d1fleet.policy import Policy
from d1fleet.protocol import Decoder, Message, encode
from d1fleet.record import Record
from d1fleet.server.facts import machine_identity
from tests.fuzz.test_fuzz_hostlink import GREETING, FakeChannel
from tests.support.noaftermath import NoAftermath
from tests.unit.test_comings import FakeLogins, FakeLoop

STRANGER, OTHER, HERE, NAMED = "mallory", "birch", ":", "desk.example"
HOSTS = (
    Host(STRANGER, slots=4),
    Host(OTHER, slots=4),
    Host(HERE, transport="local", slots=4),
    Host(NAMED, slots=4),
)
"""Two foreign machines, and this one by two names."""

OURS = {HERE, NAMED}


class Waiting:
    """Who asked for a job at the desk."""

    host: str | None = None

    def __init__(self, tokens: TokenSource | None = None) -> None:
        self.answers: list[tuple[bytes, int]] = []
        self.written = 0
        self.tokens = tokens
        self._ahead = 0
        self._give: Callable[[int], None] = lambda amount: None

    def waits(self) -> None: ...

    def placed(self, attempt: int, stdin: bool, send: Send) -> None:
        self._give = lambda amount: send(protocol.Credit(attempt, protocol.STDOUT, amount))

    def unplaced(self) -> None: ...

    def output(self, message: protocol.Data) -> None:
        """As a terminal that is quick enough."""
        self.written += len(message.data)
        self._give(len(message.data))

    def stdin_used(self, amount: int) -> None: ...

    def when_written(self, done: Callable[[], None]) -> None:
        done()

    def discard_output(self) -> None: ...

    def mute(self) -> None: ...

    lost_output = 0

    @property
    def token_source(self) -> TokenSource | None:
        return self.tokens

    def measure(self, over_s: float, done: Callable[[float], None]) -> None: ...

    def close(self) -> None: ...

    def answer(self, verb: bytes, value: int) -> None:
        self.answers.append((verb, value))


class _Forgetful(Experience):
    """The user's own history is not for tests."""

    def keep(self, machines: Mapping[str, Machine]) -> None: ...


class Desk:
    """A build at a desk, its hosts connected one by one.

    Args:
        folder: for the tree and the record.
        policy: fields of Policy.
    """

    def __init__(self, folder: Path, hosts: Sequence[Host] = HOSTS, **policy: Any) -> None:
        self.folder = folder
        (folder / "tree").mkdir()
        self.tree = bytes(folder / "tree")
        self.loop = FakeLoop()
        self.record = Record(str(folder / "record"))
        environment = TravellingEnvironment([], b"/nonexistent", [])
        self.aftermath = NoAftermath(self.loop)
        self.coordinator = Coordinator(
            self.loop,
            str(folder / "socket"),
            self.tree,
            hosts,
            Policy(build="b", project=folder.name, **policy),
            (environment, environment),
            self.record,
            self.aftermath,
        )
        forgetful = _Forgetful(folder.name, self.tree, History())
        self.coordinator._experience = self.coordinator.hosts._experience = forgetful
        self.logins = FakeLogins()
        self.coordinator.hosts.begin(self.logins)
        self.channels: dict[str, FakeChannel] = {}
        self._numbers = iter(range(1, 1 << 31, 2))

    def close(self) -> None:
        self.coordinator.close()
        self.loop.close()

    def link(self, name: str) -> HostLink:
        return next(link for link in self.coordinator.hosts.links if link.host.name == name)

    def come(self, name: str, slots: int = 4, machine: str | None = None) -> None:
        """A host comes up and sees the tree."""
        channel = self.channels[name] = FakeChannel()
        if name in self.logins.first:
            self.logins.first.pop(name).connected(channel)
        else:  # it was lost, and is tried again
            self.logins.waiting.pop(name)[0](channel)
        if machine is None:
            machine = machine_identity() if name in OURS else name
        hello = protocol.Hello(machine=machine, hostname=name, slots=slots, cpus=slots)
        channel.say(GREETING + b"have\n" + encode(hello) + encode(protocol.TreeChecked(tree=0)))
        channel.sent.clear()

    def say(self, name: str, *messages: Message) -> None:
        self.channels[name].say(b"".join(map(encode, messages)))

    def heard(self, name: str) -> list[Message]:
        """What the host was told since the last look."""
        if name not in self.channels:
            return []
        sent = self.channels[name].sent
        messages = list(Decoder("coordinator").feed(bytes(sent)))
        sent.clear()
        return messages

    def job(self, *arguments: str, tokens: TokenSource | None = None) -> Job:
        """A sub-make that the build's own make calls."""
        asker = Waiting(tokens or TokenPool(0))
        ask = protocol.Ask(
            folder=self.tree,
            argv=protocol.pack_block([b"make", *(word.encode() for word in arguments)]),
            environment=b"MAKEFLAGS=j --jobserver-auth=3,4\0",
            jobserver=True,
        )
        coordinator = self.coordinator
        job = coordinator._new_job(asker, ask, next(iter(coordinator.hosts._proofs.here)))
        coordinator._take_up(job)
        return job

    def ask(self, parent: Job | int, *arguments: str, **changed: Any) -> protocol.Ask:
        """What a server says when a job has called make; its other fields are sane."""
        fields: dict[str, Any] = {
            "attempt": next(self._numbers),
            "parent": parent.attempt if isinstance(parent, Job) else parent,
            "folder": self.tree,
            "argv": protocol.pack_block([b"make", *(word.encode() for word in arguments)]),
            "environment": b"",
        }
        return protocol.Ask(**(fields | changed))

    def begin(self, slots: int = 1, tokens: TokenSource | None = None) -> Job:
        """The stranger has a job that fills it, and all other hosts are up behind it."""
        self.come(STRANGER, slots)
        job = self.job("theirs", tokens=tokens)
        assert job.link is self.link(STRANGER)
        for name in (OTHER, HERE, NAMED):
            self.come(name)
        self.heard(STRANGER)
        return job

    def reasons(self) -> list[str]:
        """Why sub-makes stayed on their hosts, so far."""
        self.record.flush()
        lines = map(json.loads, (self.folder / "record").read_text().splitlines())
        return [line["local_reason"] for line in lines if line["event"] == "job" and line["local_reason"]]


@contextmanager
def desks(folder: Path) -> Iterator[Callable[..., Desk]]:
    """Makes desks, of policies; they are closed at the end."""
    made: list[Desk] = []

    def new(**policy: Any) -> Desk:
        made.append(Desk(folder, **policy))
        return made[-1]

    try:
        yield new
    finally:
        for desk in made:
            desk.close()
