"""What hosts note before they are changed, and which packages may go again."""

from __future__ import annotations

import base64
import importlib.util
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import ROOT

ROUNDS = 100
"""Of two that write at once. Without the lock two are enough, mostly."""


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program as a module, whose notes are in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("before", ROOT / "roles/fleet/files/before.py")
    assert spec and spec.loader
    environment = dict(os.environ)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ.clear()
    os.environ.update(environment)
    monkeypatch.setattr(module, "NOTED", str(tmp_path / "etc" / "before.json"))
    return module


def _apt(folder: Path, needs: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that removes with a package, or with A+B, what needs it; it logs what goes for good."""
    folder.mkdir()
    log = folder / "log"
    program = folder / "apt-get"
    program.write_text(
        f"#!/usr/bin/env python3\nimport sys\nneeds = {needs!r}\n"
        "names = [each for each in sys.argv[1:] if each[0] != '-' and each != 'purge' and '=' not in each]\n"
        "asked = [*names, '+'.join(sorted(names))]\n"
        "gone = {*names, *(each for name in asked for each in needs.get(name, ()))}\n"
        "if '--simulate' in sys.argv:\n    print(*(f'Purg {each} [1.0]' for each in gone), sep='\\n')\n"
        f"else:\n    open({str(log)!r}, 'w').write(' '.join(sorted(names)))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def test_what_came_with_a_package_manager_is_noted(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there, automatic = ["make"], ["cpp"]
    monkeypatch.setattr(before, "installed", lambda: sorted(there))
    monkeypatch.setattr(before, "said", lambda *argv: " ".join(automatic))
    before.packages({"names": ["gcc=4:12", "g++"]})
    there += ["gcc:amd64", "cpp", "postgresql"]  # the last one is somebody else's, at the same time
    before.came({"names": ["gcc=4:12", "g++"]})
    there += ["vim"]
    before.packages({"names": ["distcc"]})
    there += ["distcc"]
    before.came({"names": ["distcc"]})
    found = before.show()
    assert found["packages"] == ["cpp", "distcc", "gcc:amd64"]
    assert found["perhaps"] == []


@dataclass
class _Host:
    """A Debian that is made up: what is installed, what of it came along, and users of packages."""

    there: list[str]
    automatic: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)


@pytest.fixture
def host(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Host:
    """distcc makes a user in its own script, and another by sysusers.d."""
    host = _Host(["make"])
    sysusers = tmp_path / "usr/lib/sysusers.d/distcc.conf"
    sysusers.parent.mkdir(parents=True)
    sysusers.write_text('u distcc-log - "Its log" /\n')
    (tmp_path / "distcc.postinst").write_text("#!/bin/sh\nadduser --system distccd\n")

    def said(*argv: str) -> str:
        if argv[0] == "apt-mark":
            return "\n".join(host.automatic)
        return "\n".join(f"{name} ii " for name in host.there) if "-W" in argv else f"{sysusers}\n"

    monkeypatch.setattr(before, "said", said)
    monkeypatch.setattr(before, "SCRIPTS", str(tmp_path))
    monkeypatch.setattr(before.pwd, "getpwall", lambda: [_Entry(name, 105) for name in host.users])
    monkeypatch.setattr(before, "user", lambda name: {"uid": 105} if name in host.users else None)
    return host


@dataclass
class _Entry:
    pw_name: str
    pw_uid: int


def test_a_run_that_was_broken_off_counts_as_if_it_had_not_been(before: Any, host: _Host) -> None:
    """Whether site.yml has come by again or not, and had anything left to ask for or not."""
    before.packages({"names": ["gcc=4:12", "distcc", "clang"]})
    host.there += ["gcc", "cpp:amd64", "distcc", "postgresql"]
    host.automatic += ["cpp"]
    host.users += ["distccd", "distcc-log", "postgres"]

    def check(*more: str) -> None:
        found = before.show()
        assert found["packages"] == ["cpp:amd64", "distcc", "gcc", *more]
        assert found["package_users"] == ["distcc-log", "distccd"]
        assert found["perhaps"] == ["postgresql", "user postgres"]

    check()
    before.packages({"names": ["make=4.3"]})
    before.came({"names": ["make=4.3"]})
    check()
    before.packages({"names": ["nftables"]})
    host.there += ["nftables"]
    before.came({"names": ["nftables"]})
    check("nftables")


def test_what_came_after_a_run_that_was_broken_off_is_somebody_elses(before: Any, host: _Host) -> None:
    before.packages({"names": ["clang"]})
    host.there += ["gcc"]
    before.packages({"names": ["distcc"]})
    host.there += ["distcc"]
    before.came({"names": ["distcc"]})
    found = before.show()
    assert found["packages"] == ["distcc"]
    assert found["perhaps"] == ["gcc"]
    host.there.remove("gcc")
    assert before.show()["perhaps"] == []


def test_a_note_that_was_left_open_is_closed(before: Any, host: _Host) -> None:
    """By the next run; if that asks for something else, then by the next after an hour."""
    opened = {"packages_before", "users_before", "packages_open", "packages_broken"}
    before.packages({"names": ["gcc"]})
    before.packages({"names": ["gcc"]})
    host.there += ["gcc"]
    before.came({"names": ["gcc"]})
    assert not opened & before.read().keys()
    before.packages({"names": ["gone-from-the-inventory"]})
    noted = before.read()
    noted["packages_open"][0]["at"] -= before.LONGEST_INSTALL_S
    before.write(noted)
    before.packages({"names": ["distcc"]})
    before.came({"names": ["distcc"]})
    assert not opened & before.read().keys()


def test_two_runs_at_once_note_what_came_with_either(before: Any, host: _Host) -> None:
    before.packages({"names": ["gcc"]})
    before.packages({"names": ["clang"]})
    host.there += ["clang"]
    before.came({"names": ["clang"]})
    host.there += ["gcc"]
    before.came({"names": ["gcc"]})
    assert before.show()["packages"] == ["clang", "gcc"]
    assert "packages_before" not in before.read()


def test_notes_of_an_older_version_go_on(before: Any, host: _Host) -> None:
    """Here an open one, which has no names."""
    before.write({"packages": ["g++"], "packages_before": ["g++", "make"], "users_before": []})
    host.there += ["g++", "cpp", "gcc"]
    host.automatic += ["cpp"]
    assert before.show()["packages"] == ["cpp", "g++"]
    before.packages({"names": ["distcc"]})
    host.there += ["distcc"]
    before.came({"names": ["distcc"]})
    found = before.show()
    assert found["packages"] == ["cpp", "distcc", "g++"]
    assert found["perhaps"] == ["gcc"]


def test_what_is_unpacked_only_is_there(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "gcc ii \ncpp iU \nperl itR\nvim rc \nnano un \n"
    monkeypatch.setattr(before, "said", lambda *argv: lines)
    assert before.installed() == ["cpp", "gcc", "perl"]


def test_two_at_once_lose_nothing(before: Any, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    source = ROOT / "roles/fleet/files/before.py"
    program.write_text(
        "import runpy, sys\n"
        f"before = runpy.run_path({str(source)!r})\n"
        f"before['read'].__globals__['NOTED'] = {before.NOTED!r}\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"for number in range({ROUNDS}):\n"
        "    before['files']({'files': [f'/not/there/{sys.argv[1]}/{number}']})\n"
    )
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-ISE", str(program), who],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for who in "ab"
        ]
        for each in both:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in both:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        told = [each.communicate()[1] for each in both]
    assert told == ["", ""]
    wanted = {f"/not/there/{who}/{number}" for who in "ab" for number in range(ROUNDS)}
    assert before.show()["files"].keys() == wanted
    folder = Path(before.NOTED).parent
    assert sorted(path.name for path in folder.iterdir()) == ["before.json", "before.json.lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_what_one_that_was_killed_has_left_goes(before: Any) -> None:
    folder = Path(before.NOTED).parent
    folder.mkdir()
    (folder / "before.json.x1y2.new").touch()
    before.files({"files": ["/not/there"]})
    assert sorted(path.name for path in folder.iterdir()) == ["before.json", "before.json.lock"]


@pytest.mark.parametrize("text", [b"", b'{"files": {', b"[]", b"\xff"])
@pytest.mark.parametrize("verb", ["show", "came"])
def test_notes_that_are_broken_are_told_in_a_line(before: Any, text: bytes, verb: str) -> None:
    path = Path(before.NOTED)
    path.parent.mkdir()
    path.write_bytes(text)
    given: list[dict[str, Any]] = [{"names": []}] if verb == "came" else []
    with pytest.raises(SystemExit) as told:
        getattr(before, verb)(*given)
    assert re.fullmatch(rf"{re.escape(str(path))} cannot be read: .*move it away: .*", str(told.value.code))
    assert path.read_bytes() == text


@dataclass
class _Person:
    uid: int
    shell: str = "/bin/sh"
    comment: str = ""
    groups: Sequence[str] = ()


@pytest.fixture
def passwd(before: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, _Person]:
    """Users of the host, by name; each has a group of the same name and number."""
    people: dict[str, _Person] = {}

    def user(name: str) -> dict[str, Any] | None:
        return {**asdict(people[name]), "groups": list(people[name].groups)} if name in people else None

    monkeypatch.setattr(before, "user", user)
    monkeypatch.setattr(before, "gid", lambda name: people[name].uid if name in people else None)
    return people


def _wanted(name: str, uid: int, **more: Any) -> dict[str, Any]:
    given = {"shell": "", "comment": "", "groups": [], **more}
    return {"name": name, "uid": uid, "group": name, "gid": uid, **given}


def test_who_was_made_goes_and_who_was_there_is_as_before(before: Any, passwd: dict[str, _Person]) -> None:
    passwd["bob"] = _Person(2002, comment="Robert", groups=["audio"])
    ada = _wanted("ada", 2001, shell="/bin/bash")
    before.users({"users": [ada, _wanted("bob", 2002, comment="Bob", groups=["audio", "video"])]})
    passwd["ada"] = _Person(2001, "/bin/bash")
    passwd["bob"] = _Person(2002, comment="Bob", groups=["audio", "video"])
    before.users({"users": [_wanted("bob", 2002, comment="Bob", groups=["audio", "video", "games"])]})
    passwd["bob"].groups = ["audio", "video", "games"]
    found = before.show()
    assert found["gone"] == ["ada"]
    assert found["changed"] == [{"name": "bob", "shell": None, "comment": "Robert"}]
    assert found["added"] == [["bob", "games"], ["bob", "video"]]
    assert found["gone_groups"] == [{"name": "ada", "gid": 2001}]
    assert found["kept_groups"] == [{"name": "bob", "gid": 2002}]


def test_who_has_changed_since_is_left_alone(before: Any, passwd: dict[str, _Person]) -> None:
    passwd["bob"] = _Person(2002, comment="Robert")
    passwd["eve"] = _Person(2003)
    wanted = [
        _wanted("ada", 2001),
        _wanted("bob", 2002, comment="Bob", groups=["video"]),
        _wanted("eve", 2003, shell="/bin/bash"),
    ]
    before.users({"users": wanted})
    passwd["ada"] = _Person(1017)  # made by somebody else
    passwd["bob"] = _Person(2002, comment="Bobby")
    del passwd["eve"]
    found = before.show()
    assert not any(found[key] for key in ("gone", "changed", "added", "gone_groups"))


def test_who_was_there_and_is_made_again_was_made(before: Any, passwd: dict[str, _Person]) -> None:
    passwd["bob"] = _Person(2002)
    before.users({"users": [_wanted("bob", 2002)]})
    del passwd["bob"]
    before.users({"users": [_wanted("bob", 2002)]})
    passwd["bob"] = _Person(2002)
    assert before.show()["gone"] == ["bob"]


def test_who_has_another_number_by_now_was_there(before: Any, passwd: dict[str, _Person]) -> None:
    before.users({"users": [_wanted("ada", 2001)]})
    passwd["ada"] = _Person(2005)  # made by somebody else, and the inventory follows
    before.users({"users": [_wanted("ada", 2005, comment="Ada")]})
    passwd["ada"].comment = "Ada"
    found = before.show()
    assert found["gone"] == []
    assert found["changed"] == [{"name": "ada", "shell": None, "comment": ""}]


def test_how_a_real_user_is_seen(before: Any) -> None:
    assert before.user("root")["uid"] == 0
    assert before.user("nobody-like-this") is None
    assert before.gid("root") == 0


def test_a_file_is_noted_as_it_was_last_without_us(before: Any, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    before.files({"files": [str(path)]})
    assert before.show()["files"] == {str(path): None}
    path.write_bytes(b"own\xff")
    path.chmod(0o640)
    before.files({"files": [str(path)]})
    noted = before.show()["files"][str(path)]
    assert base64.b64decode(noted["content"]) == b"own\xff"
    assert noted["mode"] == "0640"
    assert stat.S_IMODE(os.stat(before.NOTED).st_mode) == 0o600
    path.unlink()  # since another file of ours took its place, and went
    before.files({"files": [str(path)]})
    assert before.show()["files"][str(path)] == noted


def test_the_first_look_counts(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ansible"
    monkeypatch.setattr(before, "FOLDERS", (str(folder),))
    before.first()
    folder.mkdir()
    before.first()
    assert before.show()["folders"] == {str(folder): False}


def test_a_host_without_notes_says_so(before: Any) -> None:
    found = before.show()
    assert not found["there"]
    assert not any(value for key, value in found.items() if key != "login")


def test_who_uses_a_host_is_seen(before: Any) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    with open("/proc/self/comm") as file:
        assert file.read().strip() in before.processes([me])[me]
    assert before.processes([]) == {}


def test_packages_go_but_for_what_others_need(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # g++ needs gcc, somebody's ccache needs gcc too; distcc stands alone.
    needs = {"gcc": ["g++", "ccache"], "cpp": ["gcc", "g++", "ccache"]}
    log = _apt(tmp_path / "bin", needs, monkeypatch)
    monkeypatch.setattr(before, "installed", lambda: ["ccache", "cpp", "distcc:amd64", "g++", "gcc", "vim"])
    before.write({"packages": ["cpp", "distcc:amd64", "g++", "gcc", "gone-already"]})
    wanted = {"removed": ["distcc:amd64", "g++"], "needed": {"gcc": ["ccache"], "cpp": ["ccache"]}}
    assert before.purge({"dry": True}) == wanted
    assert not log.exists()
    assert before.purge({"dry": False}) == wanted
    assert log.read_text() == "distcc:amd64 g++"


def test_packages_stay_of_which_somebody_needs_one(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _apt(tmp_path / "bin", {"clang+gcc": ["dkms"]}, monkeypatch)
    monkeypatch.setattr(before, "installed", lambda: ["clang", "dkms", "gcc"])
    before.write({"packages": ["clang", "gcc"]})
    assert before.purge({"dry": False}) == {"removed": [], "needed": {"clang": ["dkms"], "gcc": ["dkms"]}}
    assert not log.exists()


def test_packages_stay_whose_configuration_was_changed(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _apt(tmp_path / "bin", {}, monkeypatch)
    dpkg = tmp_path / "bin" / "dpkg"
    dpkg.write_text('#!/bin/sh\n[ "$2" != nftables ] || echo "??5?????? c /etc/nftables.conf"\n')
    dpkg.chmod(0o755)
    monkeypatch.setattr(before, "installed", lambda: ["gcc", "nftables"])
    before.write({"packages": ["gcc", "nftables"]})
    assert before.purge({"dry": False}) == {
        "removed": ["gcc"],
        "needed": {"nftables": ["/etc/nftables.conf"]},
    }
    assert log.read_text() == "gcc"


def test_packages_stay_that_somebody_has_asked_for_since(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # libstdc++-12-dev needs libc6-dev, g++ needs both; nobody but us wanted cpp.
    needs = {"libc6-dev": ["g++", "libstdc++-12-dev"], "libstdc++-12-dev": ["g++"]}
    log = _apt(tmp_path / "bin", needs, monkeypatch)
    along = ["cpp", "libc6-dev", "libstdc++-12-dev"]
    there, automatic = ["make"], list(along)
    apt_mark = tmp_path / "bin" / "apt-mark"

    def mark(*names: str) -> None:
        apt_mark.write_text(f"#!/bin/sh\nprintf '%s\\n' {' '.join(names)}\n")
        apt_mark.chmod(0o755)

    mark(*automatic)
    monkeypatch.setattr(before, "installed", lambda: sorted(there))
    before.packages({"names": ["g++"]})
    there += ["g++", *along]
    before.came({"names": ["g++"]})
    mark("cpp", "libc6-dev")
    assert before.purge({"dry": False}) == {
        "removed": ["cpp", "g++"],
        "needed": {"libc6-dev": ["libstdc++-12-dev"], "libstdc++-12-dev": [before.SOMEBODY]},
    }
    assert log.read_text() == "cpp g++"


def test_packages_go_that_we_have_asked_for_since(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inventory names a version of what had come along."""
    log = _apt(tmp_path / "bin", {}, monkeypatch)
    there, automatic = ["make"], ["cpp"]
    monkeypatch.setattr(before, "automatic", lambda names: set(names) & set(automatic))
    monkeypatch.setattr(before, "installed", lambda: sorted(there))
    before.packages({"names": ["gcc"]})
    there += ["gcc", "cpp"]
    before.came({"names": ["gcc"]})
    before.packages({"names": ["cpp=4:12"]})
    automatic.clear()
    before.came({"names": ["cpp=4:12"]})
    assert before.purge({"dry": False}) == {"removed": ["cpp", "gcc"], "needed": {}}
    assert log.read_text() == "cpp gcc"


def test_packages_go_at_once_where_nothing_needs_them(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _apt(tmp_path / "bin", {"cpp": ["gcc"]}, monkeypatch)
    monkeypatch.setattr(before, "installed", lambda: ["cpp", "gcc"])
    before.write({"packages": ["cpp", "gcc"]})
    assert before.purge({"dry": False}) == {"removed": ["cpp", "gcc"], "needed": {}}
    assert log.read_text() == "cpp gcc"


def test_a_refusal_of_apt_is_told(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _apt(tmp_path / "bin", {}, monkeypatch)
    program = tmp_path / "bin" / "apt-get"
    refusal = "case $* in *--simulate*) exit 0;; esac; echo E: locked >&2; exit 100"
    program.write_text(f"#!/bin/sh\n{refusal}\n")
    monkeypatch.setattr(before, "installed", lambda: ["gcc"])
    before.write({"packages": ["gcc"]})
    with pytest.raises(SystemExit, match="E: locked"):
        before.purge({"dry": False})
