"""Imports point one way, and each foreign package is known in one place."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
from pathlib import Path

import pytest

import d1fleet
from d1fleet.checkin import pack

ROOT = Path(d1fleet.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "shim" / "standin.py")

ON_HOSTS = {
    "changes",
    "entries",
    "errors",
    "folders",
    "interpose",
    "locks",
    "loop",
    "makeargs",
    "makeflags",
    "maketokens",
    "model",
    "protocol",
    "shims",
    "sight",
    "sighting",
    "treewatch",
    "shimstreams",
    "slotpool",
    "slots",
    "stopwatch",
    "stream",
    "streams",
    "tokens",
}
"""What the server may use of the rest; transport/launcher.py ships exactly these."""

APART = {"", "shim", "transport.bootstrap"}
"""The package itself, and what runs elsewhere."""

PURE = [
    "protocol",
    "placement",
    "machines",
    "ranking",
    "waiting",
    "estimates",
    "foresight",
    "history",
    "traces",
    "simulator",
    "tokens",
    "makeflags",
    "makeargs",
    "rules",
    "environment",
    "retry",
    "changes",
    "entries",
    "server.lease",
    "transport.launcher",
    "sshargs",
    "hostsfile",
    "distccssh",
    "checkin.answer",
    "checkin.pace",
    "checkin.places",
    "checkin.projects",
    "checkin.strictjson",
    "checkin.values",
    "checkin.view",
    "distcclog",
    "distcclint",
    "chaos_faults",
]
IO_MODULES = {
    "asyncio", "ctypes", "fcntl", "multiprocessing", "resource", "select", "selectors", "shutil", "signal",
    "socket", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip

LAYERS = [
    "changes errors model makeargs locks tokens server.lease words inherited sshargs retry hostsfile",
    "distcclog distcclint distccssh registryplace registrytls registryclient registryfile collection",
    "protocol makeflags loop folders rules hostspec hostvars estimates machines waiting history traces",
    "ranking foresight placement simulator entries",
    "slots slotpool stream streams environment jobserver tree runtime interpose record policy fleet trust",
    "treewatch",
    "targets journal treeclock sighting",
    "sight",
    "shims shimstreams maketokens history_file experience program records unseen why stopwatch scrub",
    "distcc quarantine",
    "distccrun",
    "inventory_cache inventory setting_values settings",
    "transport transport.base transport.launcher transport.pack transport.pipes transport.local",
    "transport.keyfile transport.sshneeds transport.sshconfig transport.sshterms helper",
    "transport.openssherrors watch aftermath fence",
    "transport.ssherrors transport.sshkeys transport.sshchannel transport.ssh transport.openssh",
    "hostlink toolchains",
    "proofs member connect visibility",
    "hosts askers job",
    "tokendesk topmake outcomes",
    "coordinator",
    "front summary build drain findings doctor_facts",
    "doctor_talks chaos_tree chaos_faults",
    "doctor_case",
    "doctor_trees doctor_enrolment doctor_checks doctor_canaries",
    "doctor_distcc",
    "doctor doctor_report chaos",
    "chaos_report",
    "checkin.*",
    "registry.* membership",
    "cli.*",
]
"""From the bottom to the top: a module imports from its own layer and those before it. `x.*` is all of x."""

OF_THE_REGISTRY = {
    "alembic", "anyio", "argon2", "click", "fastapi", "itsdangerous", "jinja2", "limits", "prometheus_client",
    "psycopg", "pydantic", "sqlalchemy", "starlette", "uvicorn", "uvloop", "cryptography",
    "typing_extensions", "yaml",
}  # fmt: skip
"""What the extra d1fleet[registry] brings; nothing else imports any of it."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _for_types_only(tree: ast.Module) -> set[ast.AST]:
    """What stands below `if TYPE_CHECKING`."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for each in node.body:
                found.update(ast.walk(each))
    return found


def _imports(path: Path) -> set[str]:
    """Absolute names of what a module imports; ours have a dot in place of the package's name."""
    tree = ast.parse(path.read_text())
    package = list(path.relative_to(ROOT).parent.parts)
    skipped = _for_types_only(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = above + (node.module.split(".") if node.module else [])
            elif node.module and node.module.split(".")[0] == "d1fleet":
                base = node.module.split(".")[1:]
            else:
                found.add(node.module or "")
                continue
            for alias in node.names:
                folder = ROOT.joinpath(*base, alias.name)
                is_module = folder.with_suffix(".py").exists() or (folder / "__init__.py").exists()
                found.add("." + ".".join([*base, alias.name] if is_module else base))
    return {name for name in found if name != "__future__"}


IMPORTS = {_name(path): _imports(path) for path in FILES}


def _ours(name: str) -> set[str]:
    return {found[1:] for found in IMPORTS[name] if found.startswith(".") and found != "."}


def _foreign(name: str) -> set[str]:
    tops = {found.split(".")[0] for found in IMPORTS[name] if not found.startswith(".")}
    return tops - set(sys.stdlib_module_names)


def _top(module: str | None) -> str:
    return (module or "").split(".")[0]


def test_the_reader_of_imports_reads() -> None:
    assert "protocol" in _ours("server.main")
    assert "server.attempt" in _ours("server.main")
    assert "errors" in _ours("interpose")  # an absolute import
    assert "placement" not in _ours("hostlink")  # for types only
    assert _foreign("transport.ssh") == {"paramiko"}


def test_foreign_packages_have_one_place_each() -> None:
    found = {name: _foreign(name) for name in IMPORTS if _foreign(name)}
    allowed = {
        **{f"transport.ssh{part}": {"paramiko"} for part in ("", "channel", "errors", "keys")},
        "inventory": {"ansible_runner", "yaml"},
        "settings": {"yaml"},
        "registryfile": {"yaml"},
    }
    for name, packages in found.items():
        if name.startswith("cli"):
            assert packages <= {"click", "rich"}, name
        elif name.startswith("registry."):
            assert packages <= OF_THE_REGISTRY | {"psutil"}, name
        elif name == "summary":
            assert packages <= {"rich"}, name
        else:
            assert packages <= allowed.get(name, set()) | {"psutil"}, name
    assert not {name for name in found if name.startswith("server")}


def test_no_other_file_so_much_as_names_them() -> None:
    """An import inside a function counts too."""
    for package, places in (("paramiko", "transport/ssh*.py"), ("ansible_runner", "inventory.py")):
        users = {
            str(path.relative_to(ROOT))
            for path in FILES
            for node in ast.walk(ast.parse(path.read_text()))
            if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == package for a in node.names))
            or (isinstance(node, ast.ImportFrom) and not node.level and _top(node.module) == package)
        }
        assert users and all(fnmatch.fnmatch(user, places) for user in users), package


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_no_input_or_output(name: str) -> None:
    """os is allowed for its functions on paths and names."""
    tops = {found.split(".")[0] for found in IMPORTS[name]}
    assert not tops & IO_MODULES
    calls = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert calls <= {"os.fsdecode", "os.fsencode", "os.path"}
    pure = set(PURE) | {"errors", "model"}
    assert _ours(name) <= pure


