"""What OpenSSH's own files say about a host: its configuration by `ssh -G`, its keys by `ssh-keygen -F`.

ssh_config(5) has Include, Match and tokens, and known_hosts (sshd(8)) has hashes, patterns and markers;
asking OpenSSH costs a few milliseconds a host and is right by definition. paramiko's own readers know only
a part, and give up a whole known_hosts for one line with a marker.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import sshargs
from ..errors import HostKeyError, InventoryError, ToolError, UsageError
from ..model import Host
from . import sshneeds

ANSWER_TIMEOUT_S = 20.0
"""For `ssh -G` and `ssh-keygen -F`: a `Match exec` may run a program. A guess."""

_SHELL_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@%+-]*\Z")
"""Host names, addresses and users that may be put into a ProxyCommand, which a shell reads."""

_TOKEN = re.compile(r"%(.)")


@dataclass(frozen=True)
class SshTarget:
    """Where and how to log in, as ssh would; what None means is said at each field."""

    name: str
    """The host's name in the inventory, for people."""
    alias: str
    """The name that ssh's configuration was asked for."""
    hostname: str
    port: int
    user: str
    login_by_hand: str
    """The command that a person would type to log in."""
    identity_files: tuple[str, ...] = ()
    """Private keys in the order of preference; they need not exist."""
    identity_chosen: bool = False
    """The first identity file was named by the inventory: it is tried before any other key."""
    identities_only: bool = False
    agent: str | None = None
    """Socket of the agent; None means that there is none, or that it must not be asked."""
    user_known_hosts: tuple[str, ...] = ()
    global_known_hosts: tuple[str, ...] = ()
    host_key_alias: str = ""
    connect_timeout_s: float | None = None
    """None: nothing said."""
    address_family: int = socket.AF_UNSPEC
    alive_interval_s: int = 0
    """0: nothing said."""
    proxy: tuple[str, ...] = ()
    """argv of a program whose stdin and stdout are the connection; empty for TCP."""
    algorithms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What ssh would offer, by ssh_config keyword in lower case; a missing keyword restricts nothing."""
    other_logins: tuple[str, ...] = ()
    """Ways to log in that OpenSSH's client has beside the keys that paramiko can use, for people."""
    only_openssh: tuple[str, ...] = ()
    """What is set that paramiko would ignore, for people; empty: either client will do."""
    destination: str = ""
    """What ssh was asked for: the alias, perhaps with a user before an `@`."""
    options: tuple[str, ...] = ()
    """Options that ssh was asked with: the configuration, the inventory's words, further ones."""
    keywords: frozenset[str] = frozenset()
    """What this machine's ssh has answered for, in lower case: others it may not know."""
    by_name: bool = False
    """Nobody has given an address, neither the inventory nor ssh's configuration: the name stands for it."""

    @property
    def place(self) -> str:
        """Address and port, for people."""
        return f"{self.hostname} port {self.port}"

    @property
    def correct_name(self) -> str:
        """What to do about a name that cannot be resolved."""
        if self.by_name:
            return (
                f"{self.name} was used as the address, as there is no other: correct it, or give one "
                "(ansible_host in an inventory, HostName in ssh's configuration)"
            )
        return "correct the host's name or address"

    @property
    def add_host_key(self) -> str:
        """What to do about a host key that is not known."""
        files = {*self.user_known_hosts, *self.global_known_hosts}
        if not files - {os.devnull}:
            # Common in inventories, beside StrictHostKeyChecking=no.
            return "take UserKnownHostsFile out of ssh's options for this host: with that, no key is known"
        return f"log in once by hand and answer yes if it is the host's own: {self.login_by_hand}"


def resolve(host: Host, *, config_file: str | None = None, extra: Sequence[str] = ()) -> SshTarget:
    """Ask ssh how it would log in to `host`; the inventory's port, user and identity file win.

    Args:
        config_file: read in place of the user's and the system's configuration (`ssh -F`).
        extra: further options of ssh(1), as D1MAKE_EXTRA_SSH_PARAMETERS has them; they come before those
            that the inventory has for this host.

    Raises:
        ToolError: there is no ssh on this machine.
        InventoryError: the name could be taken for an option, or not be put into the ProxyCommand.
        UsageError: ssh cannot read its configuration or `extra`.
        LoginError: they allow no login without a question.
    """
    name = host.address or host.name
    for word in (name, host.user or ""):
        if word.startswith("-") or any(c.isspace() or not c.isprintable() for c in word):
            raise InventoryError(
                f"host {host.name!r}: {word!r} can be no host name or user", "correct it in the inventory"
            )
    if not name:
        raise InventoryError("a host has an empty name", "correct it in the inventory")
    options = ["-F", config_file] if config_file is not None else []
    identity = os.path.abspath(os.path.expanduser(host.identity_file)) if host.identity_file else None
    # ssh takes the first value of each, so that the inventory comes first.
    asked_with = list(options)
    asked_with += ["-p", str(host.port)] if host.port is not None else []
    asked_with += ["-l", host.user] if host.user is not None else []
    asked_with += ["-i", identity] if identity is not None else []
    asked_with += [*extra, *host.ssh_args]
    status, out, err = _ask(["ssh", "-G", *asked_with, "--", name])
    if status != 0:
        words = err.strip().splitlines()[-1:] or [f"exit status {status}"]
        # What an inventory has is not repeated: a ProxyCommand can hold a password.
        raise UsageError(
            f"ssh cannot work out how to reach {name}: {words[0]}",
            f"see what it says: {shlex.join(['ssh', '-G', *options, *extra, '--', name])}"
            + (", with the inventory's ssh arguments for this host" if host.ssh_args else ""),
        )
    settings = _parse(out)
    asked = settings.get("host", [name])[0]
    if asked != name.rpartition("@")[2]:
        raise UsageError(
            f"the extra parameters for ssh hold a word that it takes for a host: {asked}",
            "only options may stand there",
        )
    file = sshargs.config_file([*options, *extra, *host.ssh_args])
    config = ["-F", file] if file is not None else []
    sshneeds.check_logins(asked, settings)
    target = _target(host, name, settings, identity, config)
    return replace(target, destination=name, options=tuple(asked_with), keywords=frozenset(settings))


