"""The d1make server: runs sub-makes on this host for one coordinator, which talks to it over stdin and
stdout.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import protocol
from ..entries import Entry, changed
from ..errors import D1fleetError, ProtocolError, RuntimeFolderError, UnfitError
from ..folders import own_folder, runtime_base, slots_directory
from ..loop import Loop
from ..maketokens import TOKEN_TICK_S, TokenFifo, TokenPipes
from ..slotpool import SlotPool
from ..slots import SlotLocks
from ..stream import FdStream
from . import facts, late, process, supervisor, toolchain
from .attempt import Attempt
from .door import Door
from .drain import Marks
from .enrolled import as_enrolled, enrolled
from .environment import Environment, HostEnvironment, ProgramFinder, parse
from .lease import Lease
from .load import LoadMeter, usable_cpus
from .pool import SupervisorPool
from .view import View

if TYPE_CHECKING:
    from .examination import Examiner

CAPABILITIES = ["stdin", "groups", "tokens"]

_BUSY_BACKLOG = 4 << 20
"""Bytes waiting for the connection above which no more output is read from jobs."""

_SLOT_RETRY_S = 0.01
_GATHER_AFTER_S = 1.0
"""An attempt that needs several slots tries this long to find all of them free at once."""
_GATHER_EACH_S = 60.0
"""It gathers for half of this time, then lets others go on for the other half: what it waits for may itself
wait for one of them.
"""

_EARLIER_S = 0.2
"""How often it is looked whether an earlier server of the same build has ended."""

_LEASE_CHECK_S = 0.1
_TERM_TO_KILL_S = 1.0
"""How long a cancelled make has after SIGTERM to delete its half-written targets."""


class Server:
    """Serves one coordinator until it says Bye, its connection ends, or the lease runs out."""

    def __init__(self, loop: Loop, read_fd: int, write_fd: int) -> None:
        self.loop = loop
        self.programs = ProgramFinder()
        self.null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stream = FdStream(loop, read_fd, write_fd, self._received, self._connection_ended)
        self._stream.on_drain = self._connection_free
        self._decoder = protocol.Decoder("coordinator")
        self._welcome: protocol.Welcome | None = None
        self._environment: HostEnvironment | None = None
        self._start: dict[bytes, bytes] | None = None
        """Variables that the build began with."""
        self._lease: Lease | None = None
        self._slots: SlotPool | None = None
        self._meter = LoadMeter()
        self._marks = Marks()
        self._drained = protocol.Drain(on=False)
        """What the coordinator knows of this host's marks."""
        self._attempts: dict[int, Attempt] = {}
        self._waiting: deque[Attempt] = deque()
        """For slots."""
        self._blind: set[Attempt] = set()
        """Attempts for which something is not seen here yet."""
        self.view = View(loop, self.send)
        self._door: Door | None = None
        self._examiner: Examiner | None = None
        self.supervisors = SupervisorPool(loop, self.complain, lambda: self.view.pid, self._fence_if_due)
        self._tree_devices: set[int] = set()
        self.output_lock: int | None = None
        """Since 4.4, makes with output sync lock a file that they are told; before, their stdout itself."""
        self._sync_mutex: bytes | None = None
        self._make_version: tuple[int, ...] = ()
        self._fifos = 0
        self._ticking = False
        self._retrying = False
        self._alone = False
        """It was said that nothing earlier is left here."""
        self._ending = False
        self._killing = False
        self._grace_until = 0.0
        self._outlived = 0
        self.exit_code = 0

    # -- the connection -----------------------------------------------------------------------------

    def send(self, message: protocol.Message) -> None:
        self._stream.send(protocol.encode(message))

    def connection_busy(self) -> bool:
        """Is so much waiting for the connection that jobs' output should wait too?"""
        return self._stream.backlog > _BUSY_BACKLOG

    def _connection_free(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.resume()

    def _received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._handle(message)
        except ProtocolError as error:
            self.complain(f"the coordinator sent what the protocol does not allow: {error}")
            self.exit_code = error.exit_code
            self._connection_ended()

    def complain(self, text: str) -> None:
        """Say something to whoever reads the coordinator's log of this host."""
        with contextlib.suppress(OSError):
            os.write(2, f"d1fleet server: {text}\n".encode("utf-8", "backslashreplace"))

    def _connection_ended(self) -> None:
        if not self._ending:
            self._stream.close()
            if self._lease is not None and self._lease.expired(self.loop.now()):
                self._fence()  # we were frozen: no time to tidy up
        self._end_build(kill=False)

    def terminated(self) -> None:
        """Somebody wants this process to end: as when the coordinator is gone."""
        self._connection_ended()

    def _handle(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Welcome):
            self._on_welcome(message)
            return
        if self._welcome is None:
            if isinstance(message, protocol.Drain):
                self._on_drain(message)
            elif isinstance(message, protocol.Examine):
                self._on_examine(message)
            else:
                raise ProtocolError(f"{type(message).__name__} before Welcome")
            return
        if message.attempt & 1:
            if self._door is not None:
                self._door.handle(message)
            return
        attempt = self._attempts.get(message.attempt)
        if isinstance(message, protocol.Run):
            self._on_run(message)
        elif isinstance(message, protocol.Grant):
            self._granted(message.seq)
        elif isinstance(message, protocol.CheckTree):
            self._on_check_tree(message)
        elif isinstance(message, protocol.Watch):
            self.view.watch(message)
        elif isinstance(message, protocol.See):
            self.view.see(message)
        elif isinstance(message, protocol.Pause):
            self.supervisors.pause(message.on)
        elif isinstance(message, protocol.Bye):
            self._end_build(message.kill)
        elif attempt is None:
            return  # it has ended meanwhile
        elif isinstance(message, protocol.Data):
            if message.stream != protocol.STDIN:
                raise ProtocolError("output from the coordinator")
            attempt.stdin(message.data)
        elif isinstance(message, protocol.Credit):
            attempt.credit(message.stream, message.amount)
        elif isinstance(message, protocol.Close):
            attempt.stream_closed(message.stream)
        elif isinstance(message, protocol.Signal):
            attempt.signal(message.signal)
        elif isinstance(message, protocol.Cancel):
            self._cancel(attempt, message.kill)
        elif isinstance(message, protocol.Offer) and attempt.tokens is not None:
            attempt.tokens.granted(message.count, message.probe)
        elif isinstance(message, protocol.Recall) and attempt.tokens is not None:
            attempt.tokens.recall(message.count)

    # -- draining ---------------------------------------------------------------------------------------

    def _on_drain(self, message: protocol.Drain) -> None:
        """No build has sent this, but somebody who drains the host, or takes that back."""
        try:
            if message.on:
                self._marks.put(message.reason)
            else:
                self._marks.take_away()
        except D1fleetError as error:
            self.send(protocol.Unfit(reason=error.message, mend=error.mend))
            self._finish(UnfitError.exit_code)
            return
        self.send(self._marks.look())

    def _tell_drained(self) -> None:
        found = self._marks.look()
        if found != self._drained:
            self._drained = found
            self.send(found)

    def _on_examine(self, message: protocol.Examine) -> None:
        """No build has sent this, but a doctor."""
        if self._examiner is None:
            from .examination import Examiner  # here, not above: builds do not pay for it

            self._examiner = Examiner(self.loop, self.send)
        self._examiner.handle(message)

    # -- the beginning --------------------------------------------------------------------------------

    def _on_welcome(self, welcome: protocol.Welcome) -> None:
        if self._welcome is not None:
            raise ProtocolError("a second Welcome")
        self._welcome = welcome
        try:
            hello = self._get_ready(welcome)
        except D1fleetError as error:
            self.send(protocol.Unfit(reason=error.message, mend=error.mend))
            self._finish(UnfitError.exit_code)
            return
        self.send(hello)
        self._beat()
        self._watch_lease()
        self._look_for_earlier()

    def _look_for_earlier(self) -> None:
        """Say so when nothing of earlier connections is left here, at the latest when their lease is over."""
        if self._door is None or self._ending:
            return
        try:
            same, any_left = self._door.earlier()
        except (OSError, RuntimeFolderError) as error:
            self.complain(f"whether something earlier is left here cannot be seen: {error}")
            return
        if not same and not self._alone:
            self._alone = True
            self.send(protocol.Alone())
        if same or any_left:
            self.loop.call_later(_EARLIER_S, self._look_for_earlier)

    def _get_ready(self, welcome: protocol.Welcome) -> protocol.Hello:
        uid = os.geteuid()
        if welcome.version != protocol.VERSION:
            raise UnfitError(
                f"the coordinator speaks protocol {welcome.version}, this server {protocol.VERSION}",
                "use one version",
            )
        if welcome.uid != uid:
            raise UnfitError(
                f"our login there{_name_of(uid)} has uid {uid}, the build has uid {welcome.uid}",
                "build as the user who logs in there, with the same uid on all machines "
                "(role builders: d1fleet_builders)",
            )
        if welcome.nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, welcome.nice)
        self._environment = HostEnvironment(welcome.setup, welcome.environment)
        path = self._environment.compose(welcome.environment).get(b"PATH", os.defpath.encode())
        make = self.programs.find(b"make", path)
        if make is None:
            raise UnfitError(
                "there is no make in PATH", "install GNU make there, or set its PATH by d1fleet_server_setup"
            )
        version = facts.make_version(make)
        self._make_version = tuple(map(int, version.split(".")))
        if self._make_version >= (4, 4):
            self.output_lock = os.memfd_create("d1fleet-output", os.MFD_CLOEXEC)
            self._sync_mutex = b"fnm:/proc/%d/fd/%d" % (os.getpid(), self.output_lock)
        record = enrolled(welcome.project)
        found: dict[str, str] = {}
        places: dict[str, str] = {}
        if welcome.toolchain or record.parts:
            names = self._environment.compose(welcome.environment).items()
            environ = {os.fsdecode(name): os.fsdecode(value) for name, value in names}
            found = toolchain.describe(record.tools, environ, toolchain.cache_folder())
            places = toolchain.places(record.tools, environ)
        cpus = usable_cpus()
        count = welcome.slots or cpus
        self._slots = SlotPool(SlotLocks(slots_directory(), count))
        self._open_door(self._environment, f"{welcome.build} {welcome.host}")
        self._lease = Lease(welcome.lease_s, self.loop.now())
        self.supervisors.prepare()
        self.supervisors.keep_until(self._lease.until)
        return protocol.Hello(
            capabilities=CAPABILITIES,
            machine=facts.machine_identity(),
            hostname=os.uname().nodename,
            uid=uid,
            pid=os.getpid(),
            slots=count,
            cpus=cpus,
            make=version,
            python=".".join(map(str, sys.version_info[:3])),
            toolchain=found,
            toolchain_places=places,
            project_toolchain=record.parts,
            record_fault=record.fault,
            as_enrolled=as_enrolled(found),
        )

    def _open_door(self, environment: HostEnvironment, whose: str) -> None:
        """Let jobs ask where the makes that they call shall run; without it those stay here."""
        try:
            self._door = Door(self.loop, self.send, self.complain, self._attempts, whose, self.view)
        except D1fleetError as error:
            self.complain(f"sub-makes of jobs stay on this host: {error}")
            return
        self._door.outgoing = environment.outgoing
        environment.shims = self._door.variables

    def _on_check_tree(self, message: protocol.CheckTree) -> None:
        reason = facts.tree_difference(message.folder, message.nonce, message.content)
        if reason is None:
            self._tree_devices.add(os.stat(message.folder).st_dev)
        late = reason is None and facts.shows_late(message.folder)
        self.send(protocol.TreeChecked(tree=message.tree, reason=facts.plain(reason or ""), late=late))

    def folder_reason(self, folder: bytes) -> str:
        """Why a job cannot run in `folder`; empty when it can."""
        try:
            device = os.stat(folder).st_dev
        except OSError as error:
            return f"{os.fsdecode(folder)}: {error.strerror}"
        if device not in self._tree_devices:
            return f"{os.fsdecode(folder)} is on another file system than the build's tree"
        return ""

    def compose(self, run: protocol.Run, fifo: str | None) -> Environment:
        """The environment for a job whose make has its tokens in pipes, or in a fifo."""
        if self._environment is None:
            raise ProtocolError("Run before Welcome")
        return self._environment.for_job(run, self._sync_mutex if run.grouped else None, fifo)

    def token_channel(self, run: protocol.Run) -> TokenPipes | TokenFifo:
        """How a job's make gets at its tokens: as under its parent, where this host's make can do that."""
        if not (run.fifo and run.tokens and self._make_version >= (4, 4)):
            return TokenPipes()
        self._fifos += 1
        folder = own_folder(os.path.join(runtime_base(), "fifos"))
        return TokenFifo(os.path.join(folder, f"{os.getpid()}.{self._fifos}"))

    # -- slots and attempts -----------------------------------------------------------------------------

    def take_slot(self, force: bool) -> bool:
        """A slot for a further recipe of a make; attempts that wait come first."""
        return self._slots is not None and (force or not self._waiting) and self._slots.take(force)

    def give_slot(self) -> None:
        """A slot comes back."""
        if self._slots is not None:
            self._slots.give()
        if self._waiting:
            self._start_waiting()

    def lend_slot(self) -> None:
        """A recipe waits for a job elsewhere."""
        if self._slots is not None:
            self._slots.lend()
        if self._waiting:
            self._start_waiting()

    def reclaim_slot(self) -> None:
        """A recipe that waited for a job elsewhere goes on."""
        if self._slots is not None:
            self._slots.reclaim()

    def _on_run(self, run: protocol.Run) -> None:
        if run.attempt in self._attempts:
            raise ProtocolError(f"attempt {run.attempt} is at work already")
        attempt = Attempt(self, run)
        self._attempts[attempt.id] = attempt
        if self._ending:
            attempt.refuse(protocol.REFUSED, "the build is ending")
            return
        self._blind.add(attempt)
        self.view.when_seen(lambda: self._sees(attempt), run.sees)

    def _sees(self, attempt: Attempt) -> None:
        """What was changed elsewhere before it was asked for is seen here."""
        if attempt in self._blind:  # else it was cancelled
            self._blind.discard(attempt)
            self._waiting.append(attempt)
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Start attempts for which there are slots, first come first served."""
        slots = self._slots
        while self._waiting and slots is not None:
            attempt = self._waiting[0]
            locks = slots.locks
            weight = max(1, min(attempt.run.weight, locks.count))
            while attempt.slots < weight:
                if not slots.take():
                    # All or none: two builds that each hold half of what they need would wait for ever. One
                    # of all on this host may gather them, or smaller jobs would pass it by for ever.
                    turn_s = attempt.waited_s % _GATHER_EACH_S
                    gathers = weight > 1 and _GATHER_AFTER_S < turn_s < _GATHER_EACH_S / 2 and locks.gather()
                    if not gathers:
                        locks.end_gathering()
                    while attempt.slots and not gathers:
                        attempt.slots -= 1
                        slots.give()
                    locks.want(True)
                    if not self._retrying:
                        self._retrying = True
                        self.loop.call_later(_SLOT_RETRY_S * random.uniform(0.5, 1.5), self._retry_waiting)
                    return
                attempt.slots += 1
            self._waiting.popleft()
            locks.end_gathering()
            if not self._waiting:
                locks.want(False)
            attempt.start()
            if attempt.tokens is not None and not self._ticking:
                self._ticking = True
                self.loop.call_later(TOKEN_TICK_S, self._tick)

    def _retry_waiting(self) -> None:
        self._retrying = False
        self._start_waiting()

    def _tick(self) -> None:
        tokens = [attempt.tokens for attempt in self._attempts.values() if attempt.tokens is not None]
        if self._slots is not None:
            self._slots.settle()
        for each in tokens:
            each.tick()
        self._ticking = bool(tokens)
        if tokens:
            self.loop.call_later(TOKEN_TICK_S, self._tick)

    def attempt_ended(self, attempt: Attempt, message: protocol.Exit) -> None:
        """Report the end of an attempt; its supervisor takes the next one, unless something still runs
        below it.
        """
        self._attempts.pop(attempt.id, None)
        self._blind.discard(attempt)
        if attempt in self._waiting:
            self._waiting.remove(attempt)
            if self._slots is not None:
                self._slots.locks.end_gathering()
        if attempt.supervisor is None:
            self.send(message)
        else:
            self.view.tell_before(lambda: self.send(message))
            if attempt.cancelled and attempt.left:
                attempt.command(supervisor.KILL)
            self.supervisors.give(attempt.supervisor, attempt.left)

    # -- the end of attempts ------------------------------------------------------------------------------

    def _cancel(self, attempt: Attempt, kill: bool) -> None:
        if attempt.supervisor is None:
            attempt.refuse(protocol.CANCELLED, "cancelled before it started")
            return
        attempt.cancelled = True
        if kill:
            attempt.command(supervisor.KILL)
            return
        attempt.terminate()

        def harder() -> None:
            if attempt.id in self._attempts:
                attempt.command(supervisor.KILL)

        self.loop.call_later(_TERM_TO_KILL_S, harder)

    # -- lease --------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if self._lease is None or self._welcome is None or self._ending:
            return
        self._tell_drained()
        load = self._meter.sample([os.getpid()])
        self.send(
            protocol.Beat(
                seq=self._lease.ask(self.loop.now()),
                others_cpus=round(load.others_cpus, 3),
                own_cpus=round(load.own_cpus, 3),
                memory_available_bytes=load.memory_available_bytes,
                load_1min=round(load.load_1min, 2),
                running=len(self._attempts) - len(self._waiting) - len(self._blind),
                waited_s=round(self._waiting[0].waited_s, 1) if self._waiting else 0.0,
                tokens=self._slots.held if self._slots is not None else 0,
            )
        )
        self.loop.call_later(self._welcome.heartbeat_s, self._beat)

    def _granted(self, seq: int) -> None:
        until = self._lease.granted(seq) if self._lease is not None else None
        if until is not None:
            self.supervisors.keep_until(until)

    def entry(self, attempt: int, folder: bytes, argv: Sequence[bytes], environment: bytes) -> Entry:
        """A make that runs here, for a note; `environment` as it travels."""
        welcome = self._welcome
        if self._start is None:
            self._start = dict(parse(welcome.environment)) if welcome is not None else {}
        name = welcome.host if welcome is not None else ""
        return Entry(attempt, name, 0, folder, argv, changed(environment, self._start))

    def _fence_if_due(self) -> None:
        """A supervisor may have acted on the lease a moment before us: then that is what happened to its
        attempt.
        """
        if self._lease is not None and self._lease.expired(self.loop.now()):
            self._fence()

    def _watch_lease(self) -> None:
        if self._lease is None or self._ending:
            return
        now = self.loop.now()
        if not self._lease.expired(now):
            self.loop.call_later(min(_LEASE_CHECK_S, self._lease.margin_s / 2), self._watch_lease)
            return
        self._fence()

    def _fence(self) -> None:
        """The lease is over: end everything now, and say so if the connection still is there."""
        if self._lease is None or self._ending:
            return
        late_s = self._lease.late_s(self.loop.now())
        self.supervisors.kill_now()
        if late_s > 0:
            self.send(protocol.FencedLate(attempts=list(self._attempts), late_s=round(late_s, 3)))
            self._note_late(late_s)
        for attempt in list(self._attempts.values()):
            attempt.refuse(protocol.FENCED, "the lease ran out: no word from the coordinator")
        self.complain("the lease ran out: everything of this build was killed")
        self._end_build(kill=True)

    def _note_late(self, late_s: float) -> None:
        """Where another host may have the same work by now, somebody has to see to what both have written."""
        welcome = self._welcome
        makes = [make for attempt in self._attempts.values() for make in attempt.makes]
        if welcome is None or not welcome.folder or not makes or late_s < welcome.grace_s / 2:
            return
        try:
            late.note(welcome.folder, makes, late_s)
        except OSError as error:
            self.complain(f"what may have been written too late cannot be noted: {error}")

    # -- the end --------------------------------------------------------------------------------------------

    def _end_build(self, kill: bool) -> None:
        """End what still runs, with time for make to tidy up unless `kill`, then this process."""
        if self._ending:
            if kill:
                self._kill_rest()
            return
        self._ending = True
        self._outlived = self.supervisors.outlived()
        for attempt in [*self._waiting, *self._blind]:
            attempt.refuse(protocol.CANCELLED, "the build has ended")
        self.view.give_up()
        if kill:
            self._kill_rest()
        else:
            self.supervisors.terminate()
            self._grace_until = self.loop.now() + _TERM_TO_KILL_S
            self._wait_for_attempts()

    def _wait_for_attempts(self) -> None:
        """No need to wait the whole grace when the makes have ended."""
        if self.supervisors.busy and self.loop.now() < self._grace_until:
            self.loop.call_later(0.01, self._wait_for_attempts)
        else:
            self._kill_rest()

    def _kill_rest(self) -> None:
        if not self._killing:
            self._killing = True
            self.supervisors.kill_all(self._gone)

    def _gone(self) -> None:
        if self.supervisors.unkillable:
            self._finish(self.exit_code)  # the coordinator must not believe that nothing is left
            return
        debt_s = round(self._slots.seconds_in_debt(), 3) if self._slots is not None else 0.0
        self.send(protocol.Gone(left=self._outlived, debt_s=debt_s))
        self._finish(self.exit_code)

    def _finish(self, code: int) -> None:
        """Let the last words leave, then end."""
        self.exit_code = code
        deadline = self.loop.now() + 2.0

        def leave() -> None:
            if self._stream.backlog and self.loop.now() < deadline:
                self.loop.call_later(0.01, leave)
            else:
                self.loop.stop()

        if self._door is not None:
            self._door.close()
            self._door = None
        leave()


def _name_of(uid: int) -> str:
    """The user's name, for people. Only our own: another uid may be called otherwise elsewhere."""
    try:
        return f", {facts.plain(pwd.getpwuid(uid).pw_name)},"
    except KeyError:
        return ""


def main() -> int:
    """Serve on stdin and stdout until the build ends; returns the exit status."""
    read_fd = os.dup(0)
    write_fd = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process.become_subreaper()
    process.raise_descriptor_limit()
    loop = Loop()
    server = Server(loop, read_fd, write_fd)
    # Not death at once: a make that is deleting a half-written target would find nobody to read its words.
    signal.signal(signal.SIGTERM, lambda *_: loop.post(server.terminated))
    loop.run()
    return server.exit_code
