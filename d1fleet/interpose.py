"""How a build's sub-makes come to us: the shim put in place, and the environment in which make meets it.

No makefile is rewritten: the top make runs as `make` with a folder of shims first in PATH, so that `$(MAKE)`
and a literal `make` in a recipe find the shim, and echoed commands read as they always do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pkgutil
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from d1fleet import makeflags
from d1fleet.errors import RuntimeFolderError, ToolError

# By this file every shim, and find_make, knows a folder of shims of any build or version (see shim.c).
MARKER = ".d1fleet-shim"
OLDEST_MAKE = (4, 2)  # the first with --jobserver-auth
COMPILERS = ("cc", "gcc", "clang")
# Before PATH, where a masquerade of ccache or distcc may stand.
SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin")
RUN_TIMEOUT_S = 60.0  # a guess, for a compiler or a make on a slow file server; both take 0.2 s at most
LONGEST_INTERPRETER = 120  # Linux before 5.1 cuts a #! line at 127 bytes


def _source(name: str) -> bytes:
    """A file of the folder `shim`; it may lie in an archive."""
    return pkgutil.get_data("d1fleet", f"shim/{name}") or b""


def install_shim(cache_dir: Path, target_dir: Path) -> Path:
    """Places the shim as `make` and `gmake` in the folder `target_dir` (made if need be), and returns that.

    The C shim is compiled once into `cache_dir`, a folder of this user alone. Where that cannot be done the
    Python stand-in takes its place; D1FLEET_SHIM_KIND=c or =python in our environment, meant for tests,
    demands one of them.

    Raises:
        RuntimeFolderError: a folder is another user's, others may write to it, or we cannot.
        ToolError: D1FLEET_SHIM_KIND=c and there is no C compiler that works, or what was placed cannot be
            executed.
    """
    kind = os.environ.get("D1FLEET_SHIM_KIND", "")
    # The user's soft limit (ulimit -Sf) is for the build, not for our program.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        for folder in (cache_dir, target_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(folder)
        shim = None if kind == "python" else _compiled(cache_dir)
        if shim is None:
            if kind == "c":
                raise ToolError(
                    "the shim cannot be compiled here", mend="install gcc, or unset D1FLEET_SHIM_KIND"
                )
            shim = _stand_in(cache_dir)
        (target_dir / MARKER).touch()
        _place(shim, target_dir / "make")
        _place(target_dir / "make", target_dir / "gmake")
    except OSError as exc:
        raise RuntimeFolderError(
            f"cannot place the shim in {target_dir}: {exc}",
            mend="free some space there, or set XDG_CACHE_HOME",
        ) from exc
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if not os.access(target_dir / "make", os.X_OK):
        raise ToolError(
            f"nothing can be executed in {target_dir}", mend="name a folder on a file system without noexec"
        )
    return target_dir


def build_id() -> str:
    """A name for the folder of shims that is the same as long as they are.

    It outlives builds: what is configured in one may write down where it found `make` (CMake does), and
    outside of a build the shim is the real make.
    """
    sources = [_source(name) for name in ("shim.c", "standin.py")]
    kind = os.environ.get("D1FLEET_SHIM_KIND", "")
    return "bin-" + _key(*sources, _machine().encode(), kind.encode())[:16]


def make_environment(
    environ: Mapping[str, str], *, socket: str | Path, real_make: str | Path, shim_dir: str | Path
) -> dict[str, str]:
    """The environment of the top make, which then meets the shim at every sub-make.

    MAKE is taken out, as it would be what `$(MAKE)` means; whether to tell the user is the caller's business.
    Must be called in the mount namespace and as the user that the build will have.

    Raises:
        RuntimeFolderError: `shim_dir` has a colon in its name, so that it cannot stand in PATH.
    """
    if ":" in str(shim_dir):
        raise RuntimeFolderError(f"{shim_dir} cannot stand in PATH", mend="name a folder without a colon")
    env = {name: value for name, value in environ.items() if name != "MAKE"}
    env["PATH"] = f"{shim_dir}:{environ.get('PATH', os.defpath)}"
    env["D1FLEET_SOCKET"] = str(socket)
    env["D1FLEET_MAKE"] = str(real_make)
    env["D1FLEET_SHIM"] = str(shim_dir)
    env["D1FLEET_ORIGIN"] = origin()
    return env


def program_environment(
    environ: Mapping[str, str],
    *,
    jobs: int | None,
    socket: str | Path,
    real_make: str | Path,
    shim_dir: str | Path,
) -> dict[str, str]:
    """The environment of any program whose makes shall meet the shim below them.

    The makes that it starts are top makes, wherever it finds them. One that it calls by an absolute path
    would have that path as `$(MAKE)`, and its sub-makes would pass the shim by: so MAKE says `make`.

    Args:
        jobs: N of -jN for each of its makes; 0 is -j without a number, None leaves MAKEFLAGS as they are.

    Raises:
        RuntimeFolderError: as make_environment.
    """
    env = make_environment(environ, socket=socket, real_make=real_make, shim_dir=shim_dir)
    env["MAKE"] = "make"
    env["D1FLEET_LEVEL"] = environ.get("MAKELEVEL") or "0"
    if jobs is not None:
        env["MAKEFLAGS"] = os.fsdecode(makeflags.with_jobs(os.fsencode(env.get("MAKEFLAGS", "")), jobs))
    return env


def origin() -> str:
    """Where this process lives, as "uid:dev:ino:mnt": a shim elsewhere does not ask the coordinator."""
    root, mnt = os.stat("/"), os.stat("/proc/self/ns/mnt")
    return f"{os.geteuid()}:{root.st_dev}:{root.st_ino}:{mnt.st_ino}"


def find_make(environ: Mapping[str, str]) -> Path:
    """The first `make` in PATH that is no shim of ours, as an absolute path.

    Raises:
        ToolError: there is none.
    """
    for folder in environ.get("PATH", os.defpath).split(":"):
        candidate = Path(folder or ".").absolute() / "make"
        if not os.path.exists(candidate.with_name(MARKER)) and _is_program(candidate):
            return candidate
    raise ToolError("there is no make in PATH", mend="install GNU make 4.2 or newer (apt-get install make)")


def check_make(path: Path) -> tuple[int, int]:
    """The version of the GNU make at `path`.

    Raises:
        ToolError: it is no GNU make, is older than 4.2, or does not run.
    """
    mend = "put GNU make 4.2 or newer first in PATH"
    try:
        ran = _run([str(path), "--version"], PATH=os.defpath)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ToolError(f"{path} --version cannot be run: {exc}", mend=mend) from exc
    found = re.match(rb"GNU Make (\d+)\.(\d+)", ran.stdout)
    if found is None or ran.returncode != 0:
        raise ToolError(f"{path} is not GNU make", mend=mend)
    version = (int(found[1]), int(found[2]))
    if version < OLDEST_MAKE:
        raise ToolError(f"{path} is GNU make {version[0]}.{version[1]}, which is too old", mend=mend)
    return version


def _check_private(folder: Path) -> None:
    """Whoever can write here can run commands as this user."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise RuntimeFolderError(f"{folder} belongs to another user", mend="name a folder of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RuntimeFolderError(f"others may write to {folder}", mend=f"chmod go-w {folder}")


