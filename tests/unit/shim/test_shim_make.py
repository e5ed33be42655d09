"""The real make on top, sub-makes through the shim, a coordinator that answers by rule."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from d1fleet.interpose import make_environment

from .conftest import SYSTEM_PATH, Shims
from .coordinator import Coordinator, Request

Rule = Callable[[Request], None]
Top = Callable[..., list[object]]


@contextmanager
def serving(coordinator: Coordinator, rule: Rule) -> Iterator[list[list[bytes]]]:
    """Answers every request by `rule` until the end; gives the argument lists in the order of arrival."""
    seen: list[list[bytes]] = []
    trouble: list[BaseException] = []

    def serve() -> None:
        try:
            while True:
                with coordinator.request() as request:
                    if request.argv == [b"stop"]:
                        return request.answer(b"X")
                    seen.append(request.argv)
                    rule(request)
        except BaseException as exc:
            trouble.append(exc)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        stop(coordinator)
        thread.join(30)
    assert not thread.is_alive()
    assert not trouble


def stop(coordinator: Coordinator) -> None:
    """As a shim that was called `stop`."""
    body = b"D1S1" + bytes(4 + 4 + 8 + 4) + b"".join(n.to_bytes(4, "big") for n in (1, 5, 0, 1)) + b"stop\0\0"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(coordinator.path))
        sock.sendall(len(body).to_bytes(4, "big") + body)
        sock.settimeout(30)
        sock.recv(5)


def finished(request: Request) -> None:
    request.answer(b"X", 0)


def run_here(request: Request) -> None:
    request.answer(b"L")


@pytest.fixture
def top(coordinator: Coordinator, shims: Shims, plain_make: str, tmp_path: Path) -> Top:
    """Runs the top make as a build does; gives exit code, stdout and stderr."""
    tree = tmp_path / "tree"
    tree.mkdir()
    environ = make_environment(
        {"PATH": SYSTEM_PATH}, socket=coordinator.path, real_make=plain_make, shim_dir=shims.folder
    )

    def run(makefile: str, *args: str, interposed: bool = True) -> list[object]:
        (tree / "Makefile").write_text(makefile)
        env = environ if interposed else {"PATH": SYSTEM_PATH}
        return list(shims.run(*args, executable=plain_make, env=env, cwd=tree))

    return run


FORMS = [
    ("$(MAKE) -C sub one VAR=x", [b"make", b"-C", b"sub", b"one", b"VAR=x"], "sub/.."),
    ("cd sub && $(MAKE) two", [b"make", b"two"], "sub"),
    ("cd sub && make two", [b"make", b"two"], "sub"),
    ("+make -C sub plus", [b"make", b"-C", b"sub", b"plus"], "."),
    ("sh -c 'make -C sub viash'", [b"make", b"-C", b"sub", b"viash"], "."),
    ("gmake -C sub", [b"gmake", b"-C", b"sub"], "."),
    ("for i in 1; do (cd sub && $(MAKE) N=$$i three) || exit 1; done", [b"make", b"N=1", b"three"], "sub"),
    ("$(MAKE) 'A=a b' \"B=it's\" 'C=$$x'", [b"make", b"A=a b", b"B=it's", b"C=$x"], "."),
]


@pytest.mark.parametrize(("recipe", "argv", "cwd"), FORMS)
def test_every_form_arrives_and_echoes_as_always(
    coordinator: Coordinator,
    top: Top,
    tmp_path: Path,
    recipe: str,
    argv: list[bytes],
    cwd: str,
) -> None:
    (tmp_path / "tree" / "sub").mkdir()
    (tmp_path / "tree" / "sub" / "Makefile").write_text("%:;@:\none:;@:\n")
    (tmp_path / "tree" / "Makefile").write_text("")
    where: list[bytes] = []

    def rule(request: Request) -> None:
        where.append(request.cwd)
        finished(request)

    with serving(coordinator, rule) as seen:
        code, out, err = top(f"all:\n\t{recipe}\n")
    assert seen == [argv]
    assert where == [os.fsencode((tmp_path / "tree" / cwd).resolve())]
    echoed = recipe.replace("$(MAKE)", "make").replace("$$", "$").lstrip("+")
    assert (code, out, err) == (0, echoed.encode() + b"\n", b"")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((b"X", 2), b"Error 2"),
        ((b"X", 127), b"Error 127"),
        ((b"S", 15), b"Terminated"),
        ((b"I", 88), b"Error 88"),
    ],
)
def test_make_reports_a_job_as_its_own(
    coordinator: Coordinator, top: Top, answer: tuple[bytes, int], said: bytes
) -> None:
    with serving(coordinator, lambda request: request.answer(*answer)):
        code, _, err = top("all:\n\t@$(MAKE) sub\n")
    assert (code, err) == (2, b"make: *** [Makefile:2: all] " + said + b"\n")


def test_a_job_writes_through_the_files_of_make(coordinator: Coordinator, top: Top) -> None:
    def rule(request: Request) -> None:
        assert request.flags & 14 == 14
        os.write(request.fds[1], b"remote\n")
        os.write(request.fds[2], b"trouble\n")
        finished(request)

    with serving(coordinator, rule):
        assert top("all:\n\t@echo before; make x; echo after\n") == [
            0,
            b"before\nremote\nafter\n",
            b"trouble\n",
        ]


def test_the_jobserver_of_the_top_make_is_usable(coordinator: Coordinator, top: Top) -> None:
    """Of -j3, one token is the sub-make's own and two are in the pipe; make misses none that we give back."""
    auth: list[bytes] = []

    def rule(request: Request) -> None:
        auth.extend(line for line in request.env if line.startswith(b"MAKEFLAGS="))
        if request.flags & 16:
            tokens = os.read(request.fds[3], 2)
            assert len(tokens) == 2
            os.write(request.fds[4], tokens)
        request.answer(b"X", 0 if request.flags & 16 else 50)

    with serving(coordinator, rule):
        code, _, err = top("all:\n\t@$(MAKE) x\n", "-j3")
    if b"fifo:" in auth[0]:
        pytest.skip("this make has a jobserver by name, of which no file is inherited")
    assert (code, err) == (0, b"")


