"""The d1make server, driven by hand-made frames over pipes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from d1fleet import protocol
from d1fleet.protocol import Credit, Data, Exit
from tests.fuzz.peer import Peer, all_stopped, states, wait_until

Start = Callable[..., Peer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server; `begin=False` leaves the hello to the test."""
    with contextlib.ExitStack() as stack:

        def start(make: str = "exit 0\n", begin: bool = True, **how: object) -> Peer:
            peer = stack.enter_context(Peer(tmp_path, make, **how))  # type: ignore[arg-type]
            if begin:
                peer.begin()
            return peer

        yield start


def _gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


# -- the beginning and the end -------------------------------------------------------------------


def test_hello(start: Start) -> None:
    peer = start(begin=False)
    peer.send(peer.welcome(slots=7))
    hello = peer.next(protocol.Hello)
    assert (hello.version, hello.uid, hello.pid, hello.slots) == (
        protocol.VERSION,
        os.geteuid(),
        peer.process.pid,
        7,
    )
    assert hello.make == "4.3"
    assert hello.python == ".".join(map(str, sys.version_info[:3]))
    assert hello.cpus >= 1 and hello.machine and hello.hostname == os.uname().nodename
    assert {"stdin", "tokens"} <= set(hello.capabilities)
    beat = peer.next(protocol.Beat)
    assert (beat.seq, beat.running, beat.tokens) == (1, 0, 0)
    assert peer.end() == 0
    assert isinstance(peer.received[-1], protocol.Gone)
    assert peer.stderr == ""


def test_hello_says_what_compiles_in_the_path_of_jobs(start: Start) -> None:
    peer = start(begin=False)
    stub = peer.bin / "cc"
    stub.write_text('#!/bin/sh\necho "cc of $FLAVOUR"\n')
    stub.chmod(0o755)
    peer.send(peer.welcome(toolchain=True, setup="FLAVOUR=setup"))
    hello = peer.next(protocol.Hello)
    assert hello.toolchain["cc"].startswith("cc of setup [")
    assert hello.toolchain["machine"] == os.uname().machine
    assert (hello.project_toolchain, hello.record_fault) == ({}, "")
    assert peer.end() == 0


def test_nobody_looks_for_compilers_where_nobody_asks(start: Start) -> None:
    peer = start(begin=False)
    stub = peer.bin / "cc"
    stub.write_text("#!/bin/sh\n: > ${0%/*}/asked\n")
    stub.chmod(0o755)
    peer.send(peer.welcome(project="no such project on this machine"))
    hello = peer.next(protocol.Hello)
    assert (hello.toolchain, hello.project_toolchain, hello.record_fault) == ({}, {}, "")
    assert not (peer.bin / "asked").exists()
    assert peer.end() == 0


def test_slots_are_the_usable_cpus_by_default(start: Start) -> None:
    peer = start(begin=False)
    peer.send(peer.welcome(slots=0))
    hello = peer.next(protocol.Hello)
    assert hello.slots == hello.cpus
    peer.end()


@pytest.mark.parametrize(
    ("changed", "words", "mend"),
    [
        ({"version": 1}, "speaks protocol 1, this server 4", "one version"),
        (
            {"uid": os.geteuid() + 1},
            f"our login there, {pwd.getpwuid(os.geteuid()).pw_name}, has uid {os.geteuid()},"
            f" the build has uid {os.geteuid() + 1}",
            "build as the user who logs in there, with the same uid on all machines",
        ),
        ({"environment": b"PATH=/nonexistent\0"}, "no make in PATH", "install GNU make"),
        ({"setup": "echo broken >&2; exit 5;"}, "status 5: broken", "d1fleet_server_setup"),
    ],
    ids=["version", "uid", "make", "setup"],
)
def test_unfit(start: Start, changed: dict[str, object], words: str, mend: str) -> None:
    peer = start(begin=False)
    peer.send(peer.welcome(**changed))
    unfit = peer.next(protocol.Unfit)
    assert words in unfit.reason
    assert mend in unfit.mend
    assert peer.wait() == 94


