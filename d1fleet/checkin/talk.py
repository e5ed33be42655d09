"""The talk with a registry: a check-in with each beat, and beside it one question that waits for news."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..errors import ConnectError, D1fleetError
from ..loop import Loop
from . import answer
from .answer import Answer, Refusal
from .client import Client, Reply
from .config import Configuration
from .pace import Pace
from .strictjson import BadDocumentError
from .worker import Worker

AGENT = f"d1fleet-checkin/{__version__}"

BEAT_LIMIT_S = 10.0
WAIT_S = 50
"""For news. A network in between may forget connections that are silent for a minute."""
WAIT_LIMIT_S = WAIT_S + 10.0
LEAVE_LIMIT_S = 2.0

_NEWS_GAP_S = 0.1
_ODD_GAP_S = 2.0
"""After an answer without news before its time: nobody is asked without end."""

AWAY, BAD = "away", "answer"
"""Why a try has failed; see Listener."""


class Listener:
    """Who is told, and asked, by a talk; all of it in the loop."""

    def report(self) -> dict[str, Any]:
        """A report of this moment."""
        raise NotImplementedError

    def known(self) -> dict[str, str]:
        """{project: revision} that is known here."""
        raise NotImplementedError

    def answered(self, found: Answer) -> bool:
        """A registry has answered; returns whether that was news.

        Raises:
            BadDocumentError: it cannot be taken; nothing of it was.
        """
        raise NotImplementedError

    def thrown_out(self, refusal: Refusal) -> None:
        """This host is no member any more."""
        raise NotImplementedError

    def failed(self, code: str, why: str) -> None:
        """A try has failed.

        Args:
            code: AWAY, or BAD for an answer that cannot be taken, or the registry's own for why it refuses.
        """
        raise NotImplementedError


class Talk:
    """Speaks to one registry, as one host.

    Attributes:
        pace: when.
        is_outcast: the registry's last word was that this host is no member.

    Raises:
        UsageError: the registry's certificate cannot be read.
    """

    def __init__(
        self,
        loop: Loop,
        config: Configuration,
        certificate: str,
        credential: str,
        listener: Listener,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.pace = Pace(loop.now(), chance)
        self.is_outcast = False
        self._loop = loop
        self._networks = config.networks
        self._credential = credential
        self._listener = listener
        self._new_client = functools.partial(Client, config.registry, certificate, AGENT)
        self._clients = self._new_client(), self._new_client()
        self._beats, self._waits = Worker(loop, "beat"), Worker(loop, "wait")
        self._closed = False

    def set_credential(self, credential: str) -> None:
        """Speak as another from now on."""
        if credential != self._credential:
            self._credential = credential
            self.is_outcast = False
            self.pace.forget_failures()
            self.pace.hurry(self._loop.now())

    def beat_if_due(self) -> None:
        """Check in where it is time for that."""
        now_s = self._loop.now()
        if self._credential and not self._closed and not self._beats.busy and self.pace.due_s <= now_s:
            self.pace.asked(now_s)
            words = {"report": self._listener.report(), "known": self._listener.known()}
            self._ask(self._beats, "/checkin", words, BEAT_LIMIT_S, self._beat_answered)

    def reconnect(self) -> None:
        """The way to the registry may be another now: our address was one of its ends."""
        for client in self._clients:
            client.interrupt()
        self.pace.hurry(self._loop.now())

    def hangs(self, mercy_s: float) -> bool:
        """Should an answer have come, or not have come, long ago?"""
        return self._beats.hangs(mercy_s) or self._waits.hangs(mercy_s)

    def _ask(
        self,
        worker: Worker,
        path: str,
        words: dict[str, Any],
        limit_s: float,
        done: Callable[[Any, Exception | None], None],
    ) -> None:
        client = self._clients[worker is self._waits]
        body = json.dumps(words, separators=(",", ":")).encode()
        worker.run(functools.partial(client.post, path, body, self._credential, limit_s), done, limit_s)

    # What comes back

    def _beat_answered(self, reply: Reply | None, error: Exception | None) -> None:
        if self._closed:
            return
        found = self._judged(reply, error)
        if isinstance(found, Answer) and self._taken(found) is not None:
            self.pace.answered(self._loop.now(), found.beat_s, found.jitter, found.gone_after_s)
            self._wait()
        else:
            outcast = isinstance(found, Refusal) and found.is_outcast
            self.pace.failed(self._loop.now(), refused=outcast)

    def _wait(self) -> None:
        if not self._closed and not self._waits.busy and not self.pace.is_failing:
            words = {"known": self._listener.known(), "wait_s": WAIT_S}
            asked_s = self._loop.now()
            self._ask(
                self._waits, "/wait", words, WAIT_LIMIT_S, functools.partial(self._wait_answered, asked_s)
            )

    def _wait_answered(self, asked_s: float, reply: Reply | None, error: Exception | None) -> None:
        if self._closed:
            return
        if isinstance(error, ConnectError):
            # The next check-in finds out whether it is away, and who is served again waits again.
            self.pace.scatter(self._loop.now())
            return
        found = self._judged(reply, error)
        news = self._taken(found) if isinstance(found, Answer) else None
        if news is not None:
            as_it_should = news or self._loop.now() - asked_s > WAIT_S / 2
            self._loop.call_later(_NEWS_GAP_S if as_it_should else _ODD_GAP_S, self._wait)

    def _judged(self, reply: Reply | None, error: Exception | None) -> Answer | Refusal | None:
        """What was answered; None, and said, where that was nothing that counts."""
        try:
            if error is not None or reply is None:
                raise error or ConnectError("no answer")
            if reply.status == 200:
                return answer.read(reply.body, self._networks)
            refusal = answer.read_refusal(reply.status, reply.body)
        except BadDocumentError as bad:
            self._listener.failed(BAD, f"the registry's answer is not taken: {bad}")
            return None
        except D1fleetError as known:
            self._listener.failed(AWAY if isinstance(known, ConnectError) else BAD, known.message)
            return None
        except Exception as unknown:
            self._listener.failed(BAD, f"a fault of ours: {unknown!r}")
            return None
        if refusal.is_outcast:
            self.is_outcast = True
            self._listener.thrown_out(refusal)
        else:
            self._listener.failed(refusal.code, f"the registry refuses: {refusal}")
        return refusal

    def _taken(self, found: Answer) -> bool | None:
        """Whether it was news; None where it could not be taken."""
        try:
            news = self._listener.answered(found)
        except BadDocumentError as bad:
            self._listener.failed(BAD, f"the registry's answer is not taken: {bad}")
            return None
        self.is_outcast = False
        if found.credential:
            self._credential = found.credential
        return news

    def leave(self, *, for_good: bool = False) -> None:
        """Say goodbye, in this thread; the talk is over. It takes two seconds at most, but for a name service
        that hangs.

        Raises:
            D1fleetError: nobody was there to hear it.
        """
        body = json.dumps({"for_good": for_good}).encode()
        client = self._new_client()
        try:
            reply = client.post("/leave", body, self._credential, LEAVE_LIMIT_S)
        finally:
            client.close()
        if reply.status not in (200, 204):
            raise ConnectError(f"the registry answers with status {reply.status}")

    @property
    def is_member(self) -> bool:
        """Has this host joined, and not been thrown out, as far as it knows?"""
        return bool(self._credential) and not self.is_outcast

    def hang_up(self) -> None:
        """Ask nothing any more; what is under way is broken off."""
        self._closed = True
        for client in self._clients:
            client.abort()

    def close(self, limit_s: float) -> bool:
        """Hang up, and end the threads; returns whether they have ended in that time."""
        self.hang_up()
        return all([worker.close(limit_s) for worker in (self._beats, self._waits)])


def read_certificate(path: str) -> str:
    """The registry's own certificate; "" where none is named.

    Raises:
        OSError: it cannot be read.
    """
    if not path:
        return ""
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(1 << 16)
