"""The paramiko transport against a real sshd on loopback, and against what is no sshd."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import psutil
import pytest
from paramiko import ssh_exception

from d1fleet.errors import ConnectError, HostError, HostKeyError, LoginError, ServerStartError
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.transport import ssh, ssherrors, sshkeys, sshterms
from d1fleet.transport.base import Channel
from d1fleet.transport.sshchannel import ParamikoChannel
from d1fleet.transport.sshconfig import SshTarget, resolve
from tests.support.sshd import LoopbackSshd

TIMEOUT_S = 20.0

NOWHERE = SshTarget(
    name="h", alias="h", hostname="127.0.0.1", port=1, user="nobody", login_by_hand="ssh -p 1 h"
)


@pytest.fixture
def target(sshd: LoopbackSshd) -> SshTarget:
    return resolve(Host("a"), config_file=str(sshd.ssh_config))


class Talk:
    """A channel with a loop around it: what came, and whether it ended."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.loop = Loop()
        self.data = b""
        self.ends = 0
        channel.start(self.loop, self._on_data, self._on_end)

    def _on_data(self, data: bytes) -> None:
        self.data += data

    def _on_end(self) -> None:
        self.ends += 1

    def until(self, condition: Callable[[], bool], seconds: float = TIMEOUT_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"nothing came of it; {len(self.data)} bytes, {self.ends} ends"
            )
            self.loop.run_once(0.05)

    def wait_end(self) -> None:
        self.until(lambda: self.ends > 0)


@contextlib.contextmanager
def talk(target: SshTarget, command: str) -> Iterator[Talk]:
    channel = ssh.connect(target, command, timeout_s=TIMEOUT_S)
    try:
        one = Talk(channel)
    except BaseException:
        channel.close()
        raise
    try:
        yield one
    finally:
        channel.close()
        one.loop.close()


def refused(target: SshTarget, kind: type[HostError], timeout_s: float = TIMEOUT_S) -> HostError:
    with pytest.raises(kind) as caught:
        ssh.connect(target, "true", timeout_s=timeout_s)
    assert type(caught.value) is kind
    return caught.value


# What goes through.


@pytest.mark.sshd
def test_bytes_go_there_and_back_in_order(target: SshTarget) -> None:
    with talk(target, "cat") as one:
        for number in range(200):
            one.channel.send(b"line %d\n" % number)
        expected = b"".join(b"line %d\n" % number for number in range(200))
        one.until(lambda: len(one.data) >= len(expected))
        assert one.data == expected
        assert one.channel.backlog == 0
        one.channel.send(b"\0\xff\r\n")
        one.until(lambda: one.data.endswith(b"\0\xff\r\n"))


@pytest.mark.sshd
def test_a_mebibyte_and_more_goes_both_ways(target: SshTarget) -> None:
    block = bytes(range(256)) * (24 << 10)  # 6 MiB: three windows
    with talk(target, "cat") as one:
        one.channel.send(block)
        one.until(lambda: len(one.data) >= len(block))
        assert one.data == block


@pytest.mark.sshd
def test_a_command_that_writes_before_it_reads_does_not_lock_up(target: SshTarget) -> None:
    # Our writes wait for its window, its writes for ours: acks must pass our waiting writes.
    size = 8 << 20
    script = (
        f"import sys;i,o=sys.stdin.buffer,sys.stdout.buffer;o.write(bytes({size}));o.write(i.read({size}))"
    )
    with talk(target, f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}") as one:
        one.channel.send(b"x" * size)
        one.until(lambda: len(one.data) >= 2 * size)
        assert one.data == bytes(size) + b"x" * size


@pytest.mark.sshd
def test_the_backlog_is_what_has_not_left(target: SshTarget, tmp_path: Path) -> None:
    gate, size = tmp_path / "gate", 16 << 20  # more than the window, the sockets and the pipe take
    with talk(target, f"until test -e {gate}; do sleep 0.02; done; cat | wc -c") as one:
        one.channel.send(bytes(size))
        assert 0 < one.channel.backlog <= size
        wait_for(lambda: one.channel.backlog < size)
        assert one.channel.backlog > size // 2
        gate.touch()
        one.until(lambda: one.channel.backlog == 0)


