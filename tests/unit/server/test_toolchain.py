"""What compiles on a host: equal on equal hosts, another text for each part that differs, from any tools."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from d1fleet.server import toolchain
from d1fleet.server.toolchain import describe, differences, fingerprint, has_compiler, parts_fault

CROSS = "arm-fake-gcc"

_COMPILER = """#!/bin/sh
echo "$0 $*" >> {log}
case $1 in
--version) echo "{version}"; echo "Copyright";;
-print-prog-name={proper}) echo {proper_path};;
-print-prog-name=*) echo "${{1#*=}}";;
-print-file-name=libc.so.6) echo {libc};;
-dumpmachine) echo fake-machine-gnu;;
esac
"""
_TOOL = '#!/bin/sh\n# build {build}\necho "$0" >> {log}\necho "{version}"\n'


class Pretended:
    """A host of stubs: tools in one folder, compilers proper in another, packages in a third."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.bin, self.lib, self.dpkg = folder / "bin", folder / "lib", folder / "dpkg"
        self.log = folder / "log"
        self._patch = patch
        for each in (self.bin, self.lib, self.dpkg):
            each.mkdir(parents=True)
        for proper in ("cc1", "cc1plus", "libc.so.6"):
            self.file(self.lib / proper, proper)
        self.compiler("cc", "cc (Fake 1.2) 1.2", "cc1")
        self.compiler("c++", "c++ (Fake 1.2) 1.2", "cc1plus")
        self.compiler(CROSS, "arm-fake-gcc (Fake 1.2) 1.2", "cc1", libc=str(self.lib / "libc.so.6"))
        for name in ("as", "ld", "ar"):
            self.tool(name, f"GNU {name} 2.40")
        self.package("libc6-dev:fake64", "1111  usr/include/stdio.h\n2222  usr/share/doc/libc6-dev/c.gz\n")
        self.program("dpkg", "#!/bin/sh\necho fake64\n")
        self.upgrade_kernel("6.1.147-1")

    def file(self, path: Path, text: str) -> None:
        """A new file in the old one's place, as packages are upgraded."""
        new = path.with_name(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(path)

    def program(self, name: str, text: str) -> None:
        self.file(self.bin / name, text)

    def compiler(self, name: str, version: str, proper: str, libc: str = "libc.so.6") -> None:
        path = self.lib / proper
        self.program(
            name,
            _COMPILER.format(log=self.log, version=version, proper=proper, proper_path=path, libc=libc),
        )

    def tool(self, name: str, version: str, build: int = 1) -> None:
        self.program(name, _TOOL.format(log="/dev/null", version=version, build=build))

    def versions(self, libc: str, kernel: str) -> None:
        """Of the packages of headers."""
        self.program("dpkg-query", f"#!/bin/sh\ncase $4 in linux*) echo {kernel} ;; *) echo {libc} ;; esac\n")

    def upgrade_kernel(self, version: str) -> None:
        """Other headers of a kernel, of which only the one changed that says which release it is."""
        lines = f"3333  usr/include/linux/types.h\n{version}  usr/include/linux/version.h\n"
        self.package("linux-libc-dev", lines)
        self.versions("1.0-1", version)

    def package(self, name: str, checksums: str) -> None:
        self.file(self.dpkg / f"{name}.md5sums", checksums)

    def parts(self, *tools: str, cache: str | None = None, path: str = "") -> dict[str, str]:
        self._patch.setattr(toolchain, "_DPKG", str(self.dpkg))
        self._patch.setattr(toolchain, "_INCLUDE", str(self.folder / "include"))
        self._patch.setattr(toolchain, "_DEFAULT_PATH", f"{self.bin}:/usr/bin:/bin")
        return describe(tools, {"PATH": f"{path}{self.bin}:/usr/bin:/bin"}, cache)

    def asked(self) -> int:
        """How often compilers were asked so far."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pretended]:
    return lambda name: Pretended(tmp_path / name, monkeypatch)


@pytest.fixture
def host(pretended: Callable[[str], Pretended]) -> Pretended:
    return pretended("host")


def test_parts(host: Pretended) -> None:
    found = host.parts("nosuchtool")
    assert found.keys() == {"machine", "cc", "c++", "as", "ld", "ar", "nosuchtool", "libc", "headers"}
    assert found["machine"] == os.uname().machine
    assert found["cc"].startswith("cc (Fake 1.2) 1.2 [cc1 ")
    assert found["c++"].startswith("c++ (Fake 1.2) 1.2 [cc1plus ")
    assert found["ld"].startswith("GNU ld 2.40 [")
    assert found["headers"].startswith("libc6-dev 1.0-1, linux-libc-dev 6.1 [")
    assert found["nosuchtool"] == "none"
    assert "[" in found["libc"]
    assert parts_fault(found) == ""


def test_equal_hosts_are_equal_whatever_their_history(pretended: Callable[[str], Pretended]) -> None:
    one, other = pretended("one"), pretended("longer/path/to/the/other")
    for path in other.lib.iterdir():
        os.utime(path, (1, 1))
    assert one.parts() == other.parts()
    first, second = one.parts("gcc-3", "flex"), other.parts("flex", "gcc-3")
    assert first == second
    assert fingerprint(first) == fingerprint(second)
    assert str(one.folder) not in str(first)


def test_a_wrapper_that_calls_the_compiler_by_another_name_is_no_difference(
    pretended: Callable[[str], Pretended],
) -> None:
    one, other = pretended("one"), pretended("other")
    other.compiler("cc", "x86_64-linux-gnu-gcc-14 (Fake 1.2) 1.2", "cc1")
    other.compiler("c++", "g++ (Fake 1.2) 1.2", "cc1plus")
    assert one.parts() == other.parts()
    asked_by_path = str(other.bin / "cc")
    assert other.parts(asked_by_path)[asked_by_path].startswith("cc (Fake 1.2) 1.2 [")


def test_what_only_looks_like_a_compilers_name_stays(host: Pretended) -> None:
    host.tool("as", "gcc (Fake 1.2) 1.2")
    assert host.parts()["as"].startswith("gcc (Fake")
    host.compiler("cc", "tcc (Fake 1.2) 1.2", "cc1")
    assert host.parts()["cc"].startswith("tcc (Fake")


def test_places_are_those_outside_the_systems_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("system", "mine", "odd\n")}
    for each in folders.values():
        each.mkdir()
    for folder, name in (
        ("system", "cc"),
        ("system", "ld"),
        ("mine", "ld"),
        ("mine", "flex"),
        ("odd\n", "ar"),
    ):
        (folders[folder] / name).touch(0o755)
    monkeypatch.setattr(toolchain, "_SYSTEM_FOLDERS", (str(folders["system"]),))
    environ = {"PATH": ":".join(str(folders[name]) for name in ("odd\n", "mine", "system"))}
    mine = folders["mine"]
    assert toolchain.places(["flex", f"{mine}/flex", "nosuchtool"], environ) == {
        "ld": f"{mine}/ld",
        "flex": f"{mine}/flex",
    }
    monkeypatch.setattr(toolchain, "LONGEST_VALUE", 5)
    assert toolchain.places([], environ) == {}


def test_what_a_distribution_writes_about_a_package_does_not_count(host: Pretended) -> None:
    before = host.parts()
    host.package("libc6-dev:fake64", "9999  usr/share/doc/libc6-dev/c.gz\n1111  usr/include/stdio.h\n")
    assert host.parts() == before


DIFFERENCES: dict[str, tuple[str, Callable[[Pretended], None]]] = {
    "driver": ("cc", lambda host: host.compiler("cc", "cc (Fake 1.3) 1.3", "cc1")),
    "compiler proper": ("c++", lambda host: host.file(host.lib / "cc1plus", "rebuilt")),
    "compiler proper gone": ("c++", lambda host: (host.lib / "cc1plus").unlink()),
    "assembler": ("as", lambda host: host.tool("as", "GNU as 2.44")),
    "assembler of the same version": ("as", lambda host: host.tool("as", "GNU as 2.40", build=2)),
    "no linker": ("ld", lambda host: host.program("ld", "")),
    "archiver": ("ar", lambda host: host.tool("ar", "LLVM ar 19")),
    "headers of libc": ("headers", lambda h: h.package("libc6-dev:fake64", "1112  usr/include/stdio.h\n")),
    "headers of the kernel": ("headers", lambda h: h.package("linux-libc-dev", "4  usr/include/l.h\n")),
    "headers gone": ("headers", lambda host: (host.dpkg / "linux-libc-dev.md5sums").unlink()),
    "their version": ("headers", lambda host: host.versions("1.0-2", "6.1.147-1")),
    "the kernel's series": ("headers", lambda host: host.upgrade_kernel("6.12.5-1")),
    "libc of a cross compiler": (CROSS, lambda host: host.file(host.lib / "libc.so.6", "rebuilt")),
    "cross compiler": (CROSS, lambda host: (host.bin / CROSS).unlink()),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_hosts_that_differ_in_one_part(pretended: Callable[[str], Pretended], case: str) -> None:
    part, change = DIFFERENCES[case]
    one, other = pretended("one"), pretended("other")
    change(other)
    expected, found = one.parts(CROSS), other.parts(CROSS)
    assert [name for name in expected if expected[name] != found[name]] == [part]
    assert len(differences(expected, found)) == 1
    assert fingerprint(expected) != fingerprint(found)


def test_another_libc(host: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.parts()
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 9.99")
    assert [text.partition(":")[0] for text in differences(before, host.parts())] == ["libc"]


def test_without_dpkg_names_and_sizes_of_headers_count(
    pretended: Callable[[str], Pretended], tmp_path: Path
) -> None:
    found = []
    for name, text in (("one", "a\n"), ("same", "b\n"), ("other", "longer\n")):
        host = pretended(name)
        shutil.rmtree(host.dpkg)
        (host.folder / "include" / "linux").mkdir(parents=True)
        (host.folder / "include" / "linux" / "version.h").write_text(text)
        found.append(host.parts()["headers"])
    assert found[0].startswith("1 files [")
    assert found[0] == found[1] != found[2]


def test_a_monthly_update_of_the_kernels_headers_is_no_difference(host: Pretended) -> None:
    before = host.parts()["headers"]
    host.upgrade_kernel("6.1.153-1")
    assert host.parts()["headers"] == before


def test_a_bare_host(tmp_path: Path) -> None:
    found = describe((), {"PATH": str(tmp_path)})
    assert [found[name] for name in toolchain.TOOLS] == ["none"] * 5
    assert not has_compiler(found)
    assert has_compiler(found | {"c++": "c++ 1"})


def test_relative_folders_of_path_are_passed_by(host: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(host.bin)
    assert describe((), {"PATH": ":.:bin:/nonexistent"})["cc"] == "none"


def test_the_environment_of_jobs_reaches_the_compiler(host: Pretended) -> None:
    host.program("cc", '#!/bin/sh\necho "cc $FLAVOUR $LC_ALL"\n')
    found = describe((), {"PATH": f"{host.bin}:/usr/bin:/bin", "FLAVOUR": "sweet", "LC_ALL": "de_DE.UTF-8"})
    assert found["cc"].startswith("cc sweet C [")


# -- odd tools --------------------------------------------------------------------------------------------

ODD: dict[str, tuple[str, str]] = {
    "says nothing": ("exit 0", "version unknown ["),
    "fails": ("echo no >&2; exit 1", "version unknown ["),
    "is killed": ("echo cc 1; kill -9 $$", "no answer ["),
    "plays with a terminal": (r"printf '\033]0;x\007 cc 1\r\n'", "?]0;x? cc 1 ["),
    "is no UTF-8": (r"printf 'cc \377\n'", "cc \ufffd ["),
    "a long line": ("head -c 3000 /dev/zero | tr '\\0' x", "x" * 160 + " ["),
    "writes without end": ("exec yes cc", "cc ["),
    "one endless line": ("exec tr '\\0' x </dev/zero", "x" * 160 + " ["),
    "reads": ("cat; echo cc 1", "cc 1 ["),
    "hangs": ("exec sleep 1000", "no answer ["),
    "hangs with its stdout closed": ("echo cc 1; exec sleep 1000 >&-", "cc 1 ["),
    "leaves somebody behind": ("sleep 1000 & echo cc 1", "no answer ["),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", ODD)
def test_odd_tools(host: Pretended, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None holds us up, and what they say is fit to be read."""
    monkeypatch.setattr(toolchain, "_EACH_LIMIT_S", 0.4)
    text, expected = ODD[case]
    host.program("ld", f"#!/bin/sh\n{text}\n")
    found = host.parts()
    assert found["ld"].startswith(expected)
    assert parts_fault(found) == ""


def test_a_program_that_cannot_be_started(host: Pretended) -> None:
    host.program("ld", "#!/nonexistent/interpreter\n")
    assert host.parts()["ld"].startswith("no answer [")


def test_many_that_hang_share_one_limit(host: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_LIMIT_S", 0.5)
    for name in ("cc", "c++", "as", "ld", "ar"):
        host.program(name, "#!/bin/sh\nexec sleep 1000\n")
    begin = time.monotonic()
    host.parts()
    assert time.monotonic() - begin < 3.0


# -- the cache --------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".cache" / "d1fleet" / "toolchain"


def test_the_second_time_nobody_is_asked(host: Pretended, cache: Path) -> None:
    first = host.parts(CROSS, cache=str(cache))
    asked = host.asked()
    assert asked > 0
    assert host.parts(CROSS, cache=str(cache)) == first
    assert host.asked() == asked
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in cache.iterdir()] == [0o600]


def test_servers_that_start_together_look_once(host: Pretended, cache: Path) -> None:
    host.parts()
    once = host.asked()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: host.parts(cache=str(cache)), range(4)))
    assert found == [found[0]] * 4
    assert host.asked() == 2 * once


