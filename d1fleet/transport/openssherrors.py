"""What OpenSSH's client says on stderr when a login fails, in our words, with the mend. Pure.

Its texts are no interface, but have not changed in many years (OpenSSH 8 to 10). What is not known here is
passed on as it is.
"""

from __future__ import annotations

import re

from ..errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError
from .sshconfig import SshTarget
from .sshterms import (
    ALLOW_MORE,
    BY_HAND,
    BY_STAGE,
    FEWER_KEYS,
    NAME,
    REVOKED,
    SESSIONS,
    SSHD,
    UP,
    Stage,
    printable,
)

_ADD = "{add}"
_CHANGED = (
    "somebody may stand between you and the host; only if its administrator confirms the new fingerprint: "
    "ssh-keygen -R '{name}' -f '{file}'; then {add}"
)

_PORT = r"\S+ port \d+"

TABLE: tuple[tuple[str, type[HostError] | None, str, str], ...] = (
    # Host keys.
    (
        r"^Host key (?P<key>\S+ \S+) revoked by file (?P<file>.+)$",
        HostKeyError,
        "the host key is revoked: {key}, {file}",
        REVOKED,
    ),
    (
        r"^(?P<kind>\S+) host key for (?P<name>\S+) was revoked",
        HostKeyError,
        "the host key of {name} is revoked: {kind}",
        REVOKED,
    ),
    (
        r"^The fingerprint for the (?P<kind>\S+) key sent by the remote host is\n(?P<print>\S+?)\.?\n"
        r"(?:.*\n)*?Offending (?P<old>\S+) key in (?P<file>.+):(?P<line>\d+)\n"
        r"(?:.*\n)*?Host key for (?P<name>\S+) has changed",
        HostKeyError,
        "the host key of {name} has changed: it shows {kind} {print}, {file} line {line} has another {old}",
        _CHANGED,
    ),
    # ssh falls back from a certificate to the plain key, which then mostly is not known.
    (
        r"^Certificate invalid: (?P<why>.+)$",
        HostKeyError,
        "its host certificate is not valid: {why}",
        "let its administrator renew the certificate, for the name that you use",
    ),
    (
        r"^No (?P<kind>\S+) host key is known for (?P<name>\S+) and you have requested strict checking",
        HostKeyError,
        "the host key of {name} is not known here: {kind}",
        _ADD,
    ),
    (
        r"^Bad server host key: (?P<why>.+)$",
        HostKeyError,
        "its host key is refused: {why}",
        "look at RequiredRSASize in ssh's configuration, and give the host another key",
    ),
    (r"^Host key verification failed", HostKeyError, "its host key was not accepted: {said}", BY_HAND),
    # No way there.
    (
        r"^ssh: Could not resolve hostname (?P<name>\S+): (?P<why>.+)$",
        ConnectError,
        "its name cannot be resolved: {why}",
        NAME,
    ),
    (
        rf"^(?P<why>(?:bind \S+|getifaddrs|bind_address|BindInterface).*)\nssh: connect to host {_PORT}",
        ConnectError,
        "{why}",
        "look at BindAddress and BindInterface in ssh's configuration for this host",
    ),
    (rf"^ssh: connect to host {_PORT}: Connection refused", ConnectError, "connection refused", SSHD),
    (
        rf"^ssh: connect to host {_PORT}: (?:Connection|Operation) timed out",
        ConnectError,
        "no answer in time",
        UP,
    ),
    (rf"^ssh: connect to host {_PORT}: (?P<why>.+)$", ConnectError, "{why}", UP),
    (rf"^Connection timed out during banner|^Connection to {_PORT} timed out", None, "no answer in time", UP),
    (
        rf"^Unable to negotiate with {_PORT}: (?P<why>.+)$",
        ConnectError,
        "{why}",
        ALLOW_MORE,
    ),
    (r"^(?P<why>Protocol major versions differ.*)$", ConnectError, "{why}", SSHD),
    # The login, and what comes behind it.
    (
        r"^Received disconnect from .*Too many authentication failures",
        LoginError,
        "it hung up when it had refused several keys",
        FEWER_KEYS,
    ),
    (
        r"^channel \d+: open failed: (?P<why>.+)$|^Session open refused by peer",
        ServerStartError,
        "it opens no session ({said})",
        SESSIONS,
    ),
    (
        r"^(?:exec|shell) request failed on channel",
        ServerStartError,
        "it runs no command ({said})",
        SESSIONS,
    ),
    # At the end: other lines say more.
    (
        rf"^(?:ssh_dispatch_run_fatal: )?Connection (?:(?:to|closed by|reset by) .*{_PORT}|to \S+ closed)",
        None,
        "it hung up ({said})",
        BY_HAND,
    ),
)
"""Patterns, the first that is found counts; the class (None: the stage decides), the words, the mend."""

