"""What distcc's own words say: each case as distcc 3.4 of Debian writes it, but for times."""

from __future__ import annotations

from d1fleet.distcclog import MEANINGS, NO_ANSWER, Told, read

ONE = "192.0.2.12/8,lzo"


def _log(text: str, pid: int = 31580) -> list[str]:
    return [f"distcc[{pid}] {line}\n" for line in text.strip().splitlines()]


REMOTE = _log(f"""
compile from a.c to a.o
(dcc_gcc_rewrite_fqn) Re-writing call to 'gcc' to 'x86_64-linux-gnu-gcc' to support cross-compilation.
exec on {ONE}: x86_64-linux-gnu-gcc -c a.c -o a.o
(dcc_compile_remote) No authentication requested.
cpp a.c on localhost completed ok
(dcc_r_file_timed) 509 bytes received in 0.000066s, rate 7531kB/s
142 bytes from a.c compiled on 192.0.2.12 in 0.0270s, rate 5kB/s
compile a.c on {ONE} completed ok
elapsed compilation time 0.027416s
(dcc_exit) exit: code 0; self: 0.000000 user 0.003629 sys; children: 0.000000 user 0.006556 sys
""")
FELL_BACK = _log(f"""
compile from a.c to a.o
exec on {ONE}: x86_64-linux-gnu-gcc -c a.c -o a.o
ERROR: nonblocking connect to 192.0.2.12:3632 failed: Connection refused
Warning: failed to distribute a.c to {ONE}, running locally instead
exec on localhost: x86_64-linux-gnu-gcc -c a.c -o a.o
compile a.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.002437 user 0.000000 sys; children: 0.012301 user 0.005859 sys
""")
NOBODY_LEFT = _log("""
(dcc_build_somewhere) Warning: failed to distribute, running locally instead
exec on localhost: x86_64-linux-gnu-gcc -c a.c -o a.o
compile a.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.002437 user 0.000000 sys; children: 0.012301 user 0.005859 sys
""")
SENT_AWAY = _log(f"""
compile from a.c to a.o
exec on {ONE}: slowcc -O1 -c -o a.o a.c
cpp a.c on localhost completed ok
(dcc_readx) ERROR: unexpected eof on fd6
(dcc_r_result_header) ERROR: server provided no answer. Is the server configured to allow access from your IP?
156 bytes from a.c compiled on 192.0.2.12 in 0.0652s, rate 2kB/s
exec on localhost: slowcc -O1 -c -o a.o a.c
compile a.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.004203 user 0.000000 sys; children: 0.030008 user 0.007084 sys
""")
HERE = _log("""
compile from a.c to a.o
exec on localhost: gcc -O1 -c -o a.o a.c
compile a.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.000000 user 0.002849 sys; children: 0.023525 user 0.002360 sys
""")
STRICT = _log(f"""
exec on {ONE}: x86_64-linux-gnu-gcc -c a.c -o a.o
ERROR: nonblocking connect to 192.0.2.12:3632 failed: Connection refused
(dcc_build_somewhere) ERROR: failed to distribute and fallbacks are disabled
(dcc_exit) exit: code 116; self: 0.000000 user 0.002657 sys; children: 0.000000 user 0.000000 sys
""")
WRONG = f"""
exec on {ONE}: x86_64-linux-gnu-gcc -c b.c -o b.o
cpp b.c on localhost completed ok
142 bytes from b.c compiled on 192.0.2.12 in 0.0225s, rate 6kB/s
ERROR: compile b.c on {ONE} failed
(dcc_build_somewhere) Warning: remote compilation of 'b.c' failed, retrying locally
Warning: failed to distribute b.c to {ONE}, running locally instead
exec on localhost: x86_64-linux-gnu-gcc -c b.c -o b.o
"""
REFUSED_TWICE = _log(
    WRONG
    + """ERROR: compile b.c on localhost failed
(dcc_exit) exit: code 1; self: 0.000000 user 0.004009 sys; children: 0.010561 user 0.006586 sys
"""
)
DISAGREED = _log(
    WRONG
    + """compile b.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.000000 user 0.004009 sys; children: 0.010561 user 0.006586 sys
"""
)
NATIVE = _log("""
(dcc_gcc_rewrite_fqn) Re-writing call to 'gcc' to 'x86_64-linux-gnu-gcc' to support cross-compilation.
exec on localhost: x86_64-linux-gnu-gcc -march=native "-DF=a b" -c a.c -o a.o
(dcc_collect_child) cc times: user 0.000000s, system 0.000000s, 0 minflt, 0 majflt
compile (null) on localhost completed ok
(dcc_exit) exit: code 0; self: 0.000000 user 0.004345 sys; children: 0.007760 user 0.012753 sys
""")
CONFTEST = _log("""
exec on localhost: x86_64-linux-gnu-gcc -c conftest.c -o conftest.o
compile conftest.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.002805 user 0.000000 sys; children: 0.016896 user 0.000000 sys
""")
PROGRAM = _log("""
(dcc_scan_args) compiler apparently called not for compile
exec on localhost: x86_64-linux-gnu-gcc m.c -o p
compile m.c on localhost completed ok
(dcc_exit) exit: code 0; self: 0.002985 user 0.000000 sys; children: 0.021531 user 0.012659 sys
""")
LINK = _log("""
(dcc_scan_args) called for link?  i give up
exec on localhost: x86_64-linux-gnu-gcc a.o -o a
compile (null) on localhost completed ok
(dcc_exit) exit: code 0; self: 0.000000 user 0.002311 sys; children: 0.016114 user 0.005847 sys
""")


