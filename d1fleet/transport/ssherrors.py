"""What goes wrong with an SSH connection, in our words, with the mend."""

from __future__ import annotations

import socket
from enum import Enum

from paramiko import ssh_exception
from paramiko.pkey import UnknownKeyType

from ..errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError
from .sshconfig import SshTarget


class Stage(Enum):
    """How far a login had come; decides whose fault a vague error is."""

    CONNECT = "no connection to {place}"
    GREETING = "no SSH connection to {place}"
    LOGIN = "the login at {place} failed"
    START = "the login at {place} works, but no command starts there"


_BY_STAGE: dict[Stage, type[HostError]] = {
    Stage.CONNECT: ConnectError,
    Stage.GREETING: ConnectError,
    Stage.LOGIN: LoginError,
    Stage.START: ServerStartError,
}

_UP = "is the host up, and is its address right?"
SSHD = "is sshd running there, and is the port right?"
BY_HAND = "try it by hand: {login}"
_ALLOW_MORE = (
    "allow more KexAlgorithms, HostKeyAlgorithms, Ciphers or MACs, in its sshd_config or "
    "in ssh's configuration for this host"
)

TRANSLATION: dict[type[BaseException], tuple[type[HostError] | None, str, str]] = {
    socket.gaierror: (
        ConnectError,
        "its name cannot be resolved: {error}",
        "correct the host's name or address",
    ),
    ConnectionRefusedError: (ConnectError, "connection refused", SSHD),
    TimeoutError: (None, "no answer in time", _UP),
    ConnectionError: (None, "it hung up", BY_HAND),
    EOFError: (None, "it hung up", BY_HAND),
    OSError: (None, "{error}", _UP),
    ssh_exception.NoValidConnectionsError: (ConnectError, "{error}", _UP),
    ssh_exception.AuthenticationException: (LoginError, "{error}", BY_HAND),
    ssh_exception.PasswordRequiredException: (LoginError, "the key is locked", "unlock it: ssh-add"),
    ssh_exception.BadAuthenticationType: (
        LoginError,
        "it takes no keys ({error})",
        "allow PubkeyAuthentication there",
    ),
    ssh_exception.PartialAuthentication: (
        LoginError,
        "a key alone does not do ({error})",
        "let a key alone do for this user: AuthenticationMethods in its sshd_config",
    ),
    ssh_exception.UnableToAuthenticate: (LoginError, "{error}", BY_HAND),
    ssh_exception.BadHostKeyException: (HostKeyError, "its host key differs", BY_HAND),
    ssh_exception.ChannelException: (
        ServerStartError,
        "it opens no session ({error})",
        "look at MaxSessions and ForceCommand in its sshd_config",
    ),
    ssh_exception.IncompatiblePeer: (ConnectError, "{error}", _ALLOW_MORE),
    ssh_exception.MessageOrderError: (
        ConnectError,
        "{error}",
        f"somebody may stand between you and the host; {BY_HAND}",
    ),
    ssh_exception.ProxyCommandFailure: (ConnectError, "the ProxyCommand failed", BY_HAND),
    ssh_exception.CouldNotCanonicalize: (ConnectError, "{error}", BY_HAND),
    ssh_exception.ConfigParseError: (ConnectError, "{error}", BY_HAND),
    ssh_exception.SSHException: (None, "{error}", BY_HAND),
    UnknownKeyType: (
        None,
        "a kind of key that paramiko does not know",
        "name an ed25519, ecdsa or rsa key: IdentityFile in ssh's configuration for this host",
    ),
    Exception: (None, "{error}", BY_HAND),
}
"""What paramiko and the socket raise, by class; None: the stage decides. The nearest base class counts."""


def translate(error: BaseException, target: SshTarget, stage: Stage, more: str = "") -> HostError:
    """The error of ours for one of paramiko's, the socket's or Python's."""
    entry = next(TRANSLATION[kind] for kind in type(error).__mro__ if kind in TRANSLATION)
    kind, words, mend = entry
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = words.format(error=printable(said) or type(error).__name__)
    begin = stage.value.format(place=target.place)
    text = f"{begin}: {words}{f' ({more})' if more else ''}"
    return (kind or _BY_STAGE[stage])(text, mend.format(login=target.login_by_hand))


def printable(text: str) -> str:
    """Without control characters, one line, at most 300 characters: it may come from a host."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:300]