_BEFORE_A_WORD = re.compile(
    r"kex_exchange_identification: (?:read: )?"
    r"(?:Connection (?:closed by remote host|reset by peer)|Broken pipe)"
)
_DROP = re.compile(rf"{_BEFORE_A_WORD.pattern}|Connection (?:closed|reset) by {_PORT}|Exceeded MaxStartups")
_PROXY_END = re.compile(r"^Connection (?:closed|reset) by UNKNOWN port 65535$", re.MULTILINE)
_LOGGED_IN = re.compile(r"^Authenticated to ", re.MULTILINE)
_CHATTER = re.compile(
    r"^(?:Authenticated to |Transferred: sent |Bytes per second: |@+$|@ .* @$).*", re.MULTILINE
)


def of_interest(said: str) -> str:
    """Without the lines that ssh writes in any case."""
    return "\n".join(line for line in _CHATTER.sub("", said).split("\n") if line)


def logged_in(said: str) -> bool:
    """Had the login worked?"""
    return _LOGGED_IN.search(said) is not None


def dropped(said: str) -> bool:
    """Did the server, or the jump host's, hang up before a word, and say nothing more? Another try may do."""
    lines = of_interest(said).split("\n")
    return all(map(_DROP.match, lines)) and any(map(_BEFORE_A_WORD.match, lines))


def refused_methods(target: SshTarget, said: str) -> str | None:
    """What the host takes where it has refused the login, by commas; None where it has not."""
    found = re.search(r"^\S+: Permission denied \((.*)\)\.?$", said, re.MULTILINE)
    return found[1] if found and not _by_proxy(target, said) else None


def _by_proxy(target: SshTarget, said: str) -> bool:
    return bool(target.proxy) and _PROXY_END.search(said) is not None


def too_late(target: SshTarget, stage: Stage, said: str) -> HostError:
    """The error when the time was out."""
    words = printable("; ".join(of_interest(said).split("\n")))
    begin = stage.value.format(place=target.place)
    return BY_STAGE[stage](f"{begin}: no answer in time{f' ({words})' if words else ''}", UP)


def explain(target: SshTarget, said: str, status: int) -> HostError:
    """The error of ours for an ssh that has ended.

    Args:
        said: its stderr.
        status: as of subprocess: minus a signal's number where one has killed it.
    """
    lines = of_interest(said).split("\n")
    if _by_proxy(target, said):
        proxy = [line for line in lines if not _DROP.match(line)]
        words = printable("; ".join(proxy[-4:])) or "it hung up"
        begin = Stage.CONNECT.value.format(place=target.place)
        return ConnectError(f"{begin}: its proxy said: {words}", BY_HAND.format(login=target.login_by_hand))
    stage = Stage.START if logged_in(said) else Stage.GREETING
    facts = {
        "said": printable("; ".join(lines[-4:])),
        "login": target.login_by_hand,
        "add": target.add_host_key,
        "correct": target.correct_name,
    }
    for pattern, kind, words, mend in TABLE:
        found = re.search(pattern, said, re.MULTILINE)
        if found:
            facts |= {name: printable(value or "") for name, value in found.groupdict().items()}
            begin = _begin(kind, stage, target)
            return (kind or BY_STAGE[stage])(f"{begin}{words.format(**facts)}", mend.format(**facts))
    ending = f"ssh was killed by signal {-status}" if status < 0 else f"ssh ended with exit status {status}"
    begin = _begin(None, stage, target)
    return BY_STAGE[stage](f"{begin}{facts['said'] or ending}", BY_HAND.format(**facts))


def _begin(kind: type[HostError] | None, stage: Stage, target: SshTarget) -> str:
    """Host keys have names of their own; of all else the place is named."""
    if kind is HostKeyError:
        return ""
    if kind is None:
        return stage.value.format(place=target.place) + ": "
    of_kind: dict[type[HostError], Stage] = {
        ConnectError: Stage.CONNECT,
        LoginError: Stage.LOGIN,
        ServerStartError: Stage.START,
    }
    return of_kind[kind].value.format(place=target.place) + ": "