@pytest.mark.sshd
def test_close_shows_the_command_the_end_of_its_stdin_after_the_last_bytes(
    target: SshTarget, tmp_path: Path
) -> None:
    file = tmp_path / "got"
    with talk(target, f"cat > {file}.new; mv {file}.new {file}") as one:
        one.channel.send(b"last words")
    wait_for(file.exists)
    assert file.read_text() == "last words"


@pytest.mark.sshd
def test_streams_that_end_early_end_the_channel(target: SshTarget) -> None:
    with talk(target, "echo out; exec >&- 2>&-; read word") as one:
        one.wait_end()
        assert one.data == b"out\n"
        assert one.ends == 1


@pytest.mark.sshd
def test_a_command_that_fails_at_once_leaves_its_status_and_words(target: SshTarget) -> None:
    with talk(target, "echo 'no \033[31mluck' >&2; exit 3") as one:
        one.wait_end()
        diagnosis = one.channel.diagnosis()
        assert "exit status 3" in diagnosis
        assert "no ?[31mluck" in diagnosis
        assert one.ends == 1


@pytest.mark.sshd
def test_much_stderr_does_not_stop_stdout(target: SshTarget) -> None:
    with talk(target, "head -c 5000000 /dev/zero | tr '\\0' 'e' >&2; echo fine") as one:
        one.wait_end()
        assert one.data == b"fine\n"


@pytest.mark.sshd
def test_a_command_that_dies_of_a_signal(target: SshTarget) -> None:
    with talk(target, "kill -9 $$") as one:
        one.wait_end()
        assert "signal" in one.channel.diagnosis()


