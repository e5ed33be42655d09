"""Which host runs which job. Pure: events and the time go in, jobs with their hosts and the reasons come out.

A host is asked for no more than its machine's slots, and for no more jobs than its hard limit. Among those
that have room, the one that would finish the job first is taken. docs/placement.md explains the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass

from .estimates import Estimates
from .foresight import Foresight
from .history import LITTLE_TO_DO
from .machines import COST, USUAL_MEMORY_BYTES, HostState, Machine, Method, by_cost
from .ranking import Ranking
from .waiting import JobState, Line

__all__ = ["HostState", "JobState", "Machine", "Scheduler", "Verdict"]

SHOWN_CANDIDATES = 4
"""How many candidates a decision keeps for `why`."""

SPREAD_S = 0.3
"""For this long after the first host came up, jobs that would share it wait for hosts on their way."""

PASSED_BY_S = 2.0
"""For this long, smaller jobs may pass by one that needs several slots at once."""

TINY_S = 0.1
"""A job that is expected to end sooner stays where it is asked for, unless its slot is wanted there: to move
it costs some milliseconds and a round trip, and half of all sub-makes take less than half of this.
"""

TINIEST_S = 0.01
"""A job that is expected to end sooner stays in any case: to move it costs all who are involved as much."""

_MOVE_S, _MOVE_SHARE = 0.05, 0.1
"""What a move has to gain where there is room already: its cost, and a tenth, for estimates are no better."""

_NOT_TWICE = 2.0
"""From a full machine a job does not go to one where it takes twice as long (a guess): in that time the slot
that it leaves could have done it and another one.
"""

_TRUST_IN_GUESSES = 0.1
"""Weight of what a job without history says of its host's speed."""

_TRUST_IN_WIDE_JOBS = 0.3
"""Weight of what a make with a jobserver says: its run time depends on the tokens that it got, too."""

_SHORTEST_S = 0.02
"""Jobs below say nothing of speed: they are all start and end."""

# Reasons, for records; docs/placement.md has what they mean.
SOONEST, LAST_HOST, METHOD = "soonest", "last-host", "method"
TINY, ROOM_HERE, NOT_WANTED = "tiny", "room-here", "slot-not-wanted"
NO_ROOM, SOONER_HERE = "no-room-elsewhere", "sooner-here"
FULL_HERE, SOONER_THERE = "full-here", "sooner-elsewhere"
NEVER, FULL, NEAR, FASTER_SOON = "no-host", "full", "hosts-are-near", "faster-soon"


def weight_on(machine: Machine, weight: int) -> int:
    """Slots that a job of `weight` takes there: a -jN of its own counts as min(N, slots)."""
    return max(1, min(weight, machine.slots))


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job.

    `host` None means that it is not given to a host: with reason `no-host`, because none ever will take it;
    else because it stays where it was asked for.
    """

    job: JobState
    host: HostState | None
    reason: str
    candidates: tuple[tuple[str, float], ...] = ()
    """The best few hosts, and in how many seconds each would end the job; d1make's scores by its method."""


