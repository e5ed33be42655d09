"""What ssh's own files say: resolved by the ssh that is installed, parsed here."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from pathlib import Path

import pytest

from d1fleet.errors import HostKeyError, InventoryError, LoginError, ToolError, UsageError
from d1fleet.model import Host
from d1fleet.transport import sshconfig
from d1fleet.transport.sshconfig import KnownHosts, SshTarget, fingerprint, resolve
from tests.support.sshd import missing_reason

pytestmark = pytest.mark.skipif(
    any(name in missing_reason() for name in ("ssh,", "ssh ", "ssh-keygen")), reason="no OpenSSH client"
)


class Config:
    """A configuration file of ssh, and what comes of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resolve(self, text: str, host: Host | None = None, extra: tuple[str, ...] = ()) -> SshTarget:
        self.path.write_text(text)
        return resolve(host or Host("h"), config_file=str(self.path), extra=extra)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "config")


def test_what_ssh_says_is_taken(config: Config, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host h\n  ConnectTimeout 7\n")
    target = config.resolve(
        f"Include {tmp_path}/more\n"
        "Host h\n HostName 192.0.2.7\n Port 2222\n User joe\n IdentitiesOnly yes\n HostKeyAlias other\n"
        " AddressFamily inet6\n ServerAliveInterval 9\n Ciphers aes256-ctr\n"
        f" UserKnownHostsFile {tmp_path}/one {tmp_path}/two\n GlobalKnownHostsFile none\n"
    )
    assert (target.hostname, target.port, target.user) == ("192.0.2.7", 2222, "joe")
    assert (target.name, target.alias) == ("h", "h")
    assert target.connect_timeout_s == 7.0
    assert target.identities_only
    assert target.host_key_alias == "other"
    assert target.address_family == socket.AF_INET6
    assert target.alive_interval_s == 9
    assert target.algorithms["ciphers"] == ("aes256-ctr",)
    assert target.user_known_hosts == (f"{tmp_path}/one", f"{tmp_path}/two")
    assert target.global_known_hosts == ()
    assert target.proxy == ()


def test_defaults(config: Config) -> None:
    target = config.resolve("")
    assert (target.hostname, target.port) == ("h", 22)
    assert target.connect_timeout_s is None
    assert not target.identities_only and not target.identity_chosen
    assert target.address_family == socket.AF_UNSPEC
    assert all(path.startswith("/") for path in target.identity_files)
    assert any(path.endswith("/.ssh/id_ed25519") for path in target.identity_files)


@pytest.mark.parametrize(
    ("text", "host", "by_name"),
    [
        ("", Host("h"), True),
        ("", Host("h", address="192.0.2.1"), False),
        ("", Host("h", address="h"), False),
        ("Host h\n HostName real\n", Host("h"), False),
        ("", Host("H"), True),
    ],
)
def test_whether_a_name_stands_for_the_address(config: Config, text: str, host: Host, by_name: bool) -> None:
    assert config.resolve(text, host).by_name is by_name


def test_the_inventory_wins(config: Config, tmp_path: Path) -> None:
    host = Host("h", address="addr", port=99, user="ann", identity_file=str(tmp_path / "key"))
    target = config.resolve(
        f"Host addr\n Port 1\n User joe\n IdentityFile {tmp_path}/other\nHost h\n HostName wrong\n",
        host,
        ("-p", "5", "-l", "zoe"),
    )
    assert (target.hostname, target.port, target.user) == ("addr", 99, "ann")
    assert target.identity_files == (str(tmp_path / "key"), str(tmp_path / "other"))
    assert target.identity_chosen
    assert target.login_by_hand == f"ssh -F {config.path} -p 99 ann@addr"


def test_further_options_win_over_the_configuration(config: Config) -> None:
    target = config.resolve("Host h\n Port 1\n", None, ("-p", "5", "-oUser=zoe"))
    assert (target.port, target.user) == (5, "zoe")


def test_paths_with_blanks_and_tokens(config: Config, tmp_path: Path) -> None:
    target = config.resolve(
        f'Host h\n User joe\n Port 7\n HostName real\n UserKnownHostsFile "{tmp_path}/a b/k h" {tmp_path}/c\n'
        ' IdentityFile "~/a b/%h_%n_%r_%p_%%"\n IdentityFile %d/x\n'
    )
    home = os.path.expanduser("~")
    assert target.user_known_hosts == (f"{tmp_path}/a b/k h", f"{tmp_path}/c")
    assert target.identity_files == (f"{home}/a b/real_h_joe_7_%", f"{home}/x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", None),
        ("SSH_AUTH_SOCK", "/env/agent"),
        ("$OTHER_AGENT", "/other/agent"),
        ("/path/to agent", "/path/to agent"),
        (None, "/env/agent"),
    ],
)
def test_the_agent(
    config: Config, monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str | None
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/env/agent")
    monkeypatch.setenv("OTHER_AGENT", "/other/agent")
    assert config.resolve(f'Host h\n IdentityAgent "{value}"\n' if value else "").agent == expected


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("gate", ["-W", "[h]:22", "--", "gate"]),
        ("joe@gate:33", ["-l", "joe", "-p", "33", "-W", "[h]:22", "--", "gate"]),
        ("a,joe@b:1,gate", ["-J", "a,joe@b:1", "-W", "[h]:22", "--", "gate"]),
        ("ssh://joe@gate:33", ["-l", "joe", "-p", "33", "-W", "[h]:22", "--", "gate"]),
        ("[fe80::1]:33", ["-p", "33", "-W", "[h]:22", "--", "fe80::1"]),
    ],
)
def test_a_jump_host_is_reached_by_ssh(config: Config, jump: str, expected: list[str]) -> None:
    target = config.resolve(f"Host h\n ProxyJump {jump}\n")
    assert list(target.proxy) == ["ssh", "-F", str(config.path), "-o", "BatchMode=yes", *expected]


