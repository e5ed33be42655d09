"""Makes, recipes and shims of the model of a fleet: towards a jobserver they do what GNU make does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from d1fleet import protocol
from d1fleet.maketokens import TokenFifo, TokenPipes
from d1fleet.placement import Machine
from d1fleet.server.attempt import Attempt
from d1fleet.shims import EXIT, INFRASTRUCTURE, LOCAL, SIGNAL, ShimRequest
from tests.support.modelplan import Make

if TYPE_CHECKING:
    from tests.support.modelfleet import World
    from tests.support.modelhosts import FakeServer


class Place:
    """Where a make runs, and whose tokens it has."""

    machine: Machine

    def ask(self, shim: FakeShim, request: ShimRequest) -> None:
        raise NotImplementedError


class Desk(Place):
    """The coordinator's machine."""

    def __init__(self, world: World) -> None:
        self.machine = world.coordinator._here
        self._world = world

    def ask(self, shim: FakeShim, request: ShimRequest) -> None:
        self._world.coordinator._asked_by_shim(shim, request)  # type: ignore[arg-type]


class OnHost(Place):
    """Below an attempt on a host."""

    def __init__(self, server: FakeServer, attempt: Attempt) -> None:
        self.server, self.attempt = server, attempt
        self.machine = server.machine

    def ask(self, shim: FakeShim, request: ShimRequest) -> None:
        request.environment += b"D1FLEET_JOB=%d\0" % self.attempt.id
        door = self.server._door
        assert door is not None
        door._request(shim, request)  # type: ignore[arg-type]


class FakeShim:
    """Waits for its answer."""

    pid = 0
    """Of no process: nobody can measure it."""

    def __init__(self, world: World, recipe: Recipe, make: Make) -> None:
        self.recipe, self.make = recipe, make
        self._world = world
        self.on_signal: Callable[[int], None] = lambda _: None
        self.on_gone: Callable[[], None] = lambda: None
        self.answered = False

    def ask(self) -> None:
        if not self.recipe.over:
            self.recipe.make.place.ask(self, self.recipe.make.request(self.make))

    def reply(self, verb: bytes, value: int = 0) -> None:
        if not self.answered:
            self.answered = True
            self._world.soon(lambda: self.recipe.answered(self, verb, value))

    def gone(self) -> None:
        if not self.answered:
            self.answered = True
            self.on_gone()


class Recipe:
    """One that was started and is not over."""

    def __init__(self, world: World, make: RunningMake, target: int) -> None:
        self._world = world
        self.make, self.target = make, target
        self._steps = list(make.make.targets[target].steps)
        self.works = False
        self.shims: list[FakeShim] = []
        self.local: list[RunningMake] = []
        """Makes that run in it, here."""
        self.over = False
        world.soon(self._next)

    def _next(self) -> None:
        if self.over:
            return
        if not self._steps:
            self._end(self.make.make.targets[self.target].fails)
            return
        step = self._steps.pop(0)
        if isinstance(step, list):
            self.works = False
            self.shims = [FakeShim(self._world, self, called) for called in step]
            for shim in self.shims:
                self._world.soon(shim.ask)
        else:
            self.works = True
            self._world.loop.call_later(step, self._next)

    def answered(self, shim: FakeShim, verb: bytes, value: int) -> None:
        if self.over:
            return
        if verb == LOCAL:
            channel = None if shim.make.own_jobs else self.make.channel
            self.local.append(
                RunningMake(
                    self._world,
                    shim.make,
                    self.make.place,
                    channel,
                    lambda code: self._ended(shim, code != 0),
                )
            )
        else:
            assert verb in (EXIT, SIGNAL, INFRASTRUCTURE)
            self._ended(shim, verb != EXIT or value != 0)

    def _ended(self, shim: FakeShim, failed: bool) -> None:
        self.shims.remove(shim)
        self.local = [each for each in self.local if each.make is not shim.make]
        if self.over:
            return
        if failed and not self.shims:
            self._end(True)
        elif failed:
            self._steps = []  # `wait` tells of the last one only; that it failed is known at the end
            self.make.failed = True
        elif not self.shims:
            self._next()

    def _end(self, failed: bool) -> None:
        self.over, self.works = True, False
        self.make.recipe_ended(self, failed)

    def kill(self) -> None:
        self.over, self.works = True, False
        for make in self.local:
            make.kill(quiet=True)
        for shim in self.shims:
            shim.gone()

    @property
    def runs_here(self) -> int:
        """Recipes that run here by it. Makes that it has in its background share its one right: as with
        plain make, only what they have tokens for is more.
        """
        counts = [each.runs_here for each in self.local]
        return max(self.works, *map(bool, counts), 0) + sum(max(0, count - 1) for count in counts)

    @property
    def runs(self) -> int:
        """The same in the whole fleet."""
        counts = [each.runs for each in self.local]
        counts += [self._world.jobs[shim.make.number].runs for shim in self.shims if self._is_away(shim)]
        return max(self.works, *map(bool, counts), 0) + sum(max(0, count - 1) for count in counts)

    def _is_away(self, shim: FakeShim) -> bool:
        return shim.make.number in self._world.jobs


