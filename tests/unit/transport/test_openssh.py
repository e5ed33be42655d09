"""OpenSSH's client as a transport, against a real sshd on loopback, and against what is no sshd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from d1fleet.connect import Connector
from d1fleet.errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError, ToolError
from d1fleet.model import Host
from d1fleet.transport import openssh, openssherrors, pipes
from d1fleet.transport.launcher import MAGIC, Launch
from d1fleet.transport.sshconfig import SshTarget, resolve
from d1fleet.transport.sshterms import DROP_RETRIES
from tests.support.sshd import LoopbackSshd
from tests.unit.transport.test_ssh import (
    NOWHERE,
    TIMEOUT_S,
    Listener,
    Talk,
    add_key,
    authorized,
    make_key,
    other_key,
    wait_for,
)
from tests.unit.transport.test_ssh import agent as agent  # a fixture
from tests.unit.transport.test_ssh import free_port as free_port  # a fixture

SAY = "echo hello; "
"""A channel is there when the command has written something."""

HERE = dataclasses.replace(NOWHERE, hostname="127.0.0.1", destination="127.0.0.1")


@pytest.fixture
def target(sshd: LoopbackSshd) -> SshTarget:
    return resolve(Host("a", transport="openssh"), config_file=str(sshd.ssh_config))


@contextlib.contextmanager
def talk(target: SshTarget, command: str) -> Iterator[Talk]:
    channel = openssh.connect(target, command, timeout_s=TIMEOUT_S)
    with talking(channel) as one:
        yield one


@contextlib.contextmanager
def talking(channel: pipes.PipeChannel) -> Iterator[Talk]:
    try:
        one = Talk(channel)
    except BaseException:
        channel.close()
        raise
    try:
        yield one
    finally:
        channel.close()
        one.until(lambda: process_of(channel).poll() is not None)
        one.loop.close()


def process_of(channel: pipes.PipeChannel) -> subprocess.Popen[bytes]:
    return channel._process


def refused(
    target: SshTarget, kind: type[HostError], timeout_s: float = TIMEOUT_S, command: str = "true"
) -> HostError:
    pids = set(pipes.started_pids)
    with pytest.raises(kind) as caught:
        openssh.connect(target, command, timeout_s=timeout_s)
    assert type(caught.value) is kind
    assert "\033" not in str(caught.value) and "\n" not in caught.value.message
    assert set(pipes.started_pids) <= pids
    return caught.value


def with_option(target: SshTarget, *words: str) -> SshTarget:
    """Before what is there: ssh takes the first."""
    return dataclasses.replace(target, options=(*words, *target.options))


# The command line.


def test_the_command_line() -> None:
    target = dataclasses.replace(
        HERE,
        destination="joe@h",
        options=("-F", "/c d", "-p", "7", "-l", "ann", "-i", "/k", "-vqC", "-oX=y"),
        connect_timeout_s=3.0,
        alive_interval_s=9,
    )
    found = openssh.argv(target, "run 'it'", timeout_s=9.5)
    assert found[:2] == ["ssh", "-T"]
    at = found.index("-F")
    assert found[at:] == [*shlex.split("-F '/c d' -p 7 -l ann -i /k -C -o X=y -- joe@h"), "run 'it'"]
    assert set(found[2:at:2]) == {"-o"}
    forced = found[3:at:2]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=3"} < set(forced)
    assert forced[-1] == "ServerAliveInterval=9"
    # An older ssh would take them for errors.
    assert not [word for word in forced if word.startswith(("SessionType", "StdinNull", "Fork"))]
    assert openssh.argv(HERE, "x", timeout_s=0.2)[-4] == "ServerAliveInterval=15"
    assert "ConnectTimeout=1" in openssh.argv(HERE, "x", timeout_s=0.2)


HOSTILE = """\
Host *
  BatchMode no
  StrictHostKeyChecking no
  NoHostAuthenticationForLocalhost yes
  ControlMaster auto
  ControlPath /tmp/%C
  ForwardAgent yes
  ForwardX11 yes
  LocalForward 1 b:2
  Tunnel yes
  PermitLocalCommand yes
  LocalCommand touch /tmp/x
  RequestTTY force
  RemoteCommand touch /tmp/x
  EscapeChar %
  UpdateHostKeys yes
  AddKeysToAgent yes
  LogLevel QUIET
  SessionType none
  StdinNull yes
  ForkAfterAuthentication yes
  ConnectTimeout 99
