"""The agent as a process: what it says, when it says it, and what it makes of answers, good and bad."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin import view
from d1fleet.server import toolchain
from tests.unit.checkin.agenthost import CREDENTIAL, AgentHost, Script
from tests.unit.checkin.documents import ALDER, BIRCH, CEDAR, host_key, peer, project
from tests.unit.checkin.documents import answer as make
from tests.unit.checkin.pretended import LIMIT_S, Handler, make_certificate
from tests.unit.checkin.test_report import accepted
from tests.unit.server.test_imports import _pythons

Starter = Callable[..., AgentHost]

RARELY: dict[str, Any] = {"beat_s": 3600.0, "gone_after_s": 7200.0}
OFTEN: dict[str, Any] = {"beat_s": 1.0, "gone_after_s": 1.0, "jitter": 0.0}


@pytest.fixture
def script() -> Script:
    return Script(**RARELY)


@pytest.fixture
def host(tmp_path: Path, script: Script) -> Iterator[AgentHost]:
    found = AgentHost(tmp_path / "host", script)
    yield found
    found.close()


def test_it_reports_and_writes_what_it_is_told(host: AgentHost) -> None:
    (host.folder / "ssh_host_ed25519_key.pub").write_text(f"{host_key()} root@alder\n")
    host.start()
    asked = host.registry.next("/checkin")
    assert asked["credential"] == CREDENTIAL
    report = accepted(asked["body"]["report"])
    assert (report.owner, report.slots, report.sequence, report.error) == ("ada", 4, 1, "")
    assert (asked["body"]["known"], report.host_keys) == ({}, (host_key(),))
    host.until(lambda: host.peers() == ["birch", "cedar"])
    assert host.members()["members4"] == ["192.0.2.11", "192.0.2.12"]
    assert host.registry.next("/wait")["body"] == {"known": {"engine": "r1"}, "wait_s": 50}
    host.heard("READY=1")
    assert "peers: engine 3" in host.heard("engine 3")
    assert host.status()["ok"] and host.status()["projects"] == ["engine"]
    # The look at the compilers takes longer than the first word.
    second = host.beat()
    assert second["known"] == {"engine": "r1"}
    later = accepted(second["report"])
    assert later.toolchain == toolchain.describe([], {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    assert (later.session, later.sequence) == (report.session, 2)
    assert host.stop() == 0
    assert host.registry.next("/leave")["body"] == {"for_good": False}
    assert "Traceback" not in host.log.read_text()


@pytest.mark.parametrize("python", _pythons())
def test_over_tls(tmp_path: Path, python: str) -> None:
    host = AgentHost(tmp_path / "host", Script(**RARELY), make_certificate(tmp_path))
    try:
        host.start(python)
        host.until(lambda: host.peers() == ["birch", "cedar"])
        assert host.stop() == 0
        assert host.registry.next("/leave")["credential"] == CREDENTIAL
    finally:
        host.close()


def test_another_certificate_is_shown_nothing(tmp_path: Path) -> None:
    host = AgentHost(tmp_path / "host", Script(**RARELY), make_certificate(tmp_path))
    try:
        other, _ = make_certificate(tmp_path, "other")
        host.configure(**{**host.settings, "certificate": str(other)})
        host.start()
        host.until(lambda: "not to be trusted" in host.log.read_text())
        assert host.registry.asked.empty() and host.peers() == []
        # The right one comes: a change of its file is enough.
        other.write_bytes((tmp_path / "registry.pem").read_bytes())
        host.until(lambda: host.peers() == ["birch", "cedar"])
    finally:
        host.close()


def test_news_are_pushed(host: AgentHost, script: Script) -> None:
    host.start()
    host.until(lambda: host.peers() == ["birch", "cedar"])
    elm = peer("elm", "192.0.2.15")
    script.news.put(make(projects={"engine": project([ALDER, BIRCH, elm], "r2")}, **RARELY))
    host.until(lambda: host.peers() == ["birch", "elm"])
    script.news.put(make(projects={}, all=[], **RARELY))
    host.until(lambda: not (host.hosts / "engine").exists() and not host.default.exists())
    assert host.members() == {"members4": [], "members6": []}


def test_beats_come_again_with_what_is_known(host: AgentHost, script: Script) -> None:
    script.answer = make(**OFTEN)
    host.start()
    beats = [host.beat() for _ in range(4)]
    assert [each["report"]["sequence"] for each in beats] == [1, 2, 3, 4]
    assert [each["known"] for each in beats[1:]] == [{"engine": "r1"}] * 3


@pytest.mark.parametrize("how", ["file", "signal"])
def test_another_configuration_is_said_at_once(host: AgentHost, how: str) -> None:
    host.start()
    host.registry.next("/wait")
    host.beat()
    if how == "file":
        host.configure(**{**host.settings, "slots": 7, "owner": "grace"})
    else:
        assert host.agent is not None
        host.agent.send_signal(signal.SIGHUP)
    wanted = ("grace", 7) if how == "file" else ("ada", 4)
    report = host.beat()["report"]
    while report["sequence"] < 2 or (report["owner"], report["slots"]) != wanted:
        report = host.beat()["report"]
    if how == "file":
        host.until(lambda: "--localslots=7" in (host.hosts / "engine").read_text())


def test_a_configuration_that_cannot_be_used_is_said_and_the_old_one_stays(host: AgentHost) -> None:
    host.start()
    host.registry.next("/wait")
    host.config.write_text("nonsense")
    host.until(lambda: "the old configuration stays" in host.log.read_text())
    host.configure(**{**host.settings, "registry": "http://192.0.2.1:33333"})
    host.until(lambda: "say https" in host.log.read_text())
    assert host.agent is not None and host.agent.poll() is None
    host.configure(**{**host.settings, "owner": "grace"})
    while host.beat()["report"]["owner"] != "grace":
        pass


def test_the_compile_server_comes_and_goes(host: AgentHost) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        host.configure(**{**host.settings, "port": server.getsockname()[1]})
        host.start()
        assert not host.beat()["report"]["serving"]
        server.listen()
        while not host.beat()["report"]["serving"]:
            pass
    while host.beat()["report"]["serving"]:
        pass


def test_other_host_keys_are_said(host: AgentHost) -> None:
    key = host.folder / "ssh_host_ed25519_key.pub"
    key.write_text(host_key(1))
    host.start()
    assert host.beat()["report"]["host_keys"] == [host_key(1)]
    key.write_text(host_key(2))
    while host.beat()["report"]["host_keys"] != [host_key(2)]:
        pass


EVIL: list[Any] = [
    make(projects={"engine": project([ALDER, peer("evil", "203.0.113.9")], "r2")}),
    make(projects={"engine": project([ALDER, peer("@evil", "192.0.2.9")], "r2")}),
    make(projects={"engine": project([ALDER, BIRCH], "r2", members=["127.0.0.1"])}),
    make(projects={"engine": project([ALDER, {**BIRCH, "slots": "8 @root@evil/64:/x #"}], "r2")}),
    make(projects={"../../../etc/cron.d/x": project([ALDER], "r2")}),
    make(beat_s=0.001),
    make(credential="x\r\nX-Evil: y"),
    {**make(), "command": "rm -rf /"},
    [],
    "text",
    b"<html>",
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize(
    ("by", "number"),
    [
        *(("wait", number) for number in range(len(EVIL))),
        ("beat", 0),
        ("beat", 5),
        ("beat", 10),
        ("beat", 11),
    ],
)
def test_of_an_evil_answer_nothing_is_applied(host: AgentHost, script: Script, number: int, by: str) -> None:
    evil = EVIL[number]
    host.start()
    host.registry.next("/wait")
    host.requests.get(timeout=LIMIT_S)
    before = host.files()
    if by == "wait":
        script.news.put(evil)
    else:
        host.registry.answering = lambda handler, asked: handler.send(evil)
        host.registry.hang_up()
    host.until(lambda: "<3>" in host.log.read_text())
    host.registry.answering = script
    if by == "wait":
        host.configure(**{**host.settings, "owner": "grace"})  # so that it checks in
    report = host.beat()["report"]
    while not report["error"]:
        report = host.beat()["report"]
    assert report["error"].startswith("registry: ")
    host.until(lambda: host.status()["ok"])
    kept = {name: text for name, text in host.files().items() if name.startswith(("d1fleet/", "distcc/"))}
    assert kept == {name: text for name, text in before.items() if name.startswith(("d1fleet/", "distcc/"))}
    assert host.credential.read_text() == f"{CREDENTIAL}\n"
    assert "<3>" in host.log.read_text() and "Traceback" not in host.log.read_text()


def test_redirects_are_not_followed(host: AgentHost, script: Script) -> None:
    def elsewhere(handler: Handler, _asked: dict[str, Any]) -> None:
        handler.send(make(), 302, Location=f"http://127.0.0.1:{host.registry.port}/api/v1/elsewhere")

    host.registry.answering = elsewhere
    host.start()
    host.beat()
    host.beat()
    assert host.peers() == []
    assert {asked["path"] for asked in list(host.registry.asked.queue)} <= {"/api/v1/checkin"}


@pytest.mark.parametrize(("status", "code"), [(403, "expunged"), (403, "cloned"), (401, "credential")])
def test_who_is_thrown_out_is_alone_and_goes_on_asking(
    host: AgentHost, script: Script, status: int, code: str
) -> None:
    host.start()
    host.registry.next("/wait")
    host.until(lambda: host.peers() == ["birch", "cedar"])
    script.refusal = (status, code)
    host.registry.hang_up()
    host.until(lambda: host.peers() == [] and host.members()["members4"] == [])
    assert "localhost/4" in (host.hosts / "engine").read_text()
    host.until(lambda: host.default.read_bytes() == (host.hosts / "engine").read_bytes())
    assert host.status()["code"] == code
    while host.beat()["known"] != {}:
        pass
    script.refusal = None
    host.until(lambda: host.peers() == ["birch", "cedar"])
    assert len(host.members()["members4"]) == 2
    assert host.status()["ok"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "projects"), (403, "address"), (409, "replayed"), (429, "rate"), (503, "database")],
)
def test_other_refusals_change_nothing(host: AgentHost, script: Script, status: int, code: str) -> None:
    host.start()
    host.registry.next("/wait")
    host.until(lambda: host.peers() == ["birch", "cedar"])
    script.refusal = (status, code)
    host.registry.hang_up()
    host.until(lambda: host.status()["code"] == code)
    host.beat()
    assert host.peers() == ["birch", "cedar"]


def test_a_proxys_403_throws_nobody_out(host: AgentHost) -> None:
    host.start()
    host.registry.next("/wait")
    host.until(lambda: host.peers() == ["birch", "cedar"])
    host.registry.answering = lambda handler, asked: handler.send(b"<h1>403", 403, Content_Type="text/html")
    host.registry.hang_up()
    host.until(lambda: host.status()["code"] == "answer")
    assert host.peers() == ["birch", "cedar"]


def test_a_new_credential_is_kept_and_shown(host: AgentHost, script: Script) -> None:
    script.answer = make(**OFTEN, credential="n" * 40)
    host.start()
    asked = host.registry.next("/checkin")
    while asked["credential"] != "n" * 40:
        asked = host.registry.next("/checkin")
    assert host.credential.read_text() == "n" * 40 + "\n"
    assert host.credential.stat().st_mode & 0o777 == 0o600


def test_a_host_that_has_not_joined_waits_for_its_credential(host: AgentHost) -> None:
    host.credential.unlink()
    host.start()
    host.heard("has not joined")
    assert host.registry.asked.empty()
    host.credential.write_text("j" * 40)
    assert host.registry.next("/checkin")["credential"] == "j" * 40
    host.until(lambda: host.peers() == ["birch", "cedar"])
    host.heard("engine 3")
    # Thrown away, as by `leave`: it falls silent.
    host.credential.unlink()
    host.heard("has not joined")


def test_a_registry_that_is_back_is_noticed(host: AgentHost, script: Script) -> None:
    host.start()
    host.registry.next("/wait")
    host.until(lambda: host.peers() == ["birch", "cedar"])
    host.registry.close()
    host.until(lambda: host.status()["code"] == "away")
    assert host.peers() == ["birch", "cedar"]
    script.answer = make(projects={"engine": project([ALDER, CEDAR], "r2")}, **RARELY)
    host.restart_registry()
    host.until(lambda: host.peers() == ["cedar"])
    assert host.status()["ok"]


def _own_address() -> str:
    """Of this machine, by which it would go elsewhere: those of containers come and go."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(("192.0.2.1", 9))
        return str(way.getsockname()[0])
    pytest.skip("this machine has no way to anywhere")


