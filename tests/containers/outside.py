"""Runs commands for a process that must not be their ancestor; the other half of launcher.py.

    python -I outside.py CONTROL

Started as a grandchild whose parent ends. Each packet on the socket CONTROL brings one end of a stream: a
command comes in on it as JSON, and ["done", status, stdout, stderr], ["late"] or ["failed", reason] goes out.
The end of CONTROL is the end of the process that we serve; what still runs may finish. Needs the standard
library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

POLL_S = 0.2
"""How soon it is seen that nobody waits for an answer."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    if os.fork():
        os.write(1, b"ready\n")
        sys.stdin.buffer.read()  # the other side says when this child becomes an orphan
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        with contextlib.suppress(InterruptedError):
            streams = socket.recv_fds(control, 16, 1)[1]
            if not streams:
                return  # threads are joined at the end
            threading.Thread(target=serve, args=(socket.socket(fileno=streams[0]),)).start()


def serve(stream: socket.socket) -> None:
    with stream:
        command = json.loads(b"".join(iter(lambda: stream.recv(65536), b"")))
        try:
            answer = json.dumps(run(command, stream)).encode()
        except Exception as exc:  # whatever it is, somebody waits to hear of it
            answer = json.dumps(["failed", f"{command['argv'][:4]}: {exc!r}"]).encode()
        with contextlib.suppress(OSError):  # nobody waits any more
            stream.sendall(answer)


def run(command: dict[str, Any], stream: socket.socket) -> list[Any]:
    try:
        process = subprocess.Popen(
            command["argv"], env=command["env"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as exc:
        return ["failed", f"{command['argv'][0]} cannot be started: {exc}"]
    deadline = time.monotonic() + command["timeout_s"]
    waited_for, stdin = True, command["stdin"]
    while True:
        try:
            out, err = process.communicate(stdin, POLL_S)
            return ["done", process.returncode, out, err]
        except subprocess.TimeoutExpired:
            stdin = None  # it is handed over once
            if waited_for and hung_up(stream):
                waited_for = False
                deadline = min(deadline, time.monotonic() + command["patience_s"])
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return ["late"]


def hung_up(stream: socket.socket) -> bool:
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
