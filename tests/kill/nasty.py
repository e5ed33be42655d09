"""A recipe's worst: starts processes of six kinds, which all stay until they are told to go.

    child       of the recipe's shell, or of make
    grandchild  below a sh
    session     in a session of its own, its parent alive
    orphan      forked twice, in the recipe's session
    daemon      forked twice, in a session of its own
    bare        the same, with an empty environment and every descriptor closed

Usage: nasty.py start|be FOLDER JOB MANNER [KIND]. FOLDER stands in each command line, and so marks them all.
They say what happens to them on the socket FOLDER/events. `stubborn` ones say which signal came, and stay.

Standard library alone: it runs under -ISE.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

KINDS = ("child", "grandchild", "session", "orphan", "daemon", "bare")
LIFE_S = 180.0
"""They end of themselves after this, should a test die before it can end them."""
TICK_S = 0.02


def say(folder: str, *words: object) -> None:
    """One datagram to the test; nobody listening is no fault of ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(" ".join(map(str, words)).encode(), os.path.join(folder, "events"))
        except OSError:
            return


def be(folder: str, job: str, manner: str, kind: str) -> None:
    """Be there, and count, until told to go: `child` by release-JOB, all others by release."""

    def stay(number: int, _: object) -> None:
        say(folder, "signal", job, kind, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, stay if manner == "stubborn" else signal.SIG_DFL)
    release = os.path.join(folder, f"release-{job}" if kind == "child" else "release")
    end = time.monotonic() + LIFE_S
    with open(os.path.join(folder, "ticks", f"{job}-{kind}"), "ab", buffering=0) as ticks:
        say(folder, "ready", job, kind, os.getpid())
        while not os.path.exists(release) and time.monotonic() < end:
            ticks.write(b".")
            time.sleep(TICK_S)
    say(folder, "gone", job, kind, os.getpid())


def start(folder: str, job: str, manner: str) -> None:
    """Start one of each kind below this process, which is `child` itself."""
    me = [sys.executable, "-ISE", os.path.abspath(__file__), "be", folder, job, manner]
    subprocess.Popen(["sh", "-c", '"$@"; :', "sh", *me, "grandchild"])
    if os.fork() == 0:
        os.setsid()
        be(folder, job, manner, "session")
        os._exit(0)
    for kind in ("orphan", "daemon", "bare"):
        middle = os.fork()
        if middle == 0:
            if kind != "orphan":
                os.setsid()
            if os.fork() == 0:
                if kind == "bare":
                    os.closerange(0, 256)
                    os.execve(me[0], [*me, kind], {})
                be(folder, job, manner, kind)
            os._exit(0)
        os.waitpid(middle, 0)
    be(folder, job, manner, "child")


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(*sys.argv[2:])
    else:
        be(*sys.argv[2:])