def test_a_registry_that_hangs_up_is_asked_at_once(host: AgentHost) -> None:
    """Not at the next beat, which is in an hour."""
    host.start()
    while not host.beat()["report"]["toolchain"]:
        pass
    host.until(lambda: len(host.registry.connections) == 2)  # it waits for news on the other one
    host.registry.hang_up()
    assert host.beat()["report"]["sequence"] > 2


def test_while_it_is_away_silent_peers_are_dropped_and_come_back(host: AgentHost, script: Script) -> None:
    """From hosts files, not from those who may connect."""
    own = _own_address()
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind((own, 0))
        first.listen(64)
        peers = [
            ALDER,
            peer("birch", own, port=first.getsockname()[1]),
            peer("cedar", own, port=second.getsockname()[1]),
            peer("dogwood", "192.0.2.14", transport="ssh", host_keys=[host_key()]),
        ]
        networks = ["192.0.2.0/24", f"{own}/32"]
        script.answer = make(projects={"engine": project(peers)}, **OFTEN)
        host.configure(**{**host.settings, "networks": networks})
        host.start()
        host.until(lambda: host.peers() == ["birch", "cedar", "dogwood"])
        members = host.members()
        host.registry.close()
        host.until(lambda: host.peers() == ["birch", "dogwood"])
        assert f"left out: cedar: {view.SILENT}" in (host.hosts / "engine").read_text()
        assert host.members() == members
        second.listen(64)
        host.until(lambda: host.peers() == ["birch", "cedar", "dogwood"])
        first.close()
        host.until(lambda: host.peers() == ["cedar", "dogwood"])
        host.restart_registry()
        host.until(lambda: host.peers() == ["birch", "cedar", "dogwood"])


