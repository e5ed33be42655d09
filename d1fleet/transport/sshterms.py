"""What both SSH clients say and do alike: stages, mends, the refusal of a login, and tries again."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import Enum

from ..errors import ConnectError, HostError, LoginError, ServerStartError
from .sshconfig import SshTarget

ALIVE_INTERVAL_S = 15
"""SSH's own keepalive where the configuration names none; it is our heartbeats that find a dead peer."""

DROP_RETRIES = 4
"""Further tries when a server hangs up before it says anything: MaxStartups drops logins at random."""

FIRST_RETRY_S = 0.15
"""Before the first of them, doubled each time and spread by half; a guess."""

UP = "is the host up, and is its address right?"
SSHD = "is sshd running there, and is the port right?"
NAME = "{correct}"
BY_HAND = "try it by hand: {login}"
KEYS_ALLOWED = "allow PubkeyAuthentication there"
SESSIONS = "look at MaxSessions and ForceCommand in its sshd_config"
FEWER_KEYS = "if those are too many (MaxAuthTries): set IdentityFile, and IdentitiesOnly yes"
REVOKED = "do not use this host until its administrator has given it a new key"
ALLOW_MORE = (
    "allow more KexAlgorithms, HostKeyAlgorithms, Ciphers or MACs, in its sshd_config or "
    "in ssh's configuration for this host"
)


class Stage(Enum):
    """How far a login had come; decides whose fault a vague error is."""

    CONNECT = "no connection to {place}"
    GREETING = "no SSH connection to {place}"
    LOGIN = "the login at {place} failed"
    START = "the login at {place} works, but no command starts there"


BY_STAGE: dict[Stage, type[HostError]] = {
    Stage.CONNECT: ConnectError,
    Stage.GREETING: ConnectError,
    Stage.LOGIN: LoginError,
    Stage.START: ServerStartError,
}


class Deadline:
    """A moment by which something has to be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())


def hangs_up(target: SshTarget, more: str = "") -> ConnectError:
    """The error for a server that has dropped every try."""
    return ConnectError(
        f"{target.place} takes the connection and hangs up before it says anything of SSH"
        + (f" ({more})" if more else ""),
        f"{SSHD} Too many logins at once (MaxStartups in its sshd_config) look like this too",
    )


def refused(
    target: SshTarget, tried: Sequence[str], locked: Sequence[str], unusable: Sequence[str]
) -> LoginError:
    """The error for a login with no key that was let in.

    Args:
        tried: keys that were refused, for people.
        locked: files of keys that need a passphrase.
        unusable: files of keys that are of no use, with the reason.
    """
    parts = [f"refused: {', '.join(tried)}"] if tried else []
    parts += [f"locked by a passphrase, and not in the agent: {', '.join(locked)}"] if locked else []
    parts += [f"of no use: {'; '.join(unusable)}"] if unusable else []
    text = "; ".join(parts or ["there is no key to try, in files or in an agent"])
    if locked:
        agent = "" if os.environ.get("SSH_AUTH_SOCK") else "eval $(ssh-agent); "
        mend = f"unlock it: {agent}ssh-add {locked[0]}"
    elif tried:
        by_hand = BY_HAND.format(login=target.login_by_hand)
        mend = (
            "let a key in (ssh-copy-id; on an enrolled host: put it into d1fleet_builders,"
            f" run site.yml again), or name the right key and user; {by_hand}"
        )
    else:
        mend = (
            "name a key (IdentityFile for ssh, ansible_ssh_private_key_file in an inventory), or ssh-add one"
        )
    return LoginError(f"{target.place} does not let {target.user} in; {text}", mend)


def printable(text: str) -> str:
    """Without control characters, one line, at most 300 characters: it may come from a host."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:300]
