from __future__ import annotations

import ast
import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import d1fleet.interpose
from d1fleet.errors import RuntimeFolderError, ToolError
from d1fleet.interpose import (
    MARKER,
    build_id,
    check_make,
    find_make,
    install_shim,
    make_environment,
    origin,
    program_environment,
)

SHIM_SOURCES = Path(d1fleet.interpose.__file__).parent / "shim"
COMPILER = next(d1fleet.interpose._compilers(), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("D1FLEET_SHIM_KIND", raising=False)


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _runs(folder: Path) -> bool:
    """Outside a build the shim is the next make."""
    real = _program(folder.parent / "real" / "make", "#!/bin/sh\nexit 42\n").parent
    for name in ("make", "gmake"):
        _program(real / name, "#!/bin/sh\nexit 42\n")
    codes = [
        subprocess.run([folder / name], env={"PATH": f"{folder}:{real}"}, timeout=30, check=False).returncode
        for name in ("make", "gmake")
    ]
    return codes == [42, 42]


def _is_c(folder: Path) -> bool:
    return (folder / "make").read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize("kind", [pytest.param("c", marks=needs_compiler), "python"])
def test_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("D1FLEET_SHIM_KIND", kind)
    target = install_shim(tmp_path / "a" / "cache", tmp_path / "b" / "shim")
    assert target == tmp_path / "b" / "shim"
    assert sorted(os.listdir(target)) == [MARKER, "gmake", "make"]
    assert _is_c(target) == (kind == "c")
    assert _runs(target)
    for folder in (target, tmp_path / "a" / "cache"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert len(os.listdir(tmp_path / "a" / "cache")) == 1


@needs_compiler
def test_compiles_without_a_warning(tmp_path: Path) -> None:
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", os.fspath(tmp_path / "shim")]
    ran = subprocess.run(
        [str(COMPILER), *options, SHIM_SOURCES / "shim.c"], capture_output=True, timeout=100, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_the_stand_in_is_python_3_9() -> None:
    ast.parse((SHIM_SOURCES / "standin.py").read_bytes(), feature_version=(3, 9))


@needs_compiler
def test_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_shim(tmp_path / "cache", tmp_path / "1")
    monkeypatch.setattr(d1fleet.interpose, "COMPILERS", ())
    assert _is_c(install_shim(tmp_path / "cache", tmp_path / "2"))
    assert not _is_c(install_shim(tmp_path / "other", tmp_path / "3"))


@needs_compiler
def test_another_machine_or_source_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_shim(tmp_path / "cache", tmp_path / "1")
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "pdp11")
        install_shim(tmp_path / "cache", tmp_path / "2")
    with monkeypatch.context() as patch:
        patch.setattr(platform, "libc_ver", lambda: ("glibc", "1.0"))
        install_shim(tmp_path / "cache", tmp_path / "3")
    assert len(os.listdir(tmp_path / "cache")) == 3


@needs_compiler
def test_installing_again_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("c", "c", "python", "c"):
        monkeypatch.setenv("D1FLEET_SHIM_KIND", kind)
        target = install_shim(tmp_path / "cache", tmp_path / "shim")
        assert _is_c(target) == (kind == "c")
        assert sorted(os.listdir(target)) == [MARKER, "gmake", "make"]


def test_two_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert _runs(install_shim(tmp_path / "cache", tmp_path / "shim"))


@pytest.mark.parametrize(
    "compiler",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/nonexistent/interpreter\n",
        # Succeeds, and what it makes does not run here.
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "#!/nonexistent" >"$2"; chmod +x "$2"\n',
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "exit 0" >"$2"; chmod +x "$2"\n',
        "#!/bin/sh\nexit 0\n",
    ],
)
def test_a_compiler_that_fails_means_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    _program(tmp_path / "bin" / "cc", compiler)
    monkeypatch.setattr(d1fleet.interpose, "SYSTEM_FOLDERS", (str(tmp_path / "bin"),))
    target = install_shim(tmp_path / "cache", tmp_path / "shim")
    assert not _is_c(target)
    interpreter = os.fsencode(os.path.realpath(sys.executable))
    assert (target / "make").read_bytes().splitlines()[0] == b"#!" + interpreter + b" -ISE"
    assert len(os.listdir(tmp_path / "cache")) == 1
    monkeypatch.setenv("D1FLEET_SHIM_KIND", "c")
    with pytest.raises(ToolError, match="cannot be compiled"):
        install_shim(tmp_path / "cache", tmp_path / "shim")


@needs_compiler
def test_no_static_libc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(
        tmp_path / "bin" / "cc",
        f'#!/bin/sh\nfor a; do [ "$a" = -static ] && exit 1; done\nexec {COMPILER} "$@"\n',
    )
    monkeypatch.setattr(d1fleet.interpose, "SYSTEM_FOLDERS", (str(tmp_path / "bin"),))
    target = install_shim(tmp_path / "cache", tmp_path / "shim")
    assert _is_c(target)
    assert _runs(target)


def test_compiler_sees_none_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "bin" / "clang", f"#!/bin/sh\nenv >{tmp_path}/env\nexit 1\n")
    monkeypatch.setattr(d1fleet.interpose, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", f"relative::{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("CPATH", "/evil")
    install_shim(tmp_path / "cache", tmp_path / "shim")
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    for mode in (0o770, 0o702):
        (tmp_path / "open").chmod(mode)
        with pytest.raises(RuntimeFolderError, match="others may write"):
            install_shim(tmp_path / "open", tmp_path / "shim")
        with pytest.raises(RuntimeFolderError, match="others may write"):
            install_shim(tmp_path / "cache", tmp_path / "open")


def test_another_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(RuntimeFolderError, match="another user"):
        install_shim(tmp_path / "cache", tmp_path / "shim")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeFolderError, match="cannot place the shim"):
        install_shim(tmp_path / "file", tmp_path / "shim")


def test_noexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "shim" not in os.fspath(path) and real(path, mode))
    with pytest.raises(ToolError, match="nothing can be executed"):
        install_shim(tmp_path / "cache", tmp_path / "shim")


