"""What compiles on this host: a short text for each part of its toolchain, equal on equal hosts.

Also a script that needs nothing beside it, for hosts that are being enrolled: `python3 -ISE toolchain.py
[TOOL ...]` prints {"fingerprint": ..., "parts": {...}, "tools": [...]} and leaves nothing behind.

    machine       as uname(2)
    cc, c++       first line of --version, and a hash of the compiler proper (cc1, cc1plus, or clang itself):
                  drivers of two builds can say the same
    as, ld, ar    first line of --version, and a hash of the program
    libc          version, and a hash of the C library that programs here run with
    headers       of libc and kernel: packages, and a hash over dpkg's checksums of their files. Without dpkg
                  a cheaper stand-in, names and sizes of the files: it misses a change that keeps all sizes
    further ones  by name; as cc where it is a compiler, with the assembler, linker, libc and headers that it
                  has of its own; else as ld

A part that is not there is `none`. No value holds a path or a time: they differ on hosts that are equal. So
do the names that compilers were called by: a version line begins with the tool's own name in their place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

Stamp = Optional[list[int]]
"""Shows that a file is the one that was looked at: inode, size, mtime and ctime in ns; None for no file."""

NONE = "none"
"""Value of a part that is not there."""

_NO_ANSWER = "no answer"

TOOLS = ("cc", "c++", "as", "ld", "ar")
"""Looked at on every host."""

COMPILERS = ("cc", "c++")

_FINGERPRINT = re.compile(r" \[[^][]*\]\Z")
"""Behind a version."""

MOST_PARTS = 64
LONGEST_NAME = 100
LONGEST_VALUE = 400
"""Characters; what is longer is no description of a toolchain."""

MOST_TOOLS = 32
TOOL_NAME = re.compile(r"(?=.{1,100}\Z)/?[A-Za-z0-9_+][A-Za-z0-9_.+-]*(/[A-Za-z0-9_+][A-Za-z0-9_.+-]*)*\Z")

_FORMULA = 2
"""Goes up when the same host would be described in other words: what older ones remember is void then."""

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_SYSTEM_FOLDERS = ("/usr/bin", "/bin")
"""Where packages put tools: of any other place people have to be told, or they look for it in vain."""
_EACH_LIMIT_S = 4.0
"""For one answer of a compiler; a guess: they take some ms, and a cold disk or an NFS server a second."""
_LIMIT_S = 10.0
"""For all of them: who waits for a server's hello gives up after 45 s, and its setup may take 30."""
_WAIT_LIMIT_S = 3.0
"""How long to wait for another server of this user that looks at the same."""
_WAIT_STEP_S = 0.01
_LONGEST_ANSWER = 4096
_LONGEST_LINE = 160
_HASH_DIGITS = 12
_LONGEST_CACHE = 1 << 18
_MOST_ENTRIES = 20
"""Entries of the cache, one for each PATH; the oldest go first."""

_DPKG = "/var/lib/dpkg/info"
_INCLUDE = "/usr/include"
_KERNEL_HEADERS = "linux-libc-dev"
_KERNEL_RELEASE = b"  usr/include/linux/version.h"
"""All that most of its monthly updates change: hosts that are a week apart go on building together."""
_HEADER_PACKAGES = ("libc6-dev", _KERNEL_HEADERS)
_HEADER_FOLDERS = ("", "asm", "asm-generic", "bits", "gnu", "linux", "sys")
"""Below an include folder: those of libc and kernel, and few others."""

_COMPILER = re.compile(r"(?:(.+)-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+)(?:-[0-9.]+)?\Z")
_CALLED = re.compile(r"(\S+)(?= \()")
"""Where gcc's version line has the name that it was called by, which is a wrapper's choice."""
_LIBC = re.compile(r"(?:libc\.so\.6|libc-[0-9.]+\.so|ld-musl-[^/]*\.so\.1|libc\.musl-[^/]*\.so\.1)\Z")

_DECIDING = ("PATH", "LD_LIBRARY_PATH", "GCC_EXEC_PREFIX", "COMPILER_PATH", "CCACHE_COMPILER", "CCACHE_PATH")
"""Variables that can make other programs answer; what was remembered under others does not hold."""


def fingerprint(parts: Mapping[str, str]) -> str:
    """A short text that is the same for equal toolchains; empty when nothing is known of one."""
    if not parts:
        return ""
    there = sorted((name, value) for name, value in parts.items() if value not in ("", NONE))
    return hashlib.sha256(json.dumps(there).encode()).hexdigest()[:16]