def test_a_server_that_looks_for_ever_holds_up_nobody(
    host: Pretended, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_WAIT_LIMIT_S", 0.2)
    expected = host.parts()
    cache.mkdir(0o700, parents=True)
    fd = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert host.parts(cache=str(cache)) == expected
    finally:
        os.close(fd)


CHANGES: dict[str, Callable[[Pretended], object]] = {
    **{name: change for name, (_, change) in DIFFERENCES.items() if name != "their version"},
    "new headers": lambda host: host.package("libc6-dev", "5  usr/include/stdio.h\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_asked_again(host: Pretended, cache: Path, change: str) -> None:
    before = host.parts(CROSS, cache=str(cache))
    CHANGES[change](host)
    after = host.parts(CROSS, cache=str(cache))
    assert after == host.parts(CROSS)
    assert after != before


def test_a_file_that_was_written_over_with_its_old_times(host: Pretended, cache: Path) -> None:
    """Whoever sets the time back cannot set the time of change back."""
    path = host.lib / "cc1"
    before, times = host.parts(cache=str(cache)), path.stat()
    with path.open("r+") as file:
        file.write("CC1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert host.parts(cache=str(cache))["cc"] != before["cc"]


def test_no_room_for_a_process_is_not_remembered(
    host: Pretended, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    expected = host.parts()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        assert host.parts(cache=str(cache))["cc"].startswith("no answer [")
    assert host.parts(cache=str(cache)) == expected


def test_another_compiler_first_in_path(host: Pretended, cache: Path, tmp_path: Path) -> None:
    before = host.parts(cache=str(cache))
    (tmp_path / "mine").mkdir()
    found = host.parts(cache=str(cache), path=f"{tmp_path / 'mine'}:")
    assert found == before
    host.file(tmp_path / "mine" / "cc", "#!/bin/sh\necho cc mine\n")
    assert host.parts(cache=str(cache), path=f"{tmp_path / 'mine'}:")["cc"].startswith("cc mine [")
    assert host.parts(cache=str(cache)) == before


@pytest.mark.parametrize("text", ["exec sleep 1000", "kill -9 $$"])
def test_what_did_not_answer_this_time_is_not_remembered(
    host: Pretended, cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(toolchain, "_EACH_LIMIT_S", 0.4)
    host.program("ld", f"#!/bin/sh\n{text}\n")
    host.parts(cache=str(cache))
    assert not list(cache.iterdir())


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_text(path.read_text()[:-20]),
    "empty": lambda path: path.write_text(""),
    "a list": lambda path: path.write_text("[]"),
    "no stamps": lambda path: path.write_text('{"parts": {"cc": "x"}}'),
    "stamps of another kind": lambda path: path.write_text('{"parts": {"cc": "x"}, "stamps": [1]}'),
    "parts of another kind": lambda path: path.write_text('{"parts": {"cc": 1}, "stamps": {}}'),
    "parts that play": lambda path: path.write_text('{"parts": {"cc": "\\u001b"}, "stamps": {}}'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "binary": lambda path: path.write_bytes(b"\xff\0\xfe"),
    "huge": lambda path: path.write_text('{"parts": {"cc": "x"}, "stamps": {}}' + " " * (1 << 19)),
    "others may write": lambda path: _lie(path).chmod(0o666),
    "a link": lambda path: path.symlink_to(_lie(path).rename(path.with_name("elsewhere"))),
    "a fifo": _fifo,
    "a folder": _folder,
}


def _lie(path: Path) -> Path:
    path.write_text('{"parts": {"cc": "a lie"}, "stamps": {}}')
    return path


def test_what_stands_in_the_cache_is_believed(host: Pretended, cache: Path) -> None:
    """Else the cases below would show nothing."""
    host.parts(cache=str(cache))
    _lie(next(cache.iterdir()))
    assert host.parts(cache=str(cache)) == {"cc": "a lie"}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_entry_is_none(host: Pretended, cache: Path, case: str) -> None:
    expected = host.parts(cache=str(cache))
    SPOILT[case](next(cache.iterdir()))
    assert host.parts(cache=str(cache)) == expected


def test_a_cache_that_others_can_write_is_not_used(host: Pretended, cache: Path) -> None:
    expected = host.parts(cache=str(cache))
    _lie(next(cache.iterdir()))
    cache.chmod(0o777)
    assert host.parts(cache=str(cache)) == expected


@pytest.mark.parametrize("place", ["/proc/nothing/toolchain", "/dev/null/toolchain"])
def test_no_place_for_a_cache_is_no_fault(host: Pretended, place: str) -> None:
    assert host.parts(cache=place) == host.parts()


def test_old_entries_go(host: Pretended, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_MOST_ENTRIES", 2)
    for number in range(4):
        host.parts(cache=str(cache), path=f"/nonexistent/{number}:")
    assert len(list(cache.iterdir())) == 2
    asked = host.asked()
    host.parts(cache=str(cache), path="/nonexistent/3:")
    assert host.asked() == asked


def test_where_the_cache_is(tmp_path: Path) -> None:
    assert toolchain.cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == f"{tmp_path}/d1fleet/toolchain"
    assert toolchain.cache_folder({"XDG_CACHE_HOME": "/nonexistent/home/.cache"}) is None
    assert toolchain.cache_folder({"XDG_CACHE_HOME": "relative"}) is None


# -- words ------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_what_is_there() -> None:
    one = fingerprint({"cc": "gcc 14", "ld": "none"})
    assert len(one) == 16 and int(one, 16)
    assert one == fingerprint({"ld": "", "cc": "gcc 14"}) == fingerprint({"cc": "gcc 14"})
    assert one != fingerprint({"cc": "gcc 13"}) != fingerprint({"c++": "gcc 13"})
    assert fingerprint({}) == ""


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ({}, {"cc": "x"}, []),
        ({"cc": "x"}, {"cc": "x", "ld": "y"}, []),
        ({"cc": "none"}, {}, []),
        ({"cc": ""}, {"cc": "none"}, []),
        ({"cc": "gcc 14"}, {"cc": "gcc 12"}, ["cc: gcc 12, the project has gcc 14"]),
        ({"cc": "gcc 14"}, {}, ["cc: none, the project has gcc 14"]),
        ({"cc": "none"}, {"cc": "gcc 14"}, ["cc: gcc 14, the project has none"]),
        (
            {"cc": "1", "as": "2", "ld": "3"},
            {"ld": "0", "as": "2", "cc": "0"},
            ["cc: 0, the project has 1", "ld: 0, the project has 3"],
        ),
    ],
)
def test_differences(expected: dict[str, str], found: dict[str, str], words: list[str]) -> None:
    assert differences(expected, found) == words


def test_a_fingerprint_is_told_where_versions_are_equal() -> None:
    ours = {"headers": "9 files [ab]", "ld": "GNU ld 2.40 [1a]", "cc": "cc 12 [cc1 1a2b]"}
    theirs = {"headers": "9 files [cd]", "ld": "GNU ld 2.44 [2b]", "cc": "cc 12 [cc1 3c4d]"}
    assert differences(ours, theirs) == [
        "cc: cc 12 [cc1 3c4d], the project has cc 12 [cc1 1a2b]",
        "headers: 9 files [cd], the project has 9 files [ab]",
        "ld: GNU ld 2.44, the project has GNU ld 2.40",
    ]


def test_where_it_lies() -> None:
    places = {"cc": "/usr/local/bin/cc", "ld": "/usr/local/bin/ld"}
    found = differences({"cc": "a", "ld": "c"}, {"cc": "b", "ld": "c"}, places=places)
    assert found == ["cc: b at /usr/local/bin/cc, the project has a"]


def test_whose_it_is() -> None:
    assert differences({"cc": "a"}, {"cc": "b"}, "alder") == ["cc: b, alder has a"]


# -- the script -------------------------------------------------------------------------------------------


def _script(folder: Path, *tools: str) -> subprocess.CompletedProcess[str]:
    alone = shutil.copy(toolchain.__file__, folder / "toolchain.py")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-ISE", alone, *tools],
        cwd="/",
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_script_says_the_same_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = _script(tmp_path, "nosuchtool")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    parts = describe(["nosuchtool"], {"PATH": "/usr/bin:/bin"})
    assert found == {"fingerprint": fingerprint(parts), "parts": parts, "tools": ["nosuchtool"]}
    assert [path.name for path in tmp_path.iterdir()] == ["toolchain.py"]


@pytest.mark.parametrize(
    "tools", [["-x"], ["a b"], [""], ["../cc"], ["a\n"], ["x" * 101], ["a"] * 33, ["/bin/../cc"]]
)
def test_tools_that_are_none(tmp_path: Path, tools: list[str]) -> None:
    done = _script(tmp_path, *tools)
    assert (done.returncode, done.stdout) == (1, "")
    assert "names or absolute paths" in done.stderr
