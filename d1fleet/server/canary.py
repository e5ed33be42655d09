"""One small compilation on a peer, by distcc: does it come back, is it right, and what may it do there?

What the compiler starts there (`gcc -wrapper`) is a shell that looks around, as anybody's compilation could,
and says on stderr what it can see, write and reach. It changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

CONNECT_S = 2.0
"""As long as `d1fleet run` waits for a peer."""

_IO_TIMEOUT_S = 5

_EARLY_S = 2.5
"""What is left of the time for looking why it did not work, and for the answer's way."""

_SOURCE = "int d1fleet_canary(int x) { return 3 * x + 1; }\n"
_LONGEST_TEXT = 4096

_HIDDEN = ("/home", "/etc/d1fleet", "/etc/ssh/sshd_config")
_NOT_WRITABLE = ("/dev/shm", "/run/lock")
"""Open to all on an ordinary host."""


def _look_around(sign: str, port: int, hidden: Sequence[str]) -> str:
    """The shell's script; gcc cuts its words at commas, so there are none."""
    sees = " ".join(shlex.quote(path) for path in (*_HIDDEN, *hidden) if "," not in path)
    return (
        # Not here, where distcc preprocesses by the same words; and there once, not for the assembler too.
        'if [ -n "$D1FLEET_CANARY" ]; then exec "$0" "$@"; fi; '
        'case "$0" in */cc1) ;; *) exec "$0" "$@" ;; esac; '
        f'{{ say() {{ echo "{sign} $*"; }}; say nice $(nice); '
        f'for f in {sees}; do head -c 1 "$f" >/dev/null 2>&1 && say sees "$f"; '
        'ls "$f/" >/dev/null 2>&1 && say sees "$f"; done; '
        f'for f in {" ".join(_NOT_WRITABLE)}; do [ -w "$f" ] && say writes "$f"; done; '
        f'timeout 2 bash -c ": </dev/tcp/127.0.0.1/{port}" 2>/dev/null && say reaches 127.0.0.1:{port}; '
        'say done; } >&2; exec "$0" "$@"'
    )


def compile_there(given: Mapping[str, Any], environ: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """Compile on one peer.

    Args:
        given: entry (of the hosts file), address, port, ssh (it is reached by a login instead, by
            ssh_program), compilers,
            look (whether a shell shall look around there), hidden (folders that the server must not see), and
            sign (stands before each word of that shell).

    Returns:
        `connect`: why nobody answers there, else empty; `tries`: one for each compiler, `same` is None where
        this host cannot compile it itself; `around`: what the shell there has said, empty where it did not
        run.
    """
    deadline = time.monotonic() + limit_s - _EARLY_S
    port, sign = int(given["port"]), str(given["sign"])
    script = _look_around(sign, port, [str(path) for path in given["hidden"]])
    with tempfile.TemporaryDirectory(prefix="d1fleet-canary-") as folder:
        bench = _Bench(folder, environ, str(given["entry"]), deadline)
        if given["ssh"]:
            bench.over_ssh(str(given["ssh_program"]))
        tries: list[dict[str, Any]] = []
        for compiler in given["compilers"]:
            tries.append(bench.compile(str(compiler)))
            # Only then: the server's log has a complaint of each connection without a word.
            why = (
                _no_connection(str(given["address"]), port)
                if tries[-1]["status"] and not given["ssh"]
                else ""
            )
            if why:
                return {"connect": why, "tries": [], "around": ""}
        around = ""
        if given["look"] and tries and not tries[0]["status"]:
            around = bench.look_around(tries[0]["compiler"], script, sign)
    return {"connect": "", "tries": tries, "around": around}


def _no_connection(address: str, port: int) -> str:
    """Why nobody answers there; empty where somebody does."""
    try:
        socket.create_connection((address, port), CONNECT_S).close()
    except socket.timeout:
        return f"no answer within {CONNECT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


class _Bench:
    """Compiles in a folder of its own.

    Args:
        entry: the peer, as distcc's hosts files name it.
    """

    def __init__(self, folder: str, environ: Mapping[str, str], entry: str, deadline: float) -> None:
        self._folder = folder
        self._deadline = deadline
        self._log = os.path.join(folder, "log")
        own = {name: value for name, value in environ.items() if not name.startswith(("DISTCC_", "CCACHE_"))}
        self._environ = {
            **own,
            "DISTCC_HOSTS": entry,
            "DISTCC_LOG": self._log,
            "DISTCC_FALLBACK": "0",
            "DISTCC_SKIP_LOCAL_RETRY": "1",
            "DISTCC_IO_TIMEOUT": str(_IO_TIMEOUT_S),
            "D1FLEET_CANARY": "1",
            "LC_ALL": "C",
        }
        self._distcc = shutil.which("distcc", path=f"{environ.get('PATH', os.defpath)}:/usr/bin") or "distcc"

    def over_ssh(self, program: str) -> None:
        """Reach the peer as builds do there, but share no connection: it would outlive us."""
        self._environ["D1FLEET_DISTCC_SOCKETS"] = os.path.join(self._folder, "none")
        if os.access(program, os.X_OK):
            self._environ["DISTCC_SSH"] = program

    def compile(self, compiler: str) -> dict[str, Any]:
        """One file, there and here."""
        source = "canary.cc" if compiler.endswith("++") else "canary.c"
        with open(os.path.join(self._folder, source), "w") as file:
            file.write(_SOURCE)
        with contextlib.suppress(OSError):
            os.unlink(self._log)
        words = [compiler, "-O2", "-c", source]
        # A new one each: in it distcc notes that a peer has failed, and asks it no more.
        self._environ["DISTCC_DIR"] = tempfile.mkdtemp(prefix="distcc-", dir=self._folder)
        began = time.monotonic()
        status, said = self._run([self._distcc, *words, "-o", "there.o"])
        took_s = time.monotonic() - began
        same = None
        if not status and not self._run([*words, "-o", "here.o"])[0]:
            same = self._digest("here.o") == self._digest("there.o")
        return {
            "compiler": compiler,
            "status": status,
            "seconds": round(took_s, 3),
            "said": said,
            "log": self._tail(),
            "same": same,
        }

    def look_around(self, compiler: str, script: str, sign: str) -> str:
        """What a shell there says; empty where the server, or its compiler, has not run it."""
        words = [compiler, "-wrapper", f"/bin/sh,-c,{script}", "-c", "canary.c", "-o", "around.o"]
        _, said = self._run([self._distcc, *words])
        return "\n".join(line for line in said.splitlines() if line.startswith(sign))

    def _run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Exit status, and the last words; 124, as of timeout(1), where it had to be killed."""
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        try:
            said, _ = process.communicate(timeout=max(0.1, self._deadline - time.monotonic()))
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            status = 124
        return status, said[-_LONGEST_TEXT:].decode("utf-8", "replace")

    def _tail(self) -> str:
        try:
            with open(self._log, errors="replace") as file:
                return file.read(1 << 16)[-_LONGEST_TEXT:]
        except OSError:
            return ""

    def _digest(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                return hashlib.sha256(file.read(1 << 20)).hexdigest()
        except OSError:
            return ""
