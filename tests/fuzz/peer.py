"""A d1make server in a process of its own, and its coordinator played by hand: frames in, messages out."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

import d1fleet
from d1fleet import protocol
from d1fleet.protocol import Decoder, Message

TIMEOUT_S = 30.0
REPOSITORY = Path(d1fleet.__file__).parent.parent

M = TypeVar("M", bound=Message)


class Peer:
    """The coordinator's end.

    Args:
        folder: a private folder; the tree of the build is `folder/tree`, its only program `folder/bin/make`.
        make: source of that program, for /bin/sh.
        lease_s, heartbeat_s: as in Welcome.
    """

    def __init__(
        self,
        folder: Path,
        make: str = "exit 0\n",
        lease_s: float = 20.0,
        heartbeat_s: float = 0.2,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.bin = folder / "bin"
        self.lease_s, self.heartbeat_s = lease_s, heartbeat_s
        for each in (self.tree, self.bin):
            each.mkdir(exist_ok=True)
        runtime = folder / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        self.write_make(make)
        self.received: list[Message] = []
        self.grants = True
        """Answer beats."""
        self._unseen: list[Message] = []
        self._decoder = Decoder("server")
        self._stderr = b""
        # TMPDIR: nothing that is said here drains the machine that the tests run on.
        self._environ = {
            "PATH": self.path,
            "XDG_RUNTIME_DIR": str(runtime),
            "TMPDIR": str(runtime),
            "LC_ALL": "C",
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-E", "-s", "-m", "d1fleet.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env=self._environ,
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self._in, self._out, self._err = self.process.stdin, self.process.stdout, self.process.stderr
        for pipe in (self._in, self._out, self._err):
            os.set_blocking(pipe.fileno(), False)
        self._deadline = time.monotonic() + TIMEOUT_S

    def write_make(self, text: str) -> None:
        """Another make for the next attempt; in place of the old one, not into it (ETXTBSY, a running sh)."""
        new = self.bin / ".new"
        version = 'case $1 in --version) echo "GNU Make 4.3"; exit;; esac\n'
        new.write_text("#!/bin/sh\n" + version + text)
        new.chmod(0o755)
        new.rename(self.bin / "make")

    @property
    def path(self) -> str:
        return f"{self.bin}:/usr/bin:/bin"

    # -- talk ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, and take meanwhile what the server says; a server that has gone takes no more."""
        view = memoryview(data)
        while view and not self._in.closed:
            self._take(want_write=True)
            try:
                view = view[os.write(self._in.fileno(), view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return

    def send(self, *messages: Message) -> None:
        self.write(b"".join(map(protocol.encode, messages)))

    def hang_up(self) -> None:
        """The end of the connection, as the server sees it."""
        self._in.close()

    def _take(self, want_write: bool = False) -> bool:
        """Wait for the server and take what is there; False at its end."""
        if time.monotonic() > self._deadline:
            raise TimeoutError(
                f"nothing more from the server; stderr: {self._stderr!r}; {self.received[-5:]}"
            )
        reads = [pipe for pipe in (self._out, self._err) if not pipe.closed]
        writes = [self._in] if want_write and not self._in.closed else []
        if not reads:
            return False
        for pipe in select.select(reads, writes, [], 1.0)[0]:
            data = os.read(pipe.fileno(), 1 << 20)
            if pipe is self._err:
                self._stderr += data
            else:
                for message in self._decoder.feed(data):
                    self.received.append(message)
                    self._unseen.append(message)
                    if isinstance(message, protocol.Beat) and self.grants and not self._in.closed:
                        with contextlib.suppress(BrokenPipeError, BlockingIOError):
                            os.write(self._in.fileno(), protocol.encode(protocol.Grant(seq=message.seq)))
            if not data:
                pipe.close()
        return True

    def next(self, kind: type[M], accept: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of that kind; those before it are passed over."""
        self._deadline = time.monotonic() + TIMEOUT_S
        while True:
            while self._unseen:
                message = self._unseen.pop(0)
                if isinstance(message, kind) and accept(message):
                    return message
            if not self._take():
                raise EOFError(f"the server has ended: {self.stderr}")

    def output_until_exit(self, attempt: int) -> tuple[dict[int, bytes], protocol.Exit]:
        """What an attempt writes, and its end; credit is given as it comes."""
        output = {1: b"", 2: b""}
        while True:
            message = self.next(Message, lambda m: m.attempt == attempt)
            if isinstance(message, protocol.Data):
                output[message.stream] += message.data
                self.send(protocol.Credit(attempt, message.stream, len(message.data)))
            elif isinstance(message, protocol.Exit):
                return output, message

    # -- a build --------------------------------------------------------------------------------------

    def welcome(self, **changed: object) -> protocol.Welcome:
        values: dict[str, object] = {
            "build": "test",
            "uid": os.geteuid(),
            "slots": 4,
            "lease_s": self.lease_s,
            "heartbeat_s": self.heartbeat_s,
            "environment": b"PATH=" + self.path.encode() + b"\0",
        }
        return protocol.Welcome(**(values | changed))  # type: ignore[arg-type]

    def check_tree(self) -> protocol.CheckTree:
        nonce = self.tree / "nonce"
        nonce.write_bytes(b"content")
        return protocol.CheckTree(0, 0, os.fsencode(self.tree), os.fsencode(nonce), b"content")

    def begin(self, **changed: object) -> protocol.Hello:
        """Welcome, Hello, and a tree that is the same."""
        self.send(self.welcome(**changed), self.check_tree())
        hello = self.next(protocol.Hello)
        assert self.next(protocol.TreeChecked).reason == ""
        return hello

    def run(self, attempt: int = 2, *arguments: str, **changed: object) -> protocol.Run:
        values: dict[str, object] = {
            "attempt": attempt,
            "job": attempt,
            "folder": os.fsencode(self.tree),
            "argv": protocol.pack_block([b"make", *map(os.fsencode, arguments)]),
            "environment": b"PATH=" + self.path.encode() + b"\0",
        }
        return protocol.Run(**(values | changed))  # type: ignore[arg-type]

    # -- the end --------------------------------------------------------------------------------------

    @property
    def stderr(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def end(self, kill: bool = True) -> int:
        """Say Bye and wait for the end; returns the exit status."""
        self.send(protocol.Bye(kill=kill))
        return self.wait()

    def wait(self) -> int:
        """Take the rest; returns the exit status, negative for a signal."""
        self._deadline = time.monotonic() + TIMEOUT_S
        while self._take():
            pass
        return self.process.wait(TIMEOUT_S)

    def processes(self) -> list[psutil.Process]:
        """What runs below the server, supervisors too."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def fds(self) -> dict[int, str]:
        """The server's open files."""
        found = {}
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{self.process.pid}/fd/{name}")
        return found

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            below = self.processes()
            self.process.kill()
            self.process.wait(TIMEOUT_S)
            for each in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        for pipe in (self._in, self._out, self._err):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def states(processes: Iterable[psutil.Process]) -> set[str]:
    """States of those that have not ended."""
    found: set[str] = set()
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(each.status())
    return found - {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def all_stopped(found: set[str]) -> bool:
    """Does none of these run? A parent between vfork() and the exec of its stopped child does not either."""
    return psutil.STATUS_STOPPED in found and found <= {psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP}


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Until something outside is so; a look every few milliseconds, for what tells nobody when it happens."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        select.select([], [], [], 0.005)


@contextlib.contextmanager
def same_descriptors() -> Iterator[None]:
    """This process has no other open files afterwards."""

    def look() -> dict[str, str]:
        found = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found[name] = os.readlink(f"/proc/self/fd/{name}")
        return found

    before = look()
    yield
    after = look()
    assert after == before, {name: target for name, target in after.items() if before.get(name) != target}
