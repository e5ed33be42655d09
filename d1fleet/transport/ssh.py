"""Logs in to a host by paramiko and starts a command there. Nothing beside these ssh*.py imports paramiko."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence

import paramiko
from paramiko import ssh_exception

from ..errors import ConnectError, HostError, LoginError
from .sshchannel import Link, ParamikoChannel
from .sshconfig import KnownHosts, SshTarget
from .ssherrors import translate
from .sshkeys import Agent, Keyring
from .sshterms import (
    ALIVE_INTERVAL_S,
    DROP_RETRIES,
    FEWER_KEYS,
    FIRST_RETRY_S,
    Deadline,
    Stage,
    hangs_up,
    printable,
    refused,
)

CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""GCM first: 40 % more throughput for a third less CPU than paramiko's default (measured)."""

IDLE_CHECK_S = 1.0
"""How often paramiko's thread looks up from a silent socket; its own 0.1 s costs CPU at a hundred hosts."""

# It logs host names and addresses, and would print to stderr when nobody has set logging up.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.setLevel(logging.CRITICAL + 1)
_log.propagate = False


def connect(
    target: SshTarget, command: str, *, timeout_s: float, known: KnownHosts | None = None
) -> ParamikoChannel:
    """Log in and start `command`; blocks for at most about `timeout_s`, but for the look-up of the name.

    Args:
        known: the keys that the host may have; None looks them up.

    Raises:
        ConnectError: the host cannot be reached, or does not speak SSH.
        HostKeyError: its key is not known, has changed or is revoked.
        LoginError: it refuses every key that we have.
        ServerStartError: it starts no command.
        ToolError: there is no ssh-keygen on this machine.
    """
    deadline = Deadline(timeout_s)
    known = known or KnownHosts(target)
    pause_s = FIRST_RETRY_S
    for tries_left in range(DROP_RETRIES, -1, -1):
        link = _open(target, deadline)
        try:
            if _greet(link, target, known, deadline, last=tries_left == 0):
                _login(link, target, deadline)
                return _start(link, target, command, deadline)
        except BaseException:
            link.cut()
            raise
        link.cut()
        time.sleep(min(pause_s * random.uniform(0.5, 1.5), deadline.left_s))
        pause_s *= 2
    raise AssertionError("the last try raises")


def lacking(target: SshTarget) -> list[str]:
    """Keywords with which ssh's configuration allows only algorithms that paramiko does not have."""
    # Its options can be asked for only where there is a connection.
    ours = vars(paramiko.Transport)
    paramikos: dict[str, Sequence[str]] = {
        "Ciphers": CIPHERS,
        "MACs": ours["_preferred_macs"],
        "KexAlgorithms": ours["_preferred_kex"],
        "HostKeyAlgorithms": ours["_preferred_keys"],
    }
    return [
        f"{keyword} without any that paramiko has"
        for keyword, names in paramikos.items()
        if not set(names).intersection(target.algorithms.get(keyword.lower(), names))
    ]


def openssh_may(target: SshTarget, error: HostError) -> str:
    """Why OpenSSH's client may get in where paramiko did not; empty when it has nothing more to try."""
    if isinstance(error, LoginError) and target.other_logins:
        return f"no other key is let in, and there is {', '.join(target.other_logins)}"
    if isinstance(error.__cause__, ssh_exception.IncompatiblePeer):
        return f"paramiko and the host have no algorithm in common: {printable(str(error.__cause__))}"
    return ""


