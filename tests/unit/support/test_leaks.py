"""The check for leaks sees each kind, and is quiet when there is none."""

from __future__ import annotations

import os
import subprocess
import threading

from tests.support.leaks import Holdings, still_running

_DAEMON = "setsid sh -c 'echo $$; exec sleep 300 >/dev/null' & sleep 0"


def test_nothing_left_is_an_empty_list() -> None:
    before = Holdings.now()
    subprocess.run(["true"], check=True)
    assert before.left_since() == []


def test_a_daemon_without_parent_is_seen_and_killed() -> None:
    before = Holdings.now()
    # Its own session and an empty environment: only adoption can find it.
    text = subprocess.run(["env", "-i", "/bin/sh", "-c", _DAEMON], stdout=subprocess.PIPE, text=True).stdout
    pid = int(text)
    assert still_running(pid)
    assert before.left_since(settle_s=0.5) == [f"process {pid}: sleep 300"]
    assert not still_running(pid)


def test_an_open_file_is_seen() -> None:
    before = Holdings.now()
    number = os.open("/dev/null", os.O_RDONLY)
    left = before.left_since()
    os.close(number)
    assert left == [f"open file {number}: /dev/null"]


def test_a_thread_is_seen() -> None:
    before, end = Holdings.now(), threading.Event()
    thread = threading.Thread(target=end.wait, name="stays")
    thread.start()
    left = before.left_since(settle_s=0.05)
    end.set()
    thread.join()
    assert left == ["thread stays"]