def test_the_end_of_the_connection_is_the_end(start: Start) -> None:
    peer = start("cat; exec sleep 1000\n")
    peer.send(peer.run(2))
    wait_until(lambda: any(p.name() == "sleep" for p in peer.processes()))
    below = [p.pid for p in peer.processes()]
    peer.hang_up()
    assert peer.wait() == 0
    wait_until(lambda: all(map(_gone, below)))


def test_bye_ends_what_runs_and_says_so(start: Start) -> None:
    peer = start("trap 'echo tidy; exit 7' TERM; echo up; while :; do sleep 0.05; done\n")
    peer.send(peer.run(2))
    assert peer.next(Data).data == b"up\n"
    peer.send(protocol.Bye())
    assert peer.next(Data, lambda m: m.stream == 1).data == b"tidy\n"
    assert peer.next(Exit).code == 7
    assert peer.next(protocol.Gone).left == 0
    assert peer.wait() == 0


def test_bye_with_kill_gives_no_time(start: Start) -> None:
    peer = start("trap 'echo tidy; exit 7' TERM; echo up; while :; do sleep 0.05; done\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Bye(kill=True))
    assert peer.next(Exit).signal == signal.SIGKILL
    assert peer.wait() == 0


def test_bye_counts_what_was_left_running(start: Start) -> None:
    peer = start("(trap '' TERM; exec sleep 1000 </dev/null >/dev/null 2>&1) & exit 0\n")
    peer.send(peer.run(2))
    assert peer.next(Exit).left == 1
    peer.send(protocol.Bye())
    assert peer.next(protocol.Gone).left == 1
    assert peer.wait() == 0


_UNKILLABLE = """
import sys
from d1fleet.server import main, process
process.kill_descendants = lambda spare: 1
sys.exit(main.main())
"""
"""A server whose host has a process in uninterruptible sleep."""


def test_it_is_not_said_that_nothing_is_left_where_something_cannot_be_killed(start: Start) -> None:
    peer = start(prefix=(sys.executable, "-c", _UNKILLABLE))
    assert peer.end() == 0
    assert not any(isinstance(message, protocol.Gone) for message in peer.received)


def test_a_job_behind_bye_is_refused(start: Start) -> None:
    peer = start("trap '' TERM; echo up; exec sleep 1000\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Bye(), peer.run(4))
    assert peer.next(Exit, lambda m: m.attempt == 4).infrastructure == protocol.REFUSED
    assert peer.next(Exit, lambda m: m.attempt == 2).signal == signal.SIGKILL
    assert peer.wait() == 0


# -- what a make gets -------------------------------------------------------------------------------


def test_arguments_environment_folder_and_umask(start: Start, tmp_path: Path) -> None:
    peer = start('printf "<%s>" "$0" "$@" "$ODD" "$PWD"; umask\n')
    odd = [b"a b", b"$x'\"\\", b"\xff\xfe", b"", b"l\nm"]
    folder = os.fsencode(peer.tree) + b"/d \xff"
    os.mkdir(folder)
    peer.send(
        peer.run(
            2,
            folder=folder,
            argv=protocol.pack_block([b"make", *odd]),
            environment=b"PATH=" + peer.path.encode() + b"\0ODD=\xfe=\n\0",
            umask=0o137,
        )
    )
    output, end = peer.output_until_exit(2)
    assert (end.code, end.infrastructure) == (0, "")
    words = [os.fsencode(peer.bin / "make"), *odd, b"\xfe=\n", folder]
    assert output[1] == b"".join(b"<" + word + b">" for word in words) + b"0137\n"
    peer.end()


@pytest.mark.parametrize(
    ("make", "code", "number"), [("exit 7\n", 7, 0), ("kill -USR1 $$\n", 0, signal.SIGUSR1)]
)
def test_exit_and_signal(start: Start, make: str, code: int, number: int) -> None:
    peer = start(make)
    peer.send(peer.run(2))
    end = peer.next(Exit)
    assert (end.code, end.signal, end.infrastructure, end.left) == (code, number, "", 0)
    assert 0 <= end.waited_s < end.waited_s + end.ran_s < 30
    peer.end()


def test_two_streams(start: Start) -> None:
    peer = start("echo out; echo err >&2\n")
    peer.send(peer.run(2))
    assert peer.output_until_exit(2)[0] == {1: b"out\n", 2: b"err\n"}
    peer.end()


def test_one_stream_keeps_the_order(start: Start) -> None:
    peer = start("for i in 1 2 3; do echo o$i; echo e$i >&2; done\n")
    peer.send(peer.run(2, same=True))
    assert peer.output_until_exit(2)[0] == {1: b"o1\ne1\no2\ne2\no3\ne3\n", 2: b""}
    peer.end()


@pytest.mark.parametrize(("streams", "closed"), [(7, ""), (6, "0"), (5, "1"), (3, "2"), (0, "012")])
def test_closed_streams_are_closed(start: Start, tmp_path: Path, streams: int, closed: str) -> None:
    found = tmp_path / "found"
    # On 9, for the shell opens the file at the first free number before it moves it there.
    peer = start(f'exec 9> "{found}"; for n in 0 1 2; do [ -e /proc/$$/fd/$n ] || printf $n >&9; done\n')
    peer.send(peer.run(2, streams=streams))
    assert peer.next(Exit).code == 0
    assert found.read_text() == closed
    peer.end()


def test_limits_and_ignored_signals(start: Start) -> None:
    look = "grep -E 'Sig(Ign|Blk)' /proc/self/status"  # the shell blocks all while it forks
    peer = start(f"ulimit -n; ulimit -c; kill -USR1 $$; kill -HUP $$; echo alive; {look}\n")
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limits = [resource.RLIMIT_NOFILE, 77, resource.RLIMIT_CORE, 0]
    mask = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGHUP - 1)
    peer.send(peer.run(2, limits=limits, ignored=mask))
    words = peer.output_until_exit(2)[0][1].split()
    assert words[:3] == [b"77", b"0", b"alive"]
    threads = 1 << (32 - 1) | 1 << (33 - 1)  # glibc's own, which some callers leave ignored
    assert int(words[words.index(b"SigIgn:") + 1], 16) & ~threads == mask
    assert int(words[words.index(b"SigBlk:") + 1], 16) == 0
    # The next make of the same supervisor has its own.
    peer.write_make("ulimit -n; umask; kill -USR1 $$; echo alive\n")
    peer.send(peer.run(4, limits=[resource.RLIMIT_NOFILE, 99], umask=0o22))
    output, end = peer.output_until_exit(4)
    assert (output[1], end.signal) == (b"99\n0022\n", signal.SIGUSR1)
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] == hard
    peer.end()