"""


@pytest.mark.parametrize("by", ["configuration", "options"])
def test_no_configuration_changes_what_must_not_be_changed(tmp_path: Path, by: str) -> None:
    config = tmp_path / "config"
    config.write_text(HOSTILE if by == "configuration" else "")
    lines = [line.split(None, 1) for line in HOSTILE.splitlines()[1:]]
    options = [f"-o{name}={value}" for name, value in lines] if by == "options" else []
    target = resolve(Host("h", ssh_args=tuple(options)), config_file=str(config))
    assert target.connect_timeout_s == 99
    words = openssh.argv(target, "run", timeout_s=5.0)
    # With -G the command stays away: there is none to be run.
    done = subprocess.run([words[0], "-G", *words[1:-1]], capture_output=True, text=True, check=True)
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    expected = {
        "batchmode": "yes",
        "stricthostkeychecking": "true",
        "nohostauthenticationforlocalhost": "no",
        "controlmaster": "false",
        "forwardagent": "no",
        "forwardx11": "no",
        "clearallforwardings": "yes",
        "tunnel": "false",
        "permitlocalcommand": "no",
        "requesttty": "false",
        "escapechar": "none",
        "updatehostkeys": "false",
        "addkeystoagent": "false",
        "loglevel": "VERBOSE",
        "sessiontype": "default",
        "stdinnull": "no",
        "forkafterauthentication": "no",
        "connecttimeout": "5",
    }
    known = {name: value for name, value in expected.items() if name in target.keywords}
    assert {name: said[name] for name in known} == known
    assert said.get("controlpath", "none") == "none" and said.get("remotecommand", "none") == "none"


def test_the_environment_is_english_and_asks_nobody() -> None:
    mine = {"LANG": "de_DE", "LC_ALL": "de_DE", "LANGUAGE": "de", "SSH_AUTH_SOCK": "/a", "PATH": "/bin"}
    expected = {"SSH_AUTH_SOCK": "/a", "PATH": "/bin", "SSH_ASKPASS_REQUIRE": "never"}
    assert openssh.environment(mine) == expected


# What goes through.


@pytest.mark.sshd
def test_bytes_go_there_and_back_in_order(target: SshTarget) -> None:
    with talk(target, SAY + "exec cat") as one:
        one.until(lambda: one.data == b"hello\n")
        one.channel.send(b"\0\xff\r\n~.")
        one.until(lambda: one.data == b"hello\n\0\xff\r\n~.")
        assert one.channel.backlog == 0
        assert (one.channel.transport, one.channel.reason) == ("openssh", "")


@pytest.mark.sshd
def test_large_data_both_ways_with_a_backlog(target: SshTarget, tmp_path: Path) -> None:
    gate, size = tmp_path / "gate", 8 << 20  # more than the window, the sockets and the pipes take
    with talk(target, f"{SAY}until test -e {gate}; do sleep 0.02; done; cat") as one:
        one.until(lambda: one.data == b"hello\n")
        block = bytes(range(256)) * (size // 256)
        one.channel.send(block)
        assert size // 2 < one.channel.backlog <= size
        gate.touch()
        one.until(lambda: len(one.data) >= size + 6)
        assert one.data[6:] == block
        assert one.channel.backlog == 0


@pytest.mark.full
@pytest.mark.sshd
def test_a_command_that_writes_before_it_reads_does_not_lock_up(target: SshTarget) -> None:
    size = 8 << 20
    script = (
        f"import sys;i,o=sys.stdin.buffer,sys.stdout.buffer;o.write(bytes({size}));o.write(i.read({size}))"
    )
    with talk(target, f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}") as one:
        one.channel.send(b"x" * size)
        one.until(lambda: len(one.data) >= 2 * size)
        assert one.data == bytes(size) + b"x" * size


@pytest.mark.sshd
def test_close_shows_the_command_the_end_of_its_stdin_after_the_last_bytes(
    target: SshTarget, tmp_path: Path
) -> None:
    file = tmp_path / "got"
    with talk(target, f"{SAY}cat > {file}.new; mv {file}.new {file}") as one:
        one.channel.send(b"last words")
    wait_for(file.exists)
    assert file.read_text() == "last words"


@pytest.mark.sshd
def test_a_command_that_ends_at_once_leaves_its_status_and_words(target: SshTarget) -> None:
    with talk(target, "echo 'no \033[31mluck' >&2; exit 127") as one:
        one.wait_end()
        assert one.channel.diagnosis() == "exit status 127; no ?[31mluck"
        assert one.ends == 1


@pytest.mark.full
@pytest.mark.sshd
def test_streams_that_end_early_end_the_channel(target: SshTarget) -> None:
    with talk(target, "echo out; exec >&- 2>&-; read word") as one:
        one.wait_end()
        assert one.data == b"out\n"
        assert one.ends == 1


@pytest.mark.full
@pytest.mark.sshd
def test_much_stderr_does_not_stop_stdout(target: SshTarget) -> None:
    with talk(target, "head -c 5000000 /dev/zero | tr '\\0' 'e' >&2; echo fine") as one:
        one.wait_end()
        assert one.data == b"fine\n"


@pytest.mark.sshd
def test_a_noisy_login_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("x@y: Permission denied (Unauthorized use forbidden).\n")
    noise = 'echo "You have new mail"; echo moo >&2; exec sh -c "$SSH_ORIGINAL_COMMAND"'
    options = {"Banner": str(tmp_path / "banner"), "ForceCommand": noise}
    with LoopbackSshd(tmp_path / "sshd", ("a",), options=options) as server:
        channel = Connector(str(server.ssh_config), (), TIMEOUT_S)(Host("a", transport="openssh"))
        assert isinstance(channel, openssh.OpenSshChannel)
        with talking(channel) as one:
            one.until(lambda: MAGIC in one.data and one.data.endswith(b"\n"))
            assert one.data.startswith(b"You have new mail\n")
            assert Launch().feed(one.data).startswith(b"exec(")


@pytest.mark.sshd
def test_no_terminal_no_agent_no_locale_is_given_to_the_command(
    sshd: LoopbackSshd, tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    config = tmp_path / "config"
    config.write_text(f"Host *\n ForwardAgent yes\n SendEnv LC_*\n{sshd.ssh_config.read_text()}")
    add_key(agent, sshd.key)
    target = resolve(Host("a", ssh_args=("-oIdentityAgent=" + str(agent),)), config_file=str(config))
    with talk(target, "test -t 0 || echo no tty; echo agent=$SSH_AUTH_SOCK lc=$LC_ALL") as one:
        one.wait_end()
        assert one.data == b"no tty\nagent= lc=\n"


# The end, and close().


@pytest.mark.sshd
def test_a_killed_ssh_ends_the_channel(target: SshTarget) -> None:
    with talk(target, SAY + "exec cat") as one:
        assert isinstance(one.channel, pipes.PipeChannel)
        process_of(one.channel).kill()
        one.wait_end()
        assert "killed by signal 9" in one.channel.diagnosis()


@pytest.mark.full
@pytest.mark.sshd
def test_a_killed_sshd_ends_the_channel(sshd: LoopbackSshd, target: SshTarget) -> None:
    before = sshd.sessions()
    with talk(target, SAY + "exec cat") as one:
        for process in set(sshd.sessions()) - set(before):
            process.kill()
        one.wait_end()
        assert "exit status 255" in one.channel.diagnosis() and "closed" in one.channel.diagnosis()


@contextlib.contextmanager
def frozen(sshd: LoopbackSshd, before: set[psutil.Process]) -> Iterator[None]:
    processes = set(sshd.sessions()) - before
    assert processes
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.sshd
@pytest.mark.parametrize("how", ["channel", "clients"])
def test_no_ssh_outlives_a_channel_to_a_frozen_host(sshd: LoopbackSshd, target: SshTarget, how: str) -> None:
    before, clients = set(sshd.sessions()), openssh.Clients()
    channel = openssh.connect(target, SAY + "exec cat", timeout_s=TIMEOUT_S, clients=clients)
    with talking(channel) as one:
        one.until(lambda: one.data == b"hello\n")
        process = process_of(channel)
        with frozen(sshd, before):
            channel.send(bytes(32 << 20))
            begin = time.monotonic()
            channel.close()
            assert time.monotonic() - begin < 0.3, "it holds up the loop"
            if how == "clients":
                clients.close()
                assert process.returncode is not None
            one.until(lambda: process.returncode is not None)
            assert process.pid not in pipes.started_pids
    assert one.ends == 0, "close() was the caller's own wish"


@pytest.mark.sshd
def test_a_channel_that_nobody_started_is_given_back_whole(target: SshTarget) -> None:
    channel = openssh.connect(target, SAY + "exec cat", timeout_s=TIMEOUT_S)
    channel.close()
    assert process_of(channel).returncode is not None


def test_a_login_under_way_is_cut_short_by_the_end_of_the_build(tmp_path: Path) -> None:
    connector = Connector("/dev/null", (), TIMEOUT_S)
    found: list[BaseException] = []

    def connect(port: int) -> None:
        try:
            connector(Host("127.0.0.1", port=port, transport="openssh"))
        except HostError as error:
            found.append(error)

    with Listener(b"SSH-2.0-silent\r\n", keep=True) as server:
        thread = threading.Thread(target=connect, args=(server.port,))
        thread.start()
        wait_for(lambda: server.accepted == 1)
        begin = time.monotonic()
        connector.close()
        thread.join()
        assert time.monotonic() - begin < 5.0
    assert "the build ended" in str(found[0])
    with pytest.raises(ConnectError, match="the build ended"):
        connector(Host("127.0.0.1", port=1, transport="openssh"))


def test_what_another_thread_has_waited_for_is_over() -> None:
    """Its number may belong to anybody by then."""
    with subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait()
        assert openssh._is_over(process, 5.0)
        openssh._kill_group(process)


def test_a_stubborn_proxy_goes_too(tmp_path: Path) -> None:
    script = tmp_path / "stubborn"
    script.write_text(f"#!/bin/sh\ntrap '' TERM HUP\necho $$ > {tmp_path}/pid\nwhile :; do sleep 60; done\n")
    script.chmod(0o755)
    proxied = with_option(dataclasses.replace(HERE, proxy=("x",)), "-F/dev/null", f"-oProxyCommand={script}")
    assert "no answer in time" in refused(proxied, ConnectError, timeout_s=1.0).message
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


# Which client is taken, without an option of ours.


def check_reached(config: Path | str, host: Host, reason: str | None) -> None:
    """The host's Python answers; by paramiko where the reason is None."""
    channel = Connector(str(config), (), TIMEOUT_S)(host)
    try:
        expected = "paramiko" if reason is None else "openssh"
        assert (channel.transport, channel.reason) == (expected, reason or "")
        one = Talk(channel)
        one.until(lambda: MAGIC in one.data)
    finally:
        channel.close()
        if isinstance(channel, pipes.PipeChannel):
            one.until(lambda: process_of(channel).poll() is not None)
        one.loop.close()


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("RevokedHostKeys {folder}/id_ed25519.pub", "RevokedHostKeys {folder}/id_ed25519.pub"),
        (
            "UserKnownHostsFile /dev/null\n KnownHostsCommand /bin/cat {folder}/known_hosts",
            "KnownHostsCommand",
        ),
        ("BindAddress 127.0.0.1", "BindAddress 127.0.0.1"),
        ("Ciphers chacha20-poly1305@openssh.com", "Ciphers without any that paramiko has"),
        pytest.param(
            "MACs umac-128-etm@openssh.com\n Ciphers aes128-ctr",
            "MACs without any that paramiko has",
            marks=pytest.mark.full,
        ),
        ("Ciphers aes256-ctr", None),
        pytest.param(
            "ProxyJump b\n RevokedHostKeys {folder}/id_ed25519.pub",
            "RevokedHostKeys {folder}/id_ed25519.pub",
            marks=pytest.mark.full,
        ),
        ("Include {folder}/more", "RequiredRSASize 3072"),
    ],
)
def test_what_a_configuration_asks_for_is_done(
    sshd: LoopbackSshd, tmp_path: Path, text: str, reason: str | None
) -> None:
    (sshd.folder / "more").write_text("RequiredRSASize 3072\n")
    config = tmp_path / "config"
    config.write_text(f"Host a\n {text.format(folder=sshd.folder)}\n{sshd.ssh_config.read_text()}")
    check_reached(config, Host("a"), reason and reason.format(folder=sshd.folder))