def _ask(argv: list[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ToolError(f"there is no {argv[0]} on this machine", "install openssh-client") from error
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be run: {error.strerror}", "look at openssh-client") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"{argv[0]} gave no answer in {ANSWER_TIMEOUT_S:.0f} s",
            "look at 'Match exec' in ssh's configuration",
        ) from error
    return done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)


def _parse(text: str) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        settings.setdefault(keyword.lower(), []).append(value)
    return settings


def _target(
    host: Host, name: str, settings: dict[str, list[str]], identity: str | None, config: list[str]
) -> SshTarget:
    def one(keyword: str, default: str = "") -> str:
        value = settings.get(keyword, [default])[0]
        return default if value == "none" else value

    hostname, port, user = one("hostname", name), int(one("port", "22")), one("user")
    alias, key_alias = name.rpartition("@")[2], one("hostkeyalias")
    tokens = _tokens(hostname, port, user, alias, key_alias, one("proxyjump"))

    def path(text: str) -> str:
        return os.path.expanduser(_expand(text, tokens))

    identities = [path(value) for value in settings.get("identityfile", []) if value != "none"]
    if identity is not None:
        identities = [identity, *(other for other in identities if other != identity)]
    by_hand = ["ssh", *config, *(["-p", str(host.port)] if host.port is not None else [])]
    by_hand += [f"{host.user}@{name}" if host.user is not None else name]
    algorithms = {
        keyword: tuple(one(keyword).split(","))
        for keyword in ("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms")
        if one(keyword)
    }
    return SshTarget(
        name=host.name,
        alias=alias,
        hostname=hostname,
        port=port,
        user=user,
        login_by_hand=shlex.join(by_hand),
        identity_files=tuple(dict.fromkeys(identities)),
        identity_chosen=identity is not None,
        identities_only=one("identitiesonly") == "yes",
        agent=_agent(settings.get("identityagent", ["SSH_AUTH_SOCK"])[0], path),
        user_known_hosts=_paths(one("userknownhostsfile")),
        global_known_hosts=_paths(one("globalknownhostsfile")),
        host_key_alias=key_alias,
        connect_timeout_s=float(one("connecttimeout", "0")) or None,
        address_family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(
            one("addressfamily"), socket.AF_UNSPEC
        ),
        alive_interval_s=int(one("serveraliveinterval", "0")),
        proxy=_proxy(one("proxyjump"), one("proxycommand"), tokens, config),
        algorithms=algorithms,
        by_name=host.address is None and hostname.lower() == alias.lower(),  # ssh has it in lower case
        other_logins=tuple(sshneeds.other_logins(settings, identities)),
        only_openssh=tuple(sshneeds.needs(settings, identities, path)),
    )


def _tokens(hostname: str, port: int, user: str, alias: str, key_alias: str, jump: str) -> dict[str, str]:
    """TOKENS of ssh_config(5)."""
    local = socket.gethostname()
    parts = "".join((local, hostname, str(port), user, jump)).encode("utf-8", "surrogateescape")
    return {
        "%": "%",
        "C": hashlib.sha1(parts, usedforsecurity=False).hexdigest(),
        "d": os.path.expanduser("~"),
        "h": hostname,
        "i": str(os.getuid()),
        "j": jump,
        "k": key_alias or alias,
        "L": local.partition(".")[0],
        "l": local,
        "n": alias,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    text = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), text)
    return _TOKEN.sub(lambda match: tokens.get(match[1], match[0]), text)


def _agent(value: str, path: Callable[[str], str]) -> str | None:
    if value == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:]) or None
    return path(value)


def _paths(text: str) -> tuple[str, ...]:
    """`ssh -G` prints paths without quotes: a word that does not begin a path belongs to the one before."""
    found: list[str] = []
    for word in text.split(" "):
        if found and not word.startswith(("/", "~")):
            found[-1] += f" {word}"
        elif word:
            found.append(word)
    return tuple(os.path.expanduser(path) for path in found)


