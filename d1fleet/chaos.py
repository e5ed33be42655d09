"""`d1fleet chaos`: breaks hosts, links and processes while a build runs, and compares what was made.

The build runs in a copy of the tree, once by plain make, once by d1fleet in peace, then once for each fault.
A fault counts only when it hit a recipe at work: the host says which, the record that it was the build's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import words
from .chaos_faults import LOCAL, NEEDS_LOGIN, RETURNS_S, Fault
from .chaos_tree import Copies, artefacts, differences
from .connect import Connector, Logins
from .doctor_talks import START_LIMIT_S, Talk, let_go, wait
from .environment import TravellingEnvironment
from .errors import ChaosError, D1fleetError, HostError
from .fence import run_about
from .fleet import Fleet
from .loop import Loop
from .model import Host
from .server import process
from .settings import Settings

TRIES = 6
"""A fault that found no recipe at work is tried again, so often in all."""

_LOOK_LIMIT_S = 8.0
"""How long a host waits for a recipe."""

_AGAIN = 2
"""Times that a build which failed is started again."""

_LONG = 10.0
_LONG_S = 120.0
"""A build that takes so many times as long as in peace, and so much more, hangs."""

_RETURN_LIMIT_S = 90.0
"""For a machine to boot (a guess)."""

_BETWEEN_S = 1.0
"""From one login's end to the next one's."""


@dataclass(frozen=True)
class Struck:
    """What a host says of a blow."""

    hit: bool
    recipe: str
    make: str
    folder: str
    stopped: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Healed:
    healed: int


@dataclass
class Outcome:
    """One fault, and what came of it.

    Attributes:
        host, recipe, folder: what was hit.
        exits: of the build, and of those after it.
        again_s: from the blow until a lost sub-make was given to somebody again; None where none was.
        took_s: the first build.
        differs: files that are missing, or another.
        more: files that plain make does not leave: what killed programs had for themselves.
        wrong: what should not be so; empty when all is as in peace.
        skipped: why it could not be done here.
    """

    fault: Fault
    host: str = ""
    recipe: str = ""
    folder: str = ""
    exits: list[int] = field(default_factory=list)
    again_s: float | None = None
    took_s: float = 0.0
    differs: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    wrong: str = ""
    skipped: str = ""


@dataclass
class Peace:
    """The build without faults.

    Attributes:
        clean: all files, as they are when plain make has made its own.
        made: how many of them those are.
        apart: what differs without any fault: nothing can be said of it.
        took_s: by d1fleet.
    """

    clean: dict[str, str]
    made: int
    apart: list[str]
    took_s: float


class Chaos:
    """A fleet, a tree, and what is done to them.

    Args:
        folder: of the build, the top of the tree, which hosts share.
        arguments: make's.
        options: of d1fleet build, as they are typed.
        build: the command that builds, to which those are added.
        say: told what goes on, a line at a time.
        rng: says when and where.
    """

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        folder: Path,
        arguments: Sequence[str],
        options: Sequence[str],
        say: Callable[[str], None],
        build: Sequence[str] = (sys.executable, "-P", "-m", "d1fleet.cli", "build"),
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._folder = folder
        self._arguments = list(arguments)
        self._options = list(options)
        self._say = say
        self._build = list(build)
        self._random = rng or random.Random()
        self._copies = Copies(folder)
        self._loop = Loop()
        self._connector = Connector(settings.ssh_config, settings.ssh_options, settings.connect_timeout_s)
        self._talks: list[Talk] = []
        self._errors: dict[str, str] = {}
        self._number = 0
        self._usual_s = math.inf
        """How long a build takes: blows fall before."""

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *exc: object) -> None:
        for talk in self._talks:
            talk.close()
        let_go(self._loop)
        self._connector.close()
        self._loop.close()

    # -- in peace ---------------------------------------------------------------------------------------

    def peace(self) -> Peace:
        """Build twice without faults.

        Raises:
            ChaosError: the build fails as it is.
        """
        self._copies.renew()
        before = artefacts(self._copies.copy)
        log = self._log("plain")
        with log.open("wb") as file:
            done = subprocess.run(
                ["make", *self._arguments],
                cwd=self._copies.copy,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise ChaosError(
                f"plain make ends with {done.returncode} in a copy of this tree: {_last_line(log)}",
                f"see {log}",
            )
        clean = artefacts(self._copies.copy)
        made = len(differences(clean, before))
        if not made:
            raise ChaosError("in a copy of this tree make has nothing to do", "make clean first")
        self._copies.renew()
        began = time.monotonic()
        build = _Build(self, "peace")
        code = build.wait()
        took_s = time.monotonic() - began
        if code:
            raise ChaosError(
                f"d1fleet build ends with {code} without any fault: {_last_line(build.log)}",
                f"see {build.log}",
            )
        return Peace(clean, made, differences(clean, artefacts(self._copies.copy)), took_s)

    # -- faults -----------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Log in to all hosts, to strike there.

        Raises:
            HostError: to none, or not to all.
        """
        self._log_in(self._fleet.hosts)
        if len(self._talks) < len(self._fleet.hosts):
            name, error = next(iter(self._errors.items()))
            raise HostError(f"host {name}: {error}", "d1fleet doctor says more")

    def _log_in(self, hosts: Sequence[Host]) -> bool:
        """Whether it went well for all; those for which it did are in `_talks`."""
        start = [name + b"=" + value for name, value in os.environb.items()]
        logins = Logins(self._loop, self._connector, lambda host: True)
        talks = []
        for host in hosts:
            local = TravellingEnvironment(start, b"\0", (), host.transport != "local")
            talk = Talk(self._loop, host, local.start_block, host.setup or self._settings.setup)
            talks.append(talk)
            logins.begin(host, talk.connected, talk.fail)
        limit_s = self._settings.connect_timeout_s + START_LIMIT_S
        wait(self._loop, lambda: all(talk.ready or talk.error for talk in talks), limit_s)
        for talk in talks:
            if talk.ready and talk.error is None:
                self._talks.append(talk)
            else:
                self._errors[talk.host.name] = str(talk.error or "no login in time")
                talk.close()
        return all(talk in self._talks for talk in talks)

    def strike(self, fault: Fault, peace: Peace) -> Outcome:
        """Build with a fault, until that has hit a recipe at work, or there were too many tries."""
        here = all(host.transport == "local" for host in self._fleet.hosts)
        if fault.how in NEEDS_LOGIN and here:
            return Outcome(fault, skipped="no host is reached over SSH, so that there is no login to break")
        if fault.late and here:
            reason = "all hosts are this machine, and the frozen one would keep its slots from the others"
            return Outcome(fault, skipped=reason)
        for _ in range(TRIES):
            outcome = self._once(fault, peace)
            if outcome is not None:
                return outcome
        return Outcome(fault, skipped=f"no recipe was at work on a host, {TRIES} times")

    def _once(self, fault: Fault, peace: Peace) -> Outcome | None:
        """One build; None when the fault hit nothing."""
        self._copies.renew()
        self._number += 1
        limit_s = _LONG * peace.took_s + _LONG_S
        began = time.monotonic()
        build = _Build(self, f"{self._number:03}-{fault.name}")
        outcome = Outcome(fault)
        heals: list[Callable[[], None]] = []
        try:
            usual_s = min(peace.took_s, self._usual_s)
            wait(self._loop, lambda: build.ended, self._random.uniform(0.05, 0.7) * usual_s)
            struck_s = self._blows(fault, build, outcome, heals)
            if struck_s is None:
                if build.ended and build.wait() == 0:  # faster than in peace, when others were at work
                    self._usual_s = min(self._usual_s, time.monotonic() - began)
                return outcome if outcome.skipped else None
            if fault.name in LOCAL:
                build.kill()
            if heals and not fault.late:
                self._wait_to_heal(fault, build, limit_s)
            # What goes on when the build has ended may write for a moment; the next build sees to that.
            late = bool(heals) and (fault.late or build.ended)
            if not late:
                _heal(heals)
            code = build.wait(self._loop, limit_s)
            outcome.took_s = time.monotonic() - began
            if code is None:
                outcome.wrong = f"the build did not end within {limit_s:.0f} s"
                return outcome
            outcome.exits.append(code)
            if not build.was_hit(outcome.host.split(", ")[0], struck_s):
                return None
            outcome.again_s = build.again_s(struck_s)
            if late:
                _heal(heals)
                wait(self._loop, lambda: False, RETURNS_S)
        finally:
            _heal(heals)
            if not build.ended:
                build.kill()
                wait(self._loop, lambda: False, RETURNS_S)  # until hosts have ended what is still written
            self._log_in_again()
        self._finish(outcome, peace, limit_s, again=late)
        return outcome

    def _blows(
        self, fault: Fault, build: _Build, outcome: Outcome, heals: list[Callable[[], None]]
    ) -> float | None:
        """Strike as often as the fault wants, and note in `outcome` what was hit first; returns when that was
        (seconds of the loop), None when nothing was.
        """
        struck_s: float | None = None
        for number in range(fault.times):
            if number:
                wait(self._loop, lambda: build.ended, _BETWEEN_S + self._random.uniform(0.0, 1.0))
            found = self._hit(fault, build)
            if isinstance(found, D1fleetError):
                outcome.skipped = words.plain(found.message.removeprefix("it cannot tell (strike): "))
                return None
            if not found:
                return struck_s
            heals += [self._healing(talk, struck) for talk, struck in found if struck.stopped]
            talk, struck = found[0]
            if fault.command:
                outcome.skipped = self.run_command(fault.command, talk.host)
                if outcome.skipped:
                    return None
                if fault.heal:
                    heals.append(partial(self._mend, fault, talk, outcome))
            if struck_s is None:
                struck_s = self._loop.now()
                outcome.host = ", ".join(words.plain(talk.host.name) for talk, _ in found)
                outcome.recipe, outcome.folder = words.plain(struck.recipe), words.plain(struck.folder)
        return struck_s

    def _hit(self, fault: Fault, build: _Build) -> list[tuple[Talk, Struck]] | D1fleetError:
        """Strike some host, or all; nothing where no recipe was at work."""
        hits: list[tuple[Talk, Struck]] = []
        for talk in self._random.sample(self._talks, len(self._talks)):
            limit_s = 1.0 if hits else 1.0 + _LOOK_LIMIT_S / len(self._talks)
            found = self._ask(talk, fault.how, limit_s)
            if isinstance(found, D1fleetError):
                if talk.error is not None:
                    continue  # what its host went through before has broken our login: try again
                return found
            if found.hit:
                hits.append((talk, found))
            if build.ended or (hits and not fault.everywhere):
                break
        return hits

    def _ask(self, talk: Talk, how: str, limit_s: float) -> Struck | D1fleetError:
        answers: list[Struck | D1fleetError] = []
        given = {
            "tree": os.path.realpath(self._copies.copy),
            "host": talk.host.name,
            "how": how,
            "ssh": talk.host.transport != "local",
        }
        talk.ask("strike", Struck, given, limit_s, answers.append)
        wait(self._loop, lambda: bool(answers), limit_s + 10.0)
        return answers[0] if answers else HostError(f"host {talk.host.name} does not answer")

    def _wait_to_heal(self, fault: Fault, build: _Build, limit_s: float) -> None:
        """Until what was stopped is to go on, or the build has ended."""
        if fault.fails:  # not before it has
            heals_s = limit_s
        elif fault.heals_s is None:
            heals_s = self._settings.lease_s + self._settings.grace_s + RETURNS_S
        else:
            heals_s = fault.heals_s
        wait(self._loop, lambda: build.ended, heals_s)

    def _healing(self, talk: Talk, struck: Struck) -> Callable[[], None]:
        def heal() -> None:
            answers: list[Healed | D1fleetError] = []
            given = {"stopped": [list(pair) for pair in struck.stopped]}
            talk.ask("heal", Healed, given, 5.0, answers.append)
            wait(self._loop, lambda: bool(answers), 10.0)

        return heal

    def _mend(self, fault: Fault, talk: Talk, outcome: Outcome) -> None:
        reason = self.run_command(fault.heal, talk.host)
        if reason:
            outcome.wrong = outcome.wrong or f"it cannot be mended: {reason}"

    def run_command(self, command: str, host: Host) -> str:
        """Run a command of the site's about a host; returns why that failed, empty when it did not."""
        reason = run_about(host, command, "D1FLEET_CHAOS")
        return words.plain(f"{command}: {reason}") if reason else ""

    def _log_in_again(self) -> None:
        """What breaks a whole host breaks our own login to it, too."""
        broken = [talk.host for talk in self._talks if talk.error is not None]
        if broken:
            self._talks = [talk for talk in self._talks if talk.error is None]
            deadline = time.monotonic() + _RETURN_LIMIT_S
            while broken and time.monotonic() < deadline:
                broken = [host for host in broken if not self._log_in([host])]

    def _finish(self, outcome: Outcome, peace: Peace, limit_s: float, again: bool) -> None:
        """Build again where that has to be, and compare."""
        fault, code = outcome.fault, outcome.exits[-1]
        if fault.fails and code == 0 and fault.name != "recipe":
            outcome.wrong = "the build had to fail, and did not"
        for _ in range(_AGAIN):
            if code == 0 and not again:
                break
            again = False
            build = _Build(self, f"{self._number:03}-{fault.name}-again")
            ended = build.wait(self._loop, limit_s)
            build.kill()
            if ended is None:
                outcome.wrong = outcome.wrong or f"the build after it did not end within {limit_s:.0f} s"
                return
            code = ended
            outcome.exits.append(code)
        if code and not outcome.wrong:
            outcome.wrong = f"the build still ends with {code}"
        made = artefacts(self._copies.copy)
        outcome.differs = [path for path in differences(peace.clean, made) if path not in peace.apart]
        outcome.more = sorted(made.keys() - peace.clean.keys())
        if outcome.differs and not outcome.wrong:
            outcome.wrong = f"not as in peace: {outcome.differs[0]}"
            if len(outcome.differs) > 1:
                outcome.wrong += f" and {len(outcome.differs) - 1} more"
        if outcome.wrong:
            kept = self._copies.folder / f"{self._number:03}-{fault.name}"
            with contextlib.suppress(OSError):
                shutil.copytree(self._copies.copy, kept, symlinks=True)

    # -- for _Build -------------------------------------------------------------------------------------

    def _log(self, name: str) -> Path:
        return self._copies.folder / f"{name}.log"

    def start(self, name: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
        """Start `d1fleet build` in the copy."""
        log, record = self._log(name), self._copies.folder / f"{name}.record"
        record.unlink(missing_ok=True)
        argv = [*self._build, *self._options, "--record", str(record), *self._arguments]
        with log.open("wb") as file:
            build = subprocess.Popen(
                argv,
                cwd=self._copies.copy,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return build, log, record

    def _environment(self) -> Mapping[str, str]:
        ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path}

    @property
    def folder(self) -> Path:
        """Where the copy and all logs are."""
        return self._copies.folder

    def remove(self) -> None:
        """Remove the copy and all logs."""
        self._copies.remove()


class _Build:
    """A `d1fleet build` in the copy."""

    def __init__(self, chaos: Chaos, name: str) -> None:
        self._process, self.log, self._record = chaos.start(name)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, loop: Loop | None = None, limit_s: float | None = None) -> int | None:
        """Its exit status, as a shell has it; None when it has not ended in time."""
        if loop is not None and limit_s is not None and not wait(loop, lambda: self.ended, limit_s):
            return None
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def kill(self) -> None:
        """End all of it that runs here, with no time to tidy up."""
        with contextlib.suppress(ProcessLookupError):
            for pid in [*process.children(self._process.pid), self._process.pid] if not self.ended else []:
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _events(self) -> list[dict[str, object]]:
        try:
            return [json.loads(line) for line in self._record.read_text().splitlines()]
        except (OSError, ValueError):
            return []

    def was_hit(self, host: str, at_s: float) -> bool:
        """Does the record have a sub-make on this host at that time?"""
        for event in self._events():
            if event["event"] == "job" and event.get("host") == host:
                placed_s, ran_s = float(str(event["placed_s"])), event.get("ran_s")
                if (
                    placed_s
                    and placed_s <= at_s + 0.5
                    and (ran_s is None or placed_s + float(str(ran_s)) >= at_s - 1.0)
                ):
                    return True
        # A coordinator that was killed has not written what was at work then.
        return not any(event["event"] == "end" for event in self._events())

    def again_s(self, at_s: float) -> float | None:
        """From then until a sub-make that was lost was given to somebody again."""
        events = [event for event in self._events() if event["event"] == "job"]
        lost = {event["job"] for event in events if event.get("infrastructure")}
        again = [
            float(str(event["placed_s"] or event["asked_s"]))
            for event in events
            if event["job"] in lost and not event.get("infrastructure") and event["placed_s"]
        ]
        return max(again) - at_s if again else None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return words.plain(lines[-1]) if lines else "no word"


def _heal(heals: list[Callable[[], None]]) -> None:
    while heals:
        heals.pop()()
