"""The server as it is shipped: alone, on the standard library, in the oldest Python that hosts may have."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.protocol import Decoder
from d1fleet.transport import launcher

TIMEOUT_S = 60.0

# Names that came with 3.10 or later, where they would be used at run time.
_NEWER_CALLS = {"zip": "strict", "dataclass": "slots", "bisect": "key"}
_NEWER_NAMES = {
    "os.eventfd", "os.EFD_CLOEXEC", "os.EFD_NONBLOCK", "os.splice", "os.unshare", "os.setns",
    "asyncio.run", "socket.SO_INCOMING_CPU", "itertools.pairwise", "itertools.batched", "contextlib.chdir",
    "fcntl.F_GETPIPE_SZ", "fcntl.F_SETPIPE_SZ", "sys.orig_argv", "sys.stdlib_module_names",
}  # fmt: skip
_GUARDED = {"os.eventfd", "os.EFD_CLOEXEC", "os.EFD_NONBLOCK"}
"""loop.py asks for them by hasattr."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    with zipfile.ZipFile(io.BytesIO(launcher.server_archive())) as archive:
        archive.extractall(folder)
    return folder


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _modules(folder: Path) -> list[str]:
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for path in _sources(folder)]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def _pythons() -> list[str]:
    """This Python, and the oldest that is needed on a host where there is one."""
    found = [sys.executable]
    oldest = "python" + ".".join(map(str, launcher.OLDEST_PYTHON))
    candidates = [shutil.which(oldest), os.environ.get("D1FLEET_TEST_OLDEST_PYTHON")]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            found.append(candidate)
            break
    return found


def test_the_archive_holds_the_server(shipped: Path) -> None:
    assert (shipped / "d1fleet/server/__main__.py").is_file()
    assert {path.name for path in (shipped / "d1fleet").iterdir()} >= {"server", "protocol.py", "loop.py"}


def test_the_archive_is_the_same_each_time() -> None:
    make = launcher.server_archive.__wrapped__
    assert make() == make()


def test_syntax_is_that_of_the_oldest_python(shipped: Path) -> None:
    for path in _sources(shipped):
        ast.parse(path.read_text(), filename=str(path), feature_version=launcher.OLDEST_PYTHON)


def test_annotations_are_not_evaluated(shipped: Path) -> None:
    """`int | None` is no error in 3.9 as long as nobody evaluates it."""
    for path in _sources(shipped):
        if path.name == "standin.py":
            continue  # it cannot afford an import; the next test runs it
        tree = ast.parse(path.read_text())
        uses = any(isinstance(node, (ast.AnnAssign, ast.FunctionDef)) for node in ast.walk(tree))
        futures = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for alias in node.names
        }
        assert not uses or "annotations" in futures, path


def test_nothing_newer_is_called(shipped: Path) -> None:
    for path in _sources(shipped):
        tree = ast.parse(path.read_text())
        annotations: set[ast.AST] = set()
        for node in ast.walk(tree):
            parts: list[ast.AST | None] = []
            if isinstance(node, (ast.AnnAssign, ast.arg)):
                parts.append(node.annotation)
            elif isinstance(node, ast.FunctionDef):
                parts.append(node.returns)
            for part in parts:
                annotations.update(ast.walk(part) if part is not None else ())
        for node in ast.walk(tree):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                newer = _NEWER_CALLS.get(node.func.id)
                assert newer not in [keyword.arg for keyword in node.keywords] or newer is None, where
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                assert name not in _NEWER_NAMES - _GUARDED, where
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and node not in annotations:
                sides = (node.left, node.right)
                words = {side.id for side in sides if isinstance(side, ast.Name)}
                assert not words & {"int", "str", "bytes", "list", "dict"}, where
                assert not any(isinstance(side, ast.Constant) and side.value is None for side in sides), where


_BLOCKED = """
import sys
allowed = set(sys.argv[2].split(","))
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ImportError(name + " is not in the standard library")
        return None
sys.meta_path.insert(0, Guard())
sys.path.insert(0, sys.argv[1])
try:
    import psutil
except ImportError:
    pass
else:
    sys.exit("the guard does not work")
import importlib
for module in sys.argv[3].split(","):
    assert importlib.import_module(module).__file__.startswith(sys.argv[1]), module
print("imported")
"""


@pytest.mark.parametrize("python", _pythons())
def test_every_module_imports_with_all_but_the_standard_library_blocked(shipped: Path, python: str) -> None:
    names = set(sys.stdlib_module_names) | {"d1fleet"}
    modules = _modules(shipped)
    assert "d1fleet.server.main" in modules
    done = subprocess.run(
        [python, "-ISE", "-c", _BLOCKED, str(shipped), ",".join(sorted(names)), ",".join(modules)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd="/",
    )
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


@pytest.mark.parametrize("python", _pythons())
def test_the_shipped_server_serves(shipped: Path, python: str, tmp_path: Path) -> None:
    """Started as the bootstrap does, it says hello, beats, and goes at Bye."""
    start = (
        f"import sys; sys.path.insert(0, {str(shipped)!r}); "
        "from d1fleet.server.main import main; sys.exit(main())"
    )
    environ = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    tmp_path.chmod(0o700)
    welcome = protocol.Welcome(uid=os.geteuid(), environment=b"PATH=/usr/bin:/bin\0")
    words = protocol.encode(welcome) + protocol.encode(protocol.Bye(kill=True))
    command = [python, "-ISE", "-c", start]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, cwd="/", env=environ) as server:  # type: ignore[call-overload]
        server.stdin.write(words)
        server.stdin.flush()
        answer = server.stdout.read()
        server.stdin.close()
        assert server.stderr.read() == b""
        assert server.wait(TIMEOUT_S) == 0
    found = list(Decoder("server").feed(answer))
    assert isinstance(found[0], protocol.Hello)
    assert found[0].python.startswith("3.")
    assert [type(message).__name__ for message in found[1:]] == ["Beat", "Alone", "Gone"]