def test_no_descriptor_of_the_server_reaches_a_make(start: Start) -> None:
    peer = start('for f in /proc/$$/fd/*; do [ -L "$f" ] && echo "${f##*/}"; done\n')
    peer.send(peer.run(2, jobserver=[3, 4], tokens=True))
    found = set(map(int, peer.output_until_exit(2)[0][1].split()))
    # dash keeps its script at 10 or so.
    assert {n for n in found if n < 10} == {0, 1, 2, 3, 4}
    assert len(found) <= 6
    peer.end()


def test_a_make_has_a_session_of_its_own(start: Start) -> None:
    peer = start("cut -d' ' -f1,5,6 /proc/self/stat; echo $$\n")
    peer.send(peer.run(2))
    words = peer.output_until_exit(2)[0][1].split()
    assert words[1] == words[2] == words[3]
    peer.end()


# -- refusals --------------------------------------------------------------------------------------


def test_a_missing_folder(start: Start) -> None:
    peer = start()
    peer.send(peer.run(2, folder=b"/nonexistent/x"))
    end = peer.next(Exit)
    assert (end.infrastructure, end.text) == (protocol.REFUSED, "/nonexistent/x: No such file or directory")
    assert peer.end() == 0


def test_a_missing_folder_that_is_not_utf8(start: Start) -> None:
    """Its name in the server's words must not break the protocol."""
    peer = start()
    peer.send(peer.run(2, folder=b"/nonexistent/\xff"), peer.run(4))
    assert peer.next(Exit).infrastructure == protocol.REFUSED
    assert peer.next(Exit).infrastructure == ""
    missing = b"/nonexistent/\xff"
    peer.send(protocol.CheckTree(0, 5, missing, missing + b"/n", b"x"))
    assert "does not exist" in peer.next(protocol.TreeChecked).reason
    assert peer.end() == 0


