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
from .targets import AskError, Found, Question, targets_of

LOST_FOLDER = b".d1fleet-lost"

_NOT_LOOKED_AT = frozenset((b".git", b".hg", b".svn", LOST_FOLDER, LATE))

_COMPANIONS = (b".d", b".dwo", b".gcno")
"""Suffixes of what compilers write beside an object. It is seldom called a target, and a `.d` is included."""

_OBJECTS = (b".o", b".lo", b".obj")
"""`a.d` is beside `a.o`, as `a.o.d` is; a program `a` has `a.d`."""

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
        root: of the build, an absolute path.
        label: names this time: what is moved is at LOST_FOLDER/label/path below `root`; a target outside of
            that is at LOST_FOLDER/label/name beside where it was.
    """
    done = Scrubbed()
    for suspect in suspects:
        try:
            _Scrubbing(root, suspect, label, done).run()
        except OSError as error:
            done.unknown[suspect.question.folder] = f"its folder cannot be looked at: {error.strerror}"
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


class _Scrubbing:
    """One suspect."""

    def __init__(self, root: bytes, suspect: Suspect, label: str, done: Scrubbed) -> None:
        self._root = os.path.realpath(root)
        self._suspect = suspect
        self._label = os.fsencode(label)
        self._done = done
        self._directory = suspect.question.directory
        self._device = os.stat(self._directory).st_dev

    def run(self) -> None:
        """Move its targets, or note why not."""
        while True:
            try:
                targets = targets_of(self._suspect.question)
                break
            except AskError as error:
                torn = self._torn_makefile(str(error))
                if torn is None or not self._move(torn):
                    self._done.unknown[self._directory] = str(error)
                    return
        for path in sorted(self._wrong(targets)):
            self._move(path)

    def _torn_makefile(self, words: str) -> bytes | None:
        """The list of prerequisites, half written, at which make stops when it reads its makefiles."""
        match = _TORN_MAKEFILE.search(words)
        path = os.path.normpath(os.path.join(self._directory, os.fsencode(match["file"]))) if match else b""
        if not path.endswith(_COMPANIONS) or not self._changed(path) or _under_version_control([path]):
            return None
        return path

    def _wrong(self, targets: Mapping[bytes, Found]) -> set[bytes]:
        """What has to go."""
        wrong = {path for path in targets if self._changed(path)}
        for path in targets:
            beside = {each for each in _companions_of(path) if self._changed(each)}
            if beside:
                # Its compiler was at work: the object goes too, though it may not have got to that yet.
                wrong |= beside | ({path} if os.path.isfile(path) else set())
        for path in sorted(wrong & targets.keys()):
            reason = self._not_told(targets[path])
            if reason:
                self._done.left[path] = reason
                wrong.discard(path)
        kept = _under_version_control(wrong)
        self._done.left.update(kept)
        return wrong - kept.keys()

    def _not_told(self, found: Found) -> str:
        """Why nobody can tell whether a target that has changed is the lost sub-make's work; else empty."""
        if not found.reached:
            return "make cannot be asked whether the lost sub-make was at it"
        if found.empty:
            return "its rule has no recipe: who has written it cannot be told"
        makefile = os.path.join(self._directory, found.makefile)
        if found.makefile and self._changed(makefile):
            return f"{os.fsdecode(found.makefile)}, which has its rule, has changed meanwhile"
        return ""

    def _changed(self, path: bytes) -> bool:
        """Is it a regular file of this file system that has changed since? A time that somebody has set
        (`cp -p`) does not hide that: its inode has changed.
        """
        try:
            status = os.lstat(path)
        except OSError:
            return False
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_dev == self._device
            and changed_ns >= self._suspect.since_ns
            and not _NOT_LOOKED_AT.intersection(path.split(b"/"))
        )

    def _move(self, path: bytes) -> bool:
        lost, name = self._lost_place(path)
        to = os.path.join(lost, self._label, name)
        try:
            _own_folder(lost)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            os.rename(path, to)
        except FileNotFoundError:
            return True  # make has deleted it itself
        except OSError as error:
            self._done.left[path] = f"it cannot be moved to {os.fsdecode(to)}: {error.strerror}"
            return False
        self._done.moved[path] = to
        return True

    def _lost_place(self, path: bytes) -> tuple[bytes, bytes]:
        """The folder for lost files, and the name in it: of the tree, or where a target lies outside of that,
        beside it.
        """
        if path.startswith(os.path.join(self._root, b"")):
            return os.path.join(self._root, LOST_FOLDER), os.path.relpath(path, self._root)
        return os.path.join(os.path.dirname(path), LOST_FOLDER), os.path.basename(path)


def _companions_of(target: bytes) -> list[bytes]:
    """What compilers write beside an object or a program."""
    stem, suffix = os.path.splitext(target)
    stems = {target, stem} if suffix in _OBJECTS else {target}
    return [each + companion for each in stems for companion in _COMPANIONS]


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
