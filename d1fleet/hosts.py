"""All hosts of a build: which are connected, see the same tree, and how much their machines bear."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from . import protocol, words
from .environment import TravellingEnvironment
from .errors import HostError, TreeError, UnfitError
from .hostlink import HostLink, State
from .loop import Loop
from .model import Host
from .placement import HostState, Machine, has_room
from .policy import Policy
from .record import Record
from .server.facts import machine_identity
from .server.toolchain import fingerprint
from .toolchains import Toolchains, Verdict
from .tree import Tree, forget, prove

_SILENCE_CHECK_S = 0.25

_WAIT_SAID_S = 5.0
"""A sub-make that waits longer for a slot on its host is spoken of."""


class Hosts:
    """The hosts of one build.

    Args:
        folder: where the build runs; each host has to see it as we do before it gets work.
        environments: what goes to other machines, and to servers on this one.
        machines: those that have a name for themselves already, by identity: this one.
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
        self._machines = machines
        self._known_machines: set[str] = set()
        """Identities of machines that a host has told of."""
        self._folders = [folder, *policy.trees]
        self._here = {device for device in map(_device, self._folders) if device is not None}
        """Devices of these folders."""
        self._roots = {_mount_point(each): device for each in self._folders if (device := _device(each))}
        """Where their file systems are mounted here, innermost first -> device."""
        self._trees: list[Tree] = []
        """Proofs of these folders that lie there now."""
        self._unchecked: dict[HostLink, set[int]] = {}
        """Trees that a host has still to answer for."""
        self._devices: dict[HostLink, set[int]] = {}
        """Devices, as seen here, on which a host has the same files as we."""
        self._toolchains = Toolchains(words.plain(policy.project))
        self._compared = _kinds(hosts, policy) > 1
        """Are there hosts that can differ?"""
        self._held: set[HostLink] = set()
        """Hosts that say hello and take no part yet: they wait for what others have."""
        self._took_part: set[HostLink] = set()
        """Hosts that were up at some time."""
        self._said_waiting: set[HostLink] = set()
        """Hosts of which it was said that others hold their slots, and is so still."""
        self._ending = False
        self._given_up = False
        self.outlived = 0
        """Processes that had outlived their sub-makes and were ended with the build."""
        self.links = [self._new_link(host) for host in hosts]
        if self.links:
            self._check_silence()

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
        return device in self._here

    def for_device(self, device: int) -> list[HostState]:
        """Hosts that see a folder on this device as we do."""
        return [
            link.placement
            for link in self.links
            if link.placement is not None and device in self._devices.get(link, ())
        ]

    def device_of(self, folder: bytes) -> int:
        """The device of a folder that a host names, -1 when it is not on a tree that hosts share. Nothing is
        looked up: a name from elsewhere must not make this machine mount or read anything.
        """
        if b".." in folder.split(b"/"):
            return -1
        for root, device in self._roots.items():
            if folder == root or folder.startswith(root.rstrip(b"/") + b"/"):
                return device
        return -1

    def has_machine(self, machine: Machine) -> bool:
        """Is it one of the hosts that are up?"""
        return any(
            link.placement is not None and link.placement.up and link.placement.machine is machine
            for link in self.links
        )

    def others_have_room(self, machine: Machine) -> bool:
        """Would a host on another machine take a job now?"""
        return any(
            link.placement is not None
            and link.placement.machine is not machine
            and has_room(link.placement, 1)
            for link in self.links
        )

    def elsewhere(self, link: HostLink, device: int) -> list[HostState]:
        """Hosts that may take what a job on `link` asks for: on other machines, and not on this one, which
        a host of the fleet shall not run commands on, unless that is this machine itself or is trusted.
        """
        if link.placement is None:
            return []
        hosts = [host for host in self.for_device(device) if host.machine is not link.placement.machine]
        if self._policy.trust_hosts or _is_here(link.host):
            return hosts
        own = machine_identity()
        return [
            host for host in hosts if not _is_here(self.link_of(host).host) and self._identity(host) != own
        ]

    def _identity(self, host: HostState) -> str:
        hello = self.link_of(host).hello
        return hello.machine if hello is not None else ""

    def link_of(self, host: HostState) -> HostLink:
        return self.links[host.order]

    @property
    def some_may_come(self) -> bool:
        """Are there hosts that have not had their chance yet?"""
        return any(
            link.open and (link.state is not State.UP or link in self._held or self._unchecked.get(link))
            for link in self.links
        )

    @property
    def some_may_run(self) -> bool:
        """May anything of the build still run on a host?"""
        return any(link.open or self._wait_s(link) > 0 for link in self.links)

    def _wait_s(self, link: HostLink) -> float:
        """How long it takes until what a lost host was given has ended there for certain."""
        now = self._loop.now()
        return 0.0 if self._given_up else link.runs_until(now, self._policy.grace_s) - now

    # -- hosts come -----------------------------------------------------------------------------------

    def _prove_trees(self) -> None:
        """Write the proofs, just before a host is asked for them: recipes see what lies in the tree."""
        if not self._trees:
            for number, folder in enumerate(self._folders):
                self._trees.append(prove(number, folder, self._policy.proofs))

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
            self._toolchains.settle(alone=len(self.links) == 1)
            self._follow_verdicts()

    def _leave_out(self, link: HostLink, error: UnfitError) -> None:
        """Give a host up that takes part already; what it has begun it may end."""
        if link.placement is not None and link.at_work:
            link.placement.up = False
            words.say(f"host {link.host.name} gets no more sub-makes: {error}")
            self._record.write(
                event="host-drained",
                host=link.host.name,
                reason=error.message,
                fingerprint=_fingerprint(link),
            )
        else:
            link.fail(error)

    def _up(self, link: HostLink) -> None:
        hello = link.hello
        if link in self._held:
            self._settle_toolchains()
            return
        if hello is None:
            return
        name = hello.machine or link.host.name
        machine = self._machines.setdefault(name, Machine(slots=1))
        if name not in self._known_machines:
            self._known_machines.add(name)
            machine.slots, machine.cpus = max(1, hello.slots), max(1, hello.cpus)
        try:
            self._prove_trees()
        except TreeError as error:
            self._withdraw_proofs()
            link.fail(error)
            return
        order = self.links.index(link)
        link.placement = HostState(link.host.name, machine, order, max_jobs=link.host.max_jobs, up=False)
        self._unchecked[link] = {tree.number for tree in self._trees}
        for tree in self._trees:
            link.send(protocol.CheckTree(0, tree.number, tree.folder, tree.nonce, tree.content))

    def _tree_checked(self, link: HostLink, message: protocol.TreeChecked) -> None:
        unchecked = self._unchecked.get(link)
        if unchecked is None or message.tree not in unchecked or link.placement is None:
            return
        unchecked.discard(message.tree)
        if not message.reason and message.tree < len(self._trees):
            self._devices.setdefault(link, set()).add(self._trees[message.tree].device)
        elif message.tree == 0:
            mend = "mount the tree on that host at the same path, or build in a folder that all hosts share"
            link.fail(HostError(words.plain(message.reason), mend))
            return
        if not unchecked:
            link.placement.up = True
            self._took_part.add(link)
            self._record.write(
                event="host-up",
                host=link.host.name,
                slots=link.placement.machine.slots,
                transport=link.transport,
                transport_reason=link.transport_reason,
                fingerprint=_fingerprint(link),
            )
            self._settle_proofs()
            self._on_ready()

    def _settle_proofs(self) -> None:
        """Remove the proofs once all hosts that were asked have answered; a later one gets new ones."""
        if not any(link.open and self._unchecked.get(link) for link in self.links):
            self._withdraw_proofs()

    def _withdraw_proofs(self) -> None:
        for tree in self._trees:
            forget(tree)
        self._trees.clear()

    # -- hosts speak ----------------------------------------------------------------------------------

    def _message(self, link: HostLink, message: protocol.Message) -> None:
        if isinstance(message, protocol.Beat):
            self._heard_load(link, message)
        elif isinstance(message, protocol.TreeChecked):
            self._tree_checked(link, message)
        elif isinstance(message, protocol.Gone):
            self.outlived += message.left
            if not self._ending:
                words.say(f"host {link.host.name}: its server has ended")
            self._left(link, "its server has ended")
        elif isinstance(message, protocol.FencedLate):
            words.say(f"host {link.host.name} acted {message.late_s:.1f} s after its lease had ended")
        else:
            self._on_message(link, message)

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
        machine.others_cpus = max(0.0, beat.others_cpus - sum(siblings))
        if beat.waited_s > _WAIT_SAID_S and link not in self._said_waiting:
            self._said_waiting.add(link)
            words.say(f"host {link.host.name}: sub-makes wait for slots there that other builds hold")
        elif not beat.waited_s:
            self._said_waiting.discard(link)

    # -- hosts go -------------------------------------------------------------------------------------

    def _failed(self, link: HostLink) -> None:
        self._tell(link, "host-failed")
        self._left(link, "")

    def _lost(self, link: HostLink) -> None:
        # One that sees another tree has never taken part, though its server ran.
        self._tell(link, "host-lost" if link in self._took_part else "host-failed")
        self._left(link, "its host was lost")

    def _tell(self, link: HostLink, event: str) -> None:
        error = link.error
        if error is None or (self._ending and event == "host-failed"):
            return
        words.say(f"host {link.host.name}: {error}")
        self._record.write(
            event=event, host=link.host.name, reason=error.message, fingerprint=_fingerprint(link)
        )
        wait_s = self._wait_s(link)
        if wait_s > 0:
            words.say(
                f"host {link.host.name}: what runs there ends in {wait_s:.0f} s at the latest; waiting,"
                " so that nothing is made by two at once"
            )

    def _left(self, link: HostLink, meaning: str) -> None:
        if link.placement is not None:
            link.placement.up = False
        self._held.discard(link)
        self._settle_proofs()
        self._settle_toolchains()
        self._on_left(link, meaning, self._wait_s(link))

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
        lost_s = max([0.0, *map(self._wait_s, self.links)])
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
        uncertain = [link for link in self.links if self._wait_s(link) > 0]
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
        self._withdraw_proofs()


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


def _mount_point(folder: bytes) -> bytes:
    """The root of the file system that a folder is on."""
    device = _device(folder)
    while folder != b"/" and _device(os.path.dirname(folder)) == device:
        folder = os.path.dirname(folder)
    return folder


def _device(folder: bytes) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None