def test_a_folder_that_no_tree_vouches_for(start: Start) -> None:
    peer = start()
    peer.send(peer.run(2, folder=b"/proc"))
    end = peer.next(Exit)
    assert end.infrastructure == protocol.REFUSED
    assert "another file system" in end.text
    peer.end()


def test_a_program_that_is_not_there(start: Start) -> None:
    peer = start()
    peer.send(peer.run(2, program="gmake-of-old"))
    end = peer.next(Exit)
    assert (end.infrastructure, "gmake-of-old" in end.text) == (protocol.REFUSED, True)
    peer.end()


def test_a_program_that_cannot_be_executed(start: Start) -> None:
    peer = start()
    broken = peer.bin / "gmake"
    broken.write_bytes(b"\x7fELFno")
    broken.chmod(0o755)
    peer.send(peer.run(2, program="gmake"), peer.run(4))
    end = peer.next(Exit, lambda m: m.attempt == 2)
    assert (end.infrastructure, end.text.startswith("make cannot be started")) == (protocol.REFUSED, True)
    assert peer.next(Exit, lambda m: m.attempt == 4).infrastructure == ""
    peer.end()


@pytest.mark.parametrize("what", ["content", "nonce", "folder"])
def test_another_tree(start: Start, what: str) -> None:
    peer = start(begin=False)
    check = peer.check_tree()
    check.tree = 3
    setattr(check, what, getattr(check, what) + b"x")
    peer.send(peer.welcome(), check, peer.run(2))
    answer = peer.next(protocol.TreeChecked)
    assert answer.tree == 3
    assert ("does not exist" if what == "folder" else "another folder") in answer.reason
    assert peer.next(Exit).infrastructure == protocol.REFUSED
    peer.end()


# -- slots ----------------------------------------------------------------------------------------


def test_no_more_at_once_than_slots(start: Start, tmp_path: Path) -> None:
    peer = start("cat\n", begin=False)
    peer.begin(slots=2)
    for attempt in (2, 4, 6):
        peer.send(peer.run(attempt, stdin=True), Data(attempt, 0, False, b"%d" % attempt))
    assert {peer.next(Data).attempt, peer.next(Data).attempt} == {2, 4}
    beat = peer.next(protocol.Beat, lambda m: m.running == 2)
    assert beat.tokens == 2
    assert not [m for m in peer.received if m.attempt == 6]
    peer.send(protocol.Close(2, 0))
    assert peer.next(Exit).attempt == 2
    assert peer.next(Data).attempt == 6
    peer.send(protocol.Close(4, 0), protocol.Close(6, 0))
    ends = {end.attempt: end for end in (peer.next(Exit), peer.next(Exit))}
    assert ends.keys() == {4, 6}
    assert ends[6].waited_s > ends[4].waited_s
    peer.end()


def test_weight(start: Start) -> None:
    peer = start("cat\n", begin=False)
    peer.begin(slots=3)
    peer.send(peer.run(2, stdin=True, weight=3), peer.run(4))
    peer.next(protocol.Beat, lambda m: m.running == 1 and m.tokens == 3)
    peer.send(protocol.Close(2, 0))
    assert [peer.next(Exit).attempt, peer.next(Exit).attempt] == [2, 4]
    peer.next(protocol.Beat, lambda m: m.tokens == 0)
    peer.end()