def test_a_compilation_on_a_host() -> None:
    assert read(REMOTE * 3) == Told(remote={ONE: 3})  # type: ignore[arg-type]


def test_what_falls_back_is_counted_with_its_reason() -> None:
    told = read(FELL_BACK + NOBODY_LEFT)
    assert told.fell_back == {ONE: 1, "": 1}
    assert told.reasons == {ONE: "nonblocking connect to 192.0.2.12:3632 failed: Connection refused"}
    assert (told.here, told.undistributable, told.remote, told.codes) == (0, 0, {}, {})


def test_a_server_that_sends_us_away_has_no_line_of_its_own() -> None:
    told = read(SENT_AWAY)
    assert told == Told(fell_back={ONE: 1}, reasons={ONE: NO_ANSWER})  # type: ignore[arg-type]


def test_this_machine_has_slots_as_well() -> None:
    assert read(HERE) == Told(here=1)


def test_distccs_own_exit_codes_are_counted() -> None:
    told = read(STRICT)
    assert told.codes == {116: 1}
    assert "--strict" in MEANINGS[116]
    assert sorted(MEANINGS) == list(range(100, 121))


def test_an_error_in_the_source_is_no_fall_back_and_no_host_is_to_blame() -> None:
    assert read(REFUSED_TWICE) == Told(remote={ONE: 1})  # type: ignore[arg-type]


def test_a_host_that_disagrees_is_named() -> None:
    assert read(DISAGREED).disagreed == {ONE: ["b.c"]}


def test_links_are_no_fall_back() -> None:
    assert read(LINK) == Told(undistributable=1)


def test_what_distcc_keeps_here_is_kept_as_a_command() -> None:
    told = read([*NATIVE, *CONFTEST])
    kept = [
        'x86_64-linux-gnu-gcc -march=native "-DF=a b" -c a.c -o a.o',
        "x86_64-linux-gnu-gcc -c conftest.c -o conftest.o",
    ]
    assert told == Told(undistributable=2, kept=kept)


def test_what_is_compiled_and_linked_at_once_counts_as_a_link() -> None:
    assert read(PROGRAM) == Told(undistributable=1)


def test_what_fails_here_has_compiled_nothing() -> None:
    failed = [
        line.replace("compile (null) on localhost completed ok", "ERROR: compile (null) on localhost failed")
        for line in NATIVE
    ]
    assert failed != NATIVE
    assert read(failed) == Told(undistributable=1)


def test_clients_write_between_each_others_lines() -> None:
    mixed = [line for pair in zip(FELL_BACK, _log("\n".join(["x"] * 7), 7), strict=True) for line in pair]
    assert read([*mixed, *REMOTE]).fell_back == {ONE: 1}


def test_other_lines_are_passed_over() -> None:
    assert read(["", "make: *** [x] Error 1\n", "distcc[x] compile\n", "distcc[1] (f) \n"]) == Told()