def _open(target: SshTarget, deadline: Deadline) -> Link:
    if target.proxy:
        return _open_proxy(target)
    try:
        addresses = socket.getaddrinfo(
            target.hostname, target.port, target.address_family, socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise translate(error, target, Stage.CONNECT) from error
    error_of_last: OSError = TimeoutError()
    allowed_s = deadline.left_s
    if target.connect_timeout_s is not None:
        allowed_s = min(allowed_s, target.connect_timeout_s)
    within = Deadline(allowed_s)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            # One address that swallows everything leaves time for the others.
            sock.settimeout(max(0.01, within.left_s / (len(addresses) - number)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            if sock is not None:
                sock.close()
            error_of_last = error
        else:
            return Link(sock, None, None)
    raise translate(error_of_last, target, Stage.CONNECT) from error_of_last


def _open_proxy(target: SshTarget) -> Link:
    ours, theirs = socket.socketpair()
    words = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the link
    try:
        proxy = subprocess.Popen(
            list(target.proxy),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=words,
            start_new_session=True,  # the terminal's signals are not for it
        )
    except OSError as error:
        ours.close()
        words.close()
        raise translate(error, target, Stage.CONNECT, f"proxy {target.proxy[0]}") from error
    finally:
        theirs.close()
    return Link(ours, proxy, words)


def _greet(link: Link, target: SshTarget, known: KnownHosts, deadline: Deadline, *, last: bool) -> bool:
    """Exchange keys and check the host's; False: it hung up before a word, and another try may do."""
    transport = link.transport
    _offer(transport, target, known)
    transport.banner_timeout = deadline.left_s
    done = threading.Event()
    transport.start_client(done)
    in_time = done.wait(deadline.left_s)
    if not transport.is_active() or not in_time:
        error = transport.get_exception() or EOFError()
        if deadline.left_s == 0.0 or not in_time:
            raise translate(TimeoutError(), target, Stage.GREETING, link.proxy_words()) from error
        if transport.remote_version:
            raise translate(error, target, Stage.GREETING, link.proxy_words()) from error
        if not last:
            return False
        raise hangs_up(target, link.proxy_words()) from error
    key = transport.host_key
    if key is None:
        raise translate(EOFError(), target, Stage.GREETING, link.proxy_words())
    known.check(key.get_name(), key.asbytes())
    return True


def _offer(transport: paramiko.Transport, target: SshTarget, known: KnownHosts) -> None:
    """What we offer: what ssh's configuration allows, the kinds of host key that are known first."""
    options = transport.get_security_options()

    def allowed(keyword: str, wanted: Sequence[str]) -> list[str]:
        allow = target.algorithms.get(keyword.lower())
        chosen = [name for name in wanted if allow is None or name in allow]
        if not chosen:
            raise ConnectError(
                f"ssh's configuration allows only {keyword} for {target.place} that paramiko does not have",
                f"add one of these to {keyword} there, or name another configuration by --ssh-config FILE: "
                f"{', '.join(wanted)}",
            )
        return chosen

    options.ciphers = allowed("Ciphers", [name for name in CIPHERS if name in options.ciphers])
    options.digests = allowed("MACs", options.digests)
    options.kex = allowed("KexAlgorithms", options.kex)
    # A host with several keys is not taken for a changed one: sorted() keeps the order within each half.
    kinds = sorted(options.key_types, key=lambda name: _kind_of(name) not in known.kinds)
    options.key_types = allowed("HostKeyAlgorithms", kinds)


def _kind_of(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _login(link: Link, target: SshTarget, deadline: Deadline) -> None:
    agent = None
    if target.agent is not None:
        # An agent that is gone, or that answers nonsense, is none.
        with contextlib.suppress(OSError, paramiko.SSHException, ValueError):
            agent = Agent(target.agent)
    try:
        _try_keys(link.transport, target, Keyring(target, agent), deadline)
    finally:
        if agent is not None:
            agent.close()


def _try_keys(transport: paramiko.Transport, target: SshTarget, keys: Keyring, deadline: Deadline) -> None:
    tried: list[str] = []
    for candidate in keys:
        tried.append(candidate.name)
        transport.auth_timeout = deadline.left_s
        try:
            further = transport.auth_publickey(target.user, candidate.key)
        except paramiko.BadAuthenticationType as error:
            raise translate(error, target, Stage.LOGIN) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if transport.is_active() and isinstance(error, paramiko.AuthenticationException):
                if deadline.left_s == 0.0:
                    raise translate(TimeoutError(), target, Stage.LOGIN) from error
                continue
            if isinstance(error, paramiko.AuthenticationException):  # it hung up, says paramiko
                raise LoginError(
                    f"{target.place} hung up when it was offered {candidate.name}, key {len(tried)}",
                    FEWER_KEYS,
                ) from error
            raise translate(error, target, Stage.LOGIN, f"with {candidate.name}") from error
        if further:
            raise translate(ssh_exception.PartialAuthentication(further), target, Stage.LOGIN)
        return
    raise refused(target, tried, keys.locked, keys.unusable)


def _start(link: Link, target: SshTarget, command: str, deadline: Deadline) -> ParamikoChannel:
    transport = link.transport
    # paramiko waits for the answer to a command without any limit.
    watch = threading.Timer(deadline.left_s, link.wake)
    watch.daemon = True
    watch.start()
    try:
        session = transport.open_session(timeout=deadline.left_s)
        channel = ParamikoChannel(link, session)
        session.exec_command(command)
    except (OSError, EOFError, paramiko.SSHException) as error:
        late = TimeoutError() if deadline.left_s == 0.0 else error
        raise translate(late, target, Stage.START) from error
    finally:
        watch.cancel()
        watch.join()
    transport.set_keepalive(target.alive_interval_s or ALIVE_INTERVAL_S)
    link.sock.settimeout(IDLE_CHECK_S)
    channel.begin()
    return channel
