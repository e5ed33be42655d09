"""Which of a build's commands distcc distributes, which not, and which it had better not. Pure.

What is said here of options is what distcc 3.4 does with gcc; a test asks it. Its own list is in its arg.c.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MASQUERADES = (Path("/usr/lib/distcc"), Path("/usr/lib64/distcc"), Path("/usr/local/lib/distcc"))
CCACHE_MASQUERADES = (Path("/usr/lib/ccache"), Path("/usr/lib64/ccache"))
"""Folders of compilers' names that are distcc, or ccache, by distribution."""

DISTRIBUTED, HERE, LOSSY = "distributed", "here", "lossy"
"""What becomes of a command. LOSSY: it goes to a host, and something of what it makes stays there."""

_COMPILER = re.compile(r"(?:(?!-)[^=]*/)?(?:[\w.+-]*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[\d.]+)?")
_SOURCE = re.compile(r".+\.(?:c|cc|cpp|cxx|cp|c\+\+|C|i|ii|m|mm|mi|mii|M|go)")
_CONFTEST = "conftest."
_LAUNCHERS = frozenset(["distcc", "ccache"])
_OPERATORS = frozenset(["&&", "||", ";", "|", "&", "(", ")", "{", "}", "then", "do", "else"])

_TAKES_VALUE = frozenset(
    (
        *("-o", "-x", "-I", "-L", "-D", "-U", "-B", "-T", "-u", "-z", "-A", "-MF", "-MT", "-MQ", "-include"),
        *("-imacros", "-isystem", "-iquote", "-idirafter", "-iprefix", "-isysroot", "--param", "-wrapper"),
        *("-Xlinker", "-Xassembler", "-Xpreprocessor", "-Xclang", "-target", "-arch", "-aux-info"),
    )
)
"""Options whose value is a word of its own, so that it is not taken for a source."""