@pytest.mark.sshd
def test_what_came_before_start_is_kept(target: SshTarget, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    channel = ssh.connect(target, f"echo early; touch {ready}", timeout_s=TIMEOUT_S)
    try:
        wait_for(ready.exists)
        wait_for(lambda: channel.diagnosis() != "")  # the channel has ended too
        one = Talk(channel)
        one.wait_end()
        one.loop.close()
    finally:
        channel.close()
    assert one.data == b"early\n"


@pytest.mark.sshd
def test_two_channels_at_once_though_max_sessions_is_1(sshd: LoopbackSshd, target: SshTarget) -> None:
    logins = sshd.accepted_logins()
    with talk(target, "cat") as first, talk(target, "cat") as second:
        first.channel.send(b"one")
        second.channel.send(b"two")
        first.until(lambda: first.data == b"one")
        second.until(lambda: second.data == b"two")
    assert sshd.accepted_logins() == logins + 2


@pytest.mark.sshd
def test_no_terminal_no_agent_is_given_to_the_command(target: SshTarget) -> None:
    with talk(target, "test -t 0 || echo no tty; echo agent=$SSH_AUTH_SOCK") as one:
        one.wait_end()
        assert one.data == b"no tty\nagent=\n"


@pytest.mark.sshd
def test_the_fast_cipher_is_agreed(target: SshTarget) -> None:
    with talk(target, "cat") as one:
        assert isinstance(one.channel, ParamikoChannel)
        assert one.channel._link.transport.local_cipher == "aes128-gcm@openssh.com"


@pytest.mark.sshd
def test_a_configuration_without_common_ciphers_is_said(target: SshTarget) -> None:
    only = dataclasses.replace(target, algorithms={"ciphers": ("chacha20-poly1305@openssh.com",)})
    error = refused(only, ConnectError)
    assert "Ciphers" in error.message and "to Ciphers" in error.mend and "aes128-gcm" in error.mend


# The end, and close().


@pytest.mark.sshd
def test_a_killed_sshd_ends_the_channel(sshd: LoopbackSshd, target: SshTarget) -> None:
    before = sshd.sessions()
    with talk(target, "cat") as one:
        for process in set(sshd.sessions()) - set(before):
            process.kill()
        one.wait_end()
        assert "connection broke" in one.channel.diagnosis()


@pytest.mark.sshd
@pytest.mark.parametrize("backlog_bytes", [0, 32 << 20])
def test_close_returns_in_time_when_sshd_is_frozen(
    sshd: LoopbackSshd, target: SshTarget, backlog_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "IDLE_CHECK_S", 60.0)  # nothing ends by itself in time
    before = set(sshd.sessions())
    threads = set(threading.enumerate())
    with talk(target, "cat") as one:
        one.channel.send(b"hello")
        one.until(lambda: one.data == b"hello")
        frozen = set(sshd.sessions()) - before
        for process in frozen:
            process.suspend()
        try:
            one.channel.send(bytes(backlog_bytes))
            begin = time.monotonic()
            one.channel.close()
            assert time.monotonic() - begin < 1.5
            assert set(threading.enumerate()) <= threads
            assert one.channel.backlog == 0
        finally:
            for process in frozen:
                process.resume()
    assert one.ends == 0, "close() was the caller's own wish"


@pytest.mark.sshd
def test_nothing_of_a_channel_is_left(target: SshTarget) -> None:
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with talk(target, "cat") as one:
            one.channel.send(b"x")
        one.channel.close()
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/proc/self/fd")) == files


# Host keys.


@pytest.fixture
def known_hosts(target: SshTarget, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copy(target.user_known_hosts[0], tmp_path / "known_hosts"))


def with_file(target: SshTarget, path: Path) -> SshTarget:
    return dataclasses.replace(target, user_known_hosts=(str(path),))


def run_cat(target: SshTarget) -> None:
    with talk(target, "echo fine") as one:
        one.wait_end()
        assert one.data == b"fine\n"


def other_key(tmp_path: Path, kind: str = "ed25519") -> str:
    path = tmp_path / f"other_{kind}"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True, stdin=subprocess.DEVNULL
    )
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@pytest.mark.sshd
def test_an_unknown_key_is_refused_with_the_way_to_add_it(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    error = refused(with_file(target, tmp_path / "empty"), HostKeyError)
    assert "not known" in error.message and "SHA256:" in error.message
    assert "log in once by hand" in error.mend and "answer yes" in error.mend
    assert "StrictHostKeyChecking" not in str(error)


@pytest.mark.sshd
def test_a_changed_key_is_refused_with_both_fingerprints_and_the_line(
    target: SshTarget, tmp_path: Path, known_hosts: Path
) -> None:
    known_hosts.write_text(f"# a comment\n[127.0.0.1]:{target.port} {other_key(tmp_path)}\n")
    error = refused(with_file(target, known_hosts), HostKeyError)
    assert "has changed" in error.message
    assert len(set(re.findall(r"SHA256:[\w+/]{43}", error.message))) == 2
    assert f"{known_hosts} line 2" in error.message
    assert "ssh-keygen -R" in error.mend


@pytest.mark.sshd
def test_a_key_of_another_kind_is_refused(target: SshTarget, tmp_path: Path, known_hosts: Path) -> None:
    known_hosts.write_text(f"[127.0.0.1]:{target.port} {other_key(tmp_path, 'ecdsa')}\n")
    assert "another kind" in refused(with_file(target, known_hosts), HostKeyError).message


@pytest.mark.sshd
def test_a_host_with_two_keys_is_asked_for_the_known_one(tmp_path: Path) -> None:
    rsa = tmp_path / "host_rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    with LoopbackSshd(tmp_path / "sshd", ("a",), options={"HostKey": str(rsa)}) as server:
        # `options` takes HostKey's place: give the server both.
        config = server.folder / "sshd_config0"
        config.write_text(config.read_text() + f"HostKey {server.folder / 'host_key0'}\n")
        os.kill(server.pids[0], signal.SIGHUP)
        wait_for(lambda: len(server_kinds(server.ports[0])) == 2)
        for key in (rsa.with_suffix(".pub"), server.folder / "host_key0.pub"):
            words = " ".join(key.read_text().split()[:2])
            server.known_hosts.write_text(f"[127.0.0.1]:{server.ports[0]} {words}\n")
            run_cat(resolve(Host("a"), config_file=str(server.ssh_config)))


def server_kinds(port: int) -> set[str]:
    done = subprocess.run(["ssh-keyscan", "-p", str(port), "127.0.0.1"], capture_output=True, text=True)
    return {line.split()[1] for line in done.stdout.splitlines() if not line.startswith("#")}


@pytest.mark.sshd
def test_hashed_names_are_found(target: SshTarget, known_hosts: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], check=True, capture_output=True)
    assert "127.0.0.1" not in known_hosts.read_text()
    run_cat(with_file(target, known_hosts))


