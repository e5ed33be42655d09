"""The server's side of an examination: each question in a process of its own, with a limit."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from d1fleet import protocol
from d1fleet.loop import Loop
from d1fleet.protocol import Examine, Examined
from d1fleet.server import canary, examination, facts, probe, process
from d1fleet.server.examination import Examiner


@pytest.fixture
def loop() -> Iterator[Loop]:
    others = set(process.children(os.getpid()))
    loop = Loop()
    yield loop
    end = time.monotonic() + 5
    while set(process.children(os.getpid())) - others and time.monotonic() < end:
        loop.run_once(0.05)
    loop.close()


def ask(loop: Loop, *questions: Examine, limit_s: float = 20.0) -> list[Examined]:
    answers: list[Examined] = []
    examiner = Examiner(loop, lambda message: answers.append(message))  # type: ignore[arg-type]
    for each in questions:
        examiner.handle(each)
    end = time.monotonic() + limit_s
    while len(answers) < len(questions):
        assert time.monotonic() < end
        loop.run_once(0.1)
    return answers


def test_the_clock_is_told_at_once(loop: Loop) -> None:
    (answer,) = ask(loop, Examine(number=7, question="clock"))
    assert answer.number == 7 and abs(answer.at_s - time.time()) < 1 and not answer.failure


def test_facts_come_from_another_process(loop: Loop, tmp_path: Path) -> None:
    nonce = tmp_path / "nonce"
    nonce.write_text("word")
    folders = [{"folder": str(tmp_path), "nonce": str(nonce), "content": "word"}]
    given = {"project": "", "installed": "/x", "launcher": "/x", "hash": "0", "folders": folders}
    (answer,) = ask(
        loop, Examine(question="facts", given=json.dumps(given).encode(), environment=b"PATH=/usr/bin\0")
    )
    found = json.loads(answer.answer)
    assert not answer.failure and found["trees"][0]["difference"] == ""
    assert abs(found["trees"][0]["clock_s"]) < 1 and found["trees"][0]["disk"]["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == [nonce]


def _answer(monkeypatch: pytest.MonkeyPatch, does: Any) -> None:
    monkeypatch.setitem(examination._QUESTIONS, "facts", does)


def _hang(given: Mapping[str, Any], environ: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    time.sleep(60)
    return {}


def test_one_that_hangs_holds_up_nobody(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_LATE_S", 0.2)
    _answer(monkeypatch, _hang)
    began = time.monotonic()
    answers = ask(loop, Examine(number=1, question="facts", limit_s=0.5), Examine(number=2, question="clock"))
    assert [answer.number for answer in answers] == [2, 1]
    assert "nothing was found out within" in answers[1].failure
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda *_: 1 / 0, "ZeroDivisionError"),
        (lambda *_: os._exit(3), "ended without a word"),
        (lambda *_: {"x": "y" * (protocol.MOST_EXAMINED + 1)}, "too long"),
    ],
)
def test_one_that_breaks(loop: Loop, monkeypatch: pytest.MonkeyPatch, does: Any, says: str) -> None:
    _answer(monkeypatch, does)
    (answer,) = ask(loop, Examine(question="facts"))
    assert says in answer.failure and not answer.answer


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (Examine(question="rm -rf"), "does not know that question"),
        (Examine(question="facts", given=b"["), "JSONDecodeError"),
        (Examine(question="facts", given=b"[]"), "no object"),
        (Examine(question="facts", setup="exit 3;"), "the server setup failed"),
    ],
)
def test_questions_that_make_no_sense(loop: Loop, question: Examine, says: str) -> None:
    (answer,) = ask(loop, question)
    assert says in answer.failure


def test_no_more_than_some_at_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_LATE_S", 0.2)
    _answer(monkeypatch, _hang)
    questions = [Examine(number=n, question="facts", limit_s=0.3) for n in range(examination.AT_ONCE + 2)]
    answers = ask(loop, *questions)
    refused = [answer.number for answer in answers if "are being looked at" in answer.failure]
    assert refused == [examination.AT_ONCE, examination.AT_ONCE + 1]


def test_a_section_that_hangs_is_named_and_the_others_are_told() -> None:
    over = threading.Event()

    def broken() -> None:
        raise KeyError("none")

    sections = {"memory": lambda: over.wait(30), "slots": broken, "drain": probe._drain}
    found, missing = probe._gather(sections, 0.6)
    over.set()
    assert set(found) == {"drain"}
    assert missing == {"memory": "it took longer than 1 s", "slots": "KeyError: 'none'"}


def test_a_change_is_seen_and_one_that_is_not(tmp_path: Path) -> None:
    nonce = tmp_path / "nonce"
    nonce.write_text("word")
    given = {"nonce": str(nonce), "content": "a longer word"}
    assert probe.fresh(given, {}, 0.8) == {"made_s": None, "grown_s": None}
    nonce.write_text("a longer word")
    (tmp_path / "nonce.2").touch()
    found = probe.fresh(given, {}, 2.0)
    assert found["made_s"] < 0.5 and found["grown_s"] < 0.5


def test_the_mount_of_a_folder() -> None:
    assert facts.mount_of(b"/proc/self")["point"] == "/proc"
    assert facts.mount_of(b"/proc/self")["type"] == "proc"


def test_sshds_limits_are_read_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, more = tmp_path / "sshd_config", tmp_path / "more.conf"
    main.write_text(
        f"Include {more}\nMaxSessions 5 # five\nmaxstartups=3:30:9\nMatch User x\nMaxSessions 1\n"
    )
    more.write_text("MaxSessions 7\n")
    monkeypatch.setattr(probe, "SSHD_CONFIG", str(main))
    found = [(each["keyword"], each["value"], each["line"]) for each in probe._sshd()["settings"]]
    assert found == [("maxsessions", "7", 1), ("maxsessions", "5", 2), ("maxstartups", "3:30:9", 3)]


def test_a_canary_that_nobody_answers(tmp_path: Path) -> None:
    given = {
        "entry": "127.0.0.1:1/1", "address": "127.0.0.1", "port": 1, "ssh": False, "ssh_program": "",
        "compilers": ["cc"], "look": True, "hidden": [], "sign": "sign:",
    }  # fmt: skip
    found = canary.compile_there(given, {"PATH": os.environ["PATH"]}, 10.0)
    assert found == {"connect": "Connection refused", "tries": [], "around": ""}


def test_the_shell_that_looks_around(tmp_path: Path) -> None:
    """Its words go through gcc, which cuts them at commas; at the client's end it only passes on."""
    odd = tmp_path / "it's $HOME"
    odd.mkdir()
    script = canary._look_around("sign:", 1, [str(odd), "/with,comma"])
    assert "," not in script
    program = tmp_path / "cc1"
    program.write_text("#!/bin/sh\necho compiled $1\n")
    program.chmod(0o755)

    def said(*argv: str, **environ: str) -> tuple[str, str]:
        done = subprocess.run(
            ["sh", "-c", script, *argv],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
        )
        return done.stdout, done.stderr

    out, words = said(str(program), "x")
    assert out == "compiled x\n"
    assert f"sign: sees {odd}\n" in words and words.endswith("sign: done\n") and "sign: nice " in words
    assert said(str(program), "x", D1FLEET_CANARY="1") == ("compiled x\n", "")
    assert said("/bin/echo", "y") == ("y\n", "")
