"""One build from start to summary."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import __version__, connect, front, inherited, interpose, makeflags, program, records, words
from .aftermath import Aftermath, after, recover
from .coordinator import Coordinator
from .environment import TravellingEnvironment
from .errors import D1fleetError, HostError, JobLostError, RuntimeFolderError
from .fleet import Fleet
from .folders import cache_folder, slots_directory
from .inventory_cache import Stamps
from .journal import Journal
from .loop import Loop
from .maketokens import TokenFifo, TokenPipes
from .model import TRANSPORTS, Host
from .policy import Policy
from .program import Program
from .record import FORMAT, Record
from .rules import KEEP_LOCAL, NOT_REPEATABLE
from .runtime import PROOFS, build_folder, remove_build_folder
from .server import process
from .settings import Settings
from .slotpool import SlotPool
from .slots import SlotLocks
from .summary import show_summary
from .transport import pipes
from .tree import TreeLock
from .unseen import Unseen
from .watch import InventoryWatch, state

_OURS = (signal.SIGTTOU, signal.SIGINT)
"""Signals that the coordinator ignores: make gets them as they were."""

_REAP_S = 1.0

_END_LIMIT_S = 5.0
"""How long hosts have to confirm the end of a build that went its way."""

_STILL_THERE_S = 1.0
"""How long make has after each further try to end it."""

_REST_S = 3.0
"""How long what a program has started has to end when a signal has ended the program."""

_REST_LOOK_S = 0.05

_LAST_WORDS_S = 1.0
"""How long a build that was broken off waits for somebody to read what it says."""

_INSISTED_LIMIT_S = 2.0
"""How long they have when somebody did not want to wait."""


def fleet_of(settings: Settings) -> Fleet:
    """The hosts of a build, with what the settings say for all of them.

    Raises:
        InventoryError: the inventory cannot be used.
    """
    if settings.inventory:
        # Here, not above: it imports ansible-runner.
        from .inventory import load_fleet

        fleet = load_fleet(settings.inventory, settings.project)
    else:
        fleet = Fleet(project="", hosts=settings.hosts or (embedded_host(),))
    return replace(fleet, hosts=hosts_of(fleet, settings))


def hosts_of(fleet: Fleet, settings: Settings) -> tuple[Host, ...]:
    """The hosts of a fleet, with what the settings say for those that say nothing themselves."""
    hosts = []
    for host in fleet.hosts:
        said = host.transport != TRANSPORTS[0]
        transport = host.transport if said else settings.transport or host.transport
        hosts.append(replace(host, slots=host.slots or settings.slots, transport=transport))
    return tuple(hosts)


def with_default_jobs(arguments: Sequence[str], fleet: Fleet, environ: Mapping[str, str]) -> list[str]:
    """make's arguments, with the project's -j where the user gave none."""
    jobs = fleet.jobs
    above = makeflags.parse(os.fsencode(environ.get("MAKEFLAGS", ""))).jobs
    if jobs is None or above is not None or make_jobs(arguments) is not None:
        return list(arguments)
    if jobs == 0:
        # A host that does not say its slots counts as this machine does.
        here = len(os.sched_getaffinity(0))
        jobs = sum(host.slots or here for host in fleet.hosts)
    return [f"-j{jobs}", *arguments]


def build_directory(folder: bytes, arguments: Sequence[str]) -> bytes:
    """Where make goes to work when it is started in `folder`: what -C names, if that is there."""
    below = makeflags.argv_directory([b"make", *map(os.fsencode, arguments)])
    found = os.path.realpath(os.path.join(folder, *below))
    return found if os.path.isdir(found) else folder


def command_line(what: Sequence[str] | Program) -> list[str]:
    """What runs: make with its arguments, or the program with its own."""
    return list(what.words) if isinstance(what, Program) else ["make", *what]


def open_record(settings: Settings, fleet: Fleet, folder: bytes, what: Sequence[str] | Program) -> Record:
    """The record of a build, begun. That none can be kept is no reason not to build.

    Raises:
        UsageError: the user named a file that cannot be written.
    """
    record = Record(settings.record)
    if settings.keep_records:
        try:
            record.keep(*records.begin(folder, settings.keep_records))
        except (RuntimeFolderError, OSError) as error:
            words.say(f"no record of this build is kept, and `d1fleet why` will not know it: {error}")
    record.write(
        event="build",
        format=FORMAT,
        version=__version__,
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        folder=folder,
        command=command_line(what),
        program=isinstance(what, Program),
        project=fleet.project,
        hosts=[host.name for host in fleet.hosts],
        pid=os.getpid(),
    )
    return record


def open_journal(settings: Settings, folder: bytes) -> Journal | None:
    """The journal of a build, begun. That none can be kept is no reason not to build."""
    try:
        return Journal(folder, settings.lease_s, settings.grace_s)
    except (RuntimeFolderError, OSError) as error:
        words.say(
            "no journal of this build is kept: if it is killed, the next one will not know what may be half"
            f" written: {error}"
        )
        return None


def settle(journal: Journal) -> None:
    """The coordinator has ended, one way or another: keep for the next build what it has to know."""
    try:
        journal.settle()
    except (OSError, ValueError) as error:
        words.say(f"a build from another machine will not know what this one has left half written: {error}")


def run(settings: Settings, what: Sequence[str] | Program) -> int:
    """Run make with these arguments, or a program; returns the exit status for the user's shell.

    Raises:
        ToolError: there is no make that fits.
        ProgramError: the program cannot be started.
        TreeError: another build is at work in this folder.
        RuntimeFolderError: our own folders cannot be used.
    """
    if "D1FLEET_SOCKET" in os.environ or "D1FLEET_JOB" in os.environ:
        # Inside a build this is a sub-make like any other: here the shim knows what to do; on a host it runs
        # where it is, for a build of its own would wait for slots that the one around it holds.
        if isinstance(what, Program):
            return program.replace_us(what.words)
        os.execvp("make", ["make", *what])
    for note in settings.notes:
        words.say(note)
    # Before it is read: a change in the meantime is one that the build has not seen.
    inventory = state(settings.inventory)
    if isinstance(what, Program):
        program.find(what.words[0], os.environ.get("PATH", os.defpath))
    fleet = fleet_of(settings)
    own = None
    if not isinstance(what, Program):
        what = with_default_jobs(what, fleet, os.environ)
        own = makeflags.top_make([b"make", *map(os.fsencode, what)], os.environb)
    if fleet.hosts == (embedded_host(),) and own is not None:
        # Nobody has said anything of this machine but the -j.
        slots = max(own.jobs, len(os.sched_getaffinity(0)))
        fleet = replace(fleet, hosts=(replace(fleet.hosts[0], slots=slots),))
        settings = replace(settings, local_slots=settings.local_slots or slots)
    ignored = {number for number in _OURS if signal.getsignal(number) is signal.SIG_IGN}
    real_make = interpose.find_make(os.environ)
    version = interpose.check_make(real_make)
    arguments = () if isinstance(what, Program) else what
    folder = build_directory(os.fsencode(os.getcwd()), arguments)
    with contextlib.ExitStack() as held:
        held.callback(TreeLock(folder).close)
        recover(folder, os.fsencode(real_make), dict(os.environb))
        journal = open_journal(settings, folder)
        if journal is not None:
            held.callback(settle, journal)
        record = open_record(settings, fleet, folder, what)
        held.callback(record.close)
        runtime = build_folder()
        held.callback(remove_build_folder, runtime)
        try:
            shim_cache = cache_folder("shim")
        except RuntimeFolderError:
            shim_cache = runtime / "cache"  # no home to keep it in: compiled for this build alone
        shim_dir = interpose.install_shim(shim_cache, shim_cache / interpose.build_id())

        # The front keeps it open: when the coordinator dies, make shall hear SIGTERM, and delete what is half
        # written, before it notices that nobody serves its tokens.
        channel = None
        if own is not None:
            channel = _channel(runtime, fifo=version >= (4, 4) and own.style != b"pipe")
            held.callback(channel.close)

        def coordinate(control: socket.socket, group: int) -> None:
            build = _Build(
                settings,
                fleet,
                what,
                folder,
                real_make,
                shim_dir,
                runtime,
                record,
                journal,
                ignored,
                inventory,
            )
            if own is not None and channel is not None:
                build.jobserver = own, channel
            build.serve(control, group)

        kind, value = front.in_front_of(coordinate)
        if after(folder, os.fsencode(real_make), dict(os.environb)):
            kind, value = 0, JobLostError.exit_code
    if kind == 1:
        front.die_of(value)
    return value


class _Build:
    """The coordinator process of one build."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        what: Sequence[str] | Program,
        folder: bytes,
        real_make: Path,
        shim_dir: Path,
        runtime: Path,
        record: Record,
        journal: Journal | None,
        ignored: set[signal.Signals],
        inventory: Stamps,
    ) -> None:
        self._ignored = ignored
        self._journal = journal
        self.jobserver: tuple[makeflags.OwnJobserver, TokenFifo | TokenPipes] | None = None
        """How make gets its tokens from us; None where it does not."""
        self._for_make: list[int] = []
        """Descriptors that make alone is to have."""
        self._inventory = inventory
        """Its files as they were before it was read."""
        self.settings = settings
        self._fleet = fleet
        self._program = what if isinstance(what, Program) else None
        self._arguments = [os.fsencode(word) for word in command_line(what)]
        self._folder = folder
        self._real_make = real_make
        self._shim_dir = shim_dir
        self._socket = str(runtime / "socket")
        self._proofs = str(runtime / PROOFS)
        self._record = record
        self._unseen = Unseen(shim_dir, os.environ.get("MAKELEVEL", ""))
        self._loop = Loop()
        self._make = 0
        self._make_status: int | None = None
        self._broken_off = False
        self._insisted = False
        self._ended_children: set[int] = set()
        self._control: socket.socket | None = None

    def serve(self, control: socket.socket, group: int) -> None:
        """Run the build; the result goes to the front over `control`."""
        self._control = control
        # In the background of the terminal we write all the same, whatever `stty tostop` says.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.become_subreaper()
        words.say_in_background()
        kind, value = 0, D1fleetError.exit_code
        try:
            kind, value = self._build(group)
        except D1fleetError as error:
            words.say(str(error))
            value = error.exit_code
        finally:
            words.finish(_LAST_WORDS_S if self._broken_off else None)
            control.setblocking(True)
            with contextlib.suppress(OSError):
                control.send(front.RESULT.pack(kind, value))

    def _build(self, group: int) -> tuple[int, int]:
        settings = self.settings
        start = [name + b"=" + value for name, value in os.environb.items()]
        shim_dir = os.fsencode(self._shim_dir)
        keep = [os.fsencode(name) for name in settings.keep_environment]
        environments = (
            TravellingEnvironment(start, shim_dir, keep),
            TravellingEnvironment(start, shim_dir, keep, elsewhere=False),
        )
        policy = Policy(
            build=os.urandom(8).hex(),
            project=self._fleet.project,
            lease_s=settings.lease_s,
            grace_s=settings.grace_s,
            heartbeat_s=settings.heartbeat_s,
            strict=settings.strict,
            trust_hosts=settings.trust_hosts,
            keep_local=(*KEEP_LOCAL, *settings.keep_local),
            not_repeatable=(*NOT_REPEATABLE, *settings.not_repeatable),
            method=settings.policy,
            makeargs=settings.makeargs,
            setup=settings.setup,
            fence=settings.fence,
            proofs=self._proofs,
            trees=[os.fsencode(tree) for tree in settings.trees],
            local_slots=settings.local_slots or len(os.sched_getaffinity(0)),
        )
        loop = self._loop
        connector = connect.Connector(settings.ssh_config, settings.ssh_options, settings.connect_timeout_s)
        make = os.fsencode(self._real_make)
        aftermath = Aftermath(loop, self._folder, make, self._journal, self._record)
        coordinator = Coordinator(
            loop, self._socket, self._folder, self._fleet.hosts, policy, environments, self._record, aftermath
        )
        self.coordinator = coordinator
        watch = None
        try:
            self._warn_of_make()
            self._start_make(group)
            process.raise_descriptor_limit()  # behind make, which keeps the limit of the user's shell
            coordinator.hosts.begin(connect.Logins(loop, connector, connector.answers))
            if settings.inventory:
                watch = self._watch_inventory()
            if self._control is not None:
                self._control.setblocking(False)
                loop.on_read(self._control.fileno(), self._front_event)
            self._reap()
            loop.run()
            kind, value = self._result()
            record_end = {"exit": None if kind else value, "signal": value if kind else None}
            self._record.write(event="end", **record_end)
        finally:
            if self._make and self._make_status is None:
                self._broken_off = True  # a fault of ours brought us here
                os.kill(self._make, signal.SIGTERM)
                process.wait_for(self._make, 1.0)  # it deletes half-written targets
            if watch is not None:
                watch.close()
            coordinator.close()
            connector.close()
            if self._broken_off:
                process.kill_descendants()
        kind, value = self._name_unsure(kind, value)
        show_summary(settings.summary, coordinator, self._unseen.calls, self._program is None)
        return kind, value

    def _name_unsure(self, kind: int, value: int) -> tuple[int, int]:
        """Say which hosts might go on one day with what they were lost with; under --strict that is an
        error.
        """
        unsure = self.coordinator.hosts.unsure
        if not unsure:
            return kind, value
        words.say(
            words.plain(f"not heard of since it was lost, with sub-makes at work: {', '.join(unsure)}.")
            + " If it is frozen and goes on one day, it may write for a moment; the next build sees to that"
        )
        return (
            (0, JobLostError.exit_code) if self.settings.strict and (kind, value) == (0, 0) else (kind, value)
        )

    def _watch_inventory(self) -> InventoryWatch:
        def changed(fleet: Fleet) -> None:
            self.coordinator.hosts.follow(hosts_of(fleet, self.settings))

        inventories, project = self.settings.inventory, self._fleet.project
        return InventoryWatch(self._loop, inventories, project, self._inventory, changed)

    def _warn_of_make(self) -> None:
        if "MAKE" in os.environ:
            words.say("MAKE is set in the environment; left out: $(MAKE) has to stay make's own")
        for variable in ("LD_PRELOAD", "FAKEROOTKEY"):
            if os.environ.get(variable):
                words.say(f"{variable} is set: sub-makes that inherit it run here")
        for argument in self._arguments:
            name, sign, value = argument.partition(b"=")
            if sign and name in (b"MAKE", b"MAKE:") and value not in (b"make", b"gmake"):
                words.say(f"{os.fsdecode(argument)} is given: what $(MAKE) calls then runs here")

    def _start_make(self, group: int) -> None:
        place: dict[str, Any] = {
            "socket": self._socket,
            "real_make": self._real_make,
            "shim_dir": self._shim_dir,
        }
        if self._program is not None:
            environ = interpose.program_environment(os.environ, jobs=self._program.jobs, **place)
            file = program.find(self._program.words[0], environ["PATH"])
        else:
            environ = interpose.make_environment(os.environ, **place)
            file = str(self._real_make)
        arguments = self._arguments
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in inherited.closed_streams]
        if self.jobserver is not None:
            own, channel = self.jobserver
            arguments = list(own.argv)
            variables = self._serve_tokens(own, channel, actions)
            environ.update({os.fsdecode(name): os.fsdecode(value) for name, value in variables.items()})
        # Python ignores the first two of itself; whether they were ignored before, nobody can tell.
        default = [signal.SIGPIPE, signal.SIGXFSZ, *(set(_OURS) - self._ignored)]
        self._make = program.spawn(
            file,
            arguments,
            environ,
            file_actions=actions,
            setpgroup=group,
            setsigmask=(),
            setsigdef=default,
        )
        for fd in self._for_make:
            os.close(fd)
        pidfd = os.pidfd_open(self._make)
        self._loop.on_read(pidfd, lambda: self._make_ended(pidfd))

    def _serve_tokens(
        self,
        own: makeflags.OwnJobserver,
        channel: TokenFifo | TokenPipes,
        actions: list[tuple[int, ...]],
    ) -> dict[bytes, bytes]:
        """Be make's jobserver; returns the variables that tell it so, and adds what its start has to do."""
        locks = None
        with contextlib.suppress(RuntimeFolderError):
            locks = SlotPool(SlotLocks(slots_directory(), self.coordinator.policy.local_slots))
        self.coordinator.serve_tokens(own.jobs, channel, locks)
        if isinstance(channel, TokenFifo):
            return own.environment(fifo=os.fsencode(channel.path))
        # The lowest that are free, as make itself would have taken them.
        taken = {fd for fd in range(3, 1024) if _is_inherited(fd)}
        first, second = itertools.islice((fd for fd in itertools.count(3) if fd not in taken), 2)
        for fd, target in ((channel.make_read, first), (channel.make_write, second)):
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, second + 1)
            self._for_make.append(high)
            actions.append((os.POSIX_SPAWN_DUP2, high, target))
        return own.environment(fds=(first, second))

    def _make_ended(self, pidfd: int) -> None:
        self._loop.forget(pidfd)
        os.close(pidfd)
        _, self._make_status = os.waitpid(self._make, 0)
        if os.WIFSIGNALED(self._make_status):
            self._broken_off = True
            if self._program is not None and os.WTERMSIG(self._make_status) != signal.SIGKILL:
                self._end_rest()
                return
        self._end()

    def _end_rest(self) -> None:
        """A signal has ended the program, and not the makes that it started: they get time to end as make
        does, and to pass that on to hosts.
        """
        for pid in process.descendants(os.getpid(), pipes.started_pids):
            process.send(pid, signal.SIGTERM)
        deadline = self._loop.now() + _REST_S

        def look() -> None:
            left = process.descendants(os.getpid(), pipes.started_pids)
            if self._insisted or self._loop.now() > deadline or all(process.state(p) in "Z" for p in left):
                self._end()
            else:
                self._loop.call_later(_REST_LOOK_S, look)

        look()

    def _end(self) -> None:
        limit_s = _END_LIMIT_S + (self.settings.lease_s if self._broken_off else 0)
        if self._insisted:
            limit_s = _INSISTED_LIMIT_S
        killed = self._make_status is not None and os.WIFSIGNALED(self._make_status)
        kill = self._insisted or (killed and os.WTERMSIG(self._make_status or 0) == signal.SIGKILL)
        self.coordinator.end(kill, limit_s, self._loop.stop)

    def _front_event(self) -> None:
        """The front passes a signal on, or is gone."""
        control = self._control
        if control is None:
            return
        try:
            data = control.recv(64 * front.EVENT.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.forget(control.fileno())
            self._break_off()
            return
        for number, from_terminal in front.EVENT.iter_unpack(data[: len(data) // 2 * 2]):
            self._signal(signal.Signals(number), bool(from_terminal))

    def _signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if number == signal.SIGTSTP:
            self.coordinator.hosts.pause(True)
            if self._control is not None:
                self._control.send(b"z")
        elif number == signal.SIGUSR1:
            self._pass_to_make(number)  # make's own: it turns debugging on and off
        elif number == signal.SIGCONT:
            self.coordinator.hosts.pause(False)
        elif number != signal.SIGHUP or not self._broken_off:
            # A hang-up comes twice, from the shell and from the kernel: that is no insisting.
            self._insisted = self._broken_off
            self._broken_off = True
            self.coordinator.interrupt()
            if self._insisted and self._make_status is not None:
                self._end()  # it waits for hosts
            elif self._insisted:
                self._loop.call_later(_STILL_THERE_S, lambda: self._insist(number))
            if not from_terminal:
                # Somebody signalled the front alone, or the whole group: give make the time to have got
                # its own.
                self._loop.call_later(0.05, lambda: self._pass_to_make(number))

    def _insist(self, number: signal.Signals) -> None:
        """make waits for a recipe that does not end, and two signals that came at once were one to it."""
        if self._make_status is None:
            os.kill(self._make, number)
            self._loop.call_later(_STILL_THERE_S, self._kill_make)

    def _pass_to_make(self, number: signal.Signals) -> None:
        """Make gets a signal once: at the second one it would die without deleting half-written targets.
        Another program gets what it would get without us.
        """
        if self._make_status is None and (self._program is not None or _catches(self._make, number)):
            os.kill(self._make, number)

    def _break_off(self) -> None:
        """The front was killed: so is the build."""
        self._broken_off = True
        if self._make_status is None:
            os.kill(self._make, signal.SIGTERM)
            self._loop.call_later(_STILL_THERE_S, self._kill_make)
        self.coordinator.interrupt()

    def _reap(self) -> None:
        """Local processes whose parents have ended come to us, as the nearest subreaper."""
        self._ended_children = process.reap_orphans(
            self._ended_children, spare={self._make, *pipes.started_pids}
        )
        for call in self._unseen.look(pipes.started_pids):
            self._record.write(event="unseen", argv=call.words, dir=call.folder, reason=call.why)
        self._record.flush()
        self._loop.call_later(_REAP_S, self._reap)

    def _kill_make(self) -> None:
        if self._make_status is None:
            os.kill(self._make, signal.SIGKILL)

    def _result(self) -> tuple[int, int]:
        status = self._make_status
        if status is None:
            return 0, JobLostError.exit_code
        if os.WIFSIGNALED(status):
            return 1, os.WTERMSIG(status)
        code = os.WEXITSTATUS(status)
        counts = self.coordinator.counts
        if code != 0 and counts.without_host and not counts.lost:
            return 0, HostError.exit_code
        if counts.lost:  # also where make was told to ignore it: something was not made as it should
            return 0, JobLostError.exit_code
        return 0, code


def _catches(pid: int, number: int) -> bool:
    """Does the process still catch the signal? make restores the default when the first one has come."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _channel(runtime: Path, fifo: bool) -> TokenFifo | TokenPipes:
    return TokenFifo(str(runtime / "jobserver")) if fifo else TokenPipes()


def _is_inherited(fd: int) -> bool:
    """Was this descriptor open when we began? Those of our own are closed in what we start."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def embedded_host() -> Host:
    """This machine, over pipes: the fleet of one that a build without hosts has."""
    return Host(name="localhost", transport="local", nice=0)


def make_jobs(arguments: Sequence[str]) -> int | None:
    """The -j of make's own arguments: None for none, 0 for one without a number."""
    return makeflags.argv_jobs([b"make", *map(os.fsencode, arguments)])