class RunningMake:
    """A make as its jobserver sees it."""

    def __init__(
        self,
        world: World,
        make: Make,
        place: Place,
        channel: TokenPipes | TokenFifo | None,
        ended: Callable[[int], None],
    ) -> None:
        self._world = world
        self.make, self.place, self.channel = make, place, channel
        self._ended = ended
        self.recipes: list[Recipe] = []
        self._left = list(range(len(make.targets)))
        self._made: set[int] = set()
        self.failed = False
        self.over = False
        self._read_fd = self._write_fd = -1
        if isinstance(channel, TokenPipes):
            self._read_fd, self._write_fd = os.dup(channel.make_read), os.dup(channel.make_write)
            os.set_blocking(self._read_fd, False)
        elif isinstance(channel, TokenFifo):
            self._read_fd = os.open(channel.path, os.O_RDWR | os.O_NONBLOCK)
            self._write_fd = os.dup(self._read_fd)
        world.running.append(self)
        world.soon(self._go)
        if make.killed_after_s is not None:
            world.loop.call_later(make.killed_after_s, lambda: self.kill(quiet=False))

    def _ready(self) -> int | None:
        for number in self._left:
            if self._made.issuperset(self.make.targets[number].after):
                return number
        return None

    def _go(self) -> None:
        """Start what may start; wait for a token where one is wanted."""
        if self.over:
            return
        watched = False
        while (number := self._ready()) is not None and (not self.failed or self._world.plan.keep_going):
            if self.recipes and not self._may_start_more():
                watched = self.channel is not None
                break
            self._left.remove(number)
            self.recipes.append(Recipe(self._world, self, number))
            self._world.began[self.make.number, number] += 1
        if self._read_fd >= 0:
            self._world.loop.on_read(self._read_fd, self._go if watched else None)
        if not self.recipes:
            self._end(2 if self.failed else 0)

    def _may_start_more(self) -> bool:
        if self.make.own_jobs:
            return len(self.recipes) < self.make.own_jobs
        if self._read_fd < 0:
            return False
        try:
            return bool(os.read(self._read_fd, 1))
        except BlockingIOError:
            return False

    def recipe_ended(self, recipe: Recipe, failed: bool) -> None:
        if len(self.recipes) > 1 and self._write_fd >= 0:
            os.write(self._write_fd, b"+")
        self.recipes.remove(recipe)
        if failed:
            self.failed = True
        else:
            self._made.add(recipe.target)
        self._go()

    def kill(self, quiet: bool, number: int = signal.SIGKILL) -> None:
        """With all that it runs; the tokens in its hand are not written back."""
        if not self.over:
            for recipe in self.recipes:
                recipe.kill()
            self.recipes = []
            self._end(number, quiet)

    def _end(self, code: int, quiet: bool = False) -> None:
        self.over = True
        self._world.running.remove(self)
        if self._read_fd >= 0:
            self._world.loop.forget(self._read_fd)
            os.close(self._read_fd)
            os.close(self._write_fd)
        if not quiet:
            self._ended(code)

    def request(self, called: Make) -> ShimRequest:
        """What a shim in one of its recipes sends."""
        auth, fds = b"", None
        if isinstance(self.channel, TokenFifo):
            auth = b" --jobserver-auth=fifo:" + os.fsencode(self.channel.path)
        elif self.channel is not None:
            auth, fds = b" --jobserver-auth=3,4", (os.dup(self._read_fd), os.dup(self._write_fd))
        jobs = b" -j%d" % self._world.plan.jobs
        argv = [b"make", b"all"] + ([b"-j%d" % called.own_jobs] if called.own_jobs else [])
        return ShimRequest(
            protocol.pack_block(argv),
            b"/%d" % called.number,
            b"MAKELEVEL=1\0MAKEFLAGS=%s\0" % (jobs + auth if self.channel is not None else b""),
            0o022,
            0,
            [],
            False,
            {},
            fds,
        )

    @property
    def runs_here(self) -> int:
        found = sum(recipe.runs_here for recipe in self.recipes)
        return min(found, 1) if self.make.own_jobs else found

    @property
    def runs(self) -> int:
        found = sum(recipe.runs for recipe in self.recipes)
        return min(found, 1) if self.make.own_jobs else found