_LOCAL = (
    (r"-E", "it only preprocesses"),
    (r"-MM?", "it only lists dependencies (-MD writes them beside the object, and is distributed)"),
    (
        r"-m(arch|tune)=native",
        "native is another processor on each host: name one (`gcc -march=native -Q --help=target`)",
    ),
    (
        r"-fprofile-(arcs|generate|use)(=.*)?|-ftest-coverage|--coverage|-fauto-profile(=.*)?",
        "profiles and coverage are files of this machine",
    ),
    (r"-flto(=.*)?", "with -flto compilation waits for the link; distcc leaves both here"),
    (r"-frepo", "it writes .rpo files"),
    (r"-d[a-zA-Z]+", "debugging dumps are files beside the object"),
    (r"-specs=.*", "a file of specs would have to be on the host"),
    (r"-Wa,.*-a.*|-Wa,.*--MD.*", "the assembler's listing is printed or a file"),
    (r"-x[a-z].*", "distcc understands `-x c`, and not `-xc`: put a blank there"),
)
_LOST = (
    (r"-save-temps(=.*)?", "the files of -save-temps stay on the host"),
    (r"-fdump-.*", "the files of -fdump-... stay on the host"),
    (r"-fstack-usage", "the .su file stays on the host"),
    (r"-gsplit-dwarf", "the .dwo file, with the debugging information, stays on the host"),
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one command."""

    what: str
    why: str = ""


def judge(argv: Sequence[str]) -> Verdict:
    """What `d1fleet run` makes of a compiler's command line; distcc or ccache may stand in front."""
    launcher, argv = _launcher(argv)
    options, sources = _parts(argv[1:])
    if "-c" not in options and "-S" not in options:
        early = _first(_LOCAL[:2], options)
        return Verdict(HERE, early or "it links, or asks the compiler something")
    why = _past_distcc(launcher, argv) or _first(_LOCAL, options) or _inputs(argv, sources)
    if why:
        return Verdict(HERE, why)
    lost = _first(_LOST, options)
    return Verdict(LOSSY, lost) if lost else Verdict(DISTRIBUTED)


def compiles(argv: Sequence[str]) -> bool:
    """Does a command make objects of C or C++? Not where it links as well, nor for a test of configure."""
    options, words = _parts(_launcher(argv)[1][1:])
    sources = [word for word in words if _SOURCE.fullmatch(word)]
    return (
        ("-c" in options or "-S" in options)
        and not _first(_LOCAL[:2], options)
        and bool(sources)
        and not any(_CONFTEST in source for source in sources)
    )


def _launcher(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """What stands before a compiler's name, "" for nothing, and the rest."""
    name = os.path.basename(argv[0])
    return (name, argv[1:]) if name in _LAUNCHERS and len(argv) > 1 else ("", argv)


def _past_distcc(launcher: str, argv: Sequence[str]) -> str:
    """Why distcc never sees a command: it is in front by PATH, and a name with a slash is not looked up."""
    folder, slash, name = argv[0].rpartition("/")
    masqueraded = Path(os.path.normpath(folder or "/")) in (*MASQUERADES, *CCACHE_MASQUERADES)
    if not slash or masqueraded or launcher == "distcc":
        return ""
    if launcher == "ccache":
        return f"ccache calls {argv[0]} without distcc, but for `d1fleet run --ccache`"
    if any("CMakeFiles/" in word for word in argv):
        return (
            f"{argv[0]} is a path, which passes distcc by: start cmake by `d1fleet run`, too, in a new folder"
            " (with distcc as CMAKE_..._COMPILER_LAUNCHER it does not: compile_commands.json leaves that out)"
        )
    return f"{argv[0]} is a path, which passes distcc by: {'CXX' if '++' in name else 'CC'}={name}"


def _parts(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options (values that are words of their own left out), and sources."""
    options, sources = [], []
    rest = iter(words)
    for word in rest:
        if word in _TAKES_VALUE:
            value = next(rest, "")
            options.append("-o -" if (word, value) == ("-o", "-") else word)
        elif word.startswith("-") and word != "-":
            options.append(word)
        else:
            sources.append(word)
    return options, sources


def _first(table: Iterable[tuple[str, str]], options: Sequence[str]) -> str:
    return next((why for form, why in table for each in options if re.fullmatch(form, each)), "")


def _inputs(argv: Sequence[str], words: Sequence[str]) -> str:
    sources = [word for word in words if _SOURCE.fullmatch(word)]
    if "-o -" in " ".join(argv):
        return "it writes to standard output"
    if len(sources) > 1:
        return "it compiles several files at once"
    if not sources:
        return "its input is no C or C++ (assembler, a header, standard input)"
    if _CONFTEST in sources[0]:
        return "it is a test of configure"
    return ""


def commands(text: str) -> Iterator[list[str]]:
    """Compilers' command lines in what make prints (`make -n`, a log), or in a compile_commands.json."""
    entries = _database(text)
    for entry in entries or ():
        if isinstance(entry, dict):
            words = entry.get("arguments") or _split(str(entry.get("command", "")))
            yield from _of_words([str(word) for word in words])
    if entries is not None:
        return
    for line in text.replace("\\\n", " ").splitlines():
        words = []
        for word in [*_split(line), ";"]:
            if word in _OPERATORS:
                yield from _of_words(words)
                words = []
            else:
                words.append(word)


def _database(text: str) -> list[object] | None:
    """The entries of a compile_commands.json; None where it is none: ninja's lines begin like one."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _split(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return []  # a quotation that goes on in the next line


def _of_words(words: Sequence[str]) -> Iterator[list[str]]:
    """From the compiler on, or distcc or ccache before it: libtool and the like stand there, too."""
    at = next((number for number, word in enumerate(words) if _COMPILER.fullmatch(word)), None)
    if at is not None and at + 1 < len(words) and not words[0].startswith(("echo", "printf")):
        yield list(words[at - 1 if at and os.path.basename(words[at - 1]) in _LAUNCHERS else at :])


@dataclass(frozen=True)
class Finding:
    """Commands with the same fate, for the same reason."""

    verdict: Verdict
    count: int
    example: str


def findings(text: str) -> list[Finding]:
    """What becomes of all commands in a text, the most frequent first."""
    found: dict[Verdict, list[str]] = {}
    for argv in commands(text):
        found.setdefault(judge(argv), []).append(about(argv))
    every = [Finding(verdict, len(files), files[0]) for verdict, files in found.items()]
    return sorted(every, key=lambda each: -each.count)


def about(argv: Sequence[str]) -> str:
    """What a command is about, in a word."""
    argv = _launcher(argv)[1]
    sources = [word for word in argv[1:] if _SOURCE.fullmatch(word)]
    if sources:
        return sources[0]
    return argv[argv.index("-o") + 1] if "-o" in argv[:-1] else os.path.basename(argv[0])
