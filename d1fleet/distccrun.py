"""`d1fleet run`: a program whose compilers are distcc, on the hosts of a project; and what became of that."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from . import distcc, distcclint, distcclog, quarantine
from .distcc import Project
from .distcclog import Told
from .errors import HostError, NotExecutableError, ProgramError
from .hostsfile import HostsFile, Peer
from .words import counted, say

_SHOWN = 5
"""Files that are named with a host that got them wrong."""


@dataclass(frozen=True)
class Fit:
    """A project's hosts with the peers that can be used now, and why the others cannot."""

    hosts: HostsFile
    left_out: Mapping[str, str]


def fit(project: Project, environ: Mapping[str, str]) -> Fit:
    """Leave out who does not answer, and who has got something wrong lately.

    Args:
        environ: for ssh, where peers are reached by it.
    """
    kept = quarantine.path(make=False)
    wrong = {
        name: f"it could not compile {', '.join(files[:_SHOWN])}, and this machine could (kept in {kept})"
        for name, files in quarantine.left_out().items()
    }
    peers = [peer for peer in project.hosts.peers if peer.name not in wrong]
    silent = distcc.answering(peers, environ)
    left_out = {
        peer.name: wrong.get(peer.name) or silent[peer.name]
        for peer in project.hosts.peers
        if peer.name in wrong or peer.name in silent
    }
    hosts = replace(project.hosts, peers=tuple(peer for peer in peers if peer.name not in silent))
    return Fit(hosts, left_out)


def run(words: Sequence[str], project: Project, *, strict: bool, ccache: bool, summary: bool | None) -> int:
    """Run a program; returns its exit status, 128 + N where signal N ended it.

    Args:
        words: of it, with `{slots}` where the number of slots belongs.
        strict: no host at all is an error, what no host can compile fails, and so do we at the end where
            distcc has compiled here what it does not distribute.
        summary: True tells at the end where things ran, False nothing; None what went wrong alone.

    Raises:
        HostError: strict, and there is no host, or the program has ended well and this machine has compiled.
        ProgramError: there is no such program.
        ToolError: distcc is not here.
    """
    with _connections(project.hosts.peers) as ours:
        found = fit(project, ours)
        if summary is not False:
            for name, why in found.left_out.items():
                say(f"host {name} is left out: {why}")
        if strict and not found.hosts.peers:
            raise HostError(
                f"no host of project {project.name} can compile now",
                "bring one up (`d1fleet env --check` shows them all), or leave --strict out",
            )
        environ = {**ours, **distcc.environment(found.hosts, ours, strict=strict, ccache=ccache)}
        argv = distcc.with_slots(words, distcc.slots(found.hosts, strict=strict))
        with _log(environ) as log:
            status = _call(argv, environ)
            told = distcclog.read(log())
    names = {str(peer): peer.name for peer in found.hosts.peers}
    if told.disagreed:
        quarantine.add({names.get(host, host): files for host, files in told.disagreed.items()})
    kept = kept_here(told)
    if summary is not False:
        # What --strict fails for is said once.
        shown = {} if strict and not summary else kept
        for line in report(told, names, shown, everything=bool(summary)):
            say(line)
        if status == 0 and not seen(told, kept):
            say(_unseen(ccache))
    if strict and status == 0 and kept:
        raise HostError(
            f"this machine has compiled {counted(_files(kept), 'file')}, which --strict forbids: "
            + "; ".join(f"{_some(files)}: {why}" for why, files in kept.items()),
            "change these commands (`make -n | d1fleet lint` shows them), or leave --strict out",
        )
    return status


@contextmanager
def _connections(peers: Sequence[Peer]) -> Iterator[dict[str, str]]:
    """Logins that the compilations of this build share, and that end with it; yields our environment."""
    if not any(peer.ssh for peer in peers):
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory(prefix="d1fleet-") as folder:
        environ = {**os.environ, distcc.SOCKETS: folder}
        try:
            yield environ
        finally:
            distcc.hang_up(peers, environ)