def differences(
    expected: Mapping[str, str],
    found: Mapping[str, str],
    whose: str = "the project",
    places: Mapping[str, str] | None = None,
) -> list[str]:
    """What differs, a text for each part of `expected`, compilers first; parts that only `found` has do not
    count. Fingerprints are left out where versions differ anyway.

    Args:
        places: where the tools of `found` lie, as `places` has it; they are said, and are no difference.
    """
    at = {name: f" at {path}" for name, path in (places or {}).items()}
    texts = []
    for name in sorted(expected, key=lambda name: name not in COMPILERS):
        there, wanted = found.get(name) or NONE, expected[name] or NONE
        if there == wanted:
            continue
        plain = [_FINGERPRINT.sub("", text) for text in (there, wanted)]
        if plain[0] != plain[1]:
            there, wanted = plain
        texts.append(f"{name}: {there}{at.get(name, '')}, {whose} has {wanted}")
    return texts


def has_compiler(parts: Mapping[str, str]) -> bool:
    """Does anything compile C or C++ there?"""
    return any(parts.get(name, NONE) not in ("", NONE) for name in COMPILERS)


def describe(
    tools: Sequence[str] = (), environ: Mapping[str, str] | None = None, cache: str | None = None
) -> dict[str, str]:
    """The toolchain of this host.

    Args:
        tools: further tools by name or absolute path.
        environ: environment of those who will use it: tools are looked up in its PATH.
        cache: folder to remember the answer in, made if need be; None remembers nothing. One that is not this
            user's alone is not used.
    """
    return examine(tools, environ, cache)[0]


def examine(
    tools: Sequence[str] = (), environ: Mapping[str, str] | None = None, cache: str | None = None
) -> tuple[dict[str, str], bool]:
    """The same, and whether all answers came, and in time: on a host under load some may not."""
    environ = os.environ if environ is None else environ
    names = list(dict.fromkeys([*TOOLS, *tools]))
    paths = {name: _find(name, environ.get("PATH", _DEFAULT_PATH)) for name in names}
    entry = _entry_name(paths, environ)
    folder = _own_folder(cache) if cache else None
    if folder is None:
        parts, stamps = _look(names, paths, environ)
        return parts, stamps is not None
    known = _remembered(folder, entry)
    if known is not None:
        return known, True
    with _alone(folder):
        known = _remembered(folder, entry)  # another server of ours has looked meanwhile
        if known is not None:
            return known, True
        parts, stamps = _look(names, paths, environ)
        if stamps is not None:
            _remember(folder, entry, stamps, parts)
    return parts, stamps is not None


def places(tools: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Paths of those tools that were found outside the system's folders; arguments as for `describe`.

    Not of those that were asked for by their path, nor paths that are not fit to be read.
    """
    path = (os.environ if environ is None else environ).get("PATH", _DEFAULT_PATH)
    found = {name: _find(name, path) or "" for name in (*TOOLS, *tools) if not os.path.isabs(name)}
    return {
        name: place
        for name, place in found.items()
        if place
        and os.path.dirname(place) not in _SYSTEM_FOLDERS
        and len(place) <= LONGEST_VALUE
        and place.isprintable()
    }


def _look(
    names: Sequence[str], paths: Mapping[str, str | None], environ: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Stamp] | None]:
    """The parts, and the stamps of the files that they come from; none when not all answers came in time."""
    look = _Look(environ)
    parts = {"machine": os.uname().machine}
    parts.update((name, look.tool(name, paths[name], further=name not in TOOLS)) for name in names)
    parts["libc"] = look.libc()
    parts["headers"] = look.headers()
    return parts, look.stamps if look.sure else None


def cache_folder(environ: Mapping[str, str] = os.environ) -> str | None:
    """Where this user's server remembers toolchains; None where there is no home for it."""
    base = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base) or not os.path.isdir(os.path.dirname(base)):
        return None
    return os.path.join(base, "d1fleet", "toolchain")


def _find(name: str, path: str) -> str | None:
    """The program, as execvp(3) finds it; relative folders of PATH are another place for every job."""
    folders = [""] if os.path.isabs(name) else [each for each in path.split(":") if os.path.isabs(each)]
    for folder in folders:
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