def test_a_weight_above_all_slots_takes_them_all(start: Start) -> None:
    peer = start(begin=False)
    peer.begin(slots=2)
    peer.send(peer.run(2, weight=100))
    assert peer.next(Exit).infrastructure == ""
    peer.end()


# -- streams --------------------------------------------------------------------------------------


def test_output_stops_without_credit(start: Start) -> None:
    size = 4 * protocol.STREAM_CREDIT
    peer = start(f"head -c {size} /dev/zero; echo err >&2\n")
    peer.send(peer.run(2))
    got = 0
    while got < protocol.STREAM_CREDIT:
        data = peer.next(Data)
        assert data.stream == 1 and len(data.data) <= protocol.OUTPUT_CHUNK
        got += len(data.data)
    assert got == protocol.STREAM_CREDIT
    # Two beats later nothing more has come, and nothing is wrong.
    seq = peer.next(protocol.Beat).seq
    peer.next(protocol.Beat, lambda m: m.seq > seq + 1)
    assert sum(len(m.data) for m in peer.received if isinstance(m, Data)) == got
    peer.send(Credit(2, 1, size))
    output, end = peer.output_until_exit(2)
    assert (got + len(output[1]), output[2], end.code) == (size, b"err\n", 0)
    peer.end()


def test_a_full_stream_holds_up_no_other_attempt(start: Start) -> None:
    peer = start('[ "$1" = slow ] && exec cat /dev/zero; echo quick\n')
    peer.send(peer.run(2, "slow"), peer.run(4))
    assert peer.next(Exit, lambda m: m.attempt == 4).code == 0
    peer.end()