@pytest.mark.full
@pytest.mark.sshd
def test_a_revoked_host_key_is_refused_by_whoever_is_asked(sshd: LoopbackSshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"RevokedHostKeys {sshd.folder}/host_key0.pub\n{sshd.ssh_config.read_text()}")
    with pytest.raises(HostKeyError, match=r"revoked.*OpenSSH's client was used: RevokedHostKeys /"):
        Connector(str(config), (), TIMEOUT_S)(Host("a"))


@pytest.mark.sshd
@pytest.mark.parametrize("transport", [pytest.param("ssh", marks=pytest.mark.full), "openssh"])
def test_a_jump_host_on_another_port_carries_the_connection(tmp_path: Path, transport: str) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a", "b"), servers=2) as server:
        config = tmp_path / "config"
        config.write_text("Host b\n ProxyJump a\n" + server.ssh_config.read_text())
        host = Host("b", transport=transport)
        check_reached(config, host, "as it is set" if transport == "openssh" else None)
        assert server.logs[0].read_text().count("Accepted publickey") == 1


@pytest.mark.full
@pytest.mark.sshd
@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_a_jump_host_of_the_inventory_carries_the_connection(tmp_path: Path, transport: str) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a", "b"), servers=2) as server:
        host = Host("b", transport=transport, ssh_args=("-J", "a"))
        check_reached(server.ssh_config, host, "as it is set" if transport == "openssh" else None)
        assert server.logs[0].read_text().count("Accepted publickey") == 1