def test_a_configuration_among_further_options_reaches_the_jump_host(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("Host h\n ProxyJump gate\n")
    target = resolve(Host("h"), extra=["-F", str(tmp_path / "c")])
    assert target.proxy[:3] == ("ssh", "-F", str(tmp_path / "c"))


def test_a_proxy_command_is_the_users_shells(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    target = config.resolve('Host h\n HostName real\n User joe\n ProxyCommand relay "a b" %h %p %r %n %%\n')
    assert target.proxy == ("/bin/dash", "-c", 'exec relay "a b" real 22 joe h %')
    assert config.resolve("Host h\n ProxyCommand none\n").proxy == ()


def test_a_user_that_a_shell_would_misread_is_kept_out_of_a_proxy_command(config: Config) -> None:
    proxied = "Host h\n ProxyCommand relay %h %r\n"
    with pytest.raises(InventoryError, match="ProxyCommand"):
        config.resolve(proxied, Host("h", user="a*b"))
    config.resolve("Host h\n ProxyCommand relay %h\n", Host("h", user="a+b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RevokedHostKeys /r", "RevokedHostKeys /r"),
        ("KnownHostsCommand /bin/true --token x", "KnownHostsCommand"),
        ("CertificateFile none\n CertificateFile {0}/there", "CertificateFile {0}/there"),
        (
            "CertificateFile {0}/lonely-cert.pub\n IdentityFile {0}/lonely",
            "CertificateFile {0}/lonely-cert.pub",
        ),
        ("PKCS11Provider {0}/there", "PKCS11Provider {0}/there"),
        ("PKCS11Provider searched.so", "PKCS11Provider searched.so"),
        ("BindAddress 192.0.2.1", "BindAddress 192.0.2.1"),
        ("BindInterface eth7", "BindInterface eth7"),
        ("ProxyCommand relay %h\n ProxyUseFdpass yes", "ProxyUseFdpass yes"),
        ("RequiredRSASize 2048", "RequiredRSASize 2048"),
        ("PubkeyAuthentication no\n GSSAPIAuthentication yes", "PubkeyAuthentication no"),
        (
            "HostbasedAuthentication yes\n PreferredAuthentications password,hostbased",
            "PreferredAuthentications password,hostbased",
        ),
        ("BindAddress ::1\n RevokedHostKeys /r", "RevokedHostKeys /r, BindAddress ::1"),
    ],
)
def test_what_only_openssh_follows_is_named(config: Config, tmp_path: Path, text: str, said: str) -> None:
    for name in ("there", "lonely-cert.pub"):
        (tmp_path / name).write_text("")
    target = config.resolve(f"Host h\n {text.format(tmp_path)}\n")
    assert ", ".join(target.only_openssh) == said.format(tmp_path)
    assert config.resolve(f"Host other\n {text.format(tmp_path)}\n").only_openssh == ()


def test_an_option_counts_like_the_configuration(config: Config) -> None:
    assert config.resolve("", None, ("-b", "192.0.2.1")).only_openssh == ("BindAddress 192.0.2.1",)
    args = Host("h", ssh_args=("-b", "192.0.2.1"))
    assert config.resolve("", args).only_openssh == ("BindAddress 192.0.2.1",)


@pytest.mark.parametrize(
    "text",
    [
        "PubkeyAuthentication no",
        "PreferredAuthentications password,hostbased",
        "PubkeyAuthentication no\n GSSAPIAuthentication yes\n PreferredAuthentications publickey,password",
    ],
)
def test_a_login_that_needs_a_question_is_refused(config: Config, text: str) -> None:
    with pytest.raises(LoginError, match="for h allow no login without a question: P") as caught:
        config.resolve(f"Host h\n {text}\n")
    assert "--ssh-config" in caught.value.mend


@pytest.mark.parametrize(
    "text",
    [
        "RevokedHostKeys none\n KnownHostsCommand none\n PKCS11Provider none\n CertificateFile none",
        "CertificateFile {0}/missing",
        "PKCS11Provider {0}/missing.so",
        # sshkeys.py takes it by itself.
        "IdentityFile {0}/key\n CertificateFile {0}/key-cert.pub",
        "IdentityFile {0}/%n_key\n CertificateFile {0}/%n_key-cert.pub",
        # Whoever opens the socket, it is not ssh.
        "ProxyJump gate\n BindAddress 192.0.2.1\n BindInterface eth7\n ProxyUseFdpass yes",
        "ProxyCommand relay %h\n BindAddress 192.0.2.1",
        "ProxyUseFdpass yes",
        "PreferredAuthentications gssapi-with-mic,publickey",
        "PubkeyAuthentication unbound",
        # Further ways to log in: a key may do.
        "HostbasedAuthentication yes\n GSSAPIAuthentication yes",
        "IdentityFile {0}/id_ed25519_sk",
        # ssh -G does it; we are stricter anyway; or it is about what ssh does later.
        "CanonicalizeHostname yes",
        "VerifyHostKeyDNS yes\n StrictHostKeyChecking no\n CheckHostIP yes\n UpdateHostKeys yes",
        "ControlMaster auto\n ControlPath {0}/%C\n ForwardAgent yes\n LocalForward 1 b:2\n Compression yes",
    ],
)
def test_what_does_no_harm_is_left_to_paramiko(config: Config, tmp_path: Path, text: str) -> None:
    for name in ("key", "key-cert.pub", "h_key.pub", "h_key-cert.pub", "id_ed25519_sk"):
        (tmp_path / name).write_text("")
    assert config.resolve(f"Host h\n {text.format(tmp_path)}\n").only_openssh == ()


DEBIAN_12 = "Host *\n SendEnv LANG LC_*\n HashKnownHosts yes\n GSSAPIAuthentication yes\n"
DEBIAN_13 = (
    # 20-systemd-ssh-proxy.conf
    "Host unix/* vsock/*\n ProxyCommand /usr/lib/systemd/systemd-ssh-proxy %h %p\n"
    " ProxyUseFdpass yes\n CheckHostIP no\n"
    "Host .host\n ProxyCommand /usr/lib/systemd/systemd-ssh-proxy unix/run/ssh-unix-local/socket %p\n"
    " ProxyUseFdpass yes\n CheckHostIP no\n"
    "Host *\n SendEnv LANG LC_* COLORTERM NO_COLOR\n HashKnownHosts yes\n GSSAPIAuthentication yes\n"
)


@pytest.mark.parametrize("text", ["", DEBIAN_12, DEBIAN_13, None])
@pytest.mark.parametrize("ticket", [False, True])
def test_defaults_leave_hosts_to_paramiko(
    config: Config, monkeypatch: pytest.MonkeyPatch, text: str | None, ticket: bool
) -> None:
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    if ticket:
        monkeypatch.setenv("KRB5CCNAME", "KEYRING:x")
    for host in (Host("h"), Host("h.example", user="joe", port=2222), Host("h", address="192.0.2.7")):
        # None: this machine's own, as it is installed.
        target = resolve(host) if text is None else config.resolve(text, host)
        assert text is None or target.only_openssh == ()


def test_a_canonical_name_is_the_one_that_ssh_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As `ssh -G` answers for CanonicalizeHostname yes: the name that was asked for, and where it leads.
    fake = tmp_path / "ssh"
    said = "host h\nhostname h.example\ncanonicalizehostname true\nuser joe\nport 77"
    fake.write_text(f"#!/bin/sh\necho '{said}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    target = resolve(Host("h"))
    assert (target.alias, target.hostname, target.port) == ("h", "h.example", 77)


def test_other_ways_to_log_in_are_kept_for_who_has_no_key(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    monkeypatch.setenv("LOGNAME", "joe")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    on = "Host h\n GSSAPIAuthentication yes\n"
    assert config.resolve(on).other_logins == ()
    monkeypatch.setenv("KRB5CCNAME", "KEYRING:x")
    assert config.resolve(on).other_logins == ("GSSAPIAuthentication",)
    assert config.resolve("HostbasedAuthentication yes\n").other_logins == ("HostbasedAuthentication",)


def test_a_security_key_is_another_way_to_log_in(config: Config, tmp_path: Path) -> None:
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = base64.b64encode(len(kind).to_bytes(4, "big") + kind).decode()
    (tmp_path / "sk.pub").write_text(f"{kind.decode()} {blob}\n")
    (tmp_path / "other.pub").write_text(f"ssh-ed25519 {base64.b64encode(KEY).decode()}\n")
    target = config.resolve(f"IdentityFile {tmp_path}/other\nIdentityFile {tmp_path}/sk\n")
    assert target.other_logins == (f"the security key {tmp_path}/sk",)
    assert target.only_openssh == ()


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b", "a\nb", "", "a\0b"])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(InventoryError):
        resolve(Host(name))
    with pytest.raises(InventoryError):
        resolve(Host("h", address=name) if name else Host(""))


def test_a_user_that_is_an_option_is_refused() -> None:
    with pytest.raises(InventoryError):
        resolve(Host("h", user="-oProxyCommand=x"))


@pytest.mark.parametrize("text", ["Host h\n NoSuchOption 1\n", None])
def test_a_configuration_that_ssh_cannot_read(config: Config, text: str | None) -> None:
    with pytest.raises(UsageError, match="ssh cannot work out"):
        if text is None:
            resolve(Host("h"), config_file=str(config.path))
        config.resolve(text or "")


def test_a_word_among_the_options_is_no_host(config: Config) -> None:
    with pytest.raises(UsageError, match="takes for a host: elsewhere"):
        config.resolve("", None, ("elsewhere",))


def test_without_ssh_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="no ssh on this machine") as caught:
        resolve(Host("h"))
    assert "openssh-client" in caught.value.mend


def test_a_configuration_that_hangs(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sshconfig, "ANSWER_TIMEOUT_S", 0.1)
    with pytest.raises(UsageError, match="no answer"):
        config.resolve("")


def test_the_inventorys_options_are_not_repeated_in_an_error(config: Config) -> None:
    host = Host("h", ssh_args=("-o", "ProxyCommand=pass hush", "-o", "NoSuchThing=1"))
    with pytest.raises(UsageError) as caught:
        config.resolve("", host, ("-4",))
    assert "hush" not in str(caught.value) and "-4" in caught.value.mend
    assert "the inventory's ssh arguments" in caught.value.mend


def test_the_settings_options_come_before_the_inventorys(config: Config) -> None:
    target = config.resolve("", Host("h", ssh_args=("-oUser=joe", "-oPort=7")), ("-oUser=ann",))
    assert (target.user, target.port) == ("ann", 7)
    assert target.options == ("-F", str(config.path), "-oUser=ann", "-oUser=joe", "-oPort=7")


def test_of_several_configurations_ssh_reads_the_last(config: Config, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("Host h\n User joe\n ProxyJump gate\n")
    target = config.resolve("Host h\n User ann\n", Host("h", ssh_args=(f"-F{tmp_path}/other",)))
    assert target.user == "joe"
    assert target.proxy[:3] == ("ssh", "-F", f"{tmp_path}/other")


# known_hosts; over a real sshd in test_ssh.py.

KEY = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIKeDbLQ99NplwQd9FiKANzkd4h3BEr8RvpfC3q5WsgAF")
OTHER = KEY[:-1] + b"\x06"


def known(tmp_path: Path, *files: str, port: int = 22, alias: str = "") -> KnownHosts:
    paths = []
    for number, text in enumerate(files):
        paths.append(tmp_path / f"known{number}")
        paths[-1].write_text(text)
    target = SshTarget(
        name="h",
        alias="h",
        hostname="Host.Example",
        port=port,
        user="joe",
        login_by_hand="ssh h",
        user_known_hosts=(*map(str, paths), str(tmp_path / "missing")),
        host_key_alias=alias,
    )
    return KnownHosts(target)


def line(names: str, blob: bytes = KEY, kind: str = "ssh-ed25519") -> str:
    return f"{names} {kind} {base64.b64encode(blob).decode()}\n"


@pytest.mark.parametrize(
    ("names", "port"),
    [
        ("host.example", 22),
        ("other,HOST.example,10.0.0.1", 22),
        ("*.example", 22),
        ("[host.example]:2222", 2222),
        ("host.example", 2222),
    ],
)
def test_names_that_match(tmp_path: Path, names: str, port: int) -> None:
    hosts = known(tmp_path, line(names), port=port)
    assert hosts.kinds == ("ssh-ed25519",)
    hosts.check("ssh-ed25519", KEY)


@pytest.mark.parametrize(
    ("names", "port"), [("other", 22), ("[host.example]:2222", 22), ("!host.example,*", 22)]
)
def test_names_that_do_not(tmp_path: Path, names: str, port: int) -> None:
    hosts = known(tmp_path, line(names), port=port)
    assert hosts.kinds == ()
    with pytest.raises(HostKeyError, match="not known"):
        hosts.check("ssh-ed25519", KEY)


def test_one_of_several_keys_and_files_will_do(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("host.example", OTHER), line("host.example"))
    hosts.check("ssh-ed25519", KEY)
    hosts.check("ssh-ed25519", OTHER)


def test_a_key_that_is_known_without_the_port_never_counts_as_changed(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="not known"):
        known(tmp_path, line("host.example", OTHER), port=2222).check("ssh-ed25519", KEY)


def test_a_changed_key_names_both_fingerprints_file_and_line(tmp_path: Path) -> None:
    hosts = known(tmp_path, "# first\n\n" + line("host.example", OTHER))
    with pytest.raises(HostKeyError) as caught:
        hosts.check("ssh-ed25519", KEY)
    for words in (fingerprint(KEY), fingerprint(OTHER), f"{tmp_path / 'known0'} line 3", "has changed"):
        assert words in caught.value.message


def test_revoked_wins_over_known_whatever_the_order(tmp_path: Path) -> None:
    for text in (
        f"@revoked {line('*')}{line('host.example')}",
        f"{line('host.example')}@revoked {line('*')}",
    ):
        with pytest.raises(HostKeyError, match="revoked"):
            known(tmp_path, text).check("ssh-ed25519", KEY)


def test_a_revoked_key_of_others_does_no_harm(tmp_path: Path) -> None:
    known(tmp_path, f"@revoked {line('*', OTHER)}{line('host.example')}").check("ssh-ed25519", KEY)


def test_an_alias_is_asked_for_alone(tmp_path: Path) -> None:
    known(tmp_path, line("alias"), port=2222, alias="alias").check("ssh-ed25519", KEY)
    with pytest.raises(HostKeyError, match="of alias is not known") as caught:
        known(tmp_path, line("host.example"), port=2222, alias="alias").check("ssh-ed25519", KEY)
    assert "ssh-keyscan" not in caught.value.mend  # it would write another name


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(line("", KEY).lstrip())
    said = subprocess.run(["ssh-keygen", "-lf", file], capture_output=True, text=True, check=True).stdout
    assert fingerprint(KEY) in said


def test_who_has_no_file_of_known_keys_is_told_of_that() -> None:
    target = SshTarget("h", "h", "h", 22, "joe", login_by_hand="ssh h", user_known_hosts=("/dev/null",))
    with pytest.raises(HostKeyError) as caught:
        KnownHosts(target).check("ssh-ed25519", KEY)
    assert "UserKnownHostsFile" in caught.value.mend


def test_an_authority_is_seen_and_vouches_for_no_key_here(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@cert-authority {line('*.example')}")
    assert hosts.by_authority and hosts.kinds == ()
    with pytest.raises(HostKeyError, match="not known"):
        hosts.check("ssh-ed25519", KEY)
    assert not known(tmp_path, f"@cert-authority {line('*.org')}").by_authority
