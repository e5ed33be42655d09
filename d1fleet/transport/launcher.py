"""How the d1make server gets onto a host and starts there. No I/O: bytes in, bytes to send out.

The start command is one line for whatever login shell the host has: a pair of single quotes around a text
without quotes, `!`, backslashes or newlines, which sh, csh and fish read alike. It says which Python it is
behind a magic word, which is found behind whatever a .bashrc prints, and then runs the line of Python that we
send: bootstrap.py. That asks for the server where this version of it is not there yet, neither installed nor
in the user's cache. A key may be bound to a command (authorized_keys(5)): then that is bootstrap.py itself,
put there by the role of the server. It greets in the same way, says what it is, and is told the version.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable
from importlib import resources

from ..errors import ServerStartError

MAGIC = b"D1FLEET-SERVER "

INSTALLED = "/usr/local/lib/d1fleet/server"
"""Where the role of the server puts versions for all users."""

INSTALLED_LAUNCHER = "/usr/local/lib/d1fleet/launcher"
"""What the role of the server makes of bootstrap.py."""

OLDEST_PYTHON = (3, 9)

_LONGEST_NOISE = 1 << 20
"""Bytes that a login may print before the magic word."""

_STAGE_1 = (
    "import sys;v=sys.version_info;"
    'sys.stdout.write("D1FLEET-"+"SERVER %d.%d"%(v[0],v[1])+chr(10));sys.stdout.flush();'
    "exec(sys.stdin.readline())"
)

_MODULES = (
    "__init__",
    "changes",
    "entries",
    "errors",
    "folders",
    "interpose",
    "locks",
    "loop",
    "makeargs",
    "makeflags",
    "maketokens",
    "model",
    "protocol",
    "shims",
    "shimstreams",
    "sight",
    "sighting",
    "slotpool",
    "slots",
    "stopwatch",
    "stream",
    "streams",
    "tokens",
    "treewatch",
)

_SHIM = ("__init__.py", "shim.c", "standin.py")

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]*\Z")


def start_command(python: str | None) -> str:
    """The command for the host's login shell.

    Raises:
        ServerStartError: the interpreter's path holds what a shell would read in its own way.
    """
    python = python or "python3"
    if not _PLAIN_PATH.match(python):
        raise ServerStartError(
            f"the interpreter {python!r} is no plain path",
            "set ansible_python_interpreter to a path without blanks",
        )
    return f"exec {python} -ISE -c '{_STAGE_1}'"


def local_argv(python: str) -> list[str]:
    """The same for this machine, without a shell."""
    return [python, "-ISE", "-c", _STAGE_1]


@functools.cache
def server_archive() -> bytes:
    """The server as a zip archive; equal sources give equal bytes."""
    package = resources.files("d1fleet")
    files = [(f"d1fleet/{name}.py", package.joinpath(f"{name}.py").read_bytes()) for name in _MODULES]
    for item in sorted(package.joinpath("server").iterdir(), key=lambda item: item.name):
        if item.name.endswith(".py"):
            files.append((f"d1fleet/server/{item.name}", item.read_bytes()))
    for name in _SHIM:
        files.append((f"d1fleet/shim/{name}", package.joinpath("shim", name).read_bytes()))
    return archive(files)


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip archive of files by name; equal files give equal bytes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as found:
        for name, data in files:
            found.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return memory.getvalue()


@functools.cache
def server_hash() -> str:
    """The version of the server that this coordinator speaks with."""
    return hashlib.sha256(server_archive()).hexdigest()[:32]


@functools.cache
def bootstrap() -> str:
    """The source of what runs on a host first."""
    return resources.files("d1fleet").joinpath("transport", "bootstrap.py").read_text()


@functools.cache
def _stage_2() -> bytes:
    return f"exec({f'WANTED={server_hash()!r}' + chr(10) + bootstrap()!r})\n".encode()


class Launch:
    """The talk with a starting host, until the server itself speaks.

    `feed` takes what the host writes and returns what to send; `ready` is True once frames follow, and
    `rest` then holds the first bytes of them.
    """

    def __init__(self) -> None:
        self.ready = False
        self.rest = b""
        self._greeted = False
        self._sent = False
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the host.

        Raises:
            ServerStartError: it has no Python that fits, or answers with something else.
        """
        self._buffer += data
        reply = b""
        if not self._greeted:
            at = self._buffer.find(MAGIC)
            if at < 0 or b"\n" not in self._buffer[at:]:
                if len(self._buffer) > _LONGEST_NOISE:
                    raise ServerStartError(
                        "the login prints without end", "look at the login shell's start-up files there"
                    )
                return b""
            line, self._buffer = self._buffer[at + len(MAGIC) :].split(b"\n", 1)
            installed = self._check_greeting(line)
            self._greeted = True
            reply = f"want {server_hash()}\n".encode() if installed else _stage_2()
        if self._greeted and not self.ready and len(self._buffer) > _LONGEST_NOISE:
            raise ServerStartError("the host answers without end instead of starting the server")
        while not self.ready and b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            if line == b"need" and not self._sent:
                self._sent = True
                archive = server_archive()
                reply += b"%d\n" % len(archive) + archive
            elif line == b"have":
                self.ready, self.rest = True, self._buffer
            else:
                words = line[:200].decode("utf-8", "replace")
                raise ServerStartError(f"the host answered {words!r} instead of starting the server")
        return reply

    @staticmethod
    def _check_greeting(line: bytes) -> bool:
        """Is its Python new enough? Returns whether it is the installed launcher that speaks."""
        match = re.fullmatch(rb"(\d{1,4})\.(\d{1,4})( launcher)?\r?", line)
        oldest = ".".join(map(str, OLDEST_PYTHON))
        if match is None:
            raise ServerStartError(f"the host answered {line[:80]!r} instead of its Python's version")
        if (int(match[1]), int(match[2])) < OLDEST_PYTHON:
            raise ServerStartError(
                f"its Python is {int(match[1])}.{int(match[2])}, at least {oldest} is needed",
                "set ansible_python_interpreter to a newer one, or install it",
            )
        return match[3] is not None

    def failure(self, diagnosis: str) -> ServerStartError:
        """The error for a channel that ended before the server was there."""
        noise = self._buffer[-300:].decode("utf-8", "replace").strip()
        noise = "".join(c if c.isprintable() or c == "\n" else "?" for c in noise)
        text = "; ".join(part for part in (diagnosis, noise and f"it printed: {noise}") if part)
        if INSTALLED_LAUNCHER in text and ("not found" in text or "No such file" in text):
            return ServerStartError(
                f"our key may start nothing but d1fleet's launcher there, and that is missing ({text})",
                "enrol the host again: ansible-playbook site.yml",
            )
        if "python" in text and ("not found" in text or "No such file" in text or "status 127" in text):
            return ServerStartError(
                f"there is no python3 on the host ({text})",
                "install python3 there, or set ansible_python_interpreter",
            )
        return ServerStartError(
            f"d1fleet's server did not start there ({text or 'the connection ended without a word'})",
            "log in by hand, and see whether python3 --version runs there",
        )