def test_an_interpreter_that_no_script_can_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D1FLEET_SHIM_KIND", "python")
    for name in ("/a b/python", "/" + "x" * 121):
        monkeypatch.setattr(sys, "executable", name)
        with pytest.raises(ToolError, match="#! line"):
            install_shim(tmp_path / "cache", tmp_path / "shim")


def test_environment(tmp_path: Path) -> None:
    before = {
        "PATH": "/usr/bin:/bin",
        "MAKE": "/x/make",
        "MAKEFLAGS": "k",
        "ODD": "\udcff",
        "D1FLEET_SOCKET": "old",
    }
    kept = dict(before)
    assert make_environment(before, socket=tmp_path / "s", real_make="/usr/bin/make", shim_dir=tmp_path) == {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "MAKEFLAGS": "k",
        "ODD": "\udcff",
        "D1FLEET_SOCKET": str(tmp_path / "s"),
        "D1FLEET_MAKE": "/usr/bin/make",
        "D1FLEET_SHIM": str(tmp_path),
        "D1FLEET_ORIGIN": origin(),
    }
    assert before == kept


def test_environment_of_a_program(tmp_path: Path) -> None:
    """As make's, and what brings the sub-makes of a make that was called by its path to the shim."""
    place = {"socket": tmp_path / "s", "real_make": "/usr/bin/make", "shim_dir": tmp_path}
    before = {"PATH": "/usr/bin", "MAKE": "/x/make", "MAKEFLAGS": "k"}
    ours = make_environment(before, **place)  # type: ignore[arg-type]
    env = program_environment(before, jobs=None, **place)  # type: ignore[arg-type]
    assert env == {**ours, "MAKE": "make", "D1FLEET_LEVEL": "0"}
    env = program_environment({**before, "MAKELEVEL": "2"}, jobs=4, **place)  # type: ignore[arg-type]
    assert (env["MAKEFLAGS"], env["D1FLEET_LEVEL"], env["MAKELEVEL"]) == ("k -j4", "2", "2")


