"""What goes wrong with an SSH connection, in our words, with the mend."""

from __future__ import annotations

import socket

from paramiko import ssh_exception
from paramiko.pkey import UnknownKeyType

from ..errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError
from .sshconfig import SshTarget
from .sshterms import (
    ALLOW_MORE,
    BY_HAND,
    BY_STAGE,
    KEYS_ALLOWED,
    NAME,
    SESSIONS,
    SSHD,
    UP,
    Stage,
    printable,
)

TRANSLATION: dict[type[BaseException], tuple[type[HostError] | None, str, str]] = {
    socket.gaierror: (
        ConnectError,
        "its name cannot be resolved: {error}",
        NAME,
    ),
    ConnectionRefusedError: (ConnectError, "connection refused", SSHD),
    TimeoutError: (None, "no answer in time", UP),
    ConnectionError: (None, "it hung up", BY_HAND),
    EOFError: (None, "it hung up", BY_HAND),
    OSError: (None, "{error}", UP),
    ssh_exception.NoValidConnectionsError: (ConnectError, "{error}", UP),
    ssh_exception.AuthenticationException: (LoginError, "{error}", BY_HAND),
    ssh_exception.PasswordRequiredException: (LoginError, "the key is locked", "unlock it: ssh-add"),
    ssh_exception.BadAuthenticationType: (
        LoginError,
        "it takes no keys ({error})",
        KEYS_ALLOWED,
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
        SESSIONS,
    ),
    ssh_exception.IncompatiblePeer: (ConnectError, "{error}", ALLOW_MORE),
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
    return (kind or BY_STAGE[stage])(
        text, mend.format(login=target.login_by_hand, correct=target.correct_name)
    )