@pytest.mark.sshd
def test_a_host_with_a_certificate_is_known_by_its_authority(tmp_path: Path) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a",), certified=True) as server:
        name = f"[127.0.0.1]:{server.ports[0]}"
        check_reached(server.ssh_config, Host("a"), f"known_hosts has an authority for {name}")
        # Another authority, or another name in the certificate, is none.
        good = server.known_hosts.read_text()
        server.known_hosts.write_text(f"@cert-authority {name} {other_key(tmp_path)}\n")
        with pytest.raises(HostKeyError, match="not known here"):
            Connector(str(server.ssh_config), (), TIMEOUT_S)(Host("a"))
        server.known_hosts.write_text(good.replace(name, "other"))
        with pytest.raises(HostKeyError, match=r"certificate is not valid: .*name"):
            Connector(str(server.ssh_config), (), TIMEOUT_S)(Host("a", ssh_args=("-oHostKeyAlias=other",)))


@pytest.mark.sshd
def test_a_users_certificate_elsewhere_is_shown(
    sshd: LoopbackSshd, target: SshTarget, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key")
    certificate = sshd.sign(key, target.user).rename(tmp_path / "elsewhere-cert.pub")
    config = tmp_path / "config"
    config.write_text(
        f"CertificateFile {certificate}\n{sshd.ssh_config.read_text()}".replace(str(sshd.key), str(key))
    )
    with authorized(sshd, sshd.folder / "authority", "cert-authority "):
        check_reached(config, Host("a"), f"CertificateFile {certificate}")


@pytest.mark.sshd
@pytest.mark.parametrize("transport", [pytest.param("ssh", marks=pytest.mark.full), "openssh"])
def test_ipv6(tmp_path: Path, transport: str) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 on loopback: {error.strerror}")
    with LoopbackSshd(tmp_path / "sshd", ("a",), address="::1") as server:
        reason = "as it is set" if transport == "openssh" else None
        check_reached(server.ssh_config, Host("a", transport=transport), reason)
        host = Host("six", address="::1", port=server.ports[0], transport=transport)
        check_reached(server.ssh_config, host, reason)


@pytest.mark.sshd
def test_a_server_with_algorithms_that_paramiko_lacks(tmp_path: Path) -> None:
    options = {"Ciphers": "chacha20-poly1305@openssh.com"}
    with LoopbackSshd(tmp_path / "sshd", ("a",), options=options) as server:
        channel = Connector(str(server.ssh_config), (), TIMEOUT_S)(Host("a"))
        channel.close()
        assert channel.transport == "openssh"
        assert channel.reason.startswith("paramiko and the host have no algorithm in common: ")


@pytest.mark.sshd
def test_other_ways_to_log_in_are_tried_when_no_key_is_let_in(sshd: LoopbackSshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    wrong = make_key(tmp_path / "wrong")
    text = sshd.ssh_config.read_text().replace(str(sshd.key), str(wrong))
    config.write_text(f"HostbasedAuthentication yes\n{text}")
    logins = sshd.count("Connection from")
    with pytest.raises(LoginError) as caught:
        Connector(str(config), (), TIMEOUT_S)(Host("a"))
    assert f"refused: {wrong}; it takes publickey" in caught.value.message
    assert "OpenSSH's client was used: no other key is let in, and there is Hostbased" in caught.value.message
    assert sshd.count("Connection from") == logins + 2
    # Without them, nobody is asked twice.
    config.write_text(text)
    with pytest.raises(LoginError) as caught:
        Connector(str(config), (), TIMEOUT_S)(Host("a"))
    assert "OpenSSH" not in caught.value.message
    assert sshd.count("Connection from") == logins + 3


# Host keys.


@pytest.mark.sshd
def test_an_unknown_key_is_refused_with_the_way_to_add_it(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    error = refused(with_option(target, f"-oUserKnownHostsFile={tmp_path}/empty"), HostKeyError)
    assert f"the host key of [127.0.0.1]:{target.port} is not known here: ED25519" in error.message
    assert error.mend == f"log in once by hand and answer yes if it is the host's own: {target.login_by_hand}"


@pytest.mark.sshd
def test_a_changed_key_is_refused_with_its_fingerprint_and_the_line(
    target: SshTarget, tmp_path: Path
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# a comment\n[127.0.0.1]:{target.port} {other_key(tmp_path)}\n")
    error = refused(with_option(target, f"-oUserKnownHostsFile={file}"), HostKeyError)
    assert "has changed: it shows ED25519 SHA256:" in error.message
    assert f"{file} line 2 has another ED25519" in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{target.port}' -f '{file}'; then log in" in error.mend


@pytest.mark.sshd
def test_a_marked_key_is_refused_though_it_is_known(target: SshTarget, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    line = Path(target.user_known_hosts[0]).read_text().splitlines()[0]
    file.write_text(f"{line}\n@revoked * {line.split(' ', 1)[1]}\n")
    error = refused(with_option(target, f"-oUserKnownHostsFile={file}"), HostKeyError)
    assert "is revoked" in error.message and "do not use" in error.mend


# What ssh says, word by word.

GOODBYE = "Connection closed by UNKNOWN port 65535\n"
KEX = "kex_exchange_identification: Connection closed by remote host\n"
BEHIND = dataclasses.replace(HERE, proxy=("x",))
AUTH = 'Authenticated to 127.0.0.1 ([127.0.0.1]:1) using "publickey".\n'


@pytest.mark.parametrize(
    ("target", "said", "kind", "expected"),
    [
        (
            HERE,
            "Host key ED25519 SHA256:x revoked by file /r\nHost key verification failed.",
            HostKeyError,
            "the host key is revoked: ED25519 SHA256:x, /r",
        ),
        (
            HERE,
            "Certificate invalid: expired\nNo ED25519 host key is known for h and you have requested"
            " strict checking.\nHost key verification failed.",
            HostKeyError,
            "is not valid: expired",
        ),
        (HERE, "Bad server host key: Invalid key length", HostKeyError, "refused: Invalid key length"),
        (HERE, "Host key verification failed.", HostKeyError, "was not accepted: Host key verification"),
        (
            HERE,
            "ssh: Could not resolve hostname h: Temporary failure in name resolution",
            ConnectError,
            "cannot be resolved: Temporary failure",
        ),
        (
            HERE,
            "bind 192.0.2.1: Cannot assign requested address\nssh: connect to host h port 1: failure",
            ConnectError,
            "port 1: bind 192.0.2.1: Cannot assign",
        ),
        (HERE, "ssh: connect to host h port 1: No route to host", ConnectError, "port 1: No route to host"),
        (HERE, "ssh: connect to host h port 1: Connection timed out", ConnectError, "no answer in time"),
        (
            HERE,
            "Connection timed out during banner exchange\nConnection to h port 1 timed out",
            ConnectError,
            "no SSH connection to 127.0.0.1 port 1: no answer in time",
        ),
        (
            HERE,
            "Unable to negotiate with h port 1: no matching cipher found. Their offer: x",
            ConnectError,
            "no matching cipher found. Their offer: x",
        ),
        (
            HERE,
            "Received disconnect from h port 1:2: Too many authentication failures",
            LoginError,
            "refused several keys",
        ),
        (
            HERE,
            f"{AUTH}channel 0: open failed: administratively prohibited: open failed",
            ServerStartError,
            "opens no session (channel 0: open failed: administratively",
        ),
        (HERE, f"{AUTH}exec request failed on channel 0", ServerStartError, "runs no command"),
        (HERE, f"{AUTH}Connection to h closed by remote host.", ServerStartError, "no command starts there"),
        (HERE, "Connection reset by h port 1", ConnectError, "it hung up"),
        (HERE, f"{KEX}Connection closed by h port 1\nnew in OpenSSH 11: \033[2Jmoo", ConnectError, "[2Jmoo"),
        (HERE, "something new", ConnectError, "no SSH connection to 127.0.0.1 port 1: something new"),
        (HERE, "", ConnectError, "ssh ended with exit status 255"),
        (HERE, AUTH, ServerStartError, "ssh ended with exit status 255"),
        (
            BEHIND,
            f"j: Permission denied (publickey).\n{KEX}{GOODBYE}",
            ConnectError,
            "its proxy said: j: Permission denied (publickey).",
        ),
        (
            BEHIND,
            f"No RSA host key is known for j and you have requested strict checking.\n"
            f"Host key verification failed.\n{KEX}{GOODBYE}",
            ConnectError,
            "its proxy said: No RSA",
        ),
        # The host behind the proxy, for all that.
        (
            BEHIND,
            "No RSA host key is known for h and you have requested strict checking.",
            HostKeyError,
            "the host key of h is not known here: RSA",
        ),
    ],
)
def test_what_ssh_says_becomes_one_of_ours(
    target: SshTarget, said: str, kind: type[HostError], expected: str
) -> None:
    tail = pipes.StderrTail()
    tail.feed(said.replace("\n", "\r\n").encode())
    error = openssherrors.explain(target, tail.text(), 255)
    assert type(error) is kind
    assert expected in error.message
    assert error.mend and "{" not in str(error) and str(error).replace("\n", "").isprintable()


def test_lines_that_end_as_for_a_terminal_are_lines() -> None:
    tail = pipes.StderrTail()
    for part in (b"one\r", b"\ntwo\r\n"):
        tail.feed(part)
    assert tail.text() == "one\ntwo"


def test_each_row_of_the_table_is_whole() -> None:
    for pattern, _, words, mend in openssherrors.TABLE:
        facts = dict.fromkeys(["said", "login", "add", "correct", *re.compile(pattern).groupindex], "x")
        assert words.format(**facts) and mend.format(**facts)


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (f"{KEX}Connection closed by 127.0.0.1 port 1", True),
        ("kex_exchange_identification: read: Connection reset by peer\nConnection reset by h port 1", True),
        (f"Exceeded MaxStartups\n{KEX}Connection closed by h port 1", True),
        (f"{KEX}Connection closed by 127.0.0.1 port 1\n{KEX}{GOODBYE}", True),
        (f"no way\n{KEX}{GOODBYE}", False),
        ("Connection closed by 127.0.0.1 port 1", False),
        ("", False),
        (AUTH, False),
    ],
)
def test_what_is_worth_another_try(said: str, again: bool) -> None:
    assert openssherrors.dropped(said) is again


def test_a_text_that_is_no_ones_login_is_no_refusal() -> None:
    assert openssherrors.refused_methods(HERE, "j@h: Permission denied (publickey,password).") == (
        "publickey,password"
    )
    for said in ("it says Permission denied (x).", "sh: /x: Permission denied"):
        assert openssherrors.refused_methods(HERE, said) is None
    assert openssherrors.refused_methods(BEHIND, f"j@h: Permission denied (publickey).\n{GOODBYE}") is None


# Our keys.


@pytest.mark.sshd
def test_a_wrong_user_is_refused(target: SshTarget) -> None:
    stranger = dataclasses.replace(with_option(target, "-lnobodyx"), user="nobodyx")
    error = refused(stranger, LoginError)
    assert "does not let nobodyx in" in error.message and target.identity_files[0] in error.message
    assert "ssh-copy-id" in error.mend
    assert "into d1fleet_builders, run site.yml again" in error.mend
    assert error.mend.endswith(f"; try it by hand: {stranger.login_by_hand}")


@pytest.mark.sshd
def test_a_locked_key_is_named_with_the_way_to_unlock_it(sshd: LoopbackSshd, tmp_path: Path) -> None:
    locked = make_key(tmp_path / "locked", "secret words")
    config = tmp_path / "config"
    config.write_text(sshd.ssh_config.read_text().replace(str(sshd.key), str(locked)))
    error = refused(resolve(Host("a"), config_file=str(config)), LoginError)
    assert f"locked by a passphrase, and not in the agent: {locked}" in error.message
    assert error.mend.endswith(f"ssh-add {locked}")
    assert "secret" not in str(error)


@pytest.mark.full
@pytest.mark.sshd
def test_too_many_keys_are_named_as_such(tmp_path: Path) -> None:
    wrong = make_key(tmp_path / "wrong")
    with LoopbackSshd(tmp_path / "sshd", ("a",), options={"MaxAuthTries": 1}) as server:
        target = resolve(Host("a", identity_file=str(wrong)), config_file=str(server.ssh_config))
        assert "MaxAuthTries" in refused(target, LoginError).mend


@pytest.mark.full
@pytest.mark.sshd
def test_a_server_that_takes_no_keys(tmp_path: Path) -> None:
    options = {"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"}
    with LoopbackSshd(tmp_path / "sshd", ("a",), options=options) as server:
        error = refused(resolve(Host("a"), config_file=str(server.ssh_config)), LoginError)
    assert "takes no keys (password)" in error.message


@pytest.mark.full
@pytest.mark.sshd
def test_a_server_that_opens_no_session(tmp_path: Path) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a",), options={"MaxSessions": 0}) as server:
        error = refused(resolve(Host("a"), config_file=str(server.ssh_config)), ServerStartError)
    assert "MaxSessions" in error.mend


@pytest.mark.sshd
def test_a_command_that_says_nothing_is_given_up(target: SshTarget) -> None:
    error = refused(target, ServerStartError, timeout_s=2.0, command="exec cat")
    assert "works, but no command starts there: no answer in time" in error.message


# No way there.


def test_connection_refused(free_port: int) -> None:
    there = with_option(dataclasses.replace(HERE, port=free_port), f"-p{free_port}", "-F/dev/null")
    error = refused(there, ConnectError)
    assert error.message == f"no connection to 127.0.0.1 port {free_port}: connection refused"


def test_a_name_that_does_not_resolve() -> None:
    nameless = with_option(HERE, "-F/dev/null", "-oHostName=name.invalid")
    error = refused(nameless, ConnectError)
    assert "name cannot be resolved" in error.message
    assert error.mend == "correct the host's name or address"
    error = refused(dataclasses.replace(nameless, name="alder", by_name=True), ConnectError)
    assert error.mend.startswith("alder was used as the address, as there is no other: correct it, or give")


def test_a_login_that_the_end_of_the_build_overtakes() -> None:
    clients = openssh.Clients()
    clients.close()
    with pytest.raises(ConnectError, match=r"^still connecting when the build ended$"):
        clients.start(["true"])


def listening(server: Listener) -> SshTarget:
    return with_option(dataclasses.replace(HERE, port=server.port), f"-p{server.port}", "-F/dev/null")


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-silent\r\n"])
def test_a_port_that_never_answers(greeting: bytes) -> None:
    with Listener(greeting, keep=True) as server:
        begin = time.monotonic()
        error = refused(listening(server), ConnectError, timeout_s=0.7)
        assert time.monotonic() - begin < 5.0
    assert "no answer in time" in error.message


@pytest.mark.parametrize("greeting", [b"", b"Exceeded MaxStartups\r\n"])
def test_a_server_that_hangs_up_is_tried_again_and_then_named(
    monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(openssh, "FIRST_RETRY_S", 0.01)
    with Listener(greeting) as server:
        error = refused(listening(server), ConnectError)
        assert server.accepted == 1 + DROP_RETRIES
    assert "hangs up before it says" in error.message and "MaxStartups" in error.mend


@pytest.mark.sshd
def test_logins_that_max_startups_drops_come_through(tmp_path: Path) -> None:
    # Of two at a time one is dropped for certain; what waits in front of the login keeps the one place.
    with LoopbackSshd(tmp_path / "sshd", ("a",), options={"MaxStartups": 1}) as server:
        target = resolve(Host("a"), config_file=str(server.ssh_config))
        with socket.create_connection(("127.0.0.1", server.ports[0])) as waiting:
            assert waiting.recv(4) == b"SSH-"
            timer = threading.Timer(0.3, lambda: waiting.shutdown(socket.SHUT_RDWR))
            timer.start()
            with talk(target, SAY) as one:
                one.wait_end()
            timer.join()
        assert one.data == b"hello\n"
        assert server.count("Exceeded MaxStartups") + server.count("beginning MaxStartups") > 0


def test_a_server_that_hangs_up_after_its_greeting() -> None:
    with Listener(b"SSH-2.0-brief\r\n") as server:
        error = refused(listening(server), ConnectError)
        assert server.accepted == 1
    assert "hung up" in error.message


def test_another_protocol_version() -> None:
    with Listener(b"SSH-1.0-old\r\n", keep=True) as server:
        assert "versions differ" in refused(listening(server), ConnectError).message


def test_a_proxy_that_fails_is_quoted() -> None:
    words = ("-F/dev/null", "-oProxyCommand=sh -c \"printf 'no \\\\033way\\\\n' >&2; exit 1\"")
    error = refused(with_option(dataclasses.replace(HERE, proxy=("sh",)), *words), ConnectError)
    assert "its proxy said: no ?way" in error.message


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("jump", "said"),
    [
        ("HostName 127.0.0.1\n Port 1", "connect to host 127.0.0.1 port 1: Connection refused"),
        pytest.param(
            "User nobodyx", "nobodyx@127.0.0.1: Permission denied (publickey)", marks=pytest.mark.full
        ),
        pytest.param("UserKnownHostsFile /dev/null", "No ED25519 host key is known", marks=pytest.mark.full),
    ],
)
def test_a_jump_host_that_does_not_let_us_through_is_quoted(
    sshd: LoopbackSshd, tmp_path: Path, jump: str, said: str
) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host a\n ProxyJump b\nHost b\n {jump}\n{sshd.ssh_config.read_text()}")
    error = refused(resolve(Host("a"), config_file=str(config)), ConnectError)
    assert error.message.partition("its proxy said: ")[2].removeprefix("ssh: ").startswith(said)


def test_without_ssh_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="ssh cannot be started"):
        openssh.connect(HERE, "true", timeout_s=1.0)


@pytest.mark.sshd
def test_the_reason_stands_in_each_error(target: SshTarget) -> None:
    with pytest.raises(LoginError, match=r"\(OpenSSH's client was used: it is Tuesday\)\n") as caught:
        openssh.connect(with_option(target, "-lnobodyx"), "true", timeout_s=TIMEOUT_S, reason="it is Tuesday")
    assert caught.value.mend


def test_signals_of_the_terminal_are_not_for_it() -> None:
    process = pipes.start(["sleep", "60"])
    channel = pipes.PipeChannel(process)
    try:
        assert os.getsid(process.pid) == process.pid
        assert process.pid in pipes.started_pids, "the build's reaper would take its status away"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        channel.close()


def test_a_number_that_was_given_back_is_nobodys_to_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers come round again: a group of that number may be a stranger's by now."""
    gone, here = pipes.start(["true"]), pipes.start(["sleep", "60"])
    channels = [pipes.PipeChannel(process) for process in (gone, here)]
    gone.wait()
    killed: list[int] = []
    kill = os.killpg

    def killpg(group: int, number: int) -> None:
        killed.append(group)
        kill(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    openssh._end([gone, here])
    for channel in channels:
        channel.close()
    assert here.returncode == -signal.SIGTERM
    assert set(killed) == {here.pid}
    assert not {gone.pid, here.pid} & pipes.started_pids
