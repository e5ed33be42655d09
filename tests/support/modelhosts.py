"""Hosts of the model of a fleet: the real server's slots, attempts and tokens, on made-up connections."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from d1fleet import protocol
from d1fleet.environment import TravellingEnvironment
from d1fleet.hosts import Hosts
from d1fleet.maketokens import TokenFifo, TokenPipes
from d1fleet.model import Host
from d1fleet.placement import HostState, Machine
from d1fleet.server.attempt import Attempt
from d1fleet.server.door import Door
from d1fleet.server.main import Server
from d1fleet.server.supervisor import ENDED, KILL, TO_GROUP
from d1fleet.server.view import View
from d1fleet.stopwatch import Stopwatch
from tests.support.modelmakes import OnHost, RunningMake
from tests.support.modelplan import HERE

if TYPE_CHECKING:
    from tests.support.modelfleet import World

DEVICE = 7
"""Of the one tree that all hosts share."""


class FakeLink:
    """A connection: messages arrive in order, some time later, until it is cut."""

    def __init__(self, world: World, host: Host, machine: str, slots: int, order: int, fifo: bool) -> None:
        self._world = world
        self.host = host
        self.open = True
        self.hello = SimpleNamespace(machine=machine)
        found = world.coordinator._machines.setdefault(machine, Machine(slots=slots, cpus=slots))
        self.placement = HostState(host.name, found, order, host.max_jobs, groups=frozenset([DEVICE]))
        self.server = FakeServer(world, self, found, machine, slots, fifo)
        self._arrives = [0.0, 0.0]
        self._decoders = (protocol.Decoder("coordinator"), protocol.Decoder("server"))

    def stayed(self, number: int, done: Callable[[float], None]) -> None: ...

    def send(self, message: protocol.Message) -> None:
        self._carry(0, message, self.server._handle)

    def answer(self, message: protocol.Message) -> None:
        self._carry(1, message, lambda each: self._world.coordinator._host_message(self, each))  # type: ignore[arg-type]

    def _carry(self, way: int, message: protocol.Message, handle: Callable[[protocol.Message], None]) -> None:
        data = protocol.encode(message)

        def arrives() -> None:
            if self.open:
                for each in self._decoders[way].feed(data):
                    handle(each)

        loop = self._world.loop
        self._arrives[way] = max(self._arrives[way], loop.now() + self._world.rng.choice([0, 0.0005, 0.01]))
        loop.call_at(self._arrives[way], arrives)


class FakeSupervisor:
    """Starts the model of a make in place of a process."""

    def __init__(self, world: World, server: FakeServer, attempt: Attempt) -> None:
        self._world, self._server, self._attempt = world, server, attempt
        self._make: RunningMake | None = None

    def start(self, job: tuple[Any, ...], fds: list[int]) -> None:
        make = self._world.plan.makes[int(job[3][1:])]
        run = self._attempt.run
        assert bool(run.tokens) == (make.own_jobs is None)
        channel = self._attempt._channel if run.tokens else None
        place = OnHost(self._server, self._attempt)
        self._make = self._world.jobs[make.number] = RunningMake(
            self._world, make, place, channel, self._ended
        )

    def _ended(self, code: int) -> None:
        assert self._make is not None
        self._world.jobs.pop(self._make.make.number, None)
        status = code if code in (signal.SIGKILL, signal.SIGTERM) else code << 8
        self._world.soon(lambda: self._attempt.on_report(ENDED, status))

    def command(self, verb: bytes, value: int = 0) -> None:
        if self._make is not None and (verb == KILL or (verb == TO_GROUP and value == signal.SIGTERM)):
            make = self._make
            number = signal.SIGKILL if verb == KILL else signal.SIGTERM
            self._world.soon(lambda: make.kill(quiet=False, number=number))

    def died(self) -> None:
        if self._make is not None:
            self._world.jobs.pop(self._make.make.number, None)
            self._make.kill(quiet=True)


class FakeDoor(Door):
    """Without a socket."""

    def __init__(self, server: FakeServer) -> None:
        self.loop, self.send, self.complain = server.loop, server.send, server.complain
        self.outgoing = lambda block: block
        self.view = server.view
        self._attempts = server._attempts
        self._asked = {}
        self._number = -1
        self.stopwatch = Stopwatch(self.loop)


class FakeServer(Server):
    """The real one's slots, attempts and tokens, without a process or a connection of its own."""

    def __init__(
        self, world: World, link: FakeLink, machine: Machine, name: str, slots: int, fifo: bool
    ) -> None:
        self._world, self._link, self.machine = world, link, machine
        self.loop = world.loop
        self.programs = SimpleNamespace(find=lambda program, path: b"make")  # type: ignore[assignment]
        self.supervisors = SimpleNamespace(  # type: ignore[assignment]
            take=lambda attempt: FakeSupervisor(world, self, attempt), give=lambda used, left: None
        )
        self._slots = world.pool(name, slots)
        self._welcome = protocol.Welcome()
        self._start = None
        self._attempts, self._waiting, self._blind = {}, deque(), set()
        self.view = View(self.loop, self.send)
        self._make_version = (4, 4) if fifo else (4, 3)
        self._fifos = 0
        self._ticking = self._retrying = self._ending = False
        self.output_lock = None
        self._door = FakeDoor(self)
        self.dead = False

    def send(self, message: protocol.Message) -> None:
        if not self.dead:
            self._link.answer(message)

    def folder_reason(self, folder: bytes) -> str:
        return "it will not" if self._world.rng.random() < self._world.plan.refuses else ""

    def compose(self, run: protocol.Run, fifo: str | None) -> dict[bytes, bytes]:
        return {}

    def token_channel(self, run: protocol.Run) -> TokenPipes | TokenFifo:
        if not (run.fifo and run.tokens and self._make_version >= (4, 4)):
            return TokenPipes()
        return self._world.fifo()

    def complain(self, text: str) -> None:
        raise AssertionError(text)

    def die(self) -> None:
        """The lease has ended: nothing is left of it, and the kernel has dropped its locks."""
        if self.dead:
            return
        self.dead = True
        for attempt in list(self._attempts.values()):
            supervisor: Any = attempt.supervisor
            if supervisor is not None:
                supervisor.died()
            attempt.close()
        self._attempts.clear()
        self._waiting.clear()
        assert self._slots is not None
        self._slots.locks.close()


class FakeHosts(Hosts):
    """Hosts that are up as soon as they are wanted; what the coordinator asks about them is real."""

    def __init__(self, *arguments: Any) -> None:
        self._members = []
        self._scheduler = arguments[7]
        self.may_come = False

    @property
    def every_link(self) -> list[Any]:
        return [member.link for member in self._members]

    def shares(self, device: int) -> bool:
        return True

    def device_of(self, folder: bytes) -> int:
        return DEVICE

    def closed_to(self, link: Any) -> set[str]:
        if self.trusted or link.hello.machine == HERE:
            return set()
        return {each.host.name for each in self.links if each.hello and each.hello.machine == HERE}

    trusted = False

    @property
    def some_may_come(self) -> bool:
        return self.may_come

    @property
    def some_may_run(self) -> bool:
        return False

    def environment_for(self, host: Host) -> TravellingEnvironment:
        return ENVIRONMENT

    def take_leave(self, kill: bool, limit_s: float) -> None:
        pass

    def close(self) -> None:
        pass


ENVIRONMENT = TravellingEnvironment([], b"/shims")


class FakeListener:
    def __init__(self, *arguments: Any) -> None:
        pass

    def pause(self, on: bool) -> None:
        pass

    def close(self) -> None:
        pass
