"""The environment of a job: its own, what the host's setup changed, and nothing of the first machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet.errors import UnfitError
from d1fleet.protocol import Run, pack_block
from d1fleet.server import environment as module
from d1fleet.server.environment import HostEnvironment, ProgramFinder, parse, run_setup


def _block(**values: str) -> bytes:
    return pack_block([f"{name}={value}".encode() for name, value in values.items()])


def test_parse() -> None:
    items = [b"A=1", b"B=", b"C=x=y", b"nothing", b"=odd", b"A=2", b"D\xff=\xfe\n"]
    assert parse(pack_block(items)) == {b"A": b"1", b"B": b"", b"C": b"x=y", b"D\xff": b"\xfe\n"}
    assert parse(b"") == {}


# -- setup -----------------------------------------------------------------------------------------


def _setup(text: str, **values: str) -> dict[bytes, bytes]:
    environ = {b"PATH": b"/usr/bin:/bin"} | {k.encode(): v.encode() for k, v in values.items()}
    return run_setup(text, environ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC=clang", b"clang"),
        ("export CC=clang;", b"clang"),
        ("CC='a b  \"c\"'", b'a b  "c"'),
        ("CC=$HOST-gcc", b"box-gcc"),
        (". ./setup.sh;", b"from-file"),
        ("if true; then export CC=x; fi;", b"x"),
        ("CC=1 CC=2", b"2"),
        ("", None),
        ("unset HOST;", None),
    ],
)
def test_text_before_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: bytes | None
) -> None:
    (tmp_path / "setup.sh").write_text("CC=from-file; export CC\n")
    monkeypatch.chdir(tmp_path)
    assert _setup(text, HOST="box").get(b"CC") == expected


def test_what_it_prints_does_not_count() -> None:
    assert _setup("echo CC=x; echo noise >&2; printf 'A=1\\0';").get(b"CC") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3;", "failed with status 3"),
        ("echo no such module >&2; exit 1;", "status 1: no such module"),
        ("(", "failed with status 2"),
        ("exit 0;", "failed with status 0: no message"),
        ("kill -9 $$;", "failed with status -9"),
    ],
)
def test_setup_that_fails(text: str, words: str) -> None:
    with pytest.raises(UnfitError, match="server setup") as caught:
        _setup(text)
    assert words in caught.value.message
    assert "d1fleet_server_setup" in caught.value.mend


def test_setup_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETUP_LIMIT_S", 0.3)
    with pytest.raises(UnfitError, match="did not end within"):
        _setup("sleep 1000;")


@pytest.mark.timeout(30)
def test_setup_that_leaves_a_daemon() -> None:
    """It must not hold our pipes open for ever."""
    found = _setup("sleep 3 >/dev/null 2>&1 & CC=x;export CC;")
    assert found[b"CC"] == b"x"


# -- jobs ------------------------------------------------------------------------------------------


def _host(setup: str, monkeypatch: pytest.MonkeyPatch, build: bytes = b"", **own: str) -> HostEnvironment:
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return HostEnvironment(setup, build)


def test_without_setup_the_jobs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host("", monkeypatch, HERE="only")
    assert host.compose(_block(A="1", PATH="/bin")) == {b"A": b"1", b"PATH": b"/bin"}


@pytest.mark.parametrize(
    ("built", "job", "result"),
    [
        ("gcc", "gcc", b"setup"),  # nobody changed it: the host knows better
        ("gcc", "makefile", b"makefile"),  # the makefile changed it: it means it
        (None, None, b"setup"),
        (None, "makefile", b"makefile"),
        ("gcc", None, None),  # the makefile took it away
    ],
)
def test_who_wins(
    monkeypatch: pytest.MonkeyPatch, built: str | None, job: str | None, result: bytes | None
) -> None:
    host = _host("CC=setup", monkeypatch, _block(**({"CC": built} if built else {})))
    assert host.compose(_block(**({"CC": job} if job else {}))).get(b"CC") == result


def test_what_the_setup_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host("unset GONE;", monkeypatch, _block(GONE="1"), GONE="1")
    assert host.compose(_block(GONE="1", A="2")) == {b"A": b"2"}
    assert host.compose(_block(GONE="by makefile")) == {b"GONE": b"by makefile"}


def test_what_a_shell_changes_by_itself_is_no_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host("CC=x", monkeypatch)
    assert host.compose(b"") == {b"CC": b"x"}


def test_a_temporary_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = _host("", monkeypatch)
    assert host.compose(_block(TMPDIR="/nonexistent")) == {}
    assert host.compose(_block(TMPDIR=str(tmp_path))) == {b"TMPDIR": os.fsencode(tmp_path)}


def _run(environment: bytes, **changed: object) -> Run:
    return Run(2, environment=environment, **changed)  # type: ignore[arg-type]


def test_the_jobserver_in_makeflags_is_this_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host("", monkeypatch)
    block = _block(MAKEFLAGS="k -j8 --jobserver-auth=3,4 -- V=1", MAKELEVEL="1", V="1")
    flags = host.for_job(_run(block, jobserver=[3, 4], tokens=True))[b"MAKEFLAGS"]
    assert b"--jobserver-auth=3,4" in flags and flags.startswith(b"k") and flags.endswith(b" -- V=1")
    assert b"jobserver" not in host.for_job(_run(block, keep_auth=False))[b"MAKEFLAGS"]


def test_a_job_like_the_last_one_and_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept from one job to the next must not leak into another."""
    host = _host("", monkeypatch)
    block = _block(MAKEFLAGS=" -j2 --jobserver-auth=3,4")
    with_tokens = _run(block, jobserver=[3, 4], tokens=True)
    first = dict(host.for_job(with_tokens))
    assert host.for_job(with_tokens) == first
    without = dict(host.for_job(_run(block, keep_auth=False)))
    assert without != first
    assert host.for_job(with_tokens) == first
    assert host.for_job(_run(_block(A="1"))) == {b"A": b"1", b"D1FLEET_JOB": b"2"}


# -- programs ---------------------------------------------------------------------------------------


def _executable(folder: Path, name: str = "make", mode: int = 0o755) -> bytes:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("")
    (folder / name).chmod(mode)
    return os.fsencode(folder / name)


def test_the_first_in_path(tmp_path: Path) -> None:
    _executable(tmp_path / "a", mode=0o644)
    (tmp_path / "b" / "make").mkdir(parents=True)
    third, _ = _executable(tmp_path / "c"), _executable(tmp_path / "d")
    path = b":".join(os.fsencode(tmp_path / name) for name in ("missing", "a", "b", "c", "d"))
    finder = ProgramFinder()
    assert finder.find(b"make", path) == third
    assert finder.find(b"gmake", path) is None


def test_what_is_not_there_is_looked_for_again(tmp_path: Path) -> None:
    finder = ProgramFinder()
    path = os.fsencode(tmp_path / "a")
    assert finder.find(b"make", path) is None
    found = _executable(tmp_path / "a")
    assert finder.find(b"make", path) == found


def test_names_and_paths_are_told_apart(tmp_path: Path) -> None:
    make, other = _executable(tmp_path / "a"), _executable(tmp_path / "b")
    gmake = _executable(tmp_path / "a", "gmake")
    finder = ProgramFinder()
    a, b = os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b")
    assert finder.find(b"make", a) == make
    assert finder.find(b"gmake", a) == gmake
    assert finder.find(b"make", b) == other
    assert finder.find(b"make", b"") is None
