"""makeflags and makeargs against cases in tests/data/makeflags, and those cases against the real make."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from d1fleet import makeflags
from d1fleet.makeargs import arguments, without_jobs
from d1fleet.makeflags import Jobserver
from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make

DATA = Path(__file__).resolve().parents[1] / "data/makeflags"


def _cases(name: str, key: str) -> list[Any]:
    cases: list[dict[str, Any]] = json.loads((DATA / name).read_text())["cases"]
    return [pytest.param(case, id=ascii(case[key])) for case in cases]


def _bytes(value: Any) -> Any:
    """JSON's text as bytes, at any depth; numbers and None as they are; lists as tuples."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return tuple(map(_bytes, value)) if isinstance(value, list) else value


def _argv(case: dict[str, Any]) -> list[bytes]:
    return [b"make", *_bytes(case["argv"])]


@pytest.mark.parametrize("case", _cases("argv.json", "argv"))
def test_argv(case: dict[str, Any]) -> None:
    argv = _argv(case)
    assert makeflags.argv_goals(argv) == list(_bytes(case.get("goals", [])))
    assert arguments(argv).variables == _bytes(case.get("variables", []))
    assert makeflags.argv_jobs(argv) == case.get("jobs")
    assert makeflags.argv_directory(argv) == list(_bytes(case.get("directory", [])))
    reason = makeflags.never_dispatch(makeflags.parse(b""), argv)
    assert (reason or "--none")[:3] == _reason_begins(case)


@pytest.mark.parametrize("case", _cases("flags.json", "text"))
def test_flags(case: dict[str, Any]) -> None:
    flags = makeflags.parse(_bytes(case["text"]))
    expected = {
        "letters": b"", "words": (), "overrides": b"", "auth": None, "fds": None, "fifo": None, "jobs": None,
        "output_sync": None, "sync_mutex": None, **{name: _bytes(v) for name, v in case["parsed"].items()},
    }  # fmt: skip
    assert {name: getattr(flags, name) for name in expected} == expected
    for reason in (
        makeflags.never_dispatch(flags, [b"make"]),
        makeflags.never_dispatch(makeflags.parse(b""), [b"make"], gnumakeflags=_bytes(case["text"])),
    ):
        assert (reason or "--none")[:3] == _reason_begins(case)


@pytest.mark.parametrize("case", _cases("flags.json", "text"))
def test_for_host(case: dict[str, Any]) -> None:
    for given, expected in case.get("hosts", []):
        keywords = {"fds": None, **{name: _bytes(value) for name, value in given.items()}}
        assert makeflags.for_host(_bytes(case["text"]), **keywords) == _bytes(expected), given


@pytest.mark.parametrize(
    ("text", "argv", "fds_open", "expected"),
    [
        ("", [], False, Jobserver.SERIAL),
        ("k -j1", [], False, Jobserver.SERIAL),
        ("", ["-j1"], False, Jobserver.SERIAL),
        (" -j4 --jobserver-auth=3,4", [], True, Jobserver.CLIENT),
        (" -j4 --jobserver-auth=3,4", [], False, Jobserver.CLOSED),
        (" -j4 --jobserver-auth=3,4 --jobserver-auth=-2,-2", [], True, Jobserver.CLOSED),
        (" -j4 --jobserver-auth=fifo:/f", [], False, Jobserver.CLIENT),
        (" -j4 --jobserver-auth=3,4", ["-j1"], True, Jobserver.OWN),
        (" -j4 --jobserver-auth=3,4", ["--jobs", "3"], False, Jobserver.OWN),
        (" -j4 --jobserver-auth=fifo:/f", ["-j"], False, Jobserver.OWN),
        ("", ["-j"], False, Jobserver.OWN),
        (" -j", [], False, Jobserver.CLIENT),
        (" -j3", [], False, Jobserver.CLIENT),
    ],
)
def test_jobserver(text: str, argv: list[str], fds_open: bool, expected: Jobserver) -> None:
    flags = makeflags.parse(text.encode())
    assert makeflags.jobserver(flags, [b"make", *_bytes(argv)], fds_open=fds_open) is expected


def test_clean_environment_edits_the_two_and_keeps_the_rest() -> None:
    env = {
        b"MAKEFLAGS": b" -j2 -l9 --jobserver-auth=3,4 -- A=1",
        b"MFLAGS": b"-j2 -l9 --jobserver-auth=3,4",
        b"MAKEOVERRIDES": b"${-*-command-variables-*-}",
        b"MAKELEVEL": b"2",
        b"MAKE_TERMOUT": b"/dev/tty",
        b"A": b"-l9 \xff",
    }
    before = dict(env)
    assert makeflags.clean_environment(env, fds=(5, 6)) == {
        **env,
        b"MAKEFLAGS": b" -j2 --jobserver-auth=5,6 -- A=1",
        b"MFLAGS": b"-j2 --jobserver-auth=5,6",
    }
    assert env == before
    assert makeflags.clean_environment({}, fds=(5, 6)) == {}