@pytest.mark.sshd
def test_patterns_markers_and_broken_lines_do_no_harm(
    target: SshTarget, tmp_path: Path, known_hosts: Path
) -> None:
    other = other_key(tmp_path)
    key = " ".join(known_hosts.read_text().split()[1:3])
    known_hosts.write_text(
        f"@cert-authority * {other}\n@revoked * {other}\nthis is no line\n\n[127.0.*]:{target.port} {key}\n"
    )
    run_cat(with_file(target, known_hosts))


@pytest.mark.sshd
def test_a_key_known_without_its_port_will_do_as_with_ssh(target: SshTarget, known_hosts: Path) -> None:
    known_hosts.write_text(known_hosts.read_text().replace(f"[127.0.0.1]:{target.port}", "127.0.0.1"))
    run_cat(with_file(target, known_hosts))


@pytest.mark.sshd
def test_a_revoked_key_is_refused_though_it_is_known(target: SshTarget, known_hosts: Path) -> None:
    line = known_hosts.read_text().splitlines()[0]
    known_hosts.write_text(f"{line}\n@revoked * {line.split(' ', 1)[1]}\n")
    assert "revoked" in refused(with_file(target, known_hosts), HostKeyError).message


@pytest.mark.sshd
def test_an_alias_stands_for_name_and_port(target: SshTarget, known_hosts: Path) -> None:
    known_hosts.write_text(known_hosts.read_text().replace(f"[127.0.0.1]:{target.port}", "alias"))
    run_cat(dataclasses.replace(with_file(target, known_hosts), host_key_alias="alias"))


# Our keys.


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519", form: str = "RFC4716") -> Path:
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path), "-C", "test"]
    argv += ["-m", form] if form != "RFC4716" else []
    argv += ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def with_keys(target: SshTarget, *paths: Path) -> SshTarget:
    return dataclasses.replace(target, identity_files=tuple(map(str, paths)))


@pytest.mark.sshd
def test_a_key_that_is_not_let_in_is_named(target: SshTarget, tmp_path: Path) -> None:
    wrong = make_key(tmp_path / "wrong")
    error = refused(with_keys(target, wrong), LoginError)
    assert f"refused: {wrong}" in error.message
    assert "ssh-copy-id" in error.mend
    assert "into d1fleet_builders, run site.yml again" in error.mend
    assert error.mend.endswith(f"; try it by hand: {target.login_by_hand}")


@pytest.mark.sshd
def test_the_next_key_is_tried(target: SshTarget, tmp_path: Path) -> None:
    run_cat(
        with_keys(target, make_key(tmp_path / "wrong"), tmp_path / "none", Path(target.identity_files[0]))
    )


@pytest.mark.sshd
@pytest.mark.parametrize(("kind", "form"), [("ed25519", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "RFC4716")])
def test_a_locked_key_is_named_with_the_way_to_unlock_it(
    target: SshTarget, tmp_path: Path, kind: str, form: str
) -> None:
    locked = make_key(tmp_path / "locked", "secret words", kind, form)
    error = refused(with_keys(target, locked), LoginError)
    assert f"locked by a passphrase, and not in the agent: {locked}" in error.message
    assert error.mend == f"unlock it: eval $(ssh-agent); ssh-add {locked}"  # no agent in sight


@pytest.mark.sshd
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_key_are_let_in(
    sshd: LoopbackSshd, target: SshTarget, tmp_path: Path, kind: str
) -> None:
    with authorized(sshd, make_key(tmp_path / "key", kind=kind)) as key:
        run_cat(with_keys(target, key))


@contextlib.contextmanager
def authorized(sshd: LoopbackSshd, key: Path, options: str = "") -> Iterator[Path]:
    file = sshd.folder / "authorized_keys"
    before = file.read_text()
    file.write_text(before + options + key.with_name(key.name + ".pub").read_text())
    try:
        yield key
    finally:
        file.write_text(before)