class _Look:
    """One look at the toolchain, and at which files it was taken."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # Tools speak English for all, and a compiler's own configuration counts as it does for jobs.
        self._environ = {**environ, "LC_ALL": "C", "LANGUAGE": "C"}
        self._until = time.monotonic() + _LIMIT_S
        self.stamps: dict[str, Stamp] = {}
        self.sure = True
        """All answers came, and in time: the same would come again."""

    def tool(self, name: str, path: str | None, further: bool) -> str:
        """One tool, in words."""
        if path is None:
            return NONE
        self._watch(path)
        version = self._line(path, "--version") or "version unknown"
        compiler = _COMPILER.match(os.path.basename(name))
        if compiler is None:
            return f"{version} [{self._hash(path)}]"
        called = _CALLED.match(version)
        if called and _COMPILER.match(called[1]):
            version = os.path.basename(name) + version[called.end() :]
        details = self._proper(path, compiler[2])
        if further:
            details += self._beside(path)
        return f"{version} [{', '.join(details)}]"

    def _proper(self, path: str, kind: str) -> list[str]:
        """What really compiles behind a driver."""
        names = ("cc1plus", "clang") if kind in ("c++", "g++", "clang++") else ("cc1", "clang")
        for name in names:
            found = self._line(path, f"-print-prog-name={name}")
            if os.path.isabs(found):
                return [f"{name} {self._hash(found)}"]
        # Another make of compiler, or a driver without it: it is what it is.
        return [self._hash(path)]

    def _beside(self, path: str) -> list[str]:
        """What a compiler has of its own where it compiles for another machine, or lies apart."""
        found = []
        for option, name in (("prog", "as"), ("prog", "ld"), ("file", "libc.so.6")):
            file = self._line(path, f"-print-{option}-name={name}")
            if os.path.isabs(file):
                found.append(f"{name} {self._hash(file)}")
        target = self._line(path, "-dumpmachine")
        include = f"/usr/{target}/include"
        if re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)+", target) and os.path.isdir(include):
            found.append(f"headers {self._walk(include)}")
        return found

    def libc(self) -> str:
        """The C library that this very process runs with."""
        path = ""
        with (
            contextlib.suppress(OSError),
            open("/proc/self/maps", encoding="utf-8", errors="replace") as maps,
        ):
            for line in maps:
                mapped = line.split(None, 5)[5:]
                if mapped and _LIBC.match(os.path.basename(mapped[0].rstrip("\n"))):
                    path = mapped[0].rstrip("\n")
                    break
        if not path:
            return NONE
        version = ""
        with contextlib.suppress(OSError, ValueError):
            version = os.confstr("CS_GNU_LIBC_VERSION") or ""
        return f"{version or os.path.basename(path)} [{self._hash(path)}]"

    def headers(self) -> str:
        """Headers of libc and kernel."""
        if not os.path.isdir(_DPKG):
            self._watch(_DPKG)
            return self._walk(_INCLUDE) if os.path.isdir(_INCLUDE) else NONE
        dpkg = _find("dpkg-query", _DEFAULT_PATH)
        native = self._line(_find("dpkg", _DEFAULT_PATH) or "", "--print-architecture")
        digest = hashlib.blake2b()
        found = []
        for package in _HEADER_PACKAGES:
            for name in (package, f"{package}:{native}"):
                lines = self._checksums(os.path.join(_DPKG, f"{name}.md5sums"))
                if lines:
                    digest.update(b"\n".join(lines))
                    version = self._line(dpkg or "", "-W", "-f", "${Version}\n", name)
                    if package == _KERNEL_HEADERS:
                        version = ".".join(version.split(".")[:2])
                    found.append(f"{package} {version or '?'}")
        return f"{', '.join(found)} [{digest.hexdigest()[:_HASH_DIGITS]}]" if found else NONE

    def _checksums(self, path: str) -> list[bytes]:
        """A package's lines for what compilers and linkers read: not its manual pages and its changelog, nor
        the kernel's exact release.
        """
        self._watch(path)
        try:
            with open(path, "rb") as file:
                lines = file.read(_LONGEST_CACHE * 16).splitlines()
        except FileNotFoundError:
            return []
        except OSError:
            self.sure = False
            return []
        return sorted(
            line for line in lines if b"  usr/share/" not in line and not line.endswith(_KERNEL_RELEASE)
        )

    def _walk(self, include: str) -> str:
        """Names and sizes of headers, in place of their contents."""
        digest, count = hashlib.blake2b(), 0
        for folder in _HEADER_FOLDERS:
            path = os.path.join(include, folder)
            self._watch(path)
            with contextlib.suppress(OSError):
                for name in sorted(os.listdir(path)):
                    with contextlib.suppress(OSError):
                        found = os.stat(os.path.join(path, name))
                        if stat.S_ISREG(found.st_mode):
                            count += 1
                            digest.update(f"{folder}/{name} {found.st_size}\n".encode("utf-8", "replace"))
        return f"{count} files [{digest.hexdigest()[:_HASH_DIGITS]}]"

    def _watch(self, path: str) -> None:
        # The first stamp counts: what changes while it is looked at is looked at again next time.
        if path not in self.stamps:
            self.stamps[path] = _stamp(path)

    def _hash(self, path: str) -> str:
        self._watch(path)
        digest = hashlib.blake2b()
        try:
            if not os.path.isfile(path):
                return NONE
            with open(path, "rb", buffering=0) as file:
                buffer = bytearray(1 << 20)
                while size := file.readinto(buffer):
                    digest.update(memoryview(buffer)[:size])
        except OSError:
            self.sure = False
            return "unreadable"
        return digest.hexdigest()[:_HASH_DIGITS]

    def _line(self, path: str, *arguments: str) -> str:
        """The first line that a program prints, fit to be read; empty when there is none in time."""
        limit_s = min(_EACH_LIMIT_S, self._until - time.monotonic())
        if not path:
            return ""
        answer = _answer([path, *arguments], self._environ, limit_s) if limit_s > 0 else None
        if answer is None:
            self.sure = False
            return _NO_ANSWER if arguments == ("--version",) else ""
        line = answer.decode("utf-8", "replace").lstrip().split("\n", 1)[0].strip()
        return "".join(c if c.isprintable() else "?" for c in line)[:_LONGEST_LINE]


def _answer(argv: list[str], environ: Mapping[str, str], limit_s: float) -> bytes | None:
    """What a program prints on stdout, up to a limit; None when it takes too long, dies of a signal, or
    cannot be started, as where memory is short: next time it may answer. It is dead after that.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
    deadline = time.monotonic() + limit_s
    output: bytes | None = b""
    with process:
        fd = process.stdout.fileno() if process.stdout else -1
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while output is not None and len(output) < _LONGEST_ANSWER:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                output = None
                break
            data = os.read(fd, _LONGEST_ANSWER)
            if not data:
                break
            output += data
        try:
            if output is None or len(output) >= _LONGEST_ANSWER:
                raise subprocess.TimeoutExpired(argv, limit_s)
            # It may have closed its stdout and go on.
            if process.wait(max(0.0, deadline - time.monotonic())) < 0:
                output = None
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):  # not reaped yet, so the number still is its group's
                os.killpg(process.pid, signal.SIGKILL)
    return output


