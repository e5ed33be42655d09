"""MAKEFLAGS: what it says, and what of it crosses to a make on another machine.

It is a list of words: a bundle of letters without a dash, options, ` -- `, command-line variables. Within a
word make escapes blanks and backslashes with a backslash, and doubles `$` (`quote_for_env` in make's main.c;
`decode_env_switches` reads it back). Everything is bytes, for values need not be UTF-8. Pure: no environment
is read here.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d1fleet.makeargs import Arguments, Option, arguments, scan, without_jobs

_STAYS_HERE = {
    b"n": "-n only prints what it would do",
    b"q": "-q only asks",
    b"t": "-t only touches",
    b"p": "-p prints make's data base",
    b"v": "--version only prints",
    b"h": "--help only prints",
}

_AUTH = (b"jobserver-auth", b"jobserver-fds")
_WORD = re.compile(rb"(?:\\.|[^ \t\\]|\\\Z)+", re.DOTALL)


@dataclass(frozen=True)
class Flags:
    """MAKEFLAGS, taken apart. Words are raw: still escaped."""

    letters: bytes
    """The bundle of the first word, b"" when there is none."""
    words: tuple[bytes, ...]
    """The other words before ` -- `, in order."""
    overrides: bytes
    """What follows ` -- `: command-line variables, newest first."""
    arguments: Arguments

    @functools.cached_property
    def auth(self) -> bytes | None:
        """The jobserver as make was told it: `R,W`, `fifo:PATH`, or `-2,-2` (4.4's word for a closed one)."""
        return (self.arguments.values(*_AUTH) or [None])[-1]

    @functools.cached_property
    def fds(self) -> tuple[int, int] | None:
        """The jobserver's two file descriptors, be they open or not."""
        match = re.match(rb"(\d+),(\d+)\Z", self.auth or b"")
        return (int(match[1]), int(match[2])) if match else None

    @functools.cached_property
    def fifo(self) -> bytes | None:
        """Path of the jobserver's fifo (4.4)."""
        auth = self.auth or b""
        return auth[len(b"fifo:") :] if auth.startswith(b"fifo:") else None

    @functools.cached_property
    def sync_mutex(self) -> bytes | None:
        """What makes under -O lock before they write: `fnm:PATH` (4.4)."""
        return (self.arguments.values(b"sync-mutex") or [None])[-1]

    @functools.cached_property
    def jobs(self) -> int | None:
        """None is no -j, 0 is -j without a number."""
        return self.arguments.jobs

    @functools.cached_property
    def output_sync(self) -> bytes | None:
        """`target`, `line`, `recurse` or `none`; None when nobody said."""
        values = self.arguments.values(b"O")
        return (values[-1] or b"target") if values else None


class Jobserver(enum.Enum):
    """What a sub-make uses for parallelism, and so what it needs on another machine."""

    SERIAL = "serial"
    """Nothing: no -j, or -j1. for_host(fds=None)."""
    CLIENT = "client"
    """The build's: for_host(fds=(R, W)), both open, or its fifo. Also for a bare -j: to fill slots."""
    CLOSED = "closed"
    """The build's, closed before it was reached: for_host(fds=None), and no file open under those numbers.
    make warns and falls to -j1 by itself."""
    OWN = "own"
    """Its own, by a -j in its argv: for_host(fds=None). Keep something open under fds that were open (make
    only passes them on): the numbers of its own pipe are then those of plain make."""


@functools.lru_cache(maxsize=64)  # most sub-makes of a build have the same
def parse(makeflags: bytes) -> Flags:
    """Take the value of MAKEFLAGS (or GNUMAKEFLAGS) apart. What make ignores in it is ignored."""
    spans = _spans(makeflags)
    raw = [makeflags[start:end] for start, end in spans]
    read = scan(_decoded(raw))
    end = len(raw) if read.end is None else read.end
    letters = 1 if end and _is_bundle(raw[0]) else 0
    overrides = b"" if read.end is None else makeflags[spans[end][1] :].lstrip(b" \t")
    return Flags(b"".join(raw[:letters]), tuple(raw[letters:end]), overrides, read)


def never_dispatch(flags: Flags, argv: Sequence[bytes], gnumakeflags: bytes = b"") -> str | None:
    """Why this make must run where it was called, or None: -n -q -t -p -v -h in any form, from any source."""
    for source in (arguments(argv), flags.arguments, parse(gnumakeflags).arguments):
        for option in source.options:
            if option.name in _STAYS_HERE:
                return _STAYS_HERE[option.name]
    return None


def argv_jobs(argv: Sequence[bytes]) -> int | None:
    """The last -j in argv (argv[0] is the program): None is none, 0 is -j without a number."""
    return arguments(argv).jobs


def argv_goals(argv: Sequence[bytes]) -> list[bytes]:
    """The goals in argv, in order."""
    return list(arguments(argv).goals)


def argv_directory(argv: Sequence[bytes]) -> list[bytes]:
    """Each -C in argv, in order: every one is relative to the one before."""
    return [value for value in arguments(argv).values(b"C") if value is not None]


def jobserver(flags: Flags, argv: Sequence[bytes], *, fds_open: bool) -> Jobserver:
    """What this sub-make uses for parallelism; `fds_open`: it inherited the pair that MAKEFLAGS names."""
    own = argv_jobs(argv)
    if own is not None:
        return Jobserver.SERIAL if own == 1 and flags.auth is None else Jobserver.OWN
    if flags.auth is None:
        return Jobserver.SERIAL if flags.jobs in (None, 1) else Jobserver.CLIENT
    return Jobserver.CLIENT if flags.fifo is not None or (flags.fds and fds_open) else Jobserver.CLOSED


def for_host(
    makeflags: bytes,
    *,
    fds: tuple[int, int] | None,
    fifo: bytes | None = None,
    keep_auth: bool = True,
    sync_mutex: bytes | None = None,
) -> bytes:
    """The MAKEFLAGS for this make on another machine; what is not named here stays byte for byte.

    The load limit (-l) is about the first machine and goes, as does --jobserver-style.

    Args:
        makeflags: its value as the shim saw it. MFLAGS may be given as well.
        fds: the jobserver pair that is open for it there. It takes the place of the old jobserver: same
            numbers, same text. Where there was none it follows a parallel -j, and is never given to a serial
            make. None: nothing is open for it, and the old words stay, so that make gives its own warning
            (`jobserver unavailable`, or `-jN forced in submake`).
        fifo: path of a jobserver's fifo, in place of fds: for a make 4.4 whose MAKEFLAGS named one. (With fds
            it tells recipes `--jobserver-auth=-2,-2`, and a literal `make` in them warns.) 4.3 dies of it.
        keep_auth: False, with no fds or fifo, takes out jobserver and -j: for a make to which we give a -j of
            its own in argv, of which it should not complain.
        sync_mutex: `fnm:PATH`, takes the place of --sync-mutex, which names a file on the first machine;
            never added. None takes it out; a make with -O then makes its own, after reading its makefiles.
    """
    flags = parse(makeflags)
    options, spans = flags.arguments.options, _spans(makeflags)
    drop = {b"l", b"jobserver-style", b"sync-mutex"}
    auth = b""
    if fifo is not None:
        auth = b"--jobserver-auth=fifo:" + _escaped(fifo)
    elif fds is not None:
        auth = b"--jobserver-auth=%d,%d" % fds
    if auth or not keep_auth:
        drop.update(_AUTH)
    if not auth and not keep_auth:
        drop.add(b"j")
    edits = {option: b"" for option in options if option.name in drop}
    last = {option.name if option.name not in _AUTH else _AUTH[0]: option for option in options}
    if auth and flags.auth is not None:
        edits[last[_AUTH[0]]] = auth
    elif auth and flags.jobs not in (None, 1):
        jobs = last[b"j"]
        edits[jobs] = makeflags[spans[jobs.first][0] : spans[jobs.last][1]] + b" " + auth
    if sync_mutex is not None and b"sync-mutex" in last:
        edits[last[b"sync-mutex"]] = b"--sync-mutex=" + _escaped(sync_mutex)
    return _edited(makeflags, spans, edits)


@dataclass(frozen=True)
class OwnJobserver:
    """How the make of a build is started when its jobserver is ours."""

    jobs: int
    """Its -j, at least 2."""
    argv: tuple[bytes, ...]
    """Without -j."""
    style: bytes | None
    """What --jobserver-style asks for (4.4)."""
    _environment: tuple[tuple[bytes, bytes], ...]

    def environment(
        self, fds: tuple[int, int] | None = None, fifo: bytes | None = None
    ) -> dict[bytes, bytes]:
        """The variables that give it our jobserver: a pair of descriptors, or a fifo (4.4). Without -j beside
        it in argv, of which make would complain.
        """
        found = dict(self._environment)
        words = b" -j%d" % self.jobs
        words += b" --jobserver-auth="
        words += b"fifo:" + _escaped(fifo) if fifo is not None else b"%d,%d" % (fds or (-1, -1))
        old = found.get(b"MAKEFLAGS", b"")
        end = parse(old).arguments.end
        at = len(old) if end is None else _spans(old)[end][0]
        before = old[:at].rstrip(b" \t")
        found[b"MAKEFLAGS"] = before + words + (b" " + old[at:] if end is not None else b"")
        return found


def top_make(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> OwnJobserver | None:
    """The make of a build that shall have its tokens from us; None for one that is serial, has a jobserver
    already, has none (-j without a number), or has a -j that make does not take.
    """
    flags = {name: parse(env[name]) for name in (b"GNUMAKEFLAGS", b"MAKEFLAGS") if name in env}
    sources = [*(each.arguments for each in flags.values()), arguments(argv)]
    jobs = [source.jobs for source in sources if source.jobs is not None]
    if not jobs or jobs[-1] < 2 or not all(source.jobs_are_sound for source in sources):
        return None
    if any(each.auth is not None for each in flags.values()):
        return None
    cleaned = []
    for name, each in flags.items():
        edits = {option: b"" for option in each.arguments.options if option.name == b"j"}
        cleaned.append((name, _edited(env[name], _spans(env[name]), edits)))
    styles = [value for source in sources for value in source.values(b"jobserver-style")]
    return OwnJobserver(jobs[-1], tuple(without_jobs(argv)), (styles or [None])[-1], tuple(cleaned))


def with_jobs(makeflags: bytes, jobs: int) -> bytes:
    """The MAKEFLAGS for a make that shall be a top make under -jN (0: -j without a number), whatever they
    said of that before.
    """
    options = parse(makeflags).arguments.options
    dropped = {option: b"" for option in options if option.name in (*_AUTH, b"j")}
    flags = parse(_edited(makeflags, _spans(makeflags), dropped))
    words = [*([flags.letters] if flags.letters else []), *flags.words, b"-j%d" % jobs if jobs else b"-j"]
    return b" ".join(words) + (b" -- " + flags.overrides if flags.overrides else b"")


def clean_environment(
    env: Mapping[bytes, bytes],
    *,
    fds: tuple[int, int] | None,
    fifo: bytes | None = None,
    keep_auth: bool = True,
    sync_mutex: bytes | None = None,
) -> dict[bytes, bytes]:
    """The environment for this make on another machine: MAKEFLAGS and MFLAGS by for_host, all else as it is.

    MFLAGS is edited, not taken out: under -e make keeps the one that it inherits. MAKEOVERRIDES (4.3 exports
    its unexpanded text), MAKELEVEL, MAKE_TERMOUT and MAKE_TERMERR stay: recipes see them under plain make.
    """
    new = dict(env)
    for name in (b"MAKEFLAGS", b"MFLAGS"):
        if name in new:
            new[name] = for_host(new[name], fds=fds, fifo=fifo, keep_auth=keep_auth, sync_mutex=sync_mutex)
    return new


def _edited(makeflags: bytes, spans: Sequence[tuple[int, int]], edits: Mapping[Option, bytes]) -> bytes:
    """`makeflags` with options replaced, from the start of their word, or taken out (b"")."""
    out, done = bytearray(), 0
    for option in sorted(edits, key=lambda option: (option.first, option.offset)):
        start, end = spans[option.first][0], spans[option.last][1]
        if edits[option]:
            out += makeflags[done:start] + edits[option]
        elif option.offset > 1:
            # Its letter ends a bundle; that of the first word was read with a dash before it.
            dash = 1 if option.first == 0 and _is_bundle(makeflags[start:end]) else 0
            out += makeflags[done : start + option.offset - dash]
        else:
            out += makeflags[done:start].rstrip(b" \t")
        done = end
    out += makeflags[done:]
    return bytes(out) if makeflags[:1] in (b" ", b"\t") else bytes(out).lstrip(b" \t")


def _spans(makeflags: bytes) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(makeflags, len(makeflags) - len(makeflags.lstrip()))]


def _is_bundle(word: bytes) -> bool:
    return not word.startswith(b"-") and b"=" not in word


def _decoded(raw: Sequence[bytes]) -> list[bytes]:
    """Words of MAKEFLAGS as make hands them to getopt."""
    words = [re.sub(rb"\\(.)", rb"\1", word.replace(b"$$", b"$"), flags=re.DOTALL) for word in raw]
    if words and _is_bundle(words[0]):
        words[0] = b"-" + words[0]
    return words


def _escaped(value: bytes) -> bytes:
    return re.sub(rb"([ \t\\])", rb"\\\1", value.replace(b"$", b"$$"))
