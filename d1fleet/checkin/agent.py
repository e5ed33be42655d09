"""The agent: looks at this host, talks to the registry, and has files written that follow from both."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from ..errors import D1fleetError, UsageError
from ..loop import Loop
from . import applier, config, probes, talk
from .answer import Answer, Refusal
from .firewall import NO_TABLE
from .journal import ERROR, INFO, NOTICE, WARNING, Notifier, log
from .looks import ConfigurationFile, Toolchain, Watch
from .places import AgentPlaces
from .report import Meter, Reporter
from .state import State
from .strictjson import BadDocumentError
from .troubles import Troubles
from .view import Own, View

LOOK_EACH_S = 1.0
"""At what nobody tells us of."""

MERCY_S = 30.0
"""Later than that, and what we wait for does not come any more: systemd may start us anew."""

CLOSE_S = 0.5


class Agent(talk.Listener):
    """One host's.

    Raises:
        UsageError: the configuration, or the registry's certificate, cannot be used.
        RuntimeFolderError: the folder of its state cannot be used.
        OSError: that folder cannot be written into.
    """

    def __init__(self, loop: Loop, places: AgentPlaces, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._file = ConfigurationFile(places.config)
        self._state = State(places.state)
        self._credential_stamp = config.stamp(self._state.credential_path)
        self._reporter = Reporter(self._state.machine())
        self._meter = Meter()
        self._view = View()
        self._strikes = probes.Strikes()
        self._round: probes.Round | None = None
        self._round_due_s = 0.0
        self._troubles = Troubles()
        self._noted: dict[str, Any] = {}
        self._restore()
        self._talk = self._new_talk()
        self._watch = Watch(loop, self._file.now, self._look)
        self._toolchain = Toolchain(loop, self._state.cache, self._look)
        self._applier = applier.Applier(loop, places.helper, self._applied)
        self._loop.call_later(0.0, self._tick)
        self._kicked_s = 0.0

    def _restore(self) -> None:
        kept = self._state.peers()
        if kept is not None:
            try:
                self._view.restore(kept, self._file.now.networks)
            except BadDocumentError as error:
                log(WARNING, f"what was kept of the last run is of no use: {error}")

    def _new_talk(self) -> talk.Talk:
        """Raises:
        UsageError: the certificate cannot be used.
        """
        settings = self._file.now
        try:
            certificate = talk.read_certificate(settings.certificate)
        except OSError as error:
            raise UsageError(
                f"{settings.certificate} cannot be read: {error.strerror}", "copy the registry's certificate"
            ) from error
        return talk.Talk(self._loop, settings, certificate, self._state.credential(), self)

    # Each second, and when something happens

    def _tick(self) -> None:
        self._loop.call_later(LOOK_EACH_S, self._tick)
        self.reload_if_changed()
        stamp = config.stamp(self._state.credential_path)
        if stamp != self._credential_stamp:
            self._credential_stamp = stamp
            self._talk.set_credential(self._state.credential())
        self._toolchain.look_if_due(self._file.now.tools)
        self._look()
        self._probe_if_away()
        self._tell_systemd()

    def reload_if_changed(self, *, force: bool = False) -> None:
        """Read the configuration if it is another by now."""
        if self._file.changed(force=force):
            try:
                new = self._new_talk()
            except UsageError as error:
                self._troubles.say("configuration", WARNING, f"the old registry stays: {error.message}")
            else:
                self._troubles.say("configuration", WARNING, "", "the new registry can be used")
                log(NOTICE, "the configuration was read anew")
                self._talk.close(0.0)
                self._talk = new
                self._view.forget_revisions()
                self._applier.again()
        self._troubles.report("configuration", self._file.fault)

    def _look(self) -> None:
        """See what there is, and tell whom it concerns."""
        before = self._watch.look(self._file.now, self._toolchain.parts)
        now = self._watch.now
        if now != before:
            if now.addresses != before.addresses:
                log(NOTICE, f"addresses: {', '.join(now.addresses) or 'none'}")
                self._talk.reconnect()
            if now.serving and not before.serving:
                # Whoever has started it may have loaded rules without members.
                self._applier.again()
            self._talk.pace.hurry(self._loop.now())
            self._apply()
        self._beat_later()

    def _beat_later(self) -> None:
        self._talk.beat_if_due()
        # Due before the next look, it is not to be that late.
        wait_s = self._talk.pace.due_s - self._loop.now()
        if 0 < wait_s < LOOK_EACH_S:
            self._loop.call_later(wait_s, self._talk.beat_if_due)

    @property
    def _own(self) -> Own:
        now = self._watch.now
        return Own(now.slots, self._file.now.port, frozenset(self._watch.addresses))

    def _apply(self) -> None:
        """Have files written; of a host that was never told anything, there is nothing to write."""
        if self._view.name or self._talk.is_outcast:
            self._applier.want(self._view.request(self._own, self._strikes.silent))

    def _applied(self, changed: list[str], faults: list[str]) -> None:
        if changed:
            log(INFO, f"written: {', '.join(changed)}")
        if not self._watch.now.serving:
            faults = [fault for fault in faults if fault != NO_TABLE]
        self._troubles.say("files", WARNING, "; ".join(faults), "files are as they should be")
        self._troubles.report("files", "; ".join(faults))

    # The registry

    def report(self) -> dict[str, Any]:
        """See Listener."""
        moment = self._meter.sample()
        return self._reporter.report(self._file.now, self._watch.now, moment, str(self._troubles))

    def known(self) -> dict[str, str]:
        """See Listener."""
        return self._view.known()

    def answered(self, found: Answer) -> bool:
        """See Listener."""
        try:
            news = self._view.take(found)
        except BadDocumentError:
            self._view.forget_revisions()
            raise
        if found.credential:
            self._keep_credential(found.credential)
        if news:
            log(INFO, f"peers: {self._summary()}")
            self._keep_peers()
        self._troubles.report("registry", "")
        self._troubles.say("registry", NOTICE, "", "the registry answers")
        self._troubles.say("peers", WARNING, found.message, "peers get this host")
        back = self._strikes.clear()
        if back:
            log(NOTICE, "the registry is back: peers are as it says")
        if news or back or not self._applier.was_asked:
            self._apply()
        self._note("", found.message)
        return news

    def _keep_credential(self, credential: str) -> None:
        try:
            self._state.keep_credential(credential)
            self._credential_stamp = config.stamp(self._state.credential_path)
        except OSError as error:
            # The one that is kept is void, or soon will be: after a restart this host would be nobody.
            fault = f"a new credential cannot be kept: {error.strerror}"
        else:
            fault = ""
        self._troubles.say("credential", ERROR, fault, "the new credential is kept")
        self._troubles.report("credential", fault)

    def _keep_peers(self) -> None:
        try:
            self._state.keep_peers(self._view.document())
        except OSError as error:
            log(WARNING, f"peers cannot be kept for the next start: {error.strerror}")

    def thrown_out(self, refusal: Refusal) -> None:
        """See Listener."""
        self._troubles.say("registry", ERROR, f"this host is no member any more: {refusal}. {refusal.mend}")
        if self._view.withdraw():
            self._keep_peers()
        self._strikes.clear()
        self._apply()
        self._note(refusal.code, refusal.message)

    def failed(self, code: str, why: str) -> None:
        """See Listener."""
        self._troubles.say("registry", WARNING if code == talk.AWAY else ERROR, why)
        if code != talk.AWAY:
            self._troubles.report("registry", why)
        self._note(code, why)

    def _note(self, code: str, message: str) -> None:
        """For who looks whether this host is a member: how the last try has ended, when that is another."""
        noted = {
            "ok": not code,
            "code": code,
            "message": message,
            "name": self._view.name,
            "projects": list(self._view.news),
        }
        if noted != self._noted:
            self._noted = noted
            try:
                self._state.keep_status({"at": time.time(), **noted})
            except OSError as error:
                log(WARNING, f"the status cannot be noted: {error.strerror}")

    # While it is away

    def _probe_if_away(self) -> None:
        now_s = self._loop.now()
        away = self._talk.pace.is_away(now_s) and self._talk.is_member
        if not away:
            self._end_round()
        elif self._round is None and now_s >= self._round_due_s:
            self._round_due_s = now_s + probes.EACH_BEATS * self._talk.pace.beat_s
            self._round = probes.Round(self._loop, self._view.targets(self._own), self._probed)

    def _probed(self, answered: dict[tuple[str, int], bool]) -> None:
        self._round = None
        if self._strikes.note(answered):
            silent = sorted(self._strikes.silent)
            log(WARNING, f"peers that do not answer: {len(silent)} of {len(answered)}")
            self._apply()

    def _end_round(self) -> None:
        if self._round is not None:
            self._round.close()
            self._round = None
        self._round_due_s = 0.0

    # Words

    def _summary(self) -> str:
        counts = {name: len(each.project.entries) for name, each in self._view.news.items()}
        return ", ".join(f"{name} {count}" for name, count in counts.items()) or "in no project"

    def _tell_systemd(self) -> None:
        now_s = self._loop.now()
        if self._notifier.watchdog_s and now_s - self._kicked_s >= self._notifier.watchdog_s / 4:
            if self._talk.hangs(MERCY_S) or self._applier.hangs(MERCY_S):
                log(ERROR, "something that we wait for does not come")
            else:
                self._notifier.tell("WATCHDOG=1")
                self._kicked_s = now_s
        if not self._credential_stamp:
            self._notifier.status("this host has not joined")
        elif self._view.name or self._troubles.of("registry"):
            self._notifier.status(self._troubles.of("registry") or f"peers: {self._summary()}")

    # The end

    def stop(self) -> None:
        """Say goodbye, and have the loop end."""
        self._notifier.tell("STOPPING=1")
        # First: a check-in that came behind our goodbye would bring us back.
        self._talk.hang_up()
        if self._talk.is_member:
            # Not to be held up by a name service.
            goodbye = threading.Thread(target=self._leave, name="leave", daemon=True)
            goodbye.start()
            goodbye.join(talk.LEAVE_LIMIT_S + 0.2)
        self._loop.stop()

    def _leave(self) -> None:
        try:
            self._talk.leave()
        except D1fleetError as error:
            log(WARNING, f"the registry was not told that we go: {error.message}")

    def close(self) -> bool:
        """Give everything back; returns whether nothing is under way any more."""
        self._end_round()
        self._toolchain.close()
        self._watch.close()
        ended = [self._talk.close(CLOSE_S), self._applier.close(CLOSE_S)]
        return all(ended)


def run(places: AgentPlaces) -> int:
    """The agent, until it is told to end; returns its exit status.

    Raises:
        D1fleetError: it cannot start.
        OSError: its state cannot be written.
    """
    loop = Loop()
    notifier = Notifier()
    agent = Agent(loop, places, notifier)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.post(agent.stop))
    signal.signal(signal.SIGHUP, lambda *_: loop.post(lambda: agent.reload_if_changed(force=True)))
    notifier.tell("READY=1")
    log(INFO, "started")
    loop.run()
    if agent.close():
        loop.close()
    return 0