PROBE = "PROBE<$(MAKEFLAGS)><$(MAKECMDGOALS)><$(CURDIR)>"


@pytest.fixture(scope="session", params=["4.3", "4.4"])
def make(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Version and path of a real make."""
    try:
        return request.param, str(real_make(request.param))
    except SourceUnavailable as exc:
        pytest.skip(f"no make {request.param}: {exc}")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "case", [case for case in _cases("argv.json", "argv") if case.values[0].get("real", True)]
)
def test_argv_cases_are_what_make_thinks(case: dict[str, Any], make: tuple[str, str], tmp_path: Path) -> None:
    version, path = make
    goals = " ".join(["all", *case.get("goals", [])])
    probe = tmp_path / "probe"
    # With '+' it runs under -n, -q and -t as well; printf's words tell it from an echoed line.
    probe.write_text(f".PHONY: {goals}\n{goals}: ; +@printf '%s%s\\n' PR '{PROBE[2:]}'\n")
    for folder in (tmp_path, tmp_path / "t", tmp_path / "t/n"):
        folder.mkdir(exist_ok=True)
        for name in ("Makefile", "x.mk", "n"):
            if not (folder / name).exists() and (folder / name) != tmp_path / "t/n":
                shutil.copy(probe, folder / name)
    done = subprocess.run(
        [path, *_argv(case)[1:]], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
    )  # fmt: skip
    if case.get("usage") in (True, version):
        assert done.returncode == 2
        return
    assert done.returncode == 0 or case.get("stays") == "q", done.stderr
    if case.get("stays") in ("v", "h"):
        assert done.stdout.startswith({"v": b"GNU Make", "h": b"Usage"}[case["stays"]])
        return
    seen = re.search(rb"^PROBE<(.*?)><(.*?)><(.*?)>$", done.stdout, re.MULTILINE)
    assert seen is not None, done
    flags, made, folder_seen = seen.groups()
    letters = b"" if flags.startswith((b"-", b" ")) else flags.split(b" ")[0]
    assert set(letters) & set(b"nqtp") == set(case.get("stays", "").encode())
    jobs = re.search(rb"(?:^| )-j(\d*)", flags.partition(b" -- ")[0])
    assert (None if jobs is None else int(jobs[1] or 0)) == case.get("jobs")
    assert tuple(made.split()) == _bytes(case.get("goals", []))
    assert Path(folder_seen.decode()) == tmp_path.joinpath(*case.get("directory", [])).resolve()
    assert len(case.get("variables", [])) == flags.partition(b" -- ")[2].replace(b"\\ ", b"").count(b"=")


def _reason_begins(case: dict[str, Any]) -> str:
    stays = case.get("stays")
    return "--n" if stays is None else {"v": "--v", "h": "--h"}.get(stays, f"-{stays} ")


_SETS = st.lists(
    st.sampled_from(
        ["-j", "-j7", "-j 3", "--jobs=2", "--jobserver-auth=3,4", "--jobserver-fds=5,6", "-Otarget", "-l2.5",
         "--no-print-directory", "-Iinc", "--eval=a\\ b", "-w"]
    ),
    max_size=6,
)  # fmt: skip


@hypothesis.given(
    letters=st.sampled_from(["", "k", "ks", "skw", "kj"]),
    options=_SETS,
    overrides=st.sampled_from(["", " -- CC=x", " -- A=-j4\\ -k B=--jobs=2"]),
    jobs=st.integers(0, 99),
)
def test_with_jobs_sets_them_and_nothing_else(
    letters: str, options: list[str], overrides: str, jobs: int
) -> None:
    before = " ".join([letters, *options]) + overrides
    new = makeflags.with_jobs(before.encode(), jobs)
    flags, old = makeflags.parse(new), makeflags.parse(before.encode())
    assert (flags.jobs, flags.auth, flags.overrides) == (jobs, None, old.overrides)

    def others(found: makeflags.Flags) -> list[tuple[bytes, bytes | None]]:
        kept = [(option.name, option.value) for option in found.arguments.options]
        return [each for each in kept if each[0] not in (b"j", b"jobserver-auth", b"jobserver-fds")]

    assert others(flags) == others(old)


# -- the build's own make, under our jobserver --------------------------------------------------------

_JOBS = st.sampled_from(
    [
        ["-j"],
        ["-j3"],
        ["-j", "3"],
        ["-kj3"],
        ["-kj", "3"],
        ["--jobs"],
        ["--jobs=3"],
        ["--jobs", "3"],
        ["-j12"],
    ]
)
_OTHERS = st.sampled_from(
    [
        ["-k"], ["-ks"], ["-C", "sub"], ["-Csub"], ["-C", "-j4"], ["-f", "j"], ["-l"], ["-l", "2.5"], ["-kl"],
        ["-O"], ["-Oline"], ["--load-average"], ["--no-print-directory"], ["all"], ["3"], ["2x"],
        ["CFLAGS=-j4"], ["a b"], ["-"], [""], ["--eval", "x:=-j2"], ["-W", "3"],
    ]
)  # fmt: skip
_ARGV = st.builds(
    lambda parts, rest: [b"make", *(word.encode() for part in parts for word in part), *rest],
    st.lists(st.one_of(_OTHERS, _JOBS), max_size=6),
    st.sampled_from([[], [], [b"--", b"-j4", b"all"]]),
)


def _meaning(argv: list[bytes]) -> tuple[Any, ...]:
    """What make makes of it, without -j."""
    read = arguments(argv)
    options = [(option.name, option.value) for option in read.options if option.name != b"j"]
    return options, read.goals, read.variables, read.end is None


@hypothesis.given(_ARGV)
@hypothesis.example([b"make", b"-l", b"-j2", b"3"])
def test_argv_without_jobs_means_the_same_in_all_else(argv: list[bytes]) -> None:
    without = without_jobs(argv)
    assert makeflags.argv_jobs(without) is None
    assert _meaning(without) == _meaning(argv)
    assert without_jobs(without) == without


_FLAGS = st.builds(
    lambda letters, words, overrides: " ".join([letters, *words]) + (f" -- {overrides}" if overrides else ""),
    st.sampled_from(["", "k", "ks", "rR"]),
    st.lists(
        st.sampled_from(["-j4", "-j", "-l2", "--no-print-directory", "-Isome\\ where", "-Otarget"]),
        max_size=4,
    ),
    st.sampled_from(["", "CFLAGS=-j4", "A=a\\ b B=$$x", "X=--jobserver-auth=9,9"]),
)


@hypothesis.given(_FLAGS, _FLAGS, _ARGV, st.sampled_from([None, b"/run/a b/fifo"]))
def test_our_jobserver_takes_the_place_of_jobs_and_of_nothing_else(
    text: str, gnu: str, argv: list[bytes], fifo: bytes | None
) -> None:
    env = {b"MAKEFLAGS": text.encode(), b"GNUMAKEFLAGS": gnu.encode(), b"OTHER": b"-j4"}
    own = makeflags.top_make(argv, env)
    said = [
        makeflags.parse(gnu.encode()).jobs,
        makeflags.parse(text.encode()).jobs,
        makeflags.argv_jobs(argv),
    ]
    jobs = [each for each in said if each is not None]
    sound = arguments(argv).jobs_are_sound  # an empty word behind -j is none for make
    assert (own is None) == (not jobs or jobs[-1] in (0, 1) or not sound)
    if own is None:
        return
    assert own.jobs == jobs[-1]
    found = own.environment(fds=None if fifo else (3, 4), fifo=fifo)
    assert found.keys() == {b"MAKEFLAGS", b"GNUMAKEFLAGS"}
    flags, before = makeflags.parse(found[b"MAKEFLAGS"]), makeflags.parse(text.encode())
    assert flags.jobs == jobs[-1] and flags.overrides == before.overrides
    assert (flags.fifo, flags.fds) == ((fifo, None) if fifo else (None, (3, 4)))
    assert makeflags.parse(found[b"GNUMAKEFLAGS"]).jobs is None
    for name, given in ((b"MAKEFLAGS", text), (b"GNUMAKEFLAGS", gnu)):
        ours = (b"j", b"jobserver-auth")
        options = [
            (o.name, o.value) for o in makeflags.parse(found[name]).arguments.options if o.name not in ours
        ]
        assert options == [
            (o.name, o.value) for o in makeflags.parse(given.encode()).arguments.options if o.name != b"j"
        ]


@pytest.mark.parametrize(
    ("argv", "makeflags_text"),
    [
        (["-j1"], ""),
        (["-j"], ""),
        ([], ""),
        (["-j4"], "--jobserver-auth=3,4"),
        (["-j0"], ""),
        (["-jx"], ""),
        ([], " -jx -- A=1"),
    ],
)
def test_makes_that_are_not_served(argv: list[str], makeflags_text: str) -> None:
    """Serial, without a bound, below another make, or with a -j that make will complain of."""
    assert (
        makeflags.top_make([b"make", *map(str.encode, argv)], {b"MAKEFLAGS": makeflags_text.encode()}) is None
    )
