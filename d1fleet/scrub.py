"""Torn targets: what a lost sub-make may have left half written is put out of make's sight.

make calls a file up to date by its time alone, so what a killed compiler has left counts as made. Nobody can
tell a torn file from a whole one, so all targets that changed since the sub-make began go: renamed, below
LOST_FOLDER, never deleted. What a person may have written stays: only what make calls a target is ever moved.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .entries import LATE
from .targets import AskError, Found, Question, Targets

LOST_FOLDER = b".d1fleet-lost"

_NOT_LOOKED_AT = frozenset((b".git", b".hg", b".svn", LOST_FOLDER, LATE))

_COMPANIONS = (b".d", b".dwo", b".gcno")
"""Suffixes of what compilers write beside an object. It is seldom called a target, and a `.d` is included."""

_OBJECTS = (b".o", b".lo", b".obj", b"")
"""Suffixes of what such a file stands beside: `a.d` beside `a.o` or the program `a`, `a.o.d` beside `a.o`."""

_TORN_MAKEFILE = re.compile(r"^(?P<file>[^\n]+?):\d+: \*\*\* ", re.MULTILINE)

_MOST_BYTES = 64 << 10
"""Of names on one command line; the kernel takes 2 MiB of arguments and environment together."""

_GIT_LIMIT_S = 60.0
_GIT_SILENT = "git cannot say whether it is under version control"


@dataclass(frozen=True)
class Suspect:
    """A sub-make that was lost while it may have been writing.

    Attributes:
        question: how it was called.
        since_ns: what changed before (by the clock of the files' server, nanoseconds) it has not written.
    """

    question: Question
    since_ns: int


@dataclass
class Scrubbed:
    """What became of the files of suspects, paths as bytes.

    Attributes:
        moved: targets, and where they are now.
        left: targets that were left where they are, and may be torn, with the reason.
        unknown: where make could not say what its targets are, with its words; any file there may be torn.
    """

    moved: dict[bytes, bytes] = field(default_factory=dict)
    left: dict[bytes, str] = field(default_factory=dict)
    unknown: dict[bytes, str] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Is nothing torn left in make's sight?"""
        return not self.left and not self.unknown


def scrub(root: bytes, suspects: Sequence[Suspect], label: str) -> Scrubbed:
    """Move what these sub-makes may have torn; nothing of them may be writing any more.

    Args:
        root: the tree, an absolute path. Other file systems that are mounted in it are not looked at.
        label: names this time: what is moved is at LOST_FOLDER/label/path below `root`.
    """
    done = Scrubbed()
    if not suspects:
        return done
    changed = changed_since(root, min(suspect.since_ns for suspect in suspects))
    away = os.path.join(root, LOST_FOLDER, os.fsencode(label))
    for suspect in suspects:
        recent = {path for path, when in changed.items() if when >= suspect.since_ns} - done.moved.keys()
        _Scrubbing(root, suspect, recent, away, done).run()
    return done


def encode(root: bytes, suspects: Sequence[Suspect], label: str) -> bytes:
    """What a process of this module is asked."""
    return json.dumps(
        {
            "root": os.fsdecode(root),
            "label": label,
            "suspects": [
                {
                    "make": os.fsdecode(suspect.question.make),
                    "argv": [os.fsdecode(word) for word in suspect.question.argv],
                    "environment": _pairs(suspect.question.environment),
                    "folder": os.fsdecode(suspect.question.folder),
                    "since_ns": suspect.since_ns,
                }
                for suspect in suspects
            ],
        }
    ).encode()


def decode(answer: bytes) -> Scrubbed:
    """What it has answered.

    Raises:
        ValueError: it died before it had.
    """
    said = json.loads(answer)
    moved = {os.fsencode(path): os.fsencode(to) for path, to in said["moved"]}
    left, unknown = (
        {os.fsencode(path): str(why) for path, why in said[name]} for name in ("left", "unknown")
    )
    return Scrubbed(moved, left, unknown)


def _pairs(found: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
    return [(os.fsdecode(name), os.fsdecode(value)) for name, value in found.items()]


def main() -> int:
    """Scrub as our standard input asks for, and say on the standard output what became of it."""
    asked = json.load(sys.stdin)
    suspects = [
        Suspect(
            Question(
                os.fsencode(each["make"]),
                [os.fsencode(word) for word in each["argv"]],
                {os.fsencode(name): os.fsencode(value) for name, value in each["environment"]},
                os.fsencode(each["folder"]),
            ),
            each["since_ns"],
        )
        for each in asked["suspects"]
    ]
    done = scrub(os.fsencode(asked["root"]), suspects, asked["label"])
    said = {
        "moved": _pairs(done.moved),
        "left": [(os.fsdecode(path), why) for path, why in done.left.items()],
        "unknown": [(os.fsdecode(path), why) for path, why in done.unknown.items()],
    }
    print(json.dumps(said))
    return 0


def changed_since(root: bytes, since_ns: int) -> dict[bytes, int]:
    """Regular files below `root` that changed at or after `since_ns`, and when (nanoseconds). A time that
    somebody has set (`cp -p`) does not hide a file: its inode has changed.
    """
    found: dict[bytes, int] = {}
    device = os.stat(root).st_dev
    waiting = [root]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # it has gone, or is not ours to read, so that no make of ours has written into it
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                if entry.name not in _NOT_LOOKED_AT and status.st_dev == device:
                    waiting.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                when = max(status.st_mtime_ns, status.st_ctime_ns)
                if when >= since_ns:
                    found[entry.path] = when
    return found


class _Scrubbing:
    """One suspect."""

    def __init__(
        self, root: bytes, suspect: Suspect, recent: set[bytes], away: bytes, done: Scrubbed
    ) -> None:
        self._root = root
        self._suspect = suspect
        self._recent = recent
        self._away = away
        self._done = done
        self._directory = suspect.question.directory

    def run(self) -> None:
        """Move its targets, or note why not."""
        while self._recent:
            try:
                wrong = self._wrong()
            except AskError as error:
                torn = self._torn_makefile(str(error))
                if torn is None or not self._move(torn):
                    self._done.unknown[self._directory] = str(error)
                    return
                self._recent.discard(torn)
                continue
            for path in sorted(wrong):
                self._move(path)
            return

    def _torn_makefile(self, words: str) -> bytes | None:
        """The list of prerequisites, half written, at which make stops when it reads its makefiles."""
        match = _TORN_MAKEFILE.search(words)
        path = self._path(os.fsencode(match["file"])) if match is not None else b""
        if path not in self._recent or not path.endswith(_COMPANIONS) or _under_version_control([path]):
            return None
        return path

    def _wrong(self) -> set[bytes]:
        """What has to go.

        Raises:
            AskError: make cannot say what its targets are.
        """
        beside = {path for path in self._recent if path.endswith(_COMPANIONS)}
        objects = {of for path in beside for of in _objects_of(path)}
        targets = self._among(Targets(self._suspect.question), self._recent | objects)
        wrong = self._recent & targets.keys()
        for path in beside - wrong:
            of = next((of for of in _objects_of(path) if of in targets), None)
            if of is not None:
                # Its compiler was at work: the object goes too, though it may not have got to that yet.
                wrong.update([path, of] if os.path.isfile(of) else [path])
        for path in sorted(wrong & targets.keys()):
            makefile = targets[path].makefile
            if not targets[path].reached:
                self._done.left[path] = "make cannot be asked whether the lost sub-make was at it"
            elif makefile and self._path(makefile) in self._recent:
                self._done.left[path] = f"{os.fsdecode(makefile)}, which has its rule, has changed meanwhile"
            else:
                continue
            wrong.discard(path)
        kept = _under_version_control(wrong)
        self._done.left.update(kept)
        return wrong - kept.keys()

    def _among(self, makefiles: Targets, paths: Collection[bytes]) -> dict[bytes, Found]:
        """Those that are targets, by whichever name a makefile may call them."""
        names = {path: path for path in paths}
        names.update((os.path.relpath(path, self._directory), path) for path in paths)
        return {names[name]: found for name, found in makefiles.among(names).items()}

    def _path(self, name: bytes) -> bytes:
        return os.path.normpath(os.path.join(self._directory, name))

    def _move(self, path: bytes) -> bool:
        to = os.path.join(self._away, os.path.relpath(path, self._root))
        try:
            _own_folder(os.path.join(self._root, LOST_FOLDER))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            os.rename(path, to)
        except FileNotFoundError:
            return True  # make has deleted it itself
        except OSError as error:
            self._done.left[path] = f"it cannot be moved to {os.fsdecode(to)}: {error.strerror}"
            return False
        self._done.moved[path] = to
        return True


def _objects_of(companion: bytes) -> list[bytes]:
    return [os.path.splitext(companion)[0] + suffix for suffix in _OBJECTS]


def _own_folder(folder: bytes) -> None:
    """Make LOST_FOLDER, which `git status` shall not show."""
    os.makedirs(folder, exist_ok=True)
    ignore = os.path.join(folder, b".gitignore")
    if not os.path.lexists(ignore):
        with open(ignore, "wb") as file:
            file.write(b"*\n")


def _under_version_control(paths: Collection[bytes]) -> dict[bytes, str]:
    """Those that git tracks, or may track, with the reason. Each folder is asked about by itself: it may be
    in a repository within another.
    """
    found: dict[bytes, str] = {}
    folders: dict[bytes, list[bytes]] = {}
    for path in sorted(paths):
        folders.setdefault(os.path.dirname(path), []).append(path)
    for folder, inside in folders.items():
        for some in _batches(inside):
            try:
                found.update(_tracked(folder, some))
            except (OSError, subprocess.TimeoutExpired) as error:
                found.update(
                    dict.fromkeys(some, f"git cannot say whether it is under version control: {error}")
                )
    return found


def _batches(names: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many of them at a time as a command line takes."""
    some: list[bytes] = []
    size = 0
    for name in names:
        if some and size + len(name) > _MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(name) + 1
    if some:
        yield some


def _tracked(folder: bytes, paths: Sequence[bytes]) -> dict[bytes, str]:
    # Of a repository that the caller's environment names, these files need not be part.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    names = [os.path.basename(path) for path in paths]
    try:
        done = subprocess.run(
            [b"git", b"--literal-pathspecs", b"-C", folder, b"ls-files", b"-z", b"--", *names],
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:  # no git, and so nobody who tracks anything by it
        return {}
    if done.returncode:
        if b"not a git repository" in done.stderr:
            return {}
        words = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        return dict.fromkeys(paths, f"{_GIT_SILENT}: {words}")
    tracked = {os.path.join(folder, name) for name in done.stdout.split(b"\0") if name}
    return {path: "it is under version control" for path in paths if path in tracked}


if __name__ == "__main__":
    sys.exit(main())
