"""The d1make server of a host over SSH, by paramiko. Nothing else imports paramiko.

Threads of one connection: paramiko's own decrypts and hands what came to the loop; one of ours writes, since
a peer that does not read blocks a writer for as long as it likes. What certainly finds room in the socket is
sent by the loop's thread itself, which never waits for either.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import fcntl
import functools
import logging
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING

import paramiko
from paramiko import ssh_exception
from paramiko.agent import AgentSSH
from paramiko.buffered_pipe import BufferedPipe
from paramiko.packet import Packetizer
from paramiko.pkey import UnknownKeyType

from ..errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError
from ..loop import Loop, Timer
from .local import StderrTail
from .sshconfig import KnownHosts, SshTarget, fingerprint

CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""GCM first: 40 % more throughput for a third less CPU than paramiko's default (measured)."""

ALIVE_INTERVAL_S = 15
"""SSH's own keepalive where the configuration names none; it is our heartbeats that find a dead peer."""

DROP_RETRIES = 4
"""Further tries when a server hangs up before it says anything: MaxStartups drops logins at random."""

FIRST_RETRY_S = 0.15
"""Before the first of them, doubled each time and spread by half; a guess."""

IDLE_CHECK_S = 1.0
"""How often paramiko's thread looks up from a silent socket; its own 0.1 s costs CPU at a hundred hosts."""

AGENT_TIMEOUT_S = 15.0
"""For an agent's answer; one that asks its user for leave may take long, and nobody watches."""

FLUSH_S = 0.2
"""What close() leaves the writer for the last bytes; then the connection is cut."""

END_GRACE_S = 0.5
"""Between the end of stdout and the end of the channel: the exit status comes there."""

_ACK_BYTES = 128 << 10
"""Bytes taken before the window is opened again by as much; the window is 2 MiB."""

_PACKET = 32 << 10
_READ_AHEAD = 64 << 10

# It logs host names and addresses, and would print to stderr when nobody has set logging up.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.setLevel(logging.CRITICAL + 1)
_log.propagate = False


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
_SSHD = "is sshd running there, and is the port right?"
_OTHER_TRANSPORT = "set d1fleet_transport to openssh for this host"
_BY_HAND = "try it by hand: {login}"

TRANSLATION: dict[type[BaseException], tuple[type[HostError] | None, str, str]] = {
    socket.gaierror: (
        ConnectError,
        "its name cannot be resolved: {error}",
        "correct the host's name or address",
    ),
    ConnectionRefusedError: (ConnectError, "connection refused", _SSHD),
    TimeoutError: (None, "no answer in time", _UP),
    ConnectionError: (None, "it hung up", _BY_HAND),
    EOFError: (None, "it hung up", _BY_HAND),
    OSError: (None, "{error}", _UP),
    ssh_exception.NoValidConnectionsError: (ConnectError, "{error}", _UP),
    ssh_exception.AuthenticationException: (LoginError, "{error}", _BY_HAND),
    ssh_exception.PasswordRequiredException: (LoginError, "the key is locked", "unlock it: ssh-add"),
    ssh_exception.BadAuthenticationType: (
        LoginError,
        "it takes no keys ({error})",
        "allow PubkeyAuthentication there",
    ),
    ssh_exception.PartialAuthentication: (LoginError, "a key alone does not do ({error})", _OTHER_TRANSPORT),
    ssh_exception.UnableToAuthenticate: (LoginError, "{error}", _BY_HAND),
    ssh_exception.BadHostKeyException: (HostKeyError, "its host key differs", _BY_HAND),
    ssh_exception.ChannelException: (
        ServerStartError,
        "it opens no session ({error})",
        "look at MaxSessions and ForceCommand in its sshd_config",
    ),
    ssh_exception.IncompatiblePeer: (ConnectError, "{error}", _OTHER_TRANSPORT),
    ssh_exception.MessageOrderError: (ConnectError, "{error}", _OTHER_TRANSPORT),
    ssh_exception.ProxyCommandFailure: (ConnectError, "the ProxyCommand failed", _BY_HAND),
    ssh_exception.CouldNotCanonicalize: (ConnectError, "{error}", _OTHER_TRANSPORT),
    ssh_exception.ConfigParseError: (ConnectError, "{error}", _OTHER_TRANSPORT),
    ssh_exception.SSHException: (None, "{error}", _BY_HAND),
    UnknownKeyType: (None, "a kind of key that paramiko does not know", _OTHER_TRANSPORT),
    Exception: (None, "{error}", _BY_HAND),
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


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())


