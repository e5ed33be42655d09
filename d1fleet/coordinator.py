"""The coordinator: shims and hosts ask, hosts run, and this is where they meet."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections import defaultdict
from collections.abc import Callable, Sequence

from . import makeflags, protocol, words
from .aftermath import Aftermath, may_be_torn, why_not_again
from .askers import Asker, HostAsker, ShimAsker
from .environment import TravellingEnvironment
from .errors import D1fleetError, HostError, JobLostError, ProtocolError
from .experience import Experience, goal_of
from .hostlink import HostLink
from .hosts import Hosts
from .job import Job, Phase, flags_of, variable
from .jobserver import TokenPool
from .loop import Loop, Timer
from .machines import METHODS
from .maketokens import TokenFifo, TokenPipes
from .model import Host
from .outcomes import Outcomes
from .placement import FULL, NEVER, TINY, TINY_S, HostState, Machine, Scheduler, Verdict
from .policy import Policy
from .record import Record
from .rules import Rules
from .scrub import Scrubbed
from .server.facts import machine_identity
from .shims import EXIT, INFRASTRUCTURE, LOCAL, SIGNAL, ShimConnection, ShimListener, ShimRequest
from .slotpool import SlotPool
from .stopwatch import Stopwatch
from .tokendesk import TokenDesk
from .topmake import TopMake
from .visibility import Visibility

_WRITE_ERROR = 2
"""What make exits with when it cannot write its output."""

_MOST_ASKED = 1000
"""Requests of one host under way at once: its server has the same bound, but need not be ours."""

_MOST_CALLED = 100_000
"""Makes that run as parts of one job (a guess)."""

_DESCRIPTORS_EACH = 12
"""Descriptors that a sub-make costs at most: its own, copies of its streams, its jobserver, a lock."""

_DESCRIPTORS_KEPT = 64
"""For hosts, files, and what a moment needs."""

_SILENT_S = 1.0
"""After a second Ctrl-C, hosts have this long to say that their jobs are dead."""

_UNREAD_S = 0.5
"""A signalled job whose make has ended has this long to get its last output written."""

_MEASURED_S = 0.001
"""Of a sub-make of which nothing is known, any run time is news; none is shorter."""

_SURPRISE_S = 0.3
"""A sub-make that was known to be short and took longer, on whatever machine (a guess): the builds before
had little to do, and what they say of others is worth no more.
"""

_SHORT = {
    "memory": "where the kernel has killed processes because memory was short",
    "room": "where next to no room was left in its folder",
}

_CHILDREN_S = 0.1
"""How often it is looked whether the children of a lost job have ended."""

_INTERRUPT_GRACE_S = 2.5
"""Time between a Ctrl-C and the SIGTERM for jobs that did not end of themselves; SIGKILL follows a second
later.
"""


class Coordinator:
    """Serves one build.

    Args:
        loop: runs everything but the connecting.
        socket_path: where shims come in.
        environments: decide what of the environment goes to other machines, and to servers on this one.
        aftermath: sees to what lost sub-makes may have torn.
    """

    def __init__(
        self,
        loop: Loop,
        socket_path: str,
        folder: bytes,
        hosts: Sequence[Host],
        policy: Policy,
        environments: tuple[TravellingEnvironment, TravellingEnvironment],
        record: Record,
        aftermath: Aftermath,
    ) -> None:
        self.loop = loop
        self.policy = policy
        self._aftermath = aftermath
        self._folder = folder
        self._record = record
        self._outcomes = Outcomes(record, folder)
        self.counts = self._outcomes.counts
        self._listener = ShimListener(loop, socket_path, self._shim_connected)
        self._jobs: dict[int, Job] = {}
        """All that are not over, by number."""
        self._asked: defaultdict[HostLink, dict[int, Job]] = defaultdict(dict)
        """Those that hosts asked for and that run elsewhere, by the number of their request."""
        self._attempts: dict[int, Job] = {}
        self._placing = Scheduler(METHODS[policy.method])
        self._experience = Experience(policy.project, folder)
        self._machines: dict[str, Machine] = {}
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _DESCRIPTORS_KEPT
        self._most_inside = max(2, descriptors // _DESCRIPTORS_EACH)
        self._keep_local = Rules(policy.keep_local, folder)
        self._not_repeatable = Rules(policy.not_repeatable, folder)
        self._stopwatch = Stopwatch(loop)
        self._number = 0
        self._attempt = 0
        self._ending = False
        self._interrupted = 0
        self._on_ended: Callable[[], None] | None = None
        self._said_fallback = False
        self._said_left = self._saw_ours = False
        self._look: Timer | None = None
        self._desk = TokenDesk(loop, self._placing)
        self._here = Machine(slots=policy.local_slots, cpus=policy.local_slots)
        self._machines[machine_identity()] = self._here
        self.top: TopMake | None = None
        self._visibility = Visibility(loop, folder)
        self.hosts = Hosts(
            loop,
            folder,
            hosts,
            policy,
            environments,
            record,
            self._machines,
            self._placing,
            self._experience,
            self._visibility,
            self._host_ready,
            self._host_message,
            self._host_left,
        )

    def serve_tokens(self, jobs: int, channel: TokenPipes | TokenFifo, locks: SlotPool | None) -> None:
        """Be the jobserver of the build's own make.

        Args:
            jobs: its -j.
            channel: how it gets at its tokens.
            locks: the slots of this machine.
        """
        self.top = TopMake(
            self.loop,
            TokenPool(jobs - 1),
            self._here,
            self._placing.use,
            locks,
            channel,
            jobs_wait=lambda: self._placing.waiting,
            hosts_idle=lambda: not self._placing.waiting and self._placing.room_beside(self._here) > 0,
            job_wants_slot=lambda: self._placing.waiting > 0 and self.hosts.has_machine(self._here),
            make_wants_slot=lambda: self._desk.wants_on(self._here),
            on_free=self._slot_came_back,
        )

    def _slot_came_back(self) -> None:
        self._dispatch()
        self._serve()

    def _serve(self) -> None:
        """Slots or tokens may have become free."""
        if self.top is not None:
            self.top.serve()
        self._desk.serve()

    # -- hosts ----------------------------------------------------------------------------------------

    def _host_ready(self) -> None:
        self._dispatch()
        self._serve()
        self._check_ended()

    def _host_message(self, link: HostLink, message: protocol.Message) -> None:
        if isinstance(message, protocol.Ask):
            self._asked_by_host(link, message)
            return
        if self._visibility.heard(link, message):
            return
        if message.attempt & 1:
            self._heard_of_request(link, message)
            return
        job = self._attempts.get(message.attempt)
        if job is None or job.link is not link:
            return
        if isinstance(message, protocol.Data):
            job.asker.output(message)
        elif isinstance(message, protocol.Exit):
            # Killed by its server a moment ago: it counts as running until that says that nothing is left.
            if message.infrastructure != protocol.FENCED:
                self._job_ended(job, message)
        elif isinstance(message, protocol.StdinUsed):
            job.has_read = job.has_read or message.amount > 0
            job.asker.stdin_used(message.amount)
        elif isinstance(message, protocol.Called):
            self._called(job, message)
        elif isinstance(message, protocol.Want):
            self._desk.want(job)
        elif isinstance(message, protocol.Return):
            self._desk.returned(job, message.count)
            self._dispatch()
            self._serve()
        elif isinstance(message, protocol.Credited) and self._desk.credited(job, message.count):
            self._write_credit(link)
            self._dispatch()
            self._serve()

    def _host_left(self, link: HostLink, meaning: str, wait_s: float) -> None:
        """Its jobs end when nothing of them can write any more: not a moment before."""
        for job in list(self._asked.pop(link, {}).values()):
            self._asker_gone(job)
        if wait_s > 0 and self._interrupted:
            self._answer_jobs_of(link)
        if wait_s > 0:
            self.loop.call_later(wait_s, lambda: self._end_jobs_of(link, meaning))
            self._dispatch()
        else:
            self._end_jobs_of(link, meaning)

    def _answer_jobs_of(self, link: HostLink) -> None:
        for job in list(self._attempts.values()):
            if job.link is link and not job.abandoned:
                self._answer_early(job, signal.SIGTERM)

    def _end_jobs_of(self, link: HostLink, meaning: str) -> None:
        children = False
        for job in [job for job in self._attempts.values() if job.link is link]:
            if job.children:  # on other hosts; they are cancelled
                children = True
                continue
            ran_s = self.loop.now() - job.placed_at
            lost = protocol.Exit(job.attempt, infrastructure=protocol.LOST, text=meaning, ran_s=ran_s)
            self._job_ended(job, lost)
        if children:
            self.loop.call_later(_CHILDREN_S, lambda: self._end_jobs_of(link, meaning))
        self._dispatch()
        self._check_ended()

    # -- shims ----------------------------------------------------------------------------------------

    def _shim_connected(self, sock: socket.socket, pid: int) -> None:
        connection = ShimConnection(
            self.loop, sock, pid, self._asked_by_shim, lambda _: None, lambda: None, words.say
        )
        connection.readable()  # it mostly has asked by now

    def _asked_by_shim(self, shim: ShimConnection, request: ShimRequest) -> None:
        try:
            ask = request.ask()
            flags = flags_of(ask)
            ours = self.top is not None and self.top.is_ours(request.jobserver, flags.fifo)
            asker = ShimAsker(self.loop, shim, request, flags, self.top if ours else None, self._stopwatch)
            told = request.jobserver is not None or flags.fifo is not None
            self._saw_ours = self._saw_ours or (ours and told)
            if self.top is not None and not ours:
                self._say_left(ask)
        except Exception:
            words.say_fault()
            request.close()
            self.counts.lost += 1
            shim.reply(INFRASTRUCTURE, D1fleetError.exit_code)
            return
        job = self._new_job(asker, ask, _device(ask.folder))
        shim.on_signal = lambda number: self._shim_signal(job, number)
        shim.on_gone = lambda: self._asker_gone(job)
        # A closed `top` has left; while it is there, whoever is not its own brings a jobserver along.
        brings_own = self.top is not None and not ours

        def take_up() -> None:
            if job.phase is not Phase.OVER:  # its shim may be gone by now
                job.sees = self._visibility.number
                self._guard(job, lambda: self._take_up(job, brings_own))

        self._visibility.look_before(take_up)

    def _say_left(self, ask: protocol.Ask) -> None:
        """A sub-make has its tokens from elsewhere. At the first level that is the makefile's doing, unless
        others have theirs from us: then it is that of a program in between with a jobserver of its own.
        """
        if variable(ask.environment, b"MAKELEVEL") == b"1" and not self._said_left and not self._saw_ours:
            self._said_left = True
            if self.top is not None:
                self.top.close()
                self.top = None
            words.say(
                "the makefile sets -j itself, so that make has left the build's own -j: take that line out,"
                " or local recipes and sub-makes run as the makefile says"
            )

    def _new_job(self, asker: Asker, ask: protocol.Ask, device: int, parent: Job | None = None) -> Job:
        self._number += 1
        job = Job(self._number, asker, ask, device, self.loop.now(), parent)
        self._jobs[job.number] = job
        return job

    def _guard(self, job: Job, step: Callable[[], None]) -> None:
        """A fault of ours must not end the build of everybody else, nor pass in silence."""
        try:
            step()
        except ProtocolError:
            raise
        except Exception:
            words.say_fault()
            self._placing.withdraw(job.state)
            self._placing.ended(job.state, self.loop.now())
            self._attempts.pop(job.attempt, None)
            self.counts.lost += 1
            self._finish(job, INFRASTRUCTURE, D1fleetError.exit_code)

    def _describe(self, job: Job) -> None:
        """Say to placement what is known of a job."""
        state = job.state
        state.weight = job.weight(self._makeargs(None))
        state.wide = job.is_wide
        state.goal = goal_of(makeflags.argv_goals(job.arguments))
        key = self._experience.key(job.request.folder, job.arguments)
        state.key = key
        known = self._experience.of_job(key)
        if known is not None:
            state.expected_s, state.memory_bytes, state.last = known.seconds, known.memory_bytes, known.host

    def _take_up(self, job: Job, brings_own: bool = False) -> None:
        self._describe(job)
        reason = self._stays(job)
        if reason is None and brings_own and job.state.weight > 1:
            # Its recipe keeps its slot, so a machine that is ours as well might never have as many free.
            reason = "it has a -j of its own, and a jobserver that is not the build's"
        if reason is None and self.hosts.links and not self.hosts.shares(job.device):
            reason = "its folder is outside the tree that hosts share"
        if self._ending or self._interrupted:
            self._finish(job, SIGNAL, signal.SIGTERM)
        elif reason is not None:
            self._run_here(job, reason)
        elif self._is_better_here(job):
            job.reason = TINY
            self._measure(job, self._here, "")
            self._run_here(job, "it is over sooner than it would be sent elsewhere")
        else:
            job.asker.waits()
            self._placing.ask(job.state)
            self._dispatch()
            self._mind_the_door()

    def _stays(self, job: Job) -> str | None:
        """Why it runs where it was called, whatever hosts there are; None when it may go elsewhere."""
        reason = job.stays_here()
        if reason is None:
            rule = self._keep_local.applying(job.request.folder, job.arguments, job.flags)
            reason = words.plain(f"by the rule {rule}") if rule is not None else None
        return reason

    def _is_better_here(self, job: Job) -> bool:
        """Where make has slots of ours, or is serial; under a -j without a number it runs all at once."""
        if self.top is None and job.flags.jobs is not None:
            return False
        wanted = self.top is not None and self.top.wants_slot
        return self._placing.better_here(job.state, self._here, wanted)

    def _measure(self, job: Job, machine: Machine, host: str) -> None:
        """What stays where it is called is not run by us: without this, what is known of it would stay as it
        is, however long it takes by now.
        """
        key, known_s = job.state.key, job.state.expected_s
        if not isinstance(key, bytes):
            return
        over_s = _MEASURED_S if known_s is None else max(TINY_S, 2 * known_s)
        tiny = job.reason == TINY

        def ended(ran_s: float) -> None:
            self._experience.ran(key, ran_s / machine.pace_now(0), host)
            if tiny and ran_s > _SURPRISE_S:
                self._placing.believes_short = False

        job.asker.measure(over_s, ended)

    def _run_here(self, job: Job, reason: str) -> None:
        self.counts.here[reason] += 1
        self._outcomes.write(job, None, reason)
        self._finish(job, LOCAL)

    def _finish(self, job: Job, verb: bytes, value: int = 0) -> None:
        """The one way out: all is given back, and who asked has the answer, if still there."""
        job.asker.close()
        job.phase = Phase.OVER
        self._jobs.pop(job.number, None)
        if job.parent is not None:
            job.parent.children.discard(job)
        if isinstance(job.asker, HostAsker):
            self._asked.get(job.asker.link, {}).pop(job.asker.number, None)
        job.asker.answer(verb, value)
        self._mind_the_door()

    def _mind_the_door(self) -> None:
        """Let no more sub-makes in than there are descriptors for; those outside simply wait."""
        if not self._ending:
            inside = self._placing.waiting + len(self._attempts)
            self._listener.pause(inside >= self._most_inside)

    def _shim_signal(self, job: Job, number: int) -> None:
        """The shim's make got a signal: so does the job."""
        if job.phase is Phase.WAITING:
            self._placing.withdraw(job.state)
            self._finish(job, SIGNAL, number)
        elif job.phase is Phase.WRITING:
            # Its make would have died of it while nobody took its output.
            job.signalled = number
            self.loop.call_later(_UNREAD_S, job.asker.discard_output)
        elif job.host_is_there:
            job.send(protocol.Signal(job.attempt, number))
        elif self._interrupted or self._ending:
            self._answer_early(job, number)
        else:
            job.signalled = number  # the answer when nothing of it can write any more

    def _answer_early(self, job: Job, number: int) -> None:
        """The build is broken off: who waits for the job need not wait for its host, the end of the build
        does.
        """
        job.abandon()
        self._finish(job, SIGNAL, number)

    def _asker_gone(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        if job.phase is Phase.WAITING:
            self._placing.withdraw(job.state)
            self._finish(job, SIGNAL, signal.SIGTERM)
        else:
            job.abandon()
            job.send(protocol.Cancel(job.attempt))

    # -- hosts that ask -------------------------------------------------------------------------------

    def _asked_by_host(self, link: HostLink, ask: protocol.Ask) -> None:
        """A job there has called make: that may run there, where a slot waits for it, or on another host.

        Raises:
            ProtocolError: that number is in use, or cannot be a host's.
        """
        if not ask.attempt & 1 or ask.attempt in self._asked[link]:
            raise ProtocolError(f"a request with the number {ask.attempt}")
        parent = self._attempts.get(ask.parent)
        if parent is None or parent.link is not link or parent.phase is not Phase.RUNNING:
            link.send(protocol.Stay(ask.attempt))  # it has ended meanwhile
            return
        asker = HostAsker(link, ask.attempt, parent)
        job = self._new_job(asker, ask, self.hosts.device_of(ask.folder), parent)
        job.sees = self._visibility.number
        self._guard(job, lambda: self._take_up_from_host(job, asker, parent))

    def _take_up_from_host(self, job: Job, asker: HostAsker, parent: Job) -> None:
        link = asker.link
        self._desk.called(parent)
        self._describe(job)
        reason = self._stays(job)
        if self._ending or self._interrupted or parent.abandoned:
            self._finish(job, SIGNAL, signal.SIGTERM)
        elif reason is not None:
            self._stay(job, link, reason)
        elif job.state.weight > 1:
            self._stay(job, link, "it has a -j of its own")
        elif job.device < 0:
            self._stay(job, link, "its folder is outside the tree that hosts share")
        elif link.placement is None:
            self._stay(job, link, "its host takes no part")
        elif len(self._asked[link]) >= _MOST_ASKED:
            self._stay(job, link, f"{_MOST_ASKED} others that its host asked for run elsewhere")
        else:
            wanted = (
                job.request.hungry or self._placing.waiting > 0 or self._desk.wants_on(link.placement.machine)
            )
            verdict = self._placing.stay_or_go(
                job.state,
                link.placement,
                self.loop.now(),
                self.hosts.closed_to(link),
                wanted,
                apart=self._may_be_apart(job, parent, link.placement.machine),
            )
            job.candidates, job.reason = verdict.candidates, verdict.reason
            if verdict.host is None:
                self._measure(job, link.placement.machine, link.host.name)
                self._stay(job, link, verdict.reason)
            else:
                if verdict.host.machine is not link.placement.machine:
                    self._desk.went(link.placement.machine)
                self._asked[link][asker.number] = job
                parent.children.add(job)
                self._send_to(job, verdict.host)

    @staticmethod
    def _may_be_apart(job: Job, parent: Job, machine: Machine) -> bool:
        """May it be a job of its own on the host where it is called? Among others that its make calls it had
        better be: then tokens are for it, or for that make, as we choose. But it must not have to wait for a
        slot, as what else its recipe does may wait for it: one is free, or its recipe lends one.
        """
        lends = len(parent.children) < parent.state.taken + parent.tokens
        return job.request.hungry and job.state.wide and (machine.free >= 1 or lends)

    def _stay(self, job: Job, link: HostLink, reason: str) -> None:
        """It runs where it is, as part of the job that it came from."""
        rule = self._not_repeatable.applying(job.request.folder, job.arguments, job.flags)
        if rule is not None:
            _mark_once(job.parent, rule)
        if job.parent is not None:
            self._aftermath.stayed(job, within=job.parent)
        self.counts.stayed[link.host.name] += 1
        self._outcomes.write(job, None, reason)
        self._finish(job, LOCAL)

    def _called(self, job: Job, called: protocol.Called) -> None:
        """A make runs on the host as a part of a job, and nobody was asked.

        Raises:
            ProtocolError: that goes on and on.
        """
        if len(job.notes) > _MOST_CALLED:
            raise ProtocolError("Called, again and again")
        argv = protocol.unpack_block(called.argv)
        flags = makeflags.parse(variable(called.environment, b"MAKEFLAGS"))
        rule = self._not_repeatable.applying(called.folder, argv, flags)
        if rule is not None:
            _mark_once(job, rule)
        self._aftermath.called(job, called)

    def _heard_of_request(self, link: HostLink, message: protocol.Message) -> None:
        job = self._asked[link].get(message.attempt)
        if job is None or not isinstance(job.asker, HostAsker):
            return
        if isinstance(message, protocol.Signal):
            self._shim_signal(job, message.signal)
        elif isinstance(message, protocol.Cancel):
            self._asker_gone(job)
        else:
            job.asker.heard(message)

    # -- placing --------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting jobs to hosts that have room."""
        placing = self._placing
        if not placing.waiting:
            return
        placing.others_may_come = self.hosts.some_may_come
        placing.more_to_come = self.top is None or self.top.has_more
        for verdict in placing.dispatch(self.loop.now()):
            self._follow(verdict)
        if any(state.waited_for == FULL for state in placing.waiting_jobs()):
            self._desk.recall_for_waiting(self._attempts.values())
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if placing.next_look_s is not None:
            self._look = self.loop.call_at(placing.next_look_s, self._dispatch)

    def _follow(self, verdict: Verdict) -> None:
        job = self._jobs.get(verdict.job.number)
        if job is None:
            return
        job.candidates, job.reason = verdict.candidates, verdict.reason
        host = verdict.host
        if host is not None:
            self._guard(job, lambda: self._send_to(job, host))
        elif verdict.reason == NEVER:
            self._fall_back(job)

    def _makeargs(self, link: HostLink | None) -> list[bytes]:
        words = list(self.policy.makeargs) + (list(link.host.makeargs) if link is not None else [])
        return [os.fsencode(word) for word in words]

    def _send_to(self, job: Job, host: HostState) -> None:
        self._attempt += 2
        link = self.hosts.link_of(host)
        run = job.run_message(self._attempt, self.hosts.environment_for(link.host), self._makeargs(link))
        fault = run.fault()
        if fault:
            self._placing.ended(job.state, self.loop.now())
            self._not_asked_of_hosts(job, f"it cannot be asked of a host: {fault}")
            return
        self._aftermath.began(job, run.attempt, link.host.name)
        self._attempts[run.attempt] = job
        run.sees = job.sees
        link.send(run)
        job.placed(link, run.attempt, self.loop.now())

    def _not_asked_of_hosts(self, job: Job, reason: str) -> None:
        if isinstance(job.asker, HostAsker):
            self._stay(job, job.asker.link, reason)
        else:
            self._run_here(job, reason)

    def _fall_back(self, job: Job) -> None:
        """No host will ever take it: an error, or as many at once here as this machine bears."""
        if not self.hosts.links:
            self._run_here(job, "there are no hosts")
            return
        if self.policy.strict:
            words.say(f"no host can run {job.words}, and --strict forbids to run it here")
            self.counts.without_host += 1
            self._outcomes.write(job, None, "", infrastructure="no host")
            self._finish(job, INFRASTRUCTURE, HostError.exit_code)
            return
        if not self._said_fallback and not job.refused:
            self._said_fallback = True
            words.say("no host can take part: sub-makes run on this machine")
        self.counts.fallback += 1
        self._run_here(job, next(iter(job.refused.values()), "no host can take part"))

    # -- the end of a job -------------------------------------------------------------------------------

    def _job_ended(self, job: Job, message: protocol.Exit) -> None:
        self._attempts.pop(message.attempt, None)
        job.phase = Phase.WRITING
        self._desk.ended(job)
        self._learn(job, message)
        if job.abandoned:
            self._report(job, message)
        else:
            job.asker.when_written(lambda: self._report(job, message))
        self._dispatch()
        self._serve()

    def _learn(self, job: Job, message: protocol.Exit) -> None:
        """It runs no longer; how long it took counts for next time, if all went well."""
        good = not (message.infrastructure or message.signal or message.code or job.abandoned)
        key, host = job.state.key, job.state.host
        # A host cannot have run it for longer than it has had it.
        ran_s = min(message.ran_s, self.loop.now() - job.placed_at)
        work_s = self._placing.ended(job.state, self.loop.now(), ran_s if good else None)
        if work_s is not None and host is not None and isinstance(key, bytes):
            self._experience.ran(key, work_s, host.name)

    def _report(self, job: Job, message: protocol.Exit) -> None:
        """All output is written: the shim may have its answer."""
        broken_off = self._ending or self._interrupted > 0
        if message.infrastructure == protocol.REFUSED and not (job.abandoned or job.signalled or broken_off):
            self._aftermath.ended(job)
            self._refused(job, message)
            return
        self._outcomes.write(job, message)
        torn = may_be_torn(message)
        if torn:
            self._aftermath.over(job)
        else:
            self._aftermath.ended(job)
        if message.infrastructure and not (job.abandoned or job.signalled or broken_off):
            self._lost(job, message)
            return
        if message.short and job.link is not None:
            words.say(f"{job.words}: failed on host {job.link.host.name}, {_SHORT[message.short]}")
        if torn and not broken_off:  # else the build ends first, and the next one sees to it
            self._aftermath.put_away(job, lambda _: self._answer(job, message))
        else:
            self._answer(job, message)

    def _answer(self, job: Job, message: protocol.Exit) -> None:
        """Nothing of it is in make's sight that it may have torn: whoever asked may go on, when it sees what
        the job has made.
        """
        if isinstance(job.asker, HostAsker):  # its server waits until it does
            self._give_answer(job, message)
        else:
            self._visibility.when_seen_here(lambda: self._give_answer(job, message))

    def _give_answer(self, job: Job, message: protocol.Exit) -> None:
        if job.phase is Phase.OVER:  # nobody waits for it any more
            pass
        elif job.abandoned:
            self._finish(job, SIGNAL, signal.SIGTERM)
        elif job.signalled:
            self._finish(job, SIGNAL, job.signalled)
        elif message.infrastructure:
            self.counts.lost += 1
            self._finish(job, INFRASTRUCTURE, JobLostError.exit_code)
        elif message.signal:
            self._finish(job, SIGNAL, message.signal)
        elif job.asker.lost_output and not message.code:
            words.say(f"{job.words}: its output cannot be written: {os.strerror(job.asker.lost_output)}")
            self._finish(job, EXIT, _WRITE_ERROR)
        else:
            self._finish(job, EXIT, message.code)
        self._check_ended()

    # -- a job is lost ------------------------------------------------------------------------------------

    def _lost(self, job: Job, message: protocol.Exit) -> None:
        """Nothing of it runs any more, and it is done again, when what it may have torn is put away."""
        name = job.link.host.name if job.link is not None else "?"
        job.lost_on.append(name)
        rule = self._not_repeatable.applying(job.request.folder, job.arguments, job.flags)
        why = why_not_again(job, rule)
        text = words.plain(message.text) or message.infrastructure
        words.say(f"lost: {job.words} on host {name}: {text}" + ("" if why else "; it is done again"))
        if why:
            words.say(f"  {why}")
        job.unplace()

        def put_away(found: Scrubbed) -> None:
            # Whoever does it again has to see that what was torn is not there any more.
            self._visibility.look_before(lambda: self._put_away(job, again=not why and found.is_clean))

        self._aftermath.put_away(job, put_away)

    def _put_away(self, job: Job, again: bool) -> None:
        if job.phase is Phase.OVER:  # nobody waits for it any more
            pass
        elif self._ending or self._interrupted:
            self._finish(job, SIGNAL, signal.SIGTERM)
        elif not again:
            self.counts.lost += 1
            self._finish(job, INFRASTRUCTURE, JobLostError.exit_code)
        elif isinstance(job.asker, HostAsker):
            self.counts.again += 1
            job.asker.sees = self._visibility.number
            self._stay(job, job.asker.link, "the host that it was given to was lost")
        else:
            self.counts.again += 1
            job.sees = self._visibility.number
            if self.hosts.others_are_up(job.lost_on):
                job.state.refused = frozenset([*job.refused, *job.lost_on])
            self._placing.ask(job.state)
            self._dispatch()
        self._check_ended()

    def _refused(self, job: Job, message: protocol.Exit) -> None:
        """It has not run there, so it may run elsewhere: on another host, or here when none is left."""
        if job.link is not None:
            job.refused[job.link.host.name] = words.plain(message.text)
        job.unplace()
        if isinstance(job.asker, HostAsker):
            self._stay(job, job.asker.link, "the host that it was given to would not start it")
            return
        job.state.refused = frozenset(job.refused)
        self._placing.ask(job.state)
        self._dispatch()

    def _write_credit(self, link: HostLink) -> None:
        """How many recipes on a host may run beyond its slots, as seen from here."""
        if self._record.wanted and link.placement is not None:
            machine = link.placement.machine
            credit = sum(job.credit for job in self._attempts.values() if job.link is link)
            # What is beyond the slots: recipes that had waited, and a probe.
            self._record.write(
                event="credit", host=link.host.name, outstanding=credit + max(0, -machine.free)
            )

    # -- stops and ends -----------------------------------------------------------------------------------

    @property
    def interrupted(self) -> bool:
        """Has somebody broken the build off?"""
        return self._interrupted > 0

    def interrupt(self) -> None:
        """Ctrl-C: the shims pass it on; what does not end of itself is ended here. A second one ends at
        once.
        """
        self._interrupted += 1
        self._visibility.give_up()
        kill = self._interrupted > 1
        if kill:
            self._aftermath.give_up()
        self._drop_waiting(signal.SIGINT)
        self.loop.call_later(0.0 if kill else _INTERRUPT_GRACE_S, lambda: self._cancel_all(kill))

    def _drop_waiting(self, number: int) -> None:
        for state in list(self._placing.waiting_jobs()):
            job = self._jobs[state.number]
            self._placing.withdraw(state)
            self._outcomes.write(job, None, infrastructure=protocol.CANCELLED)
            self._finish(job, SIGNAL, number)

    def _cancel_all(self, kill: bool) -> None:
        for link in self.hosts.every_link:
            if not link.open:
                self._answer_jobs_of(link)
        for job in self._attempts.values():
            job.send(protocol.Cancel(job.attempt, kill))
        if kill:
            self.loop.call_later(_SILENT_S, self._answer_rest)
        # Output that nobody takes must not keep a build from ending.
        for job in list(self._jobs.values()):
            job.asker.discard_output()

    def _answer_rest(self) -> None:
        """Hosts that have not said that they killed their jobs keep the end of the build, not make."""
        for link in self.hosts.every_link:
            self._answer_jobs_of(link)

    def end(self, kill: bool, limit_s: float, done: Callable[[], None]) -> None:
        """The make has ended: take leave of the hosts, at most `limit_s` seconds long, then call `done`.

        Args:
            kill: the build was broken off; nothing there gets time to tidy up. May follow one without.
        """
        if self._ending:
            if kill:
                self.hosts.take_leave(kill, limit_s)
            return
        self._ending = True
        self._on_ended = done
        self.counts.cut_short = sum(not job.abandoned for job in self._attempts.values())
        self._drop_waiting(signal.SIGTERM)
        self.hosts.take_leave(kill, limit_s)
        self._check_ended()

    def _check_ended(self) -> None:
        if (
            self._ending
            and self._on_ended is not None
            and not self.hosts.some_may_run
            and not self.hosts.fencing
            and not self._aftermath.busy
        ):
            done, self._on_ended = self._on_ended, None
            done()

    def close(self) -> None:
        """Give everything back."""
        self._ending = True
        self._listener.close()
        for job in list(self._jobs.values()):
            if job.phase is Phase.RUNNING:
                self._finish(job, INFRASTRUCTURE, JobLostError.exit_code)
            else:
                self._finish(job, SIGNAL, signal.SIGTERM)
        if self.top is not None:
            self._record.write(event="debt", host=None, debt_s=self.top.close())
        self.hosts.close()
        self._visibility.close()
        self._aftermath.close()
        self._stopwatch.close()
        self._experience.keep(self._machines)
        self._record.close()


def _mark_once(job: Job | None, rule: str) -> None:
    """Something in it must not be done twice: so neither it nor what it is part of."""
    while job is not None:
        job.once.add(rule)
        job = job.parent


def _device(folder: bytes) -> int:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return -1