@pytest.mark.sshd
def test_a_key_that_others_can_read_is_not_used(target: SshTarget, tmp_path: Path) -> None:
    key = Path(shutil.copy(target.identity_files[0], tmp_path / "open"))
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refused(with_keys(target, key), LoginError).message


@pytest.mark.sshd
def test_a_file_that_is_no_key_is_named(target: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_text("this is no key")
    (tmp_path / "nonsense").chmod(0o600)
    assert (
        f"of no use: {tmp_path / 'nonsense'}"
        in refused(with_keys(target, tmp_path / "nonsense"), LoginError).message
    )


@pytest.mark.sshd
def test_without_any_key_that_is_said(target: SshTarget, tmp_path: Path) -> None:
    assert "no key to try" in refused(with_keys(target, tmp_path / "none"), LoginError).message


@pytest.mark.sshd
def test_a_chosen_key_that_is_missing_is_named(target: SshTarget, tmp_path: Path) -> None:
    chosen = dataclasses.replace(with_keys(target, tmp_path / "none"), identity_chosen=True)
    assert f"{tmp_path / 'none'}: no such file" in refused(chosen, LoginError).message


@pytest.mark.sshd
def test_a_certificate_beside_a_key_is_used(sshd: LoopbackSshd, target: SshTarget, tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", target.user, f"{key}.pub"]
    with authorized(sshd, authority, "cert-authority "):
        refused(with_keys(target, key), LoginError)
        subprocess.run(sign, check=True, capture_output=True)
        run_cat(with_keys(target, key))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An ssh-agent of our own, and what talks to it."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_for(path.exists)
        yield path
    finally:
        process.terminate()
        process.wait()


def add_key(agent: Path, key: Path, passphrase: str = "") -> None:
    ask = agent.with_name("ask")
    ask.write_text(f"#!/bin/sh\necho {shlex.quote(passphrase)}\n")
    ask.chmod(0o700)
    env = {**os.environ, "SSH_AUTH_SOCK": str(agent), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", key], check=True, env=env, stdin=subprocess.DEVNULL)


@pytest.mark.sshd
@pytest.mark.parametrize("public_file", [True, False])
def test_a_locked_key_that_the_agent_has_is_used(
    sshd: LoopbackSshd, target: SshTarget, tmp_path: Path, agent: Path, public_file: bool
) -> None:
    with authorized(sshd, make_key(tmp_path / "locked", "secret words")) as locked:
        add_key(agent, locked, "secret words")
        if not public_file:
            locked.with_suffix(".pub").unlink()
        run_cat(dataclasses.replace(with_keys(target, locked), agent=str(agent), identities_only=True))


@pytest.mark.sshd
def test_other_keys_of_the_agent_only_without_identities_only(
    target: SshTarget, tmp_path: Path, agent: Path
) -> None:
    add_key(agent, Path(target.identity_files[0]))
    alone = dataclasses.replace(target, identity_files=(), agent=str(agent))
    refused(dataclasses.replace(alone, identities_only=True), LoginError)
    run_cat(dataclasses.replace(alone, identities_only=False))


@pytest.mark.sshd
def test_too_many_keys_are_named_as_such(target: SshTarget, tmp_path: Path, agent: Path) -> None:
    for number in range(8):
        add_key(agent, make_key(tmp_path / f"wrong{number}"))
    many = dataclasses.replace(target, agent=str(agent), identities_only=False, identity_files=())
    error = refused(many, LoginError)
    assert "hung up" in error.message and "MaxAuthTries" in error.mend
    # A key that the inventory names comes before them all.
    run_cat(dataclasses.replace(many, identity_files=target.identity_files, identity_chosen=True))


@pytest.mark.sshd
def test_an_agent_that_is_gone_is_no_agent(target: SshTarget, tmp_path: Path) -> None:
    run_cat(dataclasses.replace(target, agent=str(tmp_path / "gone"), identities_only=False))


@pytest.mark.sshd
def test_a_server_that_takes_no_keys(tmp_path: Path) -> None:
    options = {"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"}
    with LoopbackSshd(tmp_path / "sshd", ("a",), options=options) as server:
        error = refused(resolve(Host("a"), config_file=str(server.ssh_config)), LoginError)
    assert "takes no keys" in error.message and "password" in error.message


@pytest.mark.sshd
def test_a_server_that_opens_no_session(tmp_path: Path) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a",), options={"MaxSessions": 0}) as server:
        error = refused(resolve(Host("a"), config_file=str(server.ssh_config)), ServerStartError)
    assert "MaxSessions" in error.mend


# No way there.


def test_connection_refused(free_port: int) -> None:
    error = refused(dataclasses.replace(NOWHERE, port=free_port), ConnectError)
    assert f"127.0.0.1 port {free_port}" in error.message and "refused" in error.message


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_name_that_does_not_resolve() -> None:
    nameless = dataclasses.replace(NOWHERE, name="alder", hostname="name.invalid")
    error = refused(nameless, ConnectError)
    assert "name" in error.message and "resolved" in error.message
    assert error.mend == "correct the host's name or address"
    error = refused(dataclasses.replace(nameless, by_name=True), ConnectError)
    assert error.mend.startswith("alder was used as the address, as there is no other: correct it, or give")
    assert "ansible_host" in error.mend


class Listener:
    """Accepts, says `greeting`, and then keeps the connection or closes it."""

    def __init__(self, greeting: bytes = b"", keep: bool = False) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._greeting, self._keep = greeting, keep
        self._kept: list[socket.socket] = []
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self.accepted += 1
                with contextlib.suppress(OSError):
                    peer.sendall(self._greeting)
                self._kept.append(peer) if self._keep else peer.close()

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for peer in (self._socket, *self._kept):
            peer.close()


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-silent\r\n", b"just text\r\n"])
def test_a_port_that_never_answers(greeting: bytes) -> None:
    with Listener(greeting, keep=True) as server:
        begin = time.monotonic()
        error = refused(dataclasses.replace(NOWHERE, port=server.port), ConnectError, timeout_s=0.7)
        assert time.monotonic() - begin < 5.0
        assert "no answer in time" in error.message


def test_a_server_that_hangs_up_is_tried_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "FIRST_RETRY_S", 0.01)
    with Listener(b"Exceeded MaxStartups\r\n") as server:
        error = refused(dataclasses.replace(NOWHERE, port=server.port), ConnectError)
        assert server.accepted == 1 + sshterms.DROP_RETRIES
    assert "hangs up" in error.message and "MaxStartups" in error.mend


def test_a_server_that_hangs_up_after_its_greeting() -> None:
    with Listener(b"SSH-2.0-brief\r\n") as server:
        error = refused(dataclasses.replace(NOWHERE, port=server.port), ConnectError)
    assert "hung up" in error.message


def test_another_protocol_version() -> None:
    with Listener(b"SSH-1.0-old\r\n", keep=True) as server:
        error = refused(dataclasses.replace(NOWHERE, port=server.port), ConnectError)
    assert "version" in error.message


@pytest.mark.sshd
@pytest.mark.parametrize("step", ["_login", "ParamikoChannel"])
def test_a_host_that_freezes_after_the_login_does_not_hold_us(
    sshd: LoopbackSshd, target: SshTarget, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = set(sshd.sessions())
    frozen: set[psutil.Process] = set()
    real = getattr(ssh, step)

    def then_freeze(*arguments: object) -> object:
        done = real(*arguments)
        for process in set(sshd.sessions()) - before:
            # sshd's process for the time before the login is just going.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                frozen.add(process)
        return done

    monkeypatch.setattr(ssh, step, then_freeze)
    try:
        error = refused(target, ServerStartError, timeout_s=3.0)
    finally:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert frozen and "no answer in time" in error.message


# Through a proxy.


@pytest.mark.sshd
def test_a_proxy_command_carries_the_connection(sshd: LoopbackSshd, tmp_path: Path) -> None:
    relay = tmp_path / "re lay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    config = tmp_path / "config"
    proxy = f"{shlex.quote(sys.executable)} {shlex.quote(str(relay))} %h %p"
    config.write_text(f"Host a\n  ProxyCommand {proxy}\n" + sshd.ssh_config.read_text())
    target = resolve(Host("a"), config_file=str(config))
    block = b"x" * (3 << 20)
    with talk(target, "cat") as one:
        one.channel.send(block)
        one.until(lambda: len(one.data) == len(block))


@pytest.mark.sshd
def test_a_jump_host_carries_the_connection(tmp_path: Path) -> None:
    with LoopbackSshd(tmp_path / "sshd", ("a", "b"), servers=2) as server:
        config = tmp_path / "config"
        config.write_text("Host b\n  ProxyJump a\n" + server.ssh_config.read_text())
        run_cat(resolve(Host("b"), config_file=str(config)))
        assert server.logs[0].read_text().count("Accepted publickey") == 1


def test_a_proxy_that_fails_is_quoted() -> None:
    proxy = ("/bin/sh", "-c", "echo 'no \033way' >&2; exit 1")
    error = refused(dataclasses.replace(NOWHERE, proxy=proxy), ConnectError)
    assert "its proxy said: no  way" in error.message


def test_a_proxy_that_does_not_exist_or_end() -> None:
    refused(dataclasses.replace(NOWHERE, proxy=("/no/such/program",)), ConnectError)
    stubborn = ("/bin/sh", "-c", "trap '' TERM; while :; do sleep 60; done")
    refused(dataclasses.replace(NOWHERE, proxy=stubborn), ConnectError, timeout_s=0.5)


# The table of errors.


def test_every_exception_of_paramiko_is_in_the_table() -> None:
    theirs = [
        kind
        for _, kind in inspect.getmembers(ssh_exception, inspect.isclass)
        if issubclass(kind, BaseException)
    ]
    assert len(theirs) > 8
    assert [kind.__name__ for kind in theirs if kind not in ssherrors.TRANSLATION] == []


SAMPLES: list[tuple[BaseException, type[HostError] | None]] = [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ConnectError),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ConnectError),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
    (OSError(errno.EHOSTUNREACH, "No route to host"), None),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), None),
    (TimeoutError(), None),
    (EOFError(), None),
    (UnicodeError("label too long"), None),
    (KeyError("odd"), None),
    (paramiko.SSHException("Error reading SSH protocol banner"), None),
    (paramiko.AuthenticationException("Authentication failed."), LoginError),
    (paramiko.BadAuthenticationType("Bad", ["password"]), LoginError),
    (ssh_exception.PartialAuthentication(["password"]), LoginError),
    (paramiko.ChannelException(1, "Administratively prohibited"), ServerStartError),
    (ssh_exception.IncompatiblePeer("no acceptable ciphers"), ConnectError),
    (ssh_exception.MessageOrderError("strict kex"), ConnectError),
]