def test_the_folder_of_shims_is_named_by_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds have the same one, so that what was configured in the first finds it in the second."""
    names = {build_id(), build_id()}
    assert len(names) == 1
    monkeypatch.setenv("D1FLEET_SHIM_KIND", "python")
    assert build_id() not in names


def test_a_shim_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """Another build may be at work with it."""
    make = install_shim(tmp_path / "cache", tmp_path / "bin") / "make"
    before = make.stat()
    install_shim(tmp_path / "cache", tmp_path / "bin")
    assert (make.stat().st_ino, make.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_environment_without_path() -> None:
    """The recipes still find the system's programs; an empty PATH still means the working folder."""
    for before, after in (({}, f"/shim:{os.defpath}"), ({"PATH": ""}, "/shim:")):
        assert make_environment(before, socket="s", real_make="m", shim_dir="/shim")["PATH"] == after


def test_environment_with_a_colon() -> None:
    with pytest.raises(RuntimeFolderError, match="PATH"):
        make_environment({}, socket="s", real_make="m", shim_dir="/a:b")


def test_origin() -> None:
    root, namespace = os.stat("/"), os.readlink("/proc/self/ns/mnt")
    assert origin() == f"{os.geteuid()}:{root.st_dev}:{root.st_ino}:{namespace[5:-1]}"


def test_find_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = install_shim(tmp_path / "cache", tmp_path / "shim")
    (tmp_path / "folder" / "make").mkdir(parents=True)
    _program(tmp_path / "plain" / "make", "").chmod(0o644)
    make = _program(tmp_path / "good" / "make", "")
    _program(tmp_path / "late" / "make", "")
    folders = [shim, *(tmp_path / name for name in ("none", "folder", "plain", "good", "late"))]
    assert find_make({"PATH": ":".join(map(str, folders))}) == make
    monkeypatch.chdir(tmp_path)
    assert find_make({"PATH": "shim:good"}) == make
    monkeypatch.chdir(tmp_path / "good")
    assert find_make({"PATH": f"{shim}:"}) == make


def test_find_no_make(tmp_path: Path) -> None:
    shim = install_shim(tmp_path / "cache", tmp_path / "shim")
    with pytest.raises(ToolError, match="no make in PATH") as caught:
        find_make({"PATH": str(shim)})
    assert "install GNU make" in caught.value.mend


def test_check_make() -> None:
    assert check_make(find_make(os.environ)) >= (4, 2)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("GNU Make 4.2", (4, 2)),
        ("GNU Make 4.4.1", (4, 4)),
        ("GNU Make 5.0", (5, 0)),
        ("GNU Make 4.10", (4, 10)),
    ],
)
def test_check_make_versions(tmp_path: Path, text: str, version: tuple[int, int]) -> None:
    assert check_make(_program(tmp_path / "make", f"#!/bin/sh\necho '{text}'\necho Built for x\n")) == version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho GNU Make 4.1\n", "4.1, which is too old"),
        ("#!/bin/sh\necho GNU Make 3.82\n", "3.82, which is too old"),
        ("#!/bin/sh\necho 'usage: make [-BeikNnqrSstWwX]' >&2; exit 2\n", "is not GNU make"),
        ("#!/bin/sh\necho 'GNU Make 4.3'; exit 1\n", "is not GNU make"),
        ("#!/nonexistent\n", "cannot be run"),
    ],
)
def test_check_make_refuses(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ToolError, match=said) as caught:
        check_make(_program(tmp_path / "make", text))
    assert str(tmp_path / "make") in caught.value.message
    assert caught.value.mend


def test_check_make_is_not_led_astray_by_makeflags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "--no-such-option")
    assert check_make(find_make(os.environ)) >= (4, 2)


def test_a_folder_of_path_that_cannot_be_looked_into(tmp_path: Path) -> None:
    """Others' folders are often left in PATH by su(1); a name that is too long fails for root, too."""
    make = _program(tmp_path / "make", "#!/bin/sh\n")
    assert find_make({"PATH": f"/{'x' * 300}:{tmp_path}"}) == make