# The cache: an entry holds the parts, and the stamps of all files that they were read from.


def _entry_name(paths: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    deciding = [environ.get(name) for name in _DECIDING]
    stamps = {name: path and [path, _stamp(path)] for name, path in paths.items()}
    everything = json.dumps([_FORMULA, os.uname().machine, deciding, stamps])
    return hashlib.sha256(everything.encode()).hexdigest()[:32] + ".json"


def _own_folder(path: str) -> str | None:
    """The folder, made if need be; None when it is not this user's alone."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return path if own else None


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """One server of this user looks at a time, as far as that can be had: the others get what it finds."""
    fd = -1
    try:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            deadline = time.monotonic() + _WAIT_LIMIT_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_WAIT_STEP_S)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _remembered(folder: str, entry: str) -> dict[str, str] | None:
    """The parts, when no file has changed since; an entry that is cut off, odd or another's is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        fd = os.open(os.path.join(folder, entry), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            own = found.st_uid == os.geteuid() and not found.st_mode & 0o022
            if not own or not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST_CACHE:
                return None
            known = json.loads(os.read(fd, _LONGEST_CACHE))
        finally:
            os.close(fd)
        parts: Any = known["parts"]
        same = all(_stamp(path) == stamp for path, stamp in known["stamps"].items())
        if same and parts_fault(parts) == "":
            return dict(parts)
    return None


def _remember(folder: str, entry: str, stamps: Mapping[str, Stamp], parts: Mapping[str, str]) -> None:
    """Keep an answer. Without it the next server takes some 100 ms longer: no reason for anything to fail."""
    with contextlib.suppress(OSError):
        fd, name = tempfile.mkstemp(prefix=".new-", dir=folder)  # 0600
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump({"stamps": stamps, "parts": parts}, file)
            os.replace(name, os.path.join(folder, entry))
        except OSError:
            os.unlink(name)
            raise
        entries = [os.path.join(folder, each) for each in os.listdir(folder)]
        entries.sort(key=lambda path: (_stamp(path) or [0, 0, 0])[2])
        for path in entries[:-_MOST_ENTRIES]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def parts_fault(parts: Any) -> str:
    """Why something that was read or sent is no description of a toolchain; empty when it is one."""
    if not isinstance(parts, dict) or len(parts) > MOST_PARTS:
        return f"the parts of a toolchain are no mapping of at most {MOST_PARTS}"
    for name, value in parts.items():
        if not isinstance(name, str) or not isinstance(value, str):
            return "a part of a toolchain is no text"
        if not 0 < len(name) <= LONGEST_NAME or len(value) > LONGEST_VALUE:
            return "a part of a toolchain has a name or a text that is too long"
        if not name.isprintable() or not value.isprintable():
            return "a part of a toolchain holds control characters"
    return ""


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if len(wanted) > MOST_TOOLS or not all(map(TOOL_NAME.match, wanted)):
        sys.exit(f"usage: toolchain.py [TOOL ...]: at most {MOST_TOOLS} names or absolute paths of tools")
    described = describe(wanted)
    answer = {"fingerprint": fingerprint(described), "parts": described, "tools": wanted}
    print(json.dumps(answer, indent=2, sort_keys=True))