def test_one_that_starts_while_the_registry_is_away_knows_its_peers(host: AgentHost, script: Script) -> None:
    script.answer = make(**OFTEN)
    host.start()
    host.until(lambda: host.peers() == ["birch", "cedar"])
    assert host.stop() == 0
    host.registry.close()
    host.start()
    host.until(lambda: host.status()["code"] == "away")
    # What is asked for, once something here is another, is made of what was kept.
    host.configure(**{**host.settings, "slots": 9})
    host.until(lambda: "--localslots=9" in (host.hosts / "engine").read_text())
    assert host.peers() == ["birch", "cedar"]
    host.restart_registry()


def test_a_goodbye_does_not_hold_up_a_shutdown(host: AgentHost, script: Script) -> None:
    host.start()
    host.registry.next("/wait")

    def silent(handler: Handler, _asked: dict[str, Any]) -> None:
        handler.server.pretended.ending.wait()
        handler.close_connection = True

    host.registry.answering = silent
    before = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - before < 10  # two seconds, on a machine that has time for us
    assert host.registry.next("/leave")
    assert "was not told that we go" in host.log.read_text()
    host.heard("STOPPING=1")


def test_who_was_thrown_out_does_not_say_goodbye(host: AgentHost, script: Script) -> None:
    script.refusal = (403, "expunged")
    host.start()
    host.until(lambda: host.status())
    assert host.stop() == 0
    assert {asked["path"] for asked in list(host.registry.asked.queue)} == {"/api/v1/checkin"}