def _is_program(path: Path) -> bool:
    # Not path.is_file(): that one raises where a folder of PATH may not be looked into.
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _machine() -> str:
    """A home directory may be shared by machines that cannot run each other's programs."""
    return f"{platform.machine()} {sys.maxsize.bit_length()} {' '.join(platform.libc_ver())}"


def _compiled(cache_dir: Path) -> Path | None:
    """The C shim out of the cache, compiled if it is not there; None when that fails."""
    source = _source("shim.c")
    program = cache_dir / f"shim-{_key(source, _machine().encode())}"
    if _is_program(program):
        return program
    compiler = next(_compilers(), None)
    if compiler is None:
        return None
    with _new_file(program) as output:
        # Static saves the loader's time at every sub-make; not every machine has a static libc.
        for static in (["-static"], []):
            command = [str(compiler), "-std=c11", "-O2", *static, "-o", str(output), "-xc", "-"]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                ran = _run(command, source, PATH=f"{compiler.parent}:{os.defpath}")
                if ran.returncode == 0 and _answers(output):
                    return output.rename(program)
    return None


def _compilers() -> Iterator[Path]:
    folders = [*SYSTEM_FOLDERS, *(f for f in os.environ.get("PATH", "").split(":") if f.startswith("/"))]
    return (path for folder in folders for name in COMPILERS if _is_program(path := Path(folder, name)))


def _run(command: list[str], given: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        env={"LC_ALL": "C", **env},
        input=given,
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


def _answers(shim: Path) -> bool:
    """It runs on this machine: outside a build and without a make in PATH it says so."""
    return b"d1fleet: no " in _run([str(shim)], PATH=str(shim.parent)).stderr


def _stand_in(cache_dir: Path) -> Path:
    # Not sys.executable itself: a wrapper of pyenv would cost more than the whole shim.
    python = os.path.realpath(sys.executable)
    if len(python) > LONGEST_INTERPRETER or re.search(r"\s", python):
        raise ToolError(
            f"{python} cannot stand in a #! line", mend="install a C compiler, for a shim without Python"
        )
    text = _source("standin.py").partition(b"\n")[2]
    text = b"#!" + os.fsencode(python) + b" -ISE\n" + text
    program = cache_dir / f"standin-{_key(text)}"
    if not _is_program(program):
        with _new_file(program) as output:
            output.write_bytes(text)
            output.chmod(0o700)
            output.rename(program)
    return program


@contextlib.contextmanager
def _new_file(final: Path) -> Iterator[Path]:
    """A name near `final` for a file to be renamed to it when it is whole; what stays there is removed."""
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    try:
        yield folder / final.name
    finally:
        shutil.rmtree(folder)


def _place(program: Path, target: Path) -> None:
    """A hard link if both are on one file system; a make that runs there keeps its old file."""
    if target.exists() and target.samefile(program):
        return
    with _new_file(target) as new:
        try:
            os.link(program, new)
        except OSError:
            shutil.copy2(program, new)
        new.replace(target)