def test_the_server_imports_only_what_is_shipped() -> None:
    servers = {name for name in IMPORTS if name == "server" or name.startswith("server.")}
    assert len(servers) > 8
    for name in servers | ON_HOSTS:
        assert _ours(name) <= servers | ON_HOSTS, name
        assert not _foreign(name), name
    for name in ON_HOSTS:
        assert not _ours(name) & servers, name


def test_imports_point_one_way() -> None:
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer.split()}

    def of(name: str) -> int:
        return height[name] if name in height else height[f"{name.split('.')[0]}.*"]

    for name in IMPORTS:
        if name in APART or name.startswith("server"):
            continue
        for used in _ours(name):
            if not used.startswith("server."):
                assert of(used) <= of(name), f"{name} imports {used}"


def test_what_the_coordinators_side_uses_of_the_server() -> None:
    """Process control and a machine's identity are Linux's, not the server's; toolchains are compared here
    and described there. The check-in is on hosts, too.
    """
    for name in IMPORTS:
        if name.split(".")[0] in ("server", "checkin") or name == "transport.bootstrap":
            continue
        used = {used for used in _ours(name) if used.startswith("server")}
        assert used <= {"server.process", "server.toolchain", "server.facts"}, name


def test_the_check_in_imports_only_what_is_shipped() -> None:
    shipped = {name.replace("/", ".").removesuffix(".__init__") for name in pack.MODULES}
    checkin = {name for name in IMPORTS if name.split(".")[0] == "checkin"} - {"checkin.pack"}
    assert len(checkin) > 20
    for name in checkin | shipped - {"__init__"}:
        assert _ours(name) <= checkin | shipped | {""}, name
        assert not _foreign(name), name
    for name in shipped - {"__init__"}:
        assert not _ours(name) & checkin, name


def test_the_root_helper_has_nothing_to_do_with_networks() -> None:
    seen: set[str] = set()
    waiting = ["checkin.apply"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _ours(name) & IMPORTS.keys()
    found = {each.split(".")[0] for name in seen for each in IMPORTS[name] if not each.startswith(".")}
    assert "checkin.render" in seen
    assert not found & {"http", "ssl", "asyncio", "threading"}


def test_nothing_imports_the_command_line_or_the_registry() -> None:
    """But the command line, when somebody wants the registry."""
    for name in IMPORTS:
        if not name.startswith("cli"):
            assert not {used for used in _ours(name) if used.split(".")[0] == "cli"}, name
        if name.split(".")[0] not in ("registry", "cli"):
            assert not {used for used in _ours(name) if used.split(".")[0] == "registry"}, name
    for path in ROOT.joinpath("cli").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert not re.match(r"(d1fleet\.)?registry(\.|$)", node.module or ""), path
                names = {alias.name for alias in node.names}
                assert not (node.level == 2 and not node.module and "registry" in names), path


def test_no_import_goes_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for used in sorted(_ours(name) & IMPORTS.keys()):
                if used != name:
                    visit(used, [*above, name])
            done.add(name)

    for name in IMPORTS:
        visit(name, [])