def test_the_watchdog_hears_of_it(host: AgentHost) -> None:
    host.start(WATCHDOG_USEC="2000000")
    for _ in range(3):
        host.heard("WATCHDOG=1")


def test_a_helper_that_is_not_there_is_said_to_the_registry(host: AgentHost, script: Script) -> None:
    script.answer = make(**OFTEN)
    os.rename(host.folder / "apply.sock", host.folder / "hidden")
    host.start()
    report = host.beat()["report"]
    while not report["error"]:
        report = host.beat()["report"]
    assert "files: the root helper does not answer" in report["error"]
    os.rename(host.folder / "hidden", host.folder / "apply.sock")


def test_without_a_table_there_is_no_fault_where_nothing_listens(host: AgentHost, script: Script) -> None:
    script.answer = make(**OFTEN)
    host.nft.with_name("no-table").touch()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        host.configure(**{**host.settings, "port": server.getsockname()[1]})
        host.start()
        host.until(lambda: host.peers() == ["birch", "cedar"])
        assert "no table" not in host.beat()["report"]["error"] + host.log.read_text()
        server.listen()
        while "no table" not in host.beat()["report"]["error"]:
            pass


@pytest.mark.parametrize("what", ["config", "state", "certificate"])
def test_where_it_cannot_start(host: AgentHost, what: str) -> None:
    if what == "config":
        host.config.unlink()
    elif what == "state":
        host.state.chmod(0o777)
    else:
        host.configure(**{**host.settings, "registry": "https://127.0.0.1:1", "certificate": "/nowhere"})
    host.start()
    assert host.agent is not None
    assert host.agent.wait(30) == (86 if what == "state" else 81)
    host.agent = None
    (line,) = host.log.read_text().splitlines()
    assert line.startswith("<3>") and "Traceback" not in line


def test_what_was_kept_and_is_of_no_use_is_said(host: AgentHost) -> None:
    (host.state / "peers").write_text(json.dumps({"name": "@evil", "projects": {}}))
    host.start()
    host.until(lambda: host.peers() == ["birch", "cedar"])
    assert "is of no use" in host.log.read_text()
