"""Word to systemd, and what is said once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from d1fleet.checkin import journal
from d1fleet.checkin.journal import ERROR, INFO, Notifier
from d1fleet.checkin.troubles import Troubles


def test_a_line_has_a_priority_and_plays_with_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    journal.log(ERROR, "a\nb\x1b[2J\0")
    journal.log(INFO, "x" * 5000)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "<3>a b [2J "
    assert second.startswith("<6>xxx") and len(second) == 2003


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path) -> None:
    name = f"@d1fleet-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name[1:] if abstract else name)
        heard.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
        assert notifier.watchdog_s == 3.0
        notifier.tell("READY=1", "STATUS=x")
        assert heard.recv(100) == b"READY=1\nSTATUS=x"
        notifier.status("fine")
        notifier.status("fine")
        notifier.status("bad")
        assert (heard.recv(100), heard.recv(100)) == (b"STATUS=fine", b"STATUS=bad")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere"},
    ],
)
def test_nobody_is_told_where_systemd_is_not(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.tell("READY=1")
    assert notifier.watchdog_s == 0.0


def test_what_is_wrong_is_logged_once(capfd: pytest.CaptureFixture[str]) -> None:
    troubles = Troubles()
    troubles.say("files", ERROR, "", "fine")
    troubles.say("files", ERROR, "broken", "fine")
    troubles.say("files", ERROR, "broken", "fine")
    troubles.say("files", ERROR, "worse", "fine")
    assert troubles.of("files") == "worse"
    troubles.say("files", ERROR, "", "fine")
    troubles.say("files", ERROR, "", "fine")
    assert capfd.readouterr().err.splitlines() == ["<3>broken", "<3>worse", "<5>fine"]


def test_what_is_wrong_is_reported_until_it_is_good() -> None:
    troubles = Troubles()
    troubles.report("files", "broken")
    troubles.report("registry", "odd")
    assert str(troubles) == "files: broken; registry: odd"
    troubles.report("files", "")
    troubles.report("files", "")
    assert str(troubles) == "registry: odd"
