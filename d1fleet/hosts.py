"""All hosts of a build: which are connected, see the same tree, and how much their machines bear.

They come and go: one that was lost, or was not there at the start, is tried again (`retry.py`), the inventory
may get more or lose some, and a server may say that its host is drained.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence

from . import protocol, words
from .connect import Logins
from .environment import TravellingEnvironment
from .errors import ConnectError, D1fleetError, HostError, ProtocolError, TreeError, UnfitError
from .experience import Experience
from .fence import LIMIT_S as LONGEST_FENCE_S
from .fence import fence
from .hostlink import HostLink, State
from .loop import Loop
from .member import Member
from .model import Host
from .placement import HostState, Machine, Scheduler
from .policy import Policy
from .proofs import Proofs
from .record import Record
from .server.facts import machine_identity
from .server.toolchain import fingerprint
from .toolchains import Toolchains, Verdict
from .transport.base import Channel
from .visibility import Visibility

_SILENCE_CHECK_S = 0.25

_MOST_DRAINS = 200
"""Times that a connection may say that its host is drained, or no longer (a guess): people do that."""

_WAIT_SAID_S = 5.0
"""A sub-make that waits longer for a slot on its host is spoken of."""

RETURN_S = 60.0
"""Under --strict, sub-makes wait for a lost host to come back for so long, where no other is left: time for a
machine to boot (a guess).
"""


class Hosts:
    """The hosts of one build.

    Args:
        folder: where the build runs; each host has to see it as we do before it gets work.
        environments: what goes to other machines, and to servers on this one.
        machines: those that have a name for themselves already, by identity: this one; others are added.
        scheduler: is told which hosts can take work, and of their load.
        experience: knows how fast machines are.
        visibility: is told who takes part, and whether that host sees the tree late.
        on_ready: called when a host can take work.
        on_message: called with what hosts say about attempts.
        on_left: called when a host has left, lost or at its end, with what it means for its jobs, and how
            many seconds it will be until they have ended there for certain.
    """

    def __init__(
        self,
        loop: Loop,
        folder: bytes,
        hosts: Sequence[Host],
        policy: Policy,
        environments: tuple[TravellingEnvironment, TravellingEnvironment],
        record: Record,
        machines: dict[str, Machine],
        scheduler: Scheduler,
        experience: Experience,
        visibility: Visibility,
        on_ready: Callable[[], None],
        on_message: Callable[[HostLink, protocol.Message], None],
        on_left: Callable[[HostLink, str, float], None],
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._policy = policy
        self._environment, self._local_environment = environments
        self._record = record
        self._on_ready, self._on_message, self._on_left = on_ready, on_message, on_left
        self._logins: Logins | None = None
        self._machines = machines
        self._scheduler = scheduler
        self._experience = experience
        self._visibility = visibility
        self._late: set[HostLink] = set()
        """Those that may see late what others change in the build's folder."""
        self._proofs = Proofs([folder, *policy.trees], policy.proofs)
        self._toolchains = Toolchains(words.plain(policy.project))
        self._held: set[HostLink] = set()
        """Hosts that say hello and take no part yet: they wait for what others have."""
        self._took_part: set[HostLink] = set()
        """Connections whose hosts were up at some time."""
        self._drains: Counter[HostLink] = Counter()
        """Times that hosts changed their minds about it."""
        self._said_late: set[HostLink] = set()
        """Hosts of which it was said that they acted late."""
        self._said_waiting: set[HostLink] = set()
        """Hosts of which it was said that others hold their slots, and is so still."""
        self._unsure: dict[Member, str] = {}
        """Hosts that were lost with sub-makes at work, and have not said since that those have ended: they
        may be frozen, and go on one day. With their machines, as they called themselves.
        """
        self._fencing: set[Member] = set()
        self._ending = False
        self._given_up = False
        self.outlived = 0
        """Processes that had outlived their sub-makes and were ended with the build."""
        self._compared = _kinds(hosts, policy) > 1
        """Are there hosts that can differ?"""
        self._members: list[Member] = []
        self._member_of: dict[HostLink, Member] = {}
        """By their connections of now."""
        self._former: list[HostLink] = []
        """Connections that others have replaced, as long as something of theirs may run."""
        for host in hosts:
            self._add(host)
        if self._members:
            self._check_silence()

    def _add(self, host: Host) -> Member:
        link = self._new_link(host)
        member = Member(host, link)
        self._members.append(member)
        self._member_of[link] = member
        return member

    @property
    def links(self) -> list[HostLink]:
        """The connections of now, or the last ones, one a host."""
        return [member.link for member in self._members]

    @property
    def every_link(self) -> list[HostLink]:
        """Also former connections of which something may run still."""
        return [*self._former, *self.links]

    @property
    def states(self) -> list[tuple[str, str]]:
        """What became of each host, for people: its name, and `ok` or what was wrong."""
        return [(member.host.name, member.state) for member in self._members]

    def _new_link(self, host: Host) -> HostLink:
        policy = self._policy
        ignored = host.toolchain_mismatch == "ignore"
        welcome = protocol.Welcome(
            build=policy.build,
            uid=os.geteuid(),
            slots=host.slots or 0,
            nice=host.nice,
            setup=host.setup or policy.setup,
            lease_s=policy.lease_s,
            grace_s=policy.grace_s,
            heartbeat_s=policy.heartbeat_s,
            project="" if ignored else policy.project,
            toolchain=self._compared and not ignored,
            host=host.name,
            folder=self._folder,
            environment=self.environment_for(host).start_block,
        )
        return HostLink(
            self._loop, host, welcome, self._admit, self._up, self._message, self._failed, self._lost
        )

    def environment_for(self, host: Host) -> TravellingEnvironment:
        """What of an environment goes to a host: to this very machine, nearly all."""
        return self._local_environment if host.transport == "local" else self._environment

    # -- what the coordinator asks --------------------------------------------------------------------

    def shares(self, device: int) -> bool:
        """Is a folder on this device in a tree that hosts are asked for?"""
        return device in self._proofs.here

    def device_of(self, folder: bytes) -> int:
        """The device of a folder that a host names, -1 when it is not on a tree that hosts share."""
        return self._proofs.device_of(folder)

    def has_machine(self, machine: Machine) -> bool:
        """Is it one of the hosts that are up?"""
        return any(
            link.placement is not None and link.placement.up and link.placement.machine is machine
            for link in self.links
        )

    def closed_to(self, link: HostLink) -> set[str]:
        """Names of hosts that must not run what a job on `link` asks for: those on this machine, on which a
        host of the fleet shall run no commands, unless it is this machine itself or is trusted.
        """
        # A loopback address may be the end of a tunnel: as asker such a host is a stranger, as target not.
        if self._policy.trust_hosts or link.host.transport == "local":
            return set()
        own = machine_identity()
        return {
            other.host.name
            for other in self.links
            if _is_here(other.host) or (other.hello is not None and other.hello.machine == own)
        }

    def others_are_up(self, names: Sequence[str]) -> bool:
        """Can a host take work that is none of these?"""
        return any(
            link.placement is not None and link.placement.up and link.host.name not in names
            for link in self.links
        )

    def link_of(self, host: HostState) -> HostLink:
        return self._members[host.order].link

    @property
    def some_may_come(self) -> bool:
        """Is it worth waiting for a host? For those of the start, until they have had their chance; for one
        that comes later, only when it is nearly there.
        """
        return any(map(self._is_coming, self._members)) or self._some_may_return

    def _is_coming(self, member: Member) -> bool:
        link = member.link
        if link.state is not State.UP:
            return link.open and not member.later
        return link in self._held or self._proofs.asked(link)

    @property
    def _some_may_return(self) -> bool:
        """'No host can ever' is at once, 'none now' has a deadline; only under --strict it is waited for."""
        now = self._loop.now()
        return self._policy.strict and any(
            member.lost_at is not None and now - member.lost_at < RETURN_S for member in self._members
        )

    @property
    def some_may_run(self) -> bool:
        """May anything of the build still run on a host?"""
        return any(link.open or self._wait_s(link) > 0 for link in self.every_link)

    def _wait_s(self, link: HostLink) -> float:
        """How long it takes until what a lost host was given has ended there for certain."""
        now = self._loop.now()
        return 0.0 if self._given_up else link.runs_until(now, self._policy.grace_s) - now

    # -- hosts come -----------------------------------------------------------------------------------

    def begin(self, logins: Logins) -> None:
        """Connect to all hosts, and from now on to those that come."""
        self._logins = logins
        for link in self.links:
            logins.start(link)

    def _admit(self, link: HostLink) -> None:
        """Look at what a host is, before it takes part.

        Raises:
            UnfitError: it has another toolchain than its project.
        """
        if link.hello is None:
            return
        name = link.host.name
        verdict = self._toolchains.judge(name, link.host.toolchain_mismatch, link.hello)
        self._follow_verdicts()
        if verdict.reason:
            raise UnfitError(words.plain(verdict.reason), verdict.mend)
        if verdict.waits:
            self._held.add(link)
        self._say_note(link, verdict)

    def _follow_verdicts(self) -> None:
        """Do what later hosts mean for earlier ones."""
        for link in self.links:
            verdict = self._toolchains.decided.pop(link.host.name, None)
            if verdict is None or not link.open:
                continue
            held = link in self._held
            self._held.discard(link)
            if verdict.reason:
                self._leave_out(link, UnfitError(words.plain(verdict.reason), verdict.mend))
            elif held:
                self._say_note(link, verdict)
                self._up(link)

    def _say_note(self, link: HostLink, verdict: Verdict) -> None:
        if verdict.note:
            words.say(words.plain(f"host {link.host.name}: {verdict.note}"))

    def _settle_toolchains(self) -> None:
        """Hosts that wait for a second opinion do not wait for ever."""
        if self._held and not any(link.open and link.state is not State.UP for link in self.links):
            self._toolchains.settle(alone=len(self._members) == 1)
            self._follow_verdicts()

    def _leave_out(self, link: HostLink, error: UnfitError) -> None:
        """Give a host up that takes part already; what it has begun it may end."""
        if link.placement is not None and link.at_work:
            self._member_of[link].unfit = error.message
            self._bar(link)
            words.say(f"host {link.host.name} gets no more sub-makes: {error}")
            self._write(link, "host-drained", reason=error.message)
        else:
            link.fail(error)

    def _up(self, link: HostLink) -> None:
        hello = link.hello
        if link in self._held:
            self._settle_toolchains()
            return
        if hello is None:
            return
        machine = self._machine_of(link, hello)
        order = self._members.index(self._member_of[link])
        link.placement = HostState(link.host.name, machine, order, max_jobs=link.host.max_jobs, up=False)
        try:
            self._proofs.ask(link)
        except TreeError as error:
            self._proofs.withdraw()
            link.fail(error)

    def _machine_of(self, link: HostLink, hello: protocol.Hello) -> Machine:
        """The machine behind a name. What a former connection was given there still counts; its size is what
        the machine says now, unless another name of it takes part.
        """
        machine = self._machines.setdefault(hello.machine or link.host.name, Machine(slots=1))
        # Its own word that it is this very machine must not decide how much runs here; the inventory may.
        claims = hello.machine == machine_identity() and not _is_here(link.host)
        slots = link.host.slots if claims else hello.slots
        if slots is None:
            return machine
        if not any(
            other.open and other.placement and other.placement.machine is machine for other in self.links
        ):
            machine.slots, machine.cpus = max(1, slots), max(1, hello.cpus)
            self._experience.of_machine(machine, hello.machine, link.host.name)
        return machine

    def _tree_checked(self, link: HostLink, message: protocol.TreeChecked) -> None:
        if link.placement is None or not self._proofs.asked(link):
            return
        if message.late and message.tree == 0:
            self._late.add(link)
        if not self._proofs.answered(link, message):
            mend = "mount the tree on that host at the same path, or build in a folder that all hosts share"
            link.fail(UnfitError(words.plain(message.reason), mend))
        elif not self._proofs.asked(link):
            self._takes_part(link)

    def _takes_part(self, link: HostLink) -> None:
        member = self._member_of[link]
        member.retry.up(self._loop.now())
        if member.error is not None:
            words.say(
                f"host {link.host.name}: it is there {'again' if member.lost_at is not None else 'now'}"
            )
        member.error = member.lost_at = None
        self._took_part.add(link)
        self._record.write(
            event="host-up",
            at_s=round(self._loop.now(), 4),
            host=link.host.name,
            slots=link.placement.machine.slots if link.placement is not None else 0,
            transport=link.transport,
            transport_reason=link.transport_reason,
            fingerprint=_fingerprint(link),
            same_machine=self._other_names(link),
        )
        self._proofs.settle(self.links)
        self._visibility.takes_part(link, link in self._late)
        self._bar(link)

    def _other_names(self, link: HostLink) -> list[str]:
        """Names of the same machine that take part already: they share its slots."""
        return [
            other.host.name
            for other in self.links
            if other is not link
            and other in self._took_part
            and other.placement is not None
            and link.placement is not None
            and other.placement.machine is link.placement.machine
        ]

    @property
    def same_machines(self) -> list[list[str]]:
        """Hosts that are one machine, as far as they take part; machines with one name are left out."""
        found: dict[Machine, list[str]] = {}
        for link in self.links:
            if link.placement is not None and link in self._took_part:
                found.setdefault(link.placement.machine, []).append(link.host.name)
        return [names for names in found.values() if len(names) > 1]

    def _bar(self, link: HostLink) -> None:
        """Give it work, or no more, whatever holds now."""
        if link.placement is not None:
            if link.open and link in self._took_part and not self._member_of[link].barred:
                link.placement.groups = frozenset(self._proofs.seen(link))
                self._scheduler.join(link.placement, self._loop.now())
            else:
                self._scheduler.leave(link.placement)
            self._on_ready()

    # -- the inventory changes ------------------------------------------------------------------------

    def follow(self, hosts: Sequence[Host]) -> None:
        """Go by a new inventory: new hosts come, those that it lost get no more work, and what it says of the
        others is for their next connection.
        """
        if self._ending:
            return
        self._compared = self._compared or _kinds(hosts, self._policy) > 1
        wanted = {host.name: host for host in hosts}
        for member in list(self._members):
            host = wanted.pop(member.host.name, None)
            if host is None:
                self._remove(member)
            elif member.removed:
                self._take_back(member, host)
            elif host != member.host:
                member.host = host
                if member.timer is not None:  # perhaps this was the mend
                    self._try_later(member, 0.0)
        for host in wanted.values():
            member = self._add(host)
            member.later = True
            self._write(member.link, "host-added")
            words.say(f"host {host.name} is new in the inventory")
            if self._logins is not None:
                self._logins.start(member.link)

    def _remove(self, member: Member) -> None:
        if member.removed:
            return
        member.removed = True
        member.stop_trying()
        self._write(member.link, "host-removed")
        if member.link.open and member.link not in self._took_part:
            member.link.fail(HostError("the inventory no longer has it"))
        else:
            words.say(f"host {member.host.name} gets no more sub-makes: {member.barred}")
            self._bar(member.link)

    def _take_back(self, member: Member, host: Host) -> None:
        member.removed, member.host = False, host
        self._write(member.link, "host-added")
        words.say(f"host {host.name} is in the inventory again")
        if member.link.open:
            self._bar(member.link)
        else:
            self._try_later(member, 0.0)

    # -- hosts speak ----------------------------------------------------------------------------------

    def _message(self, link: HostLink, message: protocol.Message) -> None:
        if isinstance(message, protocol.Beat):
            self._heard_load(link, message)
        elif isinstance(message, protocol.TreeChecked):
            self._tree_checked(link, message)
        elif isinstance(message, protocol.Gone):
            self.outlived += message.left
            self._record.write(event="debt", host=link.host.name, debt_s=message.debt_s)
            self._ended(link)
        elif isinstance(message, protocol.Drain):
            self._drain(link, message)
        elif isinstance(message, protocol.Alone):
            self._says_alone(link)
        elif isinstance(message, protocol.FencedLate) and link not in self._said_late:
            self._said_late.add(link)
            words.say(f"host {link.host.name} acted {message.late_s:.1f} s after its lease had ended")
        elif not isinstance(message, protocol.FencedLate):
            self._on_message(link, message)

    def _says_alone(self, link: HostLink) -> None:
        """All that it was given over earlier connections has ended, if it is the same machine still."""
        member = self._member_of[link]
        machine = link.hello.machine if link.hello is not None else ""
        if self._unsure.get(member) == machine:
            del self._unsure[member]
        for former in self._former:
            hello = former.hello
            same = hello is not None and (former.host.name, hello.machine) == (link.host.name, machine)
            if same and former.confirm():
                self._on_left(former, "its host was lost", 0.0)

    def _fence_of(self, member: Member) -> str:
        return member.host.fence or self._policy.fence

    def _fence(self, member: Member, link: HostLink) -> None:
        """It should have ended everything by now. Where the site can make sure of that, it does, before its
        work is done again.
        """
        command = self._fence_of(member)
        if member not in self._unsure or member in self._fencing or not command or self._given_up:
            self._on_left(link, "its host was lost", 0.0)
            return
        name = words.plain(member.host.name)
        words.say(f"host {name} has not been heard of since: fence is run for it")
        self._fencing.add(member)

        def done(reason: str) -> None:
            self._fencing.discard(member)
            if reason:
                words.say(f"host {name}: fence failed, {reason}")
            else:
                words.say(f"host {name}: fence has made sure that nothing runs there")
                self._unsure.pop(member, None)
            self._write(member.link, "host-fenced", reason=reason)
            self._on_left(link, "its host was lost", 0.0)
            self._on_ready()

        fence(self._loop, command, member.host, done)

    @property
    def fencing(self) -> bool:
        """Is a fence at work?"""
        return bool(self._fencing) and not self._given_up

    @property
    def unsure(self) -> list[str]:
        """Hosts of which nobody knows whether what they were doing when they were lost goes on one day."""
        return sorted(member.host.name for member in self._unsure)

    def _heard_load(self, link: HostLink, beat: protocol.Beat) -> None:
        """Others' load on a machine is what none of this build's servers there uses."""
        if link.placement is None:
            return
        machine = link.placement.machine
        siblings = (
            other.load.own_cpus
            for other in self.links
            if other is not link and other.load and other.placement and other.placement.machine is machine
        )
        others_cpus = beat.others_cpus - sum(siblings)
        self._scheduler.loaded(machine, others_cpus, beat.memory_available_bytes, beat.load_1min)
        if beat.waited_s > _WAIT_SAID_S and link not in self._said_waiting:
            self._said_waiting.add(link)
            words.say(f"host {link.host.name}: sub-makes wait for slots there that other builds hold")
        elif not beat.waited_s:
            self._said_waiting.discard(link)

    def _drain(self, link: HostLink, message: protocol.Drain) -> None:
        """Somebody drains its host, or does so no more.

        Raises:
            ProtocolError: that goes on and on.
        """
        member = self._member_of[link]
        reason = (words.plain(message.reason) or "drained") if message.on else ""
        if reason == member.drained:
            return
        self._drains[link] += 1
        if self._drains[link] > _MOST_DRAINS:
            raise ProtocolError("Drain, again and again")
        member.drained = reason
        name = link.host.name
        if reason:
            words.say(f"host {name} gets no more sub-makes: {reason}")
        else:
            words.say(f"host {name} is no longer drained")
        self._write(link, "host-drained" if reason else "host-undrained", reason=reason)
        self._bar(link)

    # -- hosts go -------------------------------------------------------------------------------------

    def _failed(self, link: HostLink) -> None:
        if link.error is not None:
            self._out(link, link.error, "host-failed", self._member_of[link].retry.failed(link.error))
        self._left(link, "")

    def _lost(self, link: HostLink) -> None:
        error, member, now = link.error, self._member_of[link], self._loop.now()
        if link not in self._took_part or error is None:
            # One that sees another tree has never taken part, though its server ran.
            self._failed(link)
            return
        again_s = member.retry.lost(now) if isinstance(error, HostError) else member.retry.failed(error)
        member.lost_at = now if again_s is not None and not self._ending else None
        self._out(link, error, "host-lost", again_s)
        wait_s = self._wait_s(link)
        if wait_s > 0:
            self._unsure[member] = link.hello.machine if link.hello is not None else ""
            self._loop.call_later(wait_s, lambda: self._fence(member, link))
            words.say(
                f"host {link.host.name}: what runs there ends in {wait_s:.0f} s at the latest; waiting,"
                " so that nothing is made by two at once"
            )
        self._left(link, "its host was lost")
        self._wait_for_return()

    def _ended(self, link: HostLink) -> None:
        """Its server has said that nothing of the build is left there."""
        if not self._ending:
            member, now = self._member_of[link], self._loop.now()
            member.lost_at = now
            self._out(link, HostError("its server has ended"), "host-lost", member.retry.lost(now))
        self._left(link, "its server has ended")
        self._wait_for_return()

    def _out(self, link: HostLink, error: D1fleetError, event: str, again_s: float | None) -> None:
        """It takes no part: say so, if that is news, and try again in `again_s` seconds."""
        member = self._member_of[link]
        if again_s is not None:
            self._try_later(member, again_s)
        if self._ending and event == "host-failed":
            return
        if member.is_news(error):
            member.error = error
            # Where somebody has to mend something, that is what counts.
            passes = isinstance(error, ConnectError) or type(error) is HostError
            again = "; it is tried again" if passes and member.timer is not None else ""
            words.say(f"host {link.host.name}: {type(error)(error.message + again, error.mend)}")
            self._write(link, event, reason=error.message)

    def _wait_for_return(self) -> None:
        if self._some_may_return and not any(link.placement and link.placement.up for link in self.links):
            words.say(
                f"no host is left: sub-makes wait up to {RETURN_S:.0f} s for one to come back (--strict)"
            )
            self._loop.call_later(RETURN_S, self._on_ready)

    def _left(self, link: HostLink, meaning: str) -> None:
        if link.placement is not None:
            self._scheduler.leave(link.placement)
        self._held.discard(link)
        self._late.discard(link)
        self._visibility.left(link)
        self._proofs.settle(self.links)
        self._settle_toolchains()
        wait_s = self._wait_s(link)
        fenced = wait_s > 0 and bool(self._fence_of(self._member_of[link]))
        self._on_left(link, meaning, wait_s + (LONGEST_FENCE_S if fenced else 0.0))

    # -- and come again -------------------------------------------------------------------------------

    def _try_later(self, member: Member, delay_s: float) -> None:
        member.stop_trying()
        if not self._ending and not member.removed:
            # Not all at the same moment when they were lost at the same moment.
            delay_s *= random.uniform(0.9, 1.1)
            member.timer = self._loop.call_later(delay_s, lambda: self._try(member))

    def _try(self, member: Member) -> None:
        host = member.host
        if self._logins is not None and not self._ending:
            self._logins.again(
                host,
                lambda channel: self._arrived(member, host, channel),
                lambda error: self._not_let_in(member, error),
                lambda: self._try_later(member, member.retry.absent()),
            )

    def _not_let_in(self, member: Member, error: D1fleetError) -> None:
        if not member.link.open and not member.removed:
            self._out(member.link, error, "host-failed", member.retry.failed(error))

    def _arrived(self, member: Member, host: Host, channel: Channel) -> None:
        """The login went well: a new connection takes the place of the old one."""
        if self._ending or member.removed or member.link.open:
            channel.close()
            return
        former = member.link
        self._former = [link for link in [*self._former, former] if self._wait_s(link) > 0]
        self._proofs.drop(former)
        del self._drains[former]
        self._took_part.discard(former)
        del self._member_of[former]
        self._toolchains.forget(host.name)
        member.link = self._new_link(host)
        self._member_of[member.link] = member
        member.later, member.drained, member.unfit = True, "", ""
        member.timer = None
        member.link.connected(channel)

    def _check_silence(self) -> None:
        now = self._loop.now()
        for link in self.links:
            link.check_silence(now, self._policy.lease_s)
        if not self._ending or any(link.open for link in self.links):
            self._loop.call_later(min(_SILENCE_CHECK_S, self._policy.lease_s / 4), self._check_silence)

    def pause(self, on: bool) -> None:
        """Stop or continue what runs there; leases go on."""
        for link in self.links:
            if link.state is State.UP:
                link.send(protocol.Pause(on=on))

    def take_leave(self, kill: bool, limit_s: float) -> None:
        """Ask all to end what is left of the build; those that do not answer in time are named.

        Args:
            kill: at once; those that are lost are not waited for.
            limit_s: how long those that can answer have for it.
        """
        self._ending = True
        for member in self._members:
            member.stop_trying()
        lost_s = max([0.0, *map(self._wait_s, self.every_link)])
        if lost_s and not kill:
            words.say(
                f"waiting up to {lost_s:.0f} s for what may run on lost hosts; Ctrl-C again does not wait"
            )
            limit_s = max(limit_s, lost_s)
        for link in self.links:
            if link.state is State.UP:
                link.send(protocol.Bye(kill=kill))
            elif link.open:
                # A host that is off is connecting, too: none of them is said to be sound or broken.
                link.fail(HostError(f"still {link.state.value} when the build ended"))
        self._loop.call_later(limit_s, self._give_up)

    def _give_up(self) -> None:
        uncertain = [link for link in self.every_link if self._wait_s(link) > 0]
        self._given_up = True
        for link in uncertain:
            words.say(f"host {link.host.name}: something of the build may still run there for a while")
            self._on_left(link, "its host was lost", 0.0)
        for link in self.links:
            if link.open:
                link.fail(
                    HostError("it has not confirmed that nothing of the build is left there", "look at it")
                )

    def close(self) -> None:
        """Give everything back."""
        for link in self.links:
            link.disconnect()
        self._proofs.withdraw()

    def _write(self, link: HostLink, event: str, reason: str = "") -> None:
        name, found = link.host.name, _fingerprint(link)
        at_s = round(self._loop.now(), 4)
        self._record.write(event=event, at_s=at_s, host=name, reason=reason, fingerprint=found)


def _kinds(hosts: Sequence[Host], policy: Policy) -> int:
    """How many hosts can have toolchains of their own: those on this machine differ by their setups alone."""
    here = {host.setup or policy.setup for host in hosts if host.transport == "local"}
    return len(here) + sum(host.transport != "local" for host in hosts)


def _fingerprint(link: HostLink) -> str:
    """Of what compiles there; empty where nobody asked."""
    return fingerprint(link.hello.toolchain) if link.hello is not None else ""


def _is_here(host: Host) -> bool:
    """Do we know, not only from its own words, that this host is this very machine?"""
    address = host.address or host.name
    return host.transport == "local" or address.startswith("127.") or address in ("localhost", "::1")