class _Packetizer(Packetizer):
    def start_handshake(self, timeout: float) -> None:
        """No timer: our deadline does, and its thread would hold up the end of the whole process."""


class _Socket(socket.socket):
    """Reads ahead: paramiko asks for the length and the body of each packet by themselves, and each asking
    costs two system calls and the GIL.
    """

    _held = memoryview(b"")

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if not self._held:
            self._held = memoryview(super().recv(max(size, _READ_AHEAD), flags))
        data, self._held = self._held[:size], self._held[size:]
        return bytes(data)


class _Link:
    """A socket, what feeds it, and paramiko's transport over it: given back as one, in bounded time."""

    def __init__(
        self, sock: socket.socket, proxy: subprocess.Popen[bytes] | None, words: IO[bytes] | None
    ) -> None:
        self.sock = sock = _Socket(sock.family, sock.type, sock.proto, sock.detach())
        self._proxy = proxy
        self._words = words
        try:
            self.transport = paramiko.Transport(sock, packetizer_class=_Packetizer)
        except BaseException:
            self._release()
            raise

    def proxy_words(self) -> str:
        """The last that a ProxyCommand has said on stderr."""
        if self._words is None:
            return ""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - 300))
        said = printable(self._words.read().decode("utf-8", "replace"))
        return f"its proxy said: {said}" if said else ""

    def wake(self) -> None:
        """End the connection for whoever waits in recv() or send() on it: closing would not wake them."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End it now, whatever the peer does: within about a second, mostly at once."""
        self.wake()
        self.transport.close()
        if self.transport.ident is not None:
            self.transport.join(1.0)
        self._release()

    def _release(self) -> None:
        self.sock.close()
        if self._words is not None:
            self._words.close()
        if self._proxy is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._proxy.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._proxy.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._proxy.wait(0.3)
                return


def connect(target: SshTarget, command: str, *, timeout_s: float) -> ParamikoChannel:
    """Log in and start `command`; blocks for at most about `timeout_s`, but for the look-up of the name.

    Raises:
        ConnectError: the host cannot be reached, or does not speak SSH.
        HostKeyError: its key is not known, has changed or is revoked.
        LoginError: it refuses every key that we have.
        ServerStartError: it starts no command.
        ToolError: there is no ssh-keygen on this machine.
    """
    deadline = _Deadline(timeout_s)
    known = KnownHosts(target)
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


def _open(target: SshTarget, deadline: _Deadline) -> _Link:
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
    within = _Deadline(allowed_s)
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
            return _Link(sock, None, None)
    raise translate(error_of_last, target, Stage.CONNECT) from error_of_last


def _open_proxy(target: SshTarget) -> _Link:
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
    return _Link(ours, proxy, words)


def _greet(link: _Link, target: SshTarget, known: KnownHosts, deadline: _Deadline, *, last: bool) -> bool:
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
        raise ConnectError(
            f"{target.place} takes the connection and hangs up before it says anything of SSH"
            + (f" ({words})" if (words := link.proxy_words()) else ""),
            f"{_SSHD} Too many logins at once (MaxStartups in its sshd_config) look like this too",
        ) from error
    key = transport.host_key
    if key is None:
        raise translate(EOFError(), target, Stage.GREETING, link.proxy_words())
    known.check(key.get_name(), key.asbytes())
    return True


def _offer(transport: paramiko.Transport, target: SshTarget, known: KnownHosts) -> None:
    """What we offer: what ssh's configuration allows, the kinds of host key that are known first."""
    options = transport.get_security_options()

    def allowed(keyword: str, wanted: Iterator[str]) -> list[str]:
        allow = target.algorithms.get(keyword)
        chosen = [name for name in wanted if allow is None or name in allow]
        if not chosen:
            raise ConnectError(
                f"ssh's configuration allows {keyword} for {target.place} that paramiko does not have",
                _OTHER_TRANSPORT,
            )
        return chosen

    options.ciphers = allowed("ciphers", (name for name in CIPHERS if name in options.ciphers))
    options.digests = allowed("macs", iter(options.digests))
    options.kex = allowed("kexalgorithms", iter(options.kex))
    # A host with several keys is not taken for a changed one: sorted() keeps the order within each half.
    kinds = sorted(options.key_types, key=lambda name: _kind_of(name) not in known.kinds)
    options.key_types = allowed("hostkeyalgorithms", iter(kinds))


