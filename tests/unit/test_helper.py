"""A process of ours that is asked one thing: its answer is heard, and nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet.helper import Helper
from d1fleet.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def run(loop: Loop, start: Callable[[Callable[[bytes], None]], Helper]) -> bytes:
    answers: list[bytes] = []
    helper = start(answers.append)
    while not answers:
        loop.run_once(1.0)
    assert helper.process.returncode is not None
    helper.close()  # harmless
    assert len(answers) == 1
    return answers[0]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of a text; returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(text: str) -> str:
        (tmp_path / "helps.py").write_text(text)
        return "helps"

    return make


def test_a_question_and_an_answer_of_any_length(loop: Loop, module: Callable[[str], str]) -> None:
    name = module("import sys\nsys.stdout.write(sys.argv[1] + sys.stdin.read()[::-1])\n")
    question = b"".join(b"%d," % number for number in range(200_000))
    assert run(loop, lambda done: Helper(loop, name, ["said "], done, question)) == b"said " + question[::-1]


def test_one_that_reads_no_question(loop: Loop, module: Callable[[str], str]) -> None:
    name = module("import os\nos.close(0)\nprint('done')\n")
    assert run(loop, lambda done: Helper(loop, name, [], done, b"x" * (1 << 20))) == b"done\n"


def test_one_that_dies(loop: Loop, module: Callable[[str], str]) -> None:
    name = module("import os\nprint('half', flush=True)\nos.kill(os.getpid(), 9)\n")
    assert run(loop, lambda done: Helper(loop, name, [], done)) == b"half\n"


def test_nothing_of_the_folder_is_imported(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("print('mine')\n")
    monkeypatch.chdir(tmp_path)
    assert b"mine" not in run(loop, lambda done: Helper(loop, "d1fleet.inventory", ["/nonexistent"], done))


def test_it_is_ended_with_all_that_it_started(loop: Loop, tmp_path: Path) -> None:
    """It hangs in an inventory that is a program."""
    program = tmp_path / "hosts.sh"
    program.write_text(f"#!/bin/sh\necho > {tmp_path}/runs\nexec sleep 1000\n")
    program.chmod(0o755)
    helper = Helper(loop, "d1fleet.inventory", [str(program)], lambda _: os.abort())
    while not (tmp_path / "runs").exists():
        loop.run_once(0.05)
    helper.close()
    assert helper.process.returncode == -9  # and every test fails on processes that are left