def test_a_remade_makefile_is_no_second_job(coordinator: Coordinator, top: Top, tmp_path: Path) -> None:
    """Both the top make and the sub-make execute themselves again, through the shim, after making made.mk."""
    sub = tmp_path / "tree" / "sub"
    sub.mkdir()
    rules = "\t@echo $(X) after $(MAKE_RESTARTS)\n%.mk:;@echo X=$(notdir $(CURDIR)) >$@\n-include made.mk\n"
    (sub / "Makefile").write_text("all:\n" + rules)
    with serving(coordinator, run_here) as seen:
        result = top("all:\n\t@$(MAKE) --no-print-directory -C sub\n" + rules)
    assert seen == [[b"make", b"--no-print-directory", b"-C", b"sub"]]
    assert result == [0, b"sub after 1\ntree after 1\n", b""]


@pytest.mark.parametrize("args", [(), ("-k",), ("-n",), ("-j2",), ("-s", "-w"), ("V=a b",)], ids=str)
def test_run_here_is_plain_make(
    coordinator: Coordinator, top: Top, tmp_path: Path, args: tuple[str, ...]
) -> None:
    sub = tmp_path / "tree" / "sub"
    sub.mkdir()
    (sub / "Makefile").write_text("all:\n\t@echo '$(MAKE)' '$(MAKELEVEL)' '$(V)' && $(MAKE) -f ../last.mk\n")
    (tmp_path / "tree" / "last.mk").write_text("all:\n\techo '$(V)' && false\n")
    makefile = "export W=w\nall:\n\t$(MAKE) -C sub\n"
    plain = top(makefile, *args, interposed=False)
    with serving(coordinator, run_here) as seen:
        assert top(makefile, *args) == plain
    assert len(seen) == 2
