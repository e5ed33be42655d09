"""Whole trees of processes: found, and ended without a survivor; in a process that is a subreaper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from d1fleet.server import process

ROOT = Path(process.__file__).parent.parent.parent

# All six kinds of offspring: child, grandchild, setsid child, orphan, daemon, daemon without a trace.
NASTY = """
sleep 1000 &
sh -c 'sleep 1000; :' &
setsid sleep 1000 &
(sleep 1000 &)
(setsid sleep 1000 &)
(setsid env -i sleep 1000 </dev/null >/dev/null 2>&1 &)
"""


def _run(code: str, *arguments: str) -> str:
    """What a Python program prints that has `process`, `os`, `signal` and `subprocess` at hand."""
    lines = "import os, signal, subprocess, sys, time\nfrom d1fleet.server import process\n"
    done = subprocess.run(
        [sys.executable, "-c", lines + textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_START = """
process.become_subreaper()
job = subprocess.Popen(["/bin/sh", "-c", sys.argv[1] + "echo up; exec sleep 1000"], stdout=subprocess.PIPE)
job.stdout.readline()
while len(process.descendants(os.getpid())) < int(sys.argv[2]):
    time.sleep(0.01)
"""


def test_children_and_descendants() -> None:
    text = _START + "print(len(process.children(os.getpid())), len(process.descendants(os.getpid())))"
    text += "\nprocess.kill_descendants()"
    # The job and three orphans are children of ours; with those below there are eight.
    assert _run(text, NASTY, "8") == "4 8"


def test_nothing_survives() -> None:
    text = _START + "\nprint(process.kill_descendants(), process.descendants(os.getpid()))"
    assert _run(text, NASTY, "8") == "set() []"


def test_nothing_survives_when_the_job_itself_has_ended() -> None:
    text = (
        _START
        + "\njob.kill(); job.wait()\nprint(process.kill_descendants(), process.descendants(os.getpid()))"
    )
    assert _run(text, NASTY, "8") == "set() []"


def test_new_ones_that_come_while_it_kills() -> None:
    forks = "while :; do (setsid sh -c 'while :; do sleep 0.01 & done' &) ; sleep 0.02; done & "
    text = _START + "\nprint(process.kill_descendants(), process.descendants(os.getpid()))"
    assert _run(text, forks, "4") == "set() []"


def test_a_spared_tree_lives_on() -> None:
    text = """
    process.become_subreaper()
    kept = subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & echo up; wait"], stdout=subprocess.PIPE)
    kept.stdout.readline()
    other = subprocess.Popen(["sleep", "1000"])
    print(process.kill_descendants(spare={kept.pid}, limit_s=1.0) or "none left")
    print(kept.poll(), len(process.descendants(kept.pid)))
    process.kill_descendants()
    """
    assert _run(text).splitlines() == ["none left", "None 1"]


def test_the_ended_are_reported_with_their_status() -> None:
    text = """
    process.become_subreaper()
    job = subprocess.Popen(["sleep", "1000"])
    told = {}
    process.kill_descendants(reaped=told.__setitem__)
    print(told == {job.pid: signal.SIGKILL})
    """
    assert _run(text) == "True"


def test_without_children_it_returns_at_once() -> None:
    assert _run("print(process.kill_descendants())") == "set()"


def test_an_end_with_the_parent() -> None:
    text = """
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            process.die_with_parent(signal.SIGKILL)
            os.write(write, b"ready")
            signal.pause()
        signal.pause()
    os.close(write)
    os.read(read, 5)
    os.kill(parent, signal.SIGKILL)
    # The child holds the writing end: this returns when it is gone.
    print(os.read(read, 1))
    """
    assert _run(text) == "b''"


def test_a_process_that_is_gone() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert process.children(ended.pid) == []
    assert process.descendants(ended.pid) == []
    process.send(ended.pid, signal.SIGTERM)


def test_children_of_all_threads() -> None:
    text = """
    import threading
    started, end = threading.Event(), threading.Event()
    def work():
        job = subprocess.Popen(["sleep", "1000"])
        started.set()
        end.wait()
        job.kill()
        job.wait()
    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    print(len(process.children(os.getpid())))
    end.set()
    thread.join()
    """
    assert _run(text) == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_another_users_process_is_none_of_our_business() -> None:
    other = subprocess.Popen(["sleep", "1000"], user=65534, cwd="/")
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65533)
            process.send(other.pid, signal.SIGKILL)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE
    other.kill()
    other.wait()


def test_orphans_are_reaped_at_the_second_look() -> None:
    """Who started a child himself has the time between to take its status."""
    text = """
    process.become_subreaper()
    children = [subprocess.Popen(["true"]) for _ in range(2)]
    while [process.state(child.pid) for child in children] != ["Z", "Z"]:
        time.sleep(0.01)
    first = process.reap_orphans(set(), spare=set())
    print(first == {child.pid for child in children}, children[0].wait())
    second = process.reap_orphans(first, spare=set())
    print(second, process.state(children[1].pid) == "")
    """
    assert _run(text) == "True 0\nset() True"