def test_a_closed_reader_breaks_the_pipe(start: Start) -> None:
    peer = start("trap '' PIPE; while echo x; do :; done 2>/dev/null; exit 9\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Close(2, 1))
    assert peer.next(Exit).code == 9
    peer.end()


def test_output_of_a_make_that_left_something_behind(start: Start) -> None:
    """The end is the make's end, not the pipe's: a daemon may hold that for ever."""
    peer = start("sleep 1000 & head -c 100000 /dev/zero\n")
    peer.send(peer.run(2))
    output, end = peer.output_until_exit(2)
    assert (len(output[1]), end.code, end.left) == (100000, 0, 1)
    peer.end()


def test_stdin_and_what_was_not_read(start: Start) -> None:
    peer = start("head -c 3; exit 5\n")
    peer.send(peer.run(2, stdin=True), Data(2, 0, False, b"abcdef"))
    output, end = peer.output_until_exit(2)
    assert (output[1], end.code) == (b"abc", 5)
    used = sum(m.amount for m in peer.received if isinstance(m, protocol.StdinUsed))
    # head reads as much as it gets; a reader of single bytes is below.
    assert used in (3, 6)
    peer.end()


def test_stdin_used_is_exact(start: Start) -> None:
    peer = start("read line; echo $line\n")
    peer.send(peer.run(2, stdin=True), Data(2, 0, False, b"one\ntwo\n"))
    assert peer.output_until_exit(2)[0][1] == b"one\n"
    assert sum(m.amount for m in peer.received if isinstance(m, protocol.StdinUsed)) == 4
    peer.end()


def test_much_stdin(start: Start) -> None:
    peer = start("sha256sum\n")
    data = os.urandom(1 << 20)
    peer.send(peer.run(2, stdin=True))
    for at in range(0, len(data), 1 << 16):
        peer.send(Data(2, 0, False, data[at : at + (1 << 16)]))
    peer.send(protocol.Close(2, 0))
    assert peer.output_until_exit(2)[0][1].split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert sum(m.amount for m in peer.received if isinstance(m, protocol.StdinUsed)) == len(data)
    peer.end()


def test_no_stdin_is_the_null_device(start: Start) -> None:
    peer = start("readlink /proc/$$/fd/0; cat\n")
    peer.send(peer.run(2))
    assert peer.output_until_exit(2)[0][1] == b"/dev/null\n"
    peer.end()


# -- signals, pause, cancel --------------------------------------------------------------------------


def test_a_signal_reaches_the_whole_group(start: Start) -> None:
    child = "(trap 'echo child; exit 1' USR1; echo up; while :; do sleep 0.05; done) &"
    peer = start(child + " trap 'wait; echo make; exit 3' USR1; wait\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Signal(2, signal.SIGUSR1))
    output, end = peer.output_until_exit(2)
    assert (sorted(output[1].split()), end.code) == ([b"child", b"make"], 3)
    peer.end()


def test_pause_and_continue(start: Start) -> None:
    peer = start("echo up; while :; do sleep 0.05; done\n")
    peer.send(peer.run(2))
    peer.next(Data)

    (supervisor,) = psutil.Process(peer.process.pid).children()

    def found() -> set[str]:
        return states(supervisor.children(recursive=True))

    peer.send(protocol.Pause(on=True))
    wait_until(lambda: all_stopped(found()))
    seq = peer.next(protocol.Beat).seq
    assert peer.next(protocol.Beat, lambda m: m.seq > seq).running == 1  # the lease goes on
    peer.send(protocol.Pause(on=False))
    wait_until(lambda: psutil.STATUS_STOPPED not in found())
    assert peer.end() == 0


def test_a_stopped_make_can_be_ended(start: Start) -> None:
    peer = start("echo up; kill -STOP $$\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Cancel(2))
    assert peer.next(Exit).signal == signal.SIGTERM
    peer.end()


def test_cancel_is_term_then_kill(start: Start) -> None:
    peer = start("trap 'echo tidy' TERM; echo up; while :; do sleep 0.05; done\n")
    peer.send(peer.run(2))
    peer.next(Data)
    peer.send(protocol.Cancel(2))
    output, end = peer.output_until_exit(2)
    assert (output[1], end.signal) == (b"tidy\n", signal.SIGKILL)
    # Its supervisor, and a slot, are there for the next one.
    peer.write_make("exit 4\n")
    peer.send(peer.run(4))
    assert peer.next(Exit).code == 4
    peer.end()


def test_cancel_of_what_waits(start: Start) -> None:
    peer = start("cat\n", begin=False)
    peer.begin(slots=1)
    peer.send(peer.run(2, stdin=True), peer.run(4), protocol.Cancel(4), protocol.Close(2, 0))
    assert peer.next(Exit, lambda m: m.attempt == 4).infrastructure == protocol.CANCELLED
    assert peer.next(Exit, lambda m: m.attempt == 2).code == 0
    peer.end()


def test_kill_reaches_what_has_left_the_group(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    inner = f"echo $$ >> {pids}; (setsid env -i sleep 1000 & echo $! >> {pids}); sleep 1000"
    peer = start(f"setsid sh -c '{inner}' & sleep 1000\n")
    peer.send(peer.run(2))
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    wait_until(lambda: sum(p.name() == "sleep" for p in peer.processes()) == 3)
    below = [p.pid for p in peer.processes() if p.name() in ("sleep", "sh", "make")]
    peer.send(protocol.Cancel(2, kill=True))
    assert peer.next(Exit).signal == signal.SIGKILL
    wait_until(lambda: all(map(_gone, below)))
    peer.end()


# -- tokens -----------------------------------------------------------------------------------------


def test_a_token_is_offered_taken_and_comes_back(start: Start) -> None:
    # Takes a token from 3, does something, and gives it back on 4: what make does.
    peer = start("head -c 1 <&3 | od -An -c; read go; printf + >&4; read go\n")
    peer.send(peer.run(2, stdin=True, jobserver=[3, 4], tokens=True))
    assert peer.next(protocol.Want).count == 1
    peer.send(protocol.Offer(2, 1))
    assert peer.next(Data).data.split() == [b"+"]
    assert peer.next(protocol.Beat, lambda m: m.tokens == 2).running == 1
    peer.send(Data(2, 0, False, b"\n"))
    peer.next(protocol.Beat, lambda m: m.tokens == 1)
    peer.send(protocol.Recall(2, 1), Data(2, 0, False, b"\n"))
    assert peer.next(Exit).code == 0
    peer.next(protocol.Beat, lambda m: m.tokens == 0)
    peer.end()


def test_an_offer_that_nobody_takes_goes_back(start: Start) -> None:
    peer = start("cat\n")
    peer.send(peer.run(2, stdin=True, jobserver=[3, 4], tokens=True))
    peer.next(protocol.Want)
    peer.send(protocol.Offer(2, 1))
    assert peer.next(protocol.Return).count == 1
    peer.send(protocol.Close(2, 0))
    peer.next(Exit)
    peer.end()


def test_tokens_that_are_not_the_makes_are_not_touched(start: Start) -> None:
    """`tokens` false: the pipes are only held open."""
    peer = start("[ -p /proc/$$/fd/5 ] && [ -p /proc/$$/fd/6 ] && cat\n")
    peer.send(peer.run(2, stdin=True, jobserver=[5, 6]))
    peer.next(protocol.Beat, lambda m: m.running == 1)
    seq = peer.next(protocol.Beat).seq
    peer.next(protocol.Beat, lambda m: m.seq > seq)
    assert not [m for m in peer.received if isinstance(m, protocol.Want)]
    peer.send(protocol.Close(2, 0))
    assert peer.next(Exit).code == 0
    peer.end()


def test_a_make_that_returns_what_it_never_had(start: Start) -> None:
    peer = start("printf ++++++ >&4; cat\n")
    peer.send(peer.run(2, stdin=True, jobserver=[3, 4], tokens=True), protocol.Close(2, 0))
    assert peer.next(Exit).code == 0
    assert peer.end() == 0
    assert peer.stderr == ""


# -- lease --------------------------------------------------------------------------------------------


def test_without_grants_everything_ends(start: Start) -> None:
    peer = start("trap '' TERM; echo up; while :; do sleep 0.05; done\n", lease_s=1.0, begin=False)
    peer.grants = False
    peer.begin()
    peer.send(peer.run(2))
    peer.next(Data)
    below = [p.pid for p in peer.processes()]
    assert peer.next(Exit).infrastructure == protocol.FENCED
    assert peer.wait() == 0
    assert "the lease ran out" in peer.stderr
    wait_until(lambda: all(map(_gone, below)))


def test_grants_keep_it_alive(start: Start) -> None:
    peer = start("cat\n", lease_s=0.6, heartbeat_s=0.1)
    peer.send(peer.run(2, stdin=True))
    assert peer.next(protocol.Beat, lambda m: m.seq > 15).running == 1
    peer.send(protocol.Close(2, 0))
    assert peer.next(Exit).code == 0
    peer.end()


def test_grants_of_beats_that_never_were_do_not_count(start: Start) -> None:
    peer = start("echo up; sleep 1000\n", lease_s=1.0, begin=False)
    peer.grants = False
    peer.begin()
    peer.send(peer.run(2), *[protocol.Grant(seq=number) for number in range(1000, 1050)])
    assert peer.next(Exit).infrastructure == protocol.FENCED
    assert peer.wait() == 0


def test_a_frozen_server_says_that_it_was_late(start: Start) -> None:
    peer = start("trap '' TERM; echo up; while :; do sleep 0.05; done\n", lease_s=1.0, begin=False)
    peer.grants = False
    peer.begin()
    peer.send(peer.run(2))
    peer.next(Data)
    tree = [psutil.Process(peer.process.pid), *peer.processes()]
    for each in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.suspend()
    thaw = time.clock_gettime(time.CLOCK_BOOTTIME) + 1.3
    wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > thaw)
    for each in reversed(tree):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.resume()
    late = peer.next(protocol.FencedLate)
    assert late.attempts == [2]
    assert 0.05 < late.late_s < 25
    assert peer.next(Exit).infrastructure == protocol.FENCED
    peer.wait()


# -- deaths ----------------------------------------------------------------------------------------


def test_a_killed_server_leaves_nothing(start: Start) -> None:
    peer = start("setsid sleep 1000 & trap '' TERM; echo up; while :; do sleep 0.05; done\n")
    peer.send(peer.run(2))
    peer.next(Data)
    wait_until(lambda: any(p.name() == "sleep" and p.cmdline()[-1:] == ["1000"] for p in peer.processes()))
    below = [p.pid for p in peer.processes()]
    peer.process.kill()
    peer.process.wait()
    wait_until(lambda: all(map(_gone, below)))


def test_a_killed_supervisor(start: Start) -> None:
    peer = start("setsid sleep 1000 & echo up; exec sleep 1001\n")
    peer.send(peer.run(2))
    peer.next(Data)
    wait_until(lambda: sum(p.name() == "sleep" for p in peer.processes()) == 2)
    (supervisor,) = psutil.Process(peer.process.pid).children()
    below = [p.pid for p in peer.processes()]
    supervisor.kill()
    end = peer.next(Exit)
    assert (end.infrastructure, end.text) == (protocol.INTERNAL, "the supervisor process was killed")
    wait_until(lambda: all(map(_gone, below)))
    peer.write_make("exit 4\n")
    peer.send(peer.run(4))
    assert peer.next(Exit).code == 4
    assert peer.end() == 0


# -- thrift ----------------------------------------------------------------------------------------


def test_supervisors_are_reused_and_descriptors_given_back(start: Start) -> None:
    peer = start("cat; echo x; echo y >&2; exit 1\n")

    def one(attempt: int) -> None:
        run = peer.run(attempt, stdin=True, jobserver=[3, 4], tokens=True, grouped=attempt % 4 == 0)
        peer.send(run, Data(attempt, 0, False, b"in"), protocol.Close(attempt, 0))
        assert peer.output_until_exit(attempt)[1].code == 1

    for attempt in range(2, 10, 2):
        one(attempt)
    before, below = peer.fds(), peer.processes()
    for attempt in range(10, 60, 2):
        one(attempt)
    assert sorted(peer.fds()) == sorted(before)
    assert peer.processes() == below
    assert len(below) == 1
    peer.end()


def test_a_supervisor_whose_make_left_something_is_not_reused(start: Start) -> None:
    peer = start('if [ "$1" = leave ]; then sleep 1000 >/dev/null 2>&1 & fi\n')
    peer.send(peer.run(2, "leave"))
    assert peer.next(Exit).left == 1
    peer.send(peer.run(4))
    assert peer.next(Exit).left == 0
    peer.send(protocol.Bye())
    assert peer.next(protocol.Gone).left == 1
    peer.wait()


def test_messages_of_an_attempt_that_has_ended_are_ignored(start: Start) -> None:
    peer = start("exit 2\n")
    peer.send(peer.run(2))
    peer.next(Exit)
    peer.send(
        Data(2, 0, False, b"x"),
        Credit(2, 1, 5),
        protocol.Close(2, 0),
        protocol.Signal(2, signal.SIGTERM),
        protocol.Cancel(2),
        protocol.Offer(2, 1),
        protocol.Recall(2, 1),
        protocol.Drain(),
        peer.run(4),
    )
    end = peer.next(Exit)
    assert (end.attempt, end.code, end.infrastructure) == (4, 2, "")
    assert peer.end() == 0


def test_output_data_for_standard_input_is_refused(start: Start) -> None:
    peer = start("cat\n")
    peer.send(peer.run(2, stdin=True), Data(2, 1, False, b"x"))
    assert peer.wait() == 95