@pytest.mark.parametrize("stage", list(sshterms.Stage))
@pytest.mark.parametrize(
    ("error", "kind"), SAMPLES, ids=lambda value: getattr(value, "__name__", repr(value))
)
def test_each_becomes_one_of_ours_by_class_or_by_stage(
    error: BaseException, kind: type[HostError] | None, stage: sshterms.Stage
) -> None:
    ours = ssherrors.translate(error, NOWHERE, stage)
    assert type(ours) is (kind or sshterms.BY_STAGE[stage])
    assert "127.0.0.1 port 1" in ours.message
    assert ours.mend and "{" not in str(ours)


def test_no_mend_names_a_transport_that_does_not_exist() -> None:
    assert [mend for _, _, mend in ssherrors.TRANSLATION.values() if "transport" in mend] == []


def test_what_a_host_says_is_printed_without_control_characters() -> None:
    ours = ssherrors.translate(
        paramiko.SSHException("\033[2Jgone\n" + "x" * 999), NOWHERE, sshterms.Stage.GREETING
    )
    assert "\033" not in str(ours) and len(ours.message) < 500


def test_paramiko_logs_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("paramiko.transport").error("an address and a name")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.sshd
def test_no_secret_is_shown(target: SshTarget, tmp_path: Path) -> None:
    key = make_key(tmp_path / "wrong")
    secret = key.read_text().splitlines()[2]
    assert secret not in str(refused(with_keys(target, key), LoginError))
    candidate = next(iter(sshkeys.Keyring(with_keys(target, key), None)))
    assert secret not in repr(candidate)


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll what no event tells."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