class Scheduler:
    """The hosts and the waiting jobs of a build.

    Between two calls of `dispatch` anything may be told; nothing is placed but by `dispatch` and
    `stay_or_go`. All times are seconds on one clock of the caller's.

    Args:
        shown: candidates that verdicts keep.
    """

    def __init__(self, method: Method = COST, shown: int = SHOWN_CANDIDATES) -> None:
        self.method = method
        self.others_may_come = False
        """Are there hosts that have not had their chance yet? The caller keeps it up to date."""
        self.more_to_come = False
        """Does make ask for as many jobs as it may have at once? Then its end is not near, and no host
        is left idle for a faster one. The caller keeps it up to date.
        """
        self.believes_short = True
        """Are jobs that history says are short taken to be? The caller ends it, when one was not."""
        self.next_look_s: float | None = None
        """When `dispatch` should be called again though nothing has happened; None: no need."""
        self.estimates = Estimates()
        self._shown = shown
        self._hosts: dict[str, HostState] = {}
        self._rankings: dict[Hashable, dict[bool, Ranking]] = {}
        """By group of jobs, then for those that are wide and those that are not."""
        self._lines: dict[Hashable, Line] = {}
        self._kept: dict[Line, Machine] = {}
        """Machines where room is kept for jobs that need several slots."""
        self._foresight = Foresight()
        self._room: dict[Machine, int] = {}
        """Free slots of machines with a name that takes jobs."""
        self._room_in_all = 0
        self._last: dict[Hashable, str] = {}
        self._first_up: float | None = None
        self._turn = 0
        self._foresees = True
        """False after a wait for a faster host was in vain, until a job ends: predictions are bad now."""

    # -- hosts ----------------------------------------------------------------------------------------

    def join(self, host: HostState, now: float) -> None:
        """A host can take jobs, for the first time or again. Its `groups` say which."""
        if self._first_up is None:
            self._first_up = now
        former = self._hosts.get(host.name)
        if former is not None:
            former.machine.names.remove(former)
            self._changed(former.machine)
            # Notes of the former one are in heaps still, and must not be equal to new ones.
            host.version = max(host.version, former.version)
        self._hosts[host.name] = host
        host.machine.names.append(host)
        host.up = True
        self._changed(host.machine)

    def leave(self, host: HostState) -> None:
        """It gets no more jobs: it drains, or is lost. What runs there is its caller's business, and is told
        by `ended`; `join` takes it back.
        """
        host.up = False
        for line, machine in list(self._kept.items()):
            if machine is host.machine:
                self._unkeep(line)
        self._changed(host.machine)

    def loaded(
        self,
        machine: Machine,
        others_cpus: float,
        available_bytes: int | None = None,
        load_1min: float = 0.0,
    ) -> None:
        """A machine speaks of its load."""
        machine.others_cpus = max(0.0, others_cpus)
        machine.available_bytes = available_bytes
        machine.pledged_bytes = 0
        machine.load_1min, machine.started = load_1min, 0
        self._changed(machine)

    def use(self, machine: Machine, slots: int) -> None:
        """Slots of a machine are used beyond its jobs' own (tokens: > 0), or are no longer (tokens that come
        back, credit for recipes that wait: < 0).
        """
        machine.used += slots
        self._changed(machine)

    def may_offer(self, machine: Machine) -> bool:
        """May a make there have a further token? Not in debt, nor where room is kept for a job."""
        return machine.free >= 1 and machine.kept_for is None

    def room_beside(self, machine: Machine) -> int:
        """How many jobs of one slot hosts on other machines would take now."""
        return self._room_in_all - self._room.get(machine, 0)

    # -- jobs -----------------------------------------------------------------------------------------

    def ask(self, job: JobState) -> None:
        """A job wants a host."""
        self._estimate(job)
        self._add(job)

    def withdraw(self, job: JobState) -> None:
        """A waiting job wants none any more."""
        line = job.line
        if line is not None:
            line.remove(job)
            self._unkeep(line)

    def ended(self, job: JobState, now: float, ran_s: float | None = None) -> float | None:
        """A job no longer runs on its host.

        Args:
            ran_s: how long its make ran; None where that says nothing (lost, killed, refused).

        Returns: how long it would have run on a host of speed 1 that was its own, for the history.
        """
        host = job.host
        if host is None:
            return None
        machine = host.machine
        self._foresees = True
        machine.used -= job.taken
        host.jobs -= 1
        if job.ends_at is not None:
            self._foresight.ended(machine, job.ends_at)
        self.estimates.began(job.goal, -1)
        work_s = self._learn(job, machine, ran_s) if ran_s is not None and ran_s > 0 else None
        job.host, job.taken, job.ends_at = None, 0, None
        self._changed(machine)
        return work_s

    @property
    def waiting(self) -> int:
        """Jobs that wait for a host."""
        return sum(line.count for line in self._lines.values())

    def waiting_jobs(self) -> Iterator[JobState]:
        """All of them, in no order."""
        for line in self._lines.values():
            yield from line.jobs()

    def dispatch(self, now: float) -> list[Verdict]:
        """Give waiting jobs to hosts that have room.

        Returns: those that were placed (their host has them in its account already), and those that no host
        will ever take (they wait no longer).
        """
        self.next_look_s = None
        verdicts: list[Verdict] = []
        open_lines = [line for line in self._lines.values() if line.count]
        while open_lines:
            heads = [(head, line) for line in open_lines if (head := line.head()) is not None]
            if not heads:
                break
            (_, _, job), line = min(heads, key=lambda entry: entry[0][:2])
            verdict = self._serve(line, job, now)
            if verdict is None:
                open_lines.remove(line)
            else:
                verdicts.append(verdict)
        for kind in [kind for kind, line in self._lines.items() if not line.count]:
            del self._lines[kind]
        return verdicts

    def stay_or_go(
        self,
        job: JobState,
        here: HostState,
        now: float,
        excluded: Collection[str] = (),
        slot_wanted: bool = True,
        apart: bool = False,
    ) -> Verdict:
        """Decide about a job that was asked from a host. It never waits: its recipe holds a slot there.

        Args:
            here: where it was asked.
            excluded: names of hosts that it must not go to; all names of its own machine are excluded anyway.
            slot_wanted: does anybody else want the slot that it would leave?
            apart: where it stays, it shall be a job of its own there. Not where that would have to wait for a
                slot: on a machine in debt it stays as part of the job that it came from.

        Returns: with a host when it goes there (it is in that host's account already), without when it stays.
        """
        machine = here.machine
        if self.better_here(job, machine, slot_wanted):
            return Verdict(job, None, TINY)
        expected = job.expected_s
        found = self._ranking(job.group, job.wide).best(
            job.weight,
            max(1, self._shown),
            lambda host: (
                host.machine is not machine and host.name not in excluded and host.name not in job.refused
            ),
        )
        candidates = self._candidates(job, found)
        if not found:
            return self._stays(job, here, NO_ROOM, candidates, now, apart)
        host = self._with_memory(job, found)
        full = machine.free < 1 and slot_wanted
        stays = ROOM_HERE if machine.free >= 1 else NOT_WANTED
        if expected is None:
            goes, reason = full, FULL_HERE if full else stays
        else:
            here_s = expected * machine.pace(0, job.wide)
            there_s = expected * host.machine.pace(1, job.wide) + _MOVE_S
            if full:
                goes = there_s <= _NOT_TWICE * here_s + _MOVE_S
                reason = FULL_HERE if goes else SOONER_HERE
            else:
                goes = there_s < here_s * (1 - _MOVE_SHARE)
                reason = SOONER_THERE if goes else stays
        if not goes:
            return self._stays(job, here, reason, candidates, now, apart)
        self._place(job, host, now)
        return Verdict(job, host, reason, candidates)

    def _stays(
        self,
        job: JobState,
        here: HostState,
        reason: str,
        candidates: tuple[tuple[str, float], ...],
        now: float,
        apart: bool,
    ) -> Verdict:
        if not apart or here.machine.free < 0 or not here.takes_more:
            return Verdict(job, None, reason, candidates)
        self._place(job, here, now)
        return Verdict(job, here, reason, candidates)

    def better_here(self, job: JobState, machine: Machine, slot_wanted: bool) -> bool:
        """Is a job over sooner on the machine where it is asked for than it would be sent elsewhere?

        Args:
            slot_wanted: could anybody use the slot that it would leave?
        """
        self._estimate(job)
        wanted = slot_wanted and machine.free < 1
        short = job.expected_s is not None and job.expected_s < (TINIEST_S if wanted else TINY_S)
        return short and self.believes_short

    # -- one job --------------------------------------------------------------------------------------

    def _estimate(self, job: JobState) -> None:
        if job.last is None and job.key is not None:
            job.last = self._last.get(job.key)
        if job.expected_s is not None:
            self.estimates.expect(job.expected_s)
        job.guess_s = job.expected_s if job.expected_s is not None else self.estimates.guess(job.goal)

    def _saw(self, goal: str, seconds: float) -> None:
        if self.estimates.saw(goal, seconds):
            guess = self.estimates.guess(goal)
            for line in self._lines.values():
                line.reconsider(goal, guess if guess is not None else seconds)

    def _add(self, job: JobState) -> None:
        line = self._lines.get(job.kind)
        if line is None:
            line = self._lines[job.kind] = Line(job, self.method.foresees)
        line.add(job)

    def _serve(self, line: Line, job: JobState, now: float) -> Verdict | None:
        """Place the next job of a line; None when it has to wait."""
        ranking = self._ranking(line.group, line.wide)
        fits = (lambda host: host.name not in line.refused) if line.refused else None
        found = ranking.best(line.weight, self._shown, fits)
        kept = self._kept.get(line)
        if not found and kept is not None and kept.free >= weight_on(kept, line.weight):
            found = [host for host in kept.names if self._may_take(host, line)]
        if not found:
            if not self.others_may_come and not any(
                self._may_ever_take(host, line) for host in self._hosts.values()
            ):
                self.withdraw(job)
                return Verdict(job, None, NEVER)
            self._keep_room(line, job, now)
            return self._waits(job, FULL)
        best = found[0]
        if best.machine.used > 0 and self._others_are_near(now):
            return self._waits(job, NEAR)
        line.unknown_s = self.estimates.long_one
        chosen = (
            line.next(self._pressure(line, best, now), now, self.more_to_come)
            if self.method.foresees
            else job
        )
        if chosen is None:
            self._be_patient(line, best, now)
            return self._waits(job, FASTER_SOON)
        if chosen.patient_until is not None and now >= chosen.patient_until:
            self._foresees = False
        candidates = self._candidates(chosen, found)
        host, reason = self._among(chosen, found, best)
        self.withdraw(chosen)
        self._place(chosen, host, now)
        return Verdict(chosen, host, reason, candidates)

    @staticmethod
    def _waits(job: JobState, reason: str) -> None:
        job.waited_for = reason

    def _among(self, job: JobState, found: list[HostState], best: HostState) -> tuple[HostState, str]:
        """The best host, or one that is as good and ran this job last."""
        if not self.method.foresees:
            return best, METHOD
        last = self._hosts.get(job.last) if job.last is not None else None
        if (
            last is not None
            and last is not best
            and job.group in last.groups
            and last.name not in job.refused
            and self.has_room(last, job.weight)
            and self.method.key(last, job.wide)[0] <= self.method.key(best, job.wide)[0]
            and not last.machine.short_of(job.memory_bytes or 0)
        ):
            return last, LAST_HOST
        return self._with_memory(job, found), SOONEST

    def _with_memory(self, job: JobState, found: list[HostState]) -> HostState:
        """The best that has the memory that the job is known to need; else the best."""
        need = job.memory_bytes
        if need is None:
            return found[0]
        return next((host for host in found if not host.machine.short_of(need)), found[0])

    @staticmethod
    def has_room(host: HostState, weight: int = 1) -> bool:
        """Could a job that wants so many slots go there now?"""
        machine = host.machine
        return host.takes_more and machine.kept_for is None and machine.free >= weight_on(machine, weight)

    def _place(self, job: JobState, host: HostState, now: float) -> None:
        machine = host.machine
        self._turn += 1
        job.host, job.placed_at = host, now
        job.pace = machine.pace_now(1)
        job.taken = weight_on(machine, job.weight)
        machine.used += job.taken
        machine.started += 1
        machine.pledged_bytes += job.memory_bytes if job.memory_bytes is not None else USUAL_MEMORY_BYTES
        host.jobs += 1
        host.given += 1
        host.turn = self._turn
        if job.key is not None:
            self._last[job.key] = host.name
        self.estimates.began(job.goal)
        if job.guess_s is not None:
            job.ends_at = now + job.guess_s * machine.full_pace
            self._foresight.began(machine, job.ends_at)
        self._changed(machine)

    def _candidates(self, job: JobState, found: Iterable[HostState]) -> tuple[tuple[str, float], ...]:
        if not self.method.foresees:
            return tuple((host.name, round(self.method.key(host, job.wide)[0], 3)) for host in found)
        seconds = job.guess_s if job.guess_s is not None else 1.0
        return tuple((host.name, round(seconds * host.machine.pace(1, job.wide), 3)) for host in found)

    def _learn(self, job: JobState, machine: Machine, ran_s: float) -> float:
        """What the job took says how fast its host is, and how long its like will take: this at speed 1."""
        pace = (job.pace + machine.pace_now(1)) / 2
        known = job.expected_s
        if known is not None and ran_s < LITTLE_TO_DO * known * pace:
            return ran_s / pace
        self._saw(job.goal, ran_s / pace)
        if known is None:
            self.estimates.expect(ran_s / pace)
        if job.guess_s is not None and min(job.guess_s, ran_s) > _SHORTEST_S:
            trust = _TRUST_IN_GUESSES if known is None else _TRUST_IN_WIDE_JOBS if job.wide else 1.0
            machine.learn(job.guess_s * pace * machine.speed / ran_s, trust)
        return ran_s / pace

    # -- waiting for better -----------------------------------------------------------------------------

    def _others_are_near(self, now: float) -> bool:
        """Hosts log in within moments of each other: the first one should not get all of the first jobs."""
        until = (self._first_up or 0.0) + SPREAD_S
        if not self.others_may_come or now >= until:
            return False
        self._look_again(until)
        return True

    def _look_again(self, at: float) -> None:
        self.next_look_s = at if self.next_look_s is None else min(at, self.next_look_s)

    def _pressure(self, line: Line, slow: HostState, now: float) -> float:
        """How many jobs had better wait for faster hosts than this one, for each second that they take."""
        if not self._foresees or (self.more_to_come and line.count == 1):
            return 0.0  # it would go there anyway
        return self._foresight.pressure(slow.machine.pace(1, line.wide), now)

    def _be_patient(self, line: Line, slow: HostState, now: float) -> None:
        """Jobs pass a host by for a faster one, until they have lost what they could gain."""
        gain = self._foresight.gain(slow.machine.pace(1, line.wide))
        for job in line.heads():
            if job.patient_until is None and job.guess_s is not None:
                job.patient_until = now + job.guess_s * gain
            if job.patient_until is not None:
                self._look_again(job.patient_until)

    # -- room for jobs that need several slots ----------------------------------------------------------

    def _keep_room(self, line: Line, job: JobState, now: float) -> None:
        """After a while smaller jobs pass by no longer, on one machine: they would do so for ever."""
        if line.weight < 2 or line in self._kept or now - job.asked_at <= PASSED_BY_S:
            return
        hosts = [host for host in self._hosts.values() if self._may_take(host, line)]
        hosts = [host for host in hosts if host.machine.kept_for is None]
        if hosts:
            fewest = min(
                hosts,
                key=lambda host: (
                    weight_on(host.machine, line.weight) - host.machine.free,
                    *by_cost(host, line.wide),
                ),
            )
            self._kept[line] = fewest.machine
            fewest.machine.kept_for = line
            self._changed(fewest.machine)

    def _unkeep(self, line: Line) -> None:
        machine = self._kept.pop(line, None)
        if machine is not None:
            machine.kept_for = None
            self._changed(machine)

    @property
    def kept(self) -> list[Machine]:
        """Machines where room is kept: what makes there have beyond their first recipe is wanted back."""
        return list(self._kept.values())

    # -- accounts -------------------------------------------------------------------------------------

    @staticmethod
    def _may_ever_take(host: HostState, line: Line) -> bool:
        return host.up and line.group in host.groups and host.name not in line.refused

    def _may_take(self, host: HostState, line: Line) -> bool:
        return self._may_ever_take(host, line) and host.takes_more

    def _changed(self, machine: Machine) -> None:
        """Note a machine's hosts anew. Everything that changes one ends here."""
        self._foresight.changed(machine)
        room = 0
        for host in machine.names:
            host.version += 1
            if self.has_room(host, 1):
                room = machine.free
                for group in host.groups:
                    for wide, ranking in self._rankings.get(group, _NONE).items():
                        ranking.note(host, self.method.key(host, wide))
        self._room_in_all += room - self._room.get(machine, 0)
        self._room[machine] = room

    def _ranking(self, group: Hashable, wide: bool) -> Ranking:
        rankings = self._rankings.setdefault(group, {})
        ranking = rankings.get(wide)
        if ranking is None:
            ranking = rankings[wide] = Ranking()
            for host in self._hosts.values():
                if group in host.groups and self.has_room(host, 1):
                    ranking.note(host, self.method.key(host, wide))
        return ranking


_NONE: dict[bool, Ranking] = {}
