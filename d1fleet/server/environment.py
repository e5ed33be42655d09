"""The environment of a job on this host: the job's own, the host's setup, and nothing of the first
machine's.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from ..errors import UnfitError
from ..interpose import MARKER
from ..makeflags import clean_environment
from ..protocol import SHIM_PLACE, Run, pack_block, unpack_block

Environment = dict[bytes, bytes]

_SETUP_LIMIT_S = 30.0

_DUMP = (
    'import os;f=os.fdopen(3,"wb");'
    'f.write(b"".join(k+b"="+v+bytes([0]) for k,v in os.environb.items()));f.close()'
)

# What running a shell changes by itself.
_SHELL_NOISE = frozenset((b"_", b"SHLVL", b"OLDPWD", b"PWD"))


def parse(block: bytes) -> Environment:
    """A block of NAME=value strings as a mapping; the first of two equal names wins, as in getenv(3)."""
    environment: Environment = {}
    for item in unpack_block(block):
        name, sign, value = item.partition(b"=")
        if sign and name:
            environment.setdefault(name, value)
    return environment


def run_setup(setup: str, environ: Environment) -> Environment:
    """Run the host's setup text once; returns the environment after it.

    The text stands directly before the command whose environment is kept, so that `CC=x` counts and a
    command ends in `;`.

    Raises:
        UnfitError: the setup failed or did not end.
    """
    read, write = os.pipe()
    command = f"{setup} {shlex.join([sys.executable, '-ISE', '-c', _DUMP])}"
    script = f"exec 3>/proc/self/fd/{write}; {command}"  # dash takes one digit behind >&
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[write],
            env=environ,
            start_new_session=True,
        )
    finally:
        os.close(write)
    try:
        with process, os.fdopen(read, "rb") as pipe:
            try:
                _, errors = process.communicate(timeout=_SETUP_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise UnfitError(
                    f"the server setup did not end within {_SETUP_LIMIT_S:.0f} s",
                    "see d1fleet_server_setup of this host",
                ) from None
            block = pipe.read()
    except OSError as error:
        raise UnfitError(f"the server setup cannot be run: {error}") from error
    if process.returncode != 0 or not block:
        last = errors.decode("utf-8", "replace").strip()[-500:]
        raise UnfitError(
            f"the server setup failed with status {process.returncode}: {last or 'no message'}",
            "see d1fleet_server_setup of this host; a command in it ends in ';'",
        )
    return parse(block)


class HostEnvironment:
    """Composes the environments of jobs.

    A job sees the whole environment of its sub-make. A variable that the setup changed wins, unless the
    makefile changed it too, which shows against the environment that the build began with.
    """

    def __init__(self, setup: str, build_environment: bytes) -> None:
        self.shims: Environment = {}
        """What lets the makes of a job meet our shim, D1FLEET_SHIM its folder; empty where there is none."""
        self._build = parse(build_environment)
        self._changed: dict[bytes, bytes | None] = {}
        self._last: tuple[tuple[object, ...], Environment] = ((), {})
        if setup.strip():
            before = dict(os.environb)
            after = run_setup(setup, before)
            for name in (before.keys() | after.keys()) - _SHELL_NOISE:
                if before.get(name) != after.get(name):
                    self._changed[name] = after.get(name)

    def compose(self, block: bytes) -> Environment:
        """The host's view of an environment."""
        environment = parse(block)
        for name, value in self._changed.items():
            if environment.get(name) == self._build.get(name):
                if value is None:
                    environment.pop(name, None)
                else:
                    environment[name] = value
        folder = environment.get(b"TMPDIR")
        if folder is not None and not os.path.isdir(folder):
            del environment[b"TMPDIR"]
        path = environment.get(b"PATH")
        if path is not None and SHIM_PLACE in path:
            place = self.shims.get(b"D1FLEET_SHIM")
            folders = [place if folder == SHIM_PLACE else folder for folder in path.split(b":")]
            environment[b"PATH"] = b":".join(folder for folder in folders if folder is not None)
        return environment

    def outgoing(self, block: bytes) -> bytes:
        """The environment of a process on this host, as any other host may have it: without what is this
        host's own.
        """
        place = self.shims.get(b"D1FLEET_SHIM")
        items = []
        for item in unpack_block(block):
            name, _, value = item.partition(b"=")
            if name.startswith(b"D1FLEET_"):
                continue
            if name == b"PATH" and place is not None:
                folders = [SHIM_PLACE if folder == place else folder for folder in value.split(b":")]
                item = b"PATH=" + b":".join(folders)
            elif name in self._changed and value == self._changed[name]:
                if name not in self._build:
                    continue
                item = name + b"=" + self._build[name]
            items.append(item)
        items += [
            name + b"=" + self._build[name]
            for name, value in self._changed.items()
            if value is None and name in self._build and not any(i.startswith(name + b"=") for i in items)
        ]
        return pack_block(items)

    def for_job(self, run: Run, sync_mutex: bytes | None = None, fifo: str | None = None) -> Environment:
        """The environment of a job; mostly that of the job before it."""
        key = (run.environment, tuple(run.jobserver), run.tokens, run.keep_auth, sync_mutex, fifo)
        if key != self._last[0]:
            environment = clean_environment(
                self.compose(run.environment),
                fds=(run.jobserver[0], run.jobserver[1]) if run.tokens and fifo is None else None,
                fifo=None if fifo is None else os.fsencode(fifo),
                keep_auth=run.keep_auth,
                sync_mutex=sync_mutex,
            )
            environment.update(self.shims)
            self._last = (key, environment)
        # A d1fleet build in it knows that it is a job, and a shim says which one it came from.
        return {**self._last[1], b"D1FLEET_JOB": b"%d" % run.attempt}


class ProgramFinder:
    """Finds programs in a PATH, and remembers where."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, bytes], bytes] = {}

    def find(self, name: bytes, path: bytes) -> bytes | None:
        """The first executable file `name` in `path`, as execvp(3) finds it."""
        key = (name, path)
        if key not in self._found:
            for folder in path.split(b":"):
                candidate = os.path.join(folder or b".", name)
                if os.path.exists(os.path.join(folder, os.fsencode(MARKER))):
                    continue  # a folder of shims
                if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                    self._found[key] = candidate
                    break
        return self._found.get(key)
