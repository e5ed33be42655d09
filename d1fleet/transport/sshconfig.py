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
from dataclasses import dataclass, field

from ..errors import ConnectError, HostKeyError, InventoryError, ToolError, UsageError
from ..model import Host

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
    """Ways to log in that ssh would try beside keys, by ssh_config keyword; there are none here."""

    @property
    def place(self) -> str:
        """Address and port, for people."""
        return f"{self.hostname} port {self.port}"


def resolve(host: Host, *, config_file: str | None = None, extra: Sequence[str] = ()) -> SshTarget:
    """Ask ssh how it would log in to `host`; the inventory's port, user and identity file win.

    Args:
        config_file: read in place of the user's and the system's configuration (`ssh -F`).
        extra: further options of ssh(1), as D1MAKE_EXTRA_SSH_PARAMETERS has them.

    Raises:
        ToolError: there is no ssh on this machine.
        InventoryError: the name could be taken for an option, or not be put into the ProxyCommand.
        UsageError: ssh cannot read its configuration or `extra`.
        ConnectError: they ask for what only ssh itself can do.
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
    argv = ["ssh", "-G", *options]
    argv += ["-p", str(host.port)] if host.port is not None else []
    argv += ["-l", host.user] if host.user is not None else []
    argv += ["-i", identity] if identity is not None else []
    status, out, err = _ask([*argv, *extra, "--", name])
    if status != 0:
        words = err.strip().splitlines()[-1:] or [f"exit status {status}"]
        raise UsageError(
            f"ssh cannot work out how to reach {name}: {words[0]}",
            f"see what it says: {shlex.join(['ssh', '-G', *options, *extra, '--', name])}",
        )
    settings = _parse(out)
    asked = settings.get("host", [name])[0]
    if asked != name.rpartition("@")[2]:
        raise UsageError(
            f"the extra parameters for ssh hold a word that it takes for a host: {asked}",
            "only options may stand there",
        )
    return _target(host, name, settings, identity, [*options, *_config_option(extra)])


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


def _config_option(extra: Sequence[str]) -> list[str]:
    """The -F among further options: a jump host's ssh needs it too."""
    for place, word in enumerate(extra):
        if word == "-F" and place + 1 < len(extra):
            return ["-F", extra[place + 1]]
        if word.startswith("-F"):
            return [word]
    return []


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
    _refuse_what_only_ssh_does(alias, settings, identities, path)
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
        other_logins=tuple(_other_logins(settings)),
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


_INSTEAD = {
    "RevokedHostKeys": "mark those keys @revoked in known_hosts",
    "KnownHostsCommand": "put the keys that it prints into known_hosts",
    "CertificateFile": "name the certificate FILE-cert.pub, beside its IdentityFile FILE",
    "PKCS11Provider": "load it into an agent (ssh-add -s)",
    "BindAddress": "use a ProxyCommand (nc -s ADDRESS %h %p)",
    "BindInterface": "use a ProxyCommand (socat - TCP:%h:%p,so-bindtodevice=INTERFACE)",
    "ProxyUseFdpass": "use a ProxyCommand that passes the data on itself",
    "PubkeyAuthentication": "allow it, d1fleet logs in by keys alone",
    "PreferredAuthentications": "name publickey there too, d1fleet logs in by keys alone",
}
"""What paramiko would ignore, so that a host is let pass or a login made that was not asked for; and what a
user can do instead.

What is not here does no harm: `ssh -G` has followed it already (CanonicalizeHostname), or we are stricter
(StrictHostKeyChecking, VerifyHostKeyDNS), or it is a further way to log in, missed only by who has no key:
Debian has GSSAPIAuthentication on for everybody, and id_ed25519_sk is among ssh's own IdentityFiles.
"""


def _refuse_what_only_ssh_does(
    alias: str, settings: dict[str, list[str]], identities: list[str], path: Callable[[str], str]
) -> None:
    lost = _only_ssh_does(settings, identities, path)
    if lost:
        names = list(dict.fromkeys(name for name, _ in lost))
        said = ", ".join(f"{name} {value}" for name, value in lost)
        raise ConnectError(
            f"ssh's configuration or options for {alias} have what d1fleet cannot follow: {said}",
            f"{'; '.join(_INSTEAD[name] for name in names)}; then take {', '.join(names)} out of them "
            "for this host, or name another configuration by --ssh-config FILE",
        )


def _only_ssh_does(
    settings: dict[str, list[str]], identities: list[str], path: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Keywords of `_INSTEAD` that are set, with their values."""

    def value(name: str) -> str:
        return settings.get(name.lower(), ["none"])[0]

    lost = [(name, value(name)) for name in ("RevokedHostKeys", "KnownHostsCommand") if value(name) != "none"]
    # Our keys' certificates are found where they usually are; ssh too passes over a file that is not there.
    found = [key for key in identities if os.path.exists(key) or os.path.exists(f"{key}.pub")]
    for text in settings.get("certificatefile", []):
        file = path(text)
        if text != "none" and os.path.exists(file) and file not in [f"{key}-cert.pub" for key in found]:
            lost.append(("CertificateFile", text))
    provider = path(value("PKCS11Provider"))
    if provider != "none" and (os.path.exists(provider) or not os.path.isabs(provider)):
        lost.append(("PKCS11Provider", provider))
    # Through a proxy, ssh itself opens no socket.
    jump, command = value("ProxyJump") != "none", value("ProxyCommand") != "none"
    if not jump and not command:
        lost += [(name, value(name)) for name in ("BindAddress", "BindInterface") if value(name) != "none"]
    elif not jump and _is_on(settings, "proxyusefdpass"):
        lost.append(("ProxyUseFdpass", "yes"))
    if value("PubkeyAuthentication") in ("no", "false"):
        lost.append(("PubkeyAuthentication", "no"))
    preferred = settings.get("preferredauthentications", ["publickey"])[0]
    if "publickey" not in preferred.split(","):
        lost.append(("PreferredAuthentications", preferred))
    return lost


def _is_on(settings: dict[str, list[str]], keyword: str) -> bool:
    return settings.get(keyword, ["no"])[0] not in ("no", "false", "none")


def _other_logins(settings: dict[str, list[str]]) -> list[str]:
    names = ["HostbasedAuthentication"] if _is_on(settings, "hostbasedauthentication") else []
    # Debian's configuration has it on for everybody; it matters to who has a ticket.
    if _is_on(settings, "gssapiauthentication") and (
        "KRB5CCNAME" in os.environ or os.path.exists(f"/tmp/krb5cc_{os.getuid()}")
    ):
        names.append("GSSAPIAuthentication")
    return names


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
        if any(key.marker == "CA" for key in self._keys):
            raise HostKeyError(
                f"the host key of {self.name} is known by a certificate authority alone: {shown}",
                f"add the host's own key: {self._login_without_certificate(kind)}, and answer yes if the "
                "fingerprint is the host's",
            )
        raise HostKeyError(
            f"the host key of {self.name} is not known here: {shown}",
            self._add(),
        )

    def _add(self) -> str:
        target = self._target
        return f"log in once by hand and answer yes if it is the host's own: {target.login_by_hand}"

    def _login_without_certificate(self, kind: str) -> str:
        """ssh asks only for a key that no authority has signed."""
        plain = "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind
        return f"ssh -o HostKeyAlgorithms={plain}{self._target.login_by_hand.removeprefix('ssh')}"


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