def _kind_of(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


class _Agent(AgentSSH):
    """The agent behind a socket; paramiko's own class knows the environment's alone."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(AGENT_TIMEOUT_S)
            self._sock.connect(path)
            self._connect(self._sock)  # type: ignore[attr-defined] # the one way to name a socket
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._sock.close()


@dataclass(frozen=True)
class _Candidate:
    """A key to try; `name` is for people and holds nothing secret."""

    name: str
    key: paramiko.PKey


class _Keyring:
    """The keys that may be tried, in ssh's order, and why others may not."""

    def __init__(self, target: SshTarget, agent: _Agent | None) -> None:
        self._target = target
        self._held = {key.blob: key for key in agent.get_keys()} if agent is not None else {}
        self.unusable: list[str] = []
        self.locked: list[str] = []

    def __iter__(self) -> Iterator[_Candidate]:
        """Keys of the agent that are named as files too, then its others, then files alone."""
        target = self._target
        files = [path for path in target.identity_files if os.path.exists(path)]
        if target.identity_chosen:
            chosen = target.identity_files[0]
            if chosen not in files and public_blob(chosen) not in self._held:
                self.unusable.append(f"{chosen}: no such file")
            files = [path for path in files if path != chosen]
            yield from self._of_file(chosen)
        both = [path for path in target.identity_files if path in files or os.path.exists(f"{path}.pub")]
        both = [path for path in both if public_blob(path) in self._held]
        for path in both:
            yield from self._of_file(path)
        if not target.identities_only:
            for key in list(self._held.values()):
                yield _Candidate(f"agent's {key.get_name()} {fingerprint(key.blob)}", key)
        for path in files:
            if path not in both:
                yield from self._of_file(path)

    def _of_file(self, path: str) -> Iterator[_Candidate]:
        """The key of a file: through the agent where that has it, with its certificate first."""
        held = self._held.pop(public_blob(path) or b"", None)
        if held is None and not os.path.exists(path):
            return
        if held is None and not self._may_read(path):
            return
        certificate = f"{path}-cert.pub"
        for name in ([certificate] if os.path.exists(certificate) else []) + [path]:
            try:
                key = held if held is not None else copy.copy(_load(path, os.stat(path).st_mtime_ns))
                key.public_blob = None
                if name == certificate:
                    key.load_certificate(certificate)
            except (paramiko.PasswordRequiredException, TypeError):  # cryptography's word for it
                self.locked.append(path)
                return
            # Whatever a strange file makes the loaders raise: the key is of no use, others may be.
            except Exception as error:
                self.unusable.append(f"{name}: {printable(str(error)) or type(error).__name__}")
                continue
            yield _Candidate(name, key)

    def _may_read(self, path: str) -> bool:
        """As ssh: a key that others can read is no key."""
        try:
            status = os.stat(path)
        except OSError as error:
            self.unusable.append(f"{path}: {error.strerror}")
            return False
        if not os.access(path, os.R_OK):
            self.unusable.append(f"{path}: no permission to read it")
            return False
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            self.unusable.append(f"{path}: others may read it (chmod 600 {path})")
            return False
        return True


_loading = threading.Lock()


@functools.lru_cache(maxsize=16)
def _loaded(path: str, mtime_ns: int) -> paramiko.PKey:
    key = paramiko.PKey.from_path(path)
    key.public_blob = None
    return key


def _load(path: str, mtime_ns: int) -> paramiko.PKey:
    """A private key, read once for all hosts: OpenSSL checks an RSA key for a tenth of a second."""
    with _loading:
        return _loaded(path, mtime_ns)


def public_blob(path: str) -> bytes | None:
    """The public half of a private key's file, without unlocking it: from FILE.pub, or from its own head."""
    try:
        with open(f"{path}.pub", "rb") as file:
            return base64.b64decode(file.read(64 << 10).split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        with open(path, "rb") as file:
            head, *lines, _ = file.read(64 << 10).strip().splitlines()
        if head != b"-----BEGIN OPENSSH PRIVATE KEY-----":
            return None
        # PROTOCOL.key: magic, cipher, kdf, its options, the number of keys, the first public key.
        data, at = base64.b64decode(b"".join(lines)), len(b"openssh-key-v1\0")
        for _ in range(3):
            at += 4 + struct.unpack_from(">I", data, at)[0]
        size = struct.unpack_from(">I", data, at + 4)[0]
        return data[at + 8 : at + 8 + size]
    except (OSError, ValueError, struct.error):
        return None


def _login(link: _Link, target: SshTarget, deadline: _Deadline) -> None:
    agent = None
    if target.agent is not None:
        # An agent that is gone, or that answers nonsense, is none.
        with contextlib.suppress(OSError, paramiko.SSHException, ValueError):
            agent = _Agent(target.agent)
    try:
        _try_keys(link.transport, target, _Keyring(target, agent), deadline)
    finally:
        if agent is not None:
            agent.close()


def _try_keys(transport: paramiko.Transport, target: SshTarget, keys: _Keyring, deadline: _Deadline) -> None:
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
                    "if those are too many (MaxAuthTries): set IdentityFile, and IdentitiesOnly yes",
                ) from error
            raise translate(error, target, Stage.LOGIN, f"with {candidate.name}") from error
        if further:
            raise translate(ssh_exception.PartialAuthentication(further), target, Stage.LOGIN)
        return
    raise _refused(target, keys, tried)


def _refused(target: SshTarget, keys: _Keyring, tried: list[str]) -> LoginError:
    parts = [f"refused: {', '.join(tried)}"] if tried else []
    parts += (
        [f"locked by a passphrase, and not in the agent: {', '.join(keys.locked)}"] if keys.locked else []
    )
    parts += [f"of no use: {'; '.join(keys.unusable)}"] if keys.unusable else []
    text = "; ".join(parts) or "there is no key to try, in files or in an agent"
    if keys.locked:
        agent = "" if os.environ.get("SSH_AUTH_SOCK") else "eval $(ssh-agent); "
        mend = f"unlock it: {agent}ssh-add {keys.locked[0]}"
    elif tried:
        by_hand = _BY_HAND.format(login=target.login_by_hand)
        mend = f"let a key in (ssh-copy-id), or name the right key and user; {by_hand}"
    else:
        mend = (
            "name a key (IdentityFile for ssh, ansible_ssh_private_key_file in an inventory), or ssh-add one"
        )
    return LoginError(f"{target.place} does not let {target.user} in; {text}", mend)


def _start(link: _Link, target: SshTarget, command: str, deadline: _Deadline) -> ParamikoChannel:
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


if TYPE_CHECKING:
    _Buffer = BufferedPipe[bytes]
else:
    _Buffer = BufferedPipe


class _Inbox(_Buffer):
    """In place of a channel's buffer: paramiko's thread hands each message over as it is.

    Its own buffer moves its whole content at every recv(), and wakes a reader through a pipe.
    """

    def __init__(self, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        super().__init__()
        self._take = take
        self._ended = ended

    def feed(self, data: bytes) -> None:
        self._take(data)

    def close(self) -> None:
        self._ended()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """So that recv(), called for as many bytes as the loop has taken, opens the window by them."""
        return bytes(nbytes)


class ParamikoChannel:
    """A command on a host: `base.Channel`."""

    def __init__(self, link: _Link, session: paramiko.Channel) -> None:
        self._link = link
        self._session = session
        # paramiko notifies it when the window opens and when the channel ends; guards all that follows.
        self._changed = session.out_buffer_cv
        self._arrived: list[bytes] = []
        self._announced = False
        self._outgoing: deque[memoryview] = deque()
        self._backlog = 0
        self._sending = False
        """Some thread is handing a message to paramiko: others come behind it."""
        self._socket_bytes = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._taken = 0
        self._to_ack = 0
        self._stopping = False
        self._closed = False
        self._over = False
        self._stderr = StderrTail()
        self._loop: Loop | None = None
        self._grace: Timer | None = None
        self._on_data: Callable[[bytes], None] = lambda data: None
        self._on_end: Callable[[], None] = lambda: None
        session.in_buffer = _Inbox(self._arrive, self._finishing)
        session.in_stderr_buffer = _Inbox(self._complain, lambda: None)
        self._writer = threading.Thread(target=self._write, name="ssh writer", daemon=True)

    def begin(self) -> None:
        """The command has been started: writes may begin."""
        self._writer.start()

    # In paramiko's thread.

    def _arrive(self, data: bytes) -> None:
        with self._changed:
            self._arrived.append(data)
            loop = None if self._announced else self._loop
            self._announced = self._announced or loop is not None
        if loop is not None:
            loop.post(self._deliver)

    def _complain(self, data: bytes) -> None:
        with self._changed:
            self._stderr.feed(data)
            self._count_taken(len(data))

    def _finishing(self) -> None:
        # Stdout has ended, or all has; paramiko holds the channel's lock here.
        loop = self._loop
        if loop is not None:
            loop.post(self._finish)

    # In the loop's thread.

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_data, self._on_end = on_data, on_end
        with self._changed:
            self._loop = loop
            self._announced = True
            over = self._session.closed or bool(self._session.eof_received)
        loop.post(self._deliver)
        if over:
            loop.post(self._finish)

    def _deliver(self) -> None:
        with self._changed:
            self._announced = False
            parts, self._arrived = self._arrived, []
            size = sum(map(len, parts))
            self._count_taken(size)
        if size and not self._closed:
            self._on_data(parts[0] if len(parts) == 1 else b"".join(parts))

    def _count_taken(self, size: int) -> None:
        """With the lock held."""
        self._taken += size
        if self._taken >= _ACK_BYTES:
            self._to_ack, self._taken = self._to_ack + self._taken, 0
            self._changed.notify_all()

    def _finish(self) -> None:
        if self._closed or self._over:
            return
        if not self._session.closed and self._loop is not None:
            if self._grace is None:
                self._grace = self._loop.call_later(END_GRACE_S, self._end)
            return
        self._end()

    def _end(self) -> None:
        self._deliver()
        if self._closed or self._over:
            return
        self._over = True
        if self._grace is not None:
            self._grace.cancel()
        self._on_end()

    def send(self, data: bytes) -> None:
        if not data or self._closed:
            return
        with self._changed:
            if self._session.closed:
                return
            if not self._goes_at_once(len(data)):
                self._outgoing.append(memoryview(data))
                self._backlog += len(data)
                self._changed.notify_all()
                return
            self._sending = True
        # The reading side reports the end.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._session.send(data)
        with self._changed:
            self._sending = False
            if self._to_ack:
                self._changed.notify_all()

    def _goes_at_once(self, size: int) -> bool:
        """Can a message be sent without waiting for anybody? It saves the way through the other thread."""
        session = self._session
        if self._outgoing or self._sending or self._stopping or self._to_ack:
            return False
        if size > min(_PACKET, session.out_window_size, session.out_max_packet_size - 64):
            return False
        if not self._link.transport.clear_to_send.is_set():
            return False  # keys are being exchanged
        waiting = struct.unpack("i", fcntl.ioctl(self._link.sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return int(waiting) + size <= self._socket_bytes // 4

    @property
    def backlog(self) -> int:
        with self._changed:
            return self._backlog

    def diagnosis(self) -> str:
        session, transport = self._session, self._link.transport
        with self._changed:
            words = self._stderr.text()
        status = ""
        if session.exit_status_ready():
            if session.exit_status >= 0:
                status = f"exit status {session.exit_status}"
            elif session.closed and not transport.is_active() and not self._closed:
                status = "the connection broke"
            elif session.closed and not self._closed:
                status = "killed by a signal"  # paramiko does not pass on which
        return "; ".join(part for part in (status, words) if part)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._grace is not None:
            self._grace.cancel()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._writer.join(FLUSH_S)
        self._link.cut()
        self._writer.join(1.0)
        with self._changed:
            self._forget_outgoing()

    # In the writer's thread.

    def _write(self) -> None:
        session = self._session
        try:
            while True:
                with self._changed:
                    while self._sending or not self._has_work():
                        self._changed.wait()
                    if session.closed or (self._stopping and not self._outgoing):
                        break
                    ack, self._to_ack = self._to_ack, 0
                    data = self._next_packet()
                    self._sending = bool(data)
                if ack:
                    session.recv(ack)
                while data:
                    sent = session.send(data)
                    data = data[sent:]
                    with self._changed:
                        self._backlog -= sent
                    if not sent:
                        return
                with self._changed:
                    self._sending = False
            session.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass
        finally:
            with self._changed:
                self._forget_outgoing()

    def _has_work(self) -> bool:
        if self._session.closed or self._to_ack:
            return True
        return self._session.out_window_size > 0 if self._outgoing else self._stopping

    def _next_packet(self) -> bytes:
        """As much as one message carries and the window takes: then no send waits, and acks go between."""
        room = min(_PACKET, self._session.out_max_packet_size - 64, self._session.out_window_size)
        parts: list[memoryview] = []
        while room > 0 and self._outgoing:
            part = self._outgoing.popleft()
            if len(part) > room:
                self._outgoing.appendleft(part[room:])
                part = part[:room]
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def _forget_outgoing(self) -> None:
        self._outgoing.clear()
        self._backlog = 0
