"""What we say ourselves: on stderr, each line behind our name, so that it is never taken for make's."""

from __future__ import annotations

import os
import queue
import select
import socket
import stat
import threading
import traceback

LONGEST = 1000
"""Characters kept of a text that came from elsewhere."""

_waiting: queue.Queue[bytes] | None = None


def say(text: str) -> None:
    """Print lines of ours; whatever is in them, a terminal is not played with. That nobody can read them is
    no reason for anything else to fail.
    """
    data = "".join(f"d1fleet: {plain(line)}\n" for line in text.splitlines()).encode("utf-8", "replace")
    if _waiting is None:
        _write(data)
        return
    if not _waiting.unfinished_tasks:
        data = _write_what_goes(data)  # at once where that can be: it comes before what make says of it
    if data:
        _waiting.put(data)


def say_fault() -> None:
    """A fault of ours, in full: worse than a traceback is only none."""
    say(traceback.format_exc())


def say_in_background() -> None:
    """From now on `say` returns at once: a pager that pauses must not hold up who keeps leases."""
    global _waiting
    waiting: queue.Queue[bytes] = queue.Queue()
    _waiting = waiting

    def work() -> None:
        while True:
            _write(waiting.get())
            waiting.task_done()

    threading.Thread(target=work, name="words", daemon=True).start()


def finish(limit_s: float | None) -> None:
    """Wait until all that was said is written, at most `limit_s` seconds, and speak for ourselves again."""
    global _waiting
    if _waiting is not None:
        last = threading.Thread(target=_waiting.join, daemon=True)
        last.start()
        last.join(limit_s)
        _waiting = None


def _write_what_goes(data: bytes) -> bytes:
    """Write without waiting; returns what has to wait."""
    try:
        mode = os.fstat(2).st_mode
        if stat.S_ISREG(mode):
            return data[os.write(2, data) :]
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(2)) as sock:
                return data[sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        # O_NONBLOCK belongs to the open file, which others share: one of our own.
        own = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return data[os.write(own, data) :]
        finally:
            os.close(own)
    except OSError:
        return data


def _write(data: bytes) -> None:
    # Not sys.stderr: what that cannot write it tries again at the end of Python, and spoils the exit status.
    try:
        while data:
            try:
                data = data[os.write(2, data) :]
            except BlockingIOError:  # somebody has set O_NONBLOCK on the open file that we share
                poll = select.poll()
                poll.register(2, select.POLLOUT)
                poll.poll()
    except OSError:
        pass


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun; `many` where that is no `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def plain(text: str) -> str:
    """Text from a host or a makefile for a line of ours: nothing that plays with a terminal, not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST])