@contextmanager
def _log(environ: dict[str, str]) -> Iterator[Callable[[], list[str]]]:
    """Have distcc write a log, into the user's own file where he has one; yields a reader of what is new."""
    with tempfile.TemporaryDirectory(prefix="d1fleet-") as folder:
        path = Path(environ.setdefault("DISTCC_LOG", os.path.join(folder, "log")))
        start = path.stat().st_size if path.exists() else 0

        def lines() -> list[str]:
            try:
                with path.open(errors="replace") as file:
                    file.seek(start)
                    return file.readlines()
            except OSError:
                return []

        yield lines


def _call(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program in our place: a terminal's signals reach it by themselves, others through us."""
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: object) -> None:
        if child is not None and number != signal.SIGINT:
            child.send_signal(number)

    # Handlers, not SIG_IGN: that the program would inherit; where it is to (nohup), it stays.
    former = {
        each: signal.signal(each, pass_on)
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    try:
        child = subprocess.Popen(argv, env=environ)
        status = child.wait()
    except FileNotFoundError as error:
        raise ProgramError(f"{argv[0]} is not there", "check its name, and PATH") from error
    except OSError as error:
        raise NotExecutableError(f"{argv[0]} cannot be run: {error.strerror}", "see `ls -l` of it") from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status


def kept_here(told: Told) -> dict[str, list[str]]:
    """Files that distcc has compiled here without asking any host, by reason."""
    found: dict[str, list[str]] = {}
    for command in told.kept:
        words = ["distcc", *_words(command)]
        if distcclint.compiles(words):
            why = distcclint.judge(words).why or "d1fleet does not know why"
            found.setdefault(why, []).append(distcclint.about(words))
    return found


def _words(command: str) -> list[str]:
    """Of a command line in distcc's log, whose quotes are not a shell's."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    if len(command) < distcclog.CUT or distcclint.compiles(words):
        return words
    # CMake writes -c and the source at the end; of what links, objects would be seen by now.
    links = any(word.endswith((".o", ".a", ".so", ".lo")) for word in words)
    return words if links else [*words, "-c", "(a long command).c"]


def seen(told: Told, kept: Mapping[str, Sequence[str]]) -> bool:
    """Has distcc been called for any compilation?"""
    return bool(told.remote or told.here or told.fell_back or told.codes or kept)


def _unseen(ccache: bool) -> str:
    known = "was up to date or known to ccache" if ccache else "was up to date"
    return (
        f"distcc has seen no compilation: all {known}, or the compiler is called by a path, which passes"
        " distcc by (`make -n ... | d1fleet lint` tells)"
    )


def _files(kept: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, kept.values()))


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")


def report(
    told: Told, names: Mapping[str, str], kept: Mapping[str, Sequence[str]], *, everything: bool
) -> Iterator[str]:
    """Lines for people.

    Args:
        names: of hosts, by what stands for them in distcc's log.
        kept: see kept_here; told also where nothing has left this machine.
        everything: also what went well.
    """
    if everything:
        where = [f"{names.get(host, host)} {count}" for host, count in sorted(told.remote.items())]
        where.append(f"this machine {told.here}")
        yield f"{counted(sum(told.remote.values()) + told.here, 'compilation')}: {', '.join(where)}"
        others = counted(told.undistributable - _files(kept), "command")
        yield f"{others} that cannot be distributed (links, tests of configure ...)"
    if everything or not (told.remote or told.here):
        for why, files in kept.items():
            some = counted(len(files), "compilation")
            yield f"{some} that distcc does not distribute: {_some(files)}: {why}"
    fallen = sum(told.fell_back.values())
    if fallen or everything:
        yield f"{counted(fallen, 'compilation')} fell back to this machine" + (":" if fallen else "")
    for host, count in sorted(told.fell_back.items()):
        why = told.reasons.get(host, "all hosts were out of order, or had failed within the last minute")
        yield f"  {names.get(host, host) or 'no host'} {count}: {why}"
    for host, files in sorted(told.disagreed.items()):
        yield f"host {names.get(host, host)} could not compile {_some(files)}, and this machine could:"
        yield (
            "  either they need what this machine alone has (.incbin, a plugin), or that host is not as it"
            f" should be. {quarantine.MANY} such files that no other host gets wrong, and it is left out"
        )
    for code, count in sorted(told.codes.items()):
        yield f"distcc ended with {code} ({distcclog.MEANINGS[code]}) {counted(count, 'time')}"