def _proxy(jump: str, command: str, tokens: Mapping[str, str], config: list[str]) -> tuple[str, ...]:
    if jump:
        *before, last = jump.split(",")
        argv = ["ssh", *config, "-o", "BatchMode=yes"]
        argv += ["-J", ",".join(before)] if before else []
        user, at, place = last.rpartition("@")
        argv += ["-l", user] if at else []
        jump_host, jump_port = _host_and_port(place)
        argv += ["-p", jump_port] if jump_port else []
        return (*argv, "-W", f"[{tokens['h']}]:{tokens['p']}", "--", jump_host)
    if not command:
        return ()
    for token in re.findall(r"%([hnrk])", command):
        if not _SHELL_SAFE.match(tokens[token]):
            raise InventoryError(
                f"{tokens[token]!r} cannot be put into the ProxyCommand: a shell would misread it",
                "use a plain host name and user",
            )
    # As ssh does it: the user's shell, replaced by the command.
    return (os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {_expand(command, tokens)}")


def _host_and_port(place: str) -> tuple[str, str]:
    """The end of a ProxyJump: host, host:port, [address]:port or a bare address."""
    bracketed = re.fullmatch(r"\[(.*)\](?::(\d+))?", place)
    if bracketed:
        return bracketed[1], bracketed[2] or ""
    host, _, port = place.partition(":")
    return (place, "") if ":" in port else (host, port)


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file that is about a host."""

    kind: str
    blob: bytes
    file: str
    line: int
    marker: str = ""
    """"CA" (@cert-authority), "REVOKED" (@revoked), or nothing."""

    @property
    def place(self) -> str:
        return f"{self.file} line {self.line}"


def fingerprint(blob: bytes) -> str:
    """A key's SHA256 as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class KnownHosts:
    """The keys that a host may have, from the user's and the machine's known_hosts.

    Raises:
        ToolError: there is no ssh-keygen on this machine.
    """

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._files = [
            path for path in (*target.user_known_hosts, *target.global_known_hosts) if os.path.isfile(path)
        ]
        plain = target.hostname.lower()
        self.name = target.host_key_alias or (plain if target.port == 22 else f"[{plain}]:{target.port}")
        self._keys = self._look_up(self.name)
        # As ssh: a key that is known for the host without a port will do, but is never 'changed'.
        named_plainly = self.name in (plain, target.host_key_alias)
        self._portless = [] if self._own() or named_plainly else self._look_up(plain)

    def _own(self) -> list[KnownKey]:
        return [key for key in self._keys if not key.marker]

    def _look_up(self, name: str) -> list[KnownKey]:
        keys: list[KnownKey] = []
        for path in self._files:
            _, out, _ = _ask(["ssh-keygen", "-F", name, "-f", path])
            keys += _parse_found(out, path)
        return keys

    @property
    def by_authority(self) -> bool:
        """Does somebody vouch for hosts of this name by certificates?"""
        return any(key.marker == "CA" for key in (*self._keys, *self._portless))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of key that are known, such as ssh-ed25519: to be asked for first."""
        return tuple(dict.fromkeys(key.kind for key in (*self._own(), *self._portless) if not key.marker))

    def check(self, kind: str, blob: bytes) -> None:
        """Accept the key that the host has shown, or refuse it.

        Raises:
            HostKeyError: the key is revoked, has changed, or is not known.
        """
        shown = f"{kind} {fingerprint(blob)}"
        for key in (*self._keys, *self._portless):
            if key.marker == "REVOKED" and key.blob == blob:
                raise HostKeyError(
                    f"the host key of {self.name} is revoked: {shown}, {key.place}",
                    "do not use this host until its administrator has given it a new key",
                )
        own = self._own()
        if any(key.blob == blob for key in own) or any(
            key.blob == blob and not key.marker for key in self._portless
        ):
            return
        same_kind = [key for key in own if key.kind == kind]
        if own:
            old = (same_kind or own)[0]
            what = "has changed" if same_kind else "is of another kind than the known one"
            raise HostKeyError(
                f"the host key of {self.name} {what}: it shows {shown}, "
                f"{old.place} has {old.kind} {fingerprint(old.blob)}",
                "somebody may stand between you and the host; only if its administrator confirms the new "
                f"fingerprint: ssh-keygen -R '{self.name}' -f {old.file}; then {self._add()}",
            )
        raise HostKeyError(
            f"the host key of {self.name} is not known here: {shown}",
            self._add(),
        )

    def _add(self) -> str:
        return self._target.add_host_key


def _parse_found(text: str, path: str) -> list[KnownKey]:
    """The answer of `ssh-keygen -F`: a comment with line and marker, then the line itself."""
    keys: list[KnownKey] = []
    number, marker = 0, ""
    for line in text.splitlines():
        if line.startswith("#"):
            found = re.search(r" found: line (\d+) ?(CA|REVOKED)?", line)
            number, marker = (int(found[1]), found[2] or "") if found else (0, "")
            continue
        words = line.split()
        words = words[1:] if words and words[0].startswith("@") else words
        if len(words) < 3:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        keys.append(KnownKey(words[1], blob, path, number, marker))
    return keys
