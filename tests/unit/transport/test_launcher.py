"""How the server gets onto a host: through each login shell, and into homes of all kinds.

sshd runs `SHELL -c COMMAND` with pipes or sockets; so do these tests, without sshd.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.errors import ServerStartError
from d1fleet.hostlink import START_LIMIT_S
from d1fleet.hostsfile import SERVE, SERVE_ARGUMENTS
from d1fleet.transport import launcher, pack

PYTHON = os.path.realpath(sys.executable)

SHELLS = {"sh": "dash", "bash": "bash", "csh": "csh", "tcsh": "tcsh", "fish": "fish"}
"""Login shells, and Debian's packages of them."""

TIMEOUT_S = 60.0

_START_UP = {"bash": "noise", "csh": ".cshrc", "tcsh": ".tcshrc", "fish": ".config/fish/config.fish"}
"""What a shell reads before it runs our command; bash would read .bashrc under sshd, and BASH_ENV here."""


@pytest.fixture(scope="session", params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """The path of a login shell; installed by apt where that is allowed."""
    name: str = request.param
    if not shutil.which(name):
        if os.environ.get("D1FLEET_TEST_INSTALL") != "1" or os.geteuid() != 0 or not shutil.which("apt-get"):
            pytest.skip(f"no {name} here (package {SHELLS[name]})")
        argv = ["apt-get", "-q", "install", "-y", "--no-install-recommends", SHELLS[name]]
        subprocess.run(argv, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} could not be installed (package {SHELLS[name]})")
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that another user can reach too."""
    path = Path(tempfile.mkdtemp(prefix="d1fleet-home-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


class Start:
    """A server that is being started, as a coordinator does it."""

    def __init__(
        self, argv: Sequence[str], home: Path, env: Mapping[str, str] | None = None, user: int | None = None
    ) -> None:
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})}
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            start_new_session=True,
        )
        self.launch = launcher.Launch()
        self.sent = 0

    def talk(self) -> None:
        """Until the server is there.

        Raises:
            ServerStartError: it does not come.
        """
        assert self.process.stdin and self.process.stdout
        while not self.launch.ready:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise self.launch.failure(self._diagnosis())
            reply = self.launch.feed(data)
            self.sent += len(reply)
            self.process.stdin.write(reply)
            self.process.stdin.flush()

    def _diagnosis(self) -> str:
        assert self.process.stderr
        status = self.process.wait(TIMEOUT_S)
        return f"exit status {status}; {self.process.stderr.read().decode('utf-8', 'replace')}"

    def hello(self, uid: int | None = None) -> protocol.Hello:
        """The server's first words: it runs."""
        assert self.process.stdin and self.process.stdout
        welcome = protocol.Welcome(build="test", uid=os.geteuid() if uid is None else uid, slots=1)
        self.process.stdin.write(protocol.encode(welcome))
        self.process.stdin.flush()
        decoder, data = protocol.Decoder("server"), self.launch.rest
        while True:
            for message in decoder.feed(data):
                assert isinstance(message, protocol.Hello), message
                return message
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self._diagnosis()

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout and self.process.stderr
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None  # communicate() would flush it
        try:
            self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


@contextlib.contextmanager
def ended(one: Start) -> Iterator[Start]:
    """Ends it, whatever happens."""
    try:
        yield one
    finally:
        one.end()


@contextlib.contextmanager
def start(
    shell: str,
    home: Path,
    python: str | None = PYTHON,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    before: Sequence[str] = (),
) -> Iterator[Start]:
    with ended(Start([*before, shell, "-c", launcher.start_command(python)], home, env, user)) as one:
        yield one


def cache(home: Path) -> Path:
    return home / ".cache" / "d1fleet" / "server"


# Login shells.


def test_each_login_shell_starts_the_server(shell: str, home: Path) -> None:
    with start(shell, home) as one:
        one.talk()
        assert one.hello().uid == os.geteuid()


@pytest.mark.parametrize("shell", _START_UP, indirect=True)  # sh -c reads no start-up file
def test_noise_of_a_login_is_passed_over(shell: str, home: Path) -> None:
    noise = home / _START_UP[Path(shell).name]
    noise.parent.mkdir(parents=True, exist_ok=True)
    words = home / "words"
    words.write_bytes(b"Welcome!\nD1FLEET-\n\xff\0\n" + b"news " * 20_000 + b"\nno end of line")
    noise.write_text(f"/bin/cat {words}\n")
    with start(shell, home, env={"BASH_ENV": str(home / "noise")}) as one:
        one.talk()
        one.hello()


def test_a_host_without_python_is_named_so(shell: str, home: Path) -> None:
    with (
        pytest.raises(ServerStartError, match="no python3 on the host") as caught,
        start(shell, home, None, {"PATH": "/no/such/folder"}) as one,
    ):
        one.talk()
    assert "install python3" in caught.value.mend


def test_the_command_is_one_plain_line() -> None:
    """Nothing in it that a shell reads in its own way, or that depends on a locale."""
    command = launcher.start_command(None)
    begin, quoted, end = command.split("'")
    assert begin == "exec python3 -ISE -c " and end == ""
    assert not set("!\\`\n'") & set(quoted)
    assert command.isascii() and launcher._stage_2().isascii()
    assert launcher._stage_2().count(b"\n") == 1


@pytest.mark.parametrize("python", ["/opt/my python/bin/python3", "python3;id", "~/py", "$PY"])
def test_an_interpreter_that_a_shell_would_misread_is_refused(python: str) -> None:
    with pytest.raises(ServerStartError):
        launcher.start_command(python)


# Interpreters.


def fake(home: Path, *words: str) -> str:
    """An interpreter that says `words`, a line each, and then reads its stdin to the end."""
    path = home / "python"
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.join(words)}\nexec cat >/dev/null\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version", ["2.7", "3.8"])
def test_a_python_that_is_too_old_is_named_so(home: Path, version: str) -> None:
    with start("/bin/sh", home, fake(home, f"D1FLEET-SERVER {version}")) as one:
        with pytest.raises(ServerStartError, match=f"its Python is {version}, at least 3.9") as caught:
            one.talk()
        assert "ansible_python_interpreter" in caught.value.mend


@pytest.mark.parametrize("words", [["D1FLEET-SERVER three"], ["D1FLEET-SERVER 3.11", "what?"]])
def test_an_answer_that_is_none_is_quoted(home: Path, words: list[str]) -> None:
    with start("/bin/sh", home, fake(home, *words)) as one, pytest.raises(ServerStartError, match="answered"):
        one.talk()


def test_a_login_that_prints_without_end_is_given_up() -> None:
    launch = launcher.Launch()
    with pytest.raises(ServerStartError, match="without end"):
        for _ in range(1 << 10):
            launch.feed(b"spam and eggs\n" * 100)


def test_a_login_that_refuses_is_quoted(home: Path) -> None:
    (home / "refuse").write_text("echo This account is not available; exit 1\n")
    env = {"BASH_ENV": str(home / "refuse")}
    with (
        start("/bin/bash", home, env=env) as one,
        pytest.raises(ServerStartError, match="This account is not available"),
    ):
        one.talk()


# Homes.


def test_the_server_is_sent_once(home: Path) -> None:
    sent = []
    for _ in range(2):
        with start("/bin/sh", home) as one:
            one.talk()
            one.hello()
            sent.append(one.sent)
    archive = len(launcher.server_archive())
    assert sent[0] > archive > sent[1]
    assert [path.name for path in cache(home).iterdir()] == [launcher.server_hash()]
    assert (cache(home) / launcher.server_hash()).stat().st_mode & 0o077 == 0


def runs_from_memory(one: Start, home: Path, uid: int | None = None) -> None:
    one.talk()
    assert one.sent > len(launcher.server_archive())
    server = one.hello(uid)
    targets = []
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            targets.append(os.readlink(entry))
    assert any("d1fleet-server" in target for target in targets)
    assert not any(path.name.startswith(".new-") for path in home.rglob("*"))


def test_a_home_that_cannot_be_written(home: Path) -> None:
    nobody = 65534 if os.geteuid() == 0 else None
    home.chmod(0o555)
    folders = Path(os.path.realpath(PYTHON)).parents
    if nobody is not None and not all(folder.stat().st_mode & 0o001 for folder in folders):
        pytest.skip("the interpreter is root's alone")
    with start("/bin/sh", home, user=nobody) as one:
        runs_from_memory(one, home, nobody)


def test_a_home_that_does_not_exist(home: Path) -> None:
    """It is not made, either: that is an administrator's decision."""
    with start("/bin/sh", home / "absent") as one:
        runs_from_memory(one, home)
    assert not (home / "absent").exists()


def mounted(home: Path, options: str) -> list[str]:
    """argv that runs a command with a file system of its own on `home`, which nobody else sees."""
    script = f'mount -t tmpfs -o {options} tmpfs {shlex.quote(str(home))} && exec "$@"'
    argv = ["unshare", "--mount", "--", "/bin/sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*argv, "true"], capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here (needs root)")
    return argv


def test_a_full_home(home: Path) -> None:
    with start("/bin/sh", home, before=mounted(home, "size=64k")) as one:
        runs_from_memory(one, home)


def test_a_home_where_nothing_may_be_executed(home: Path) -> None:
    with start("/bin/sh", home, before=mounted(home, "size=16m,noexec")) as one:
        one.talk()
        one.hello()


def plant(home: Path) -> Path:
    """A server of somebody else's at the place of ours."""
    target = cache(home) / launcher.server_hash()
    package = target / "d1fleet" / "server"
    package.mkdir(parents=True)
    for name in ("__init__", "main", "__main__"):
        (package / f"{name}.py").write_text("import os\nos.write(2, b'planted')\nos._exit(7)\n")
    (target / "d1fleet" / "__init__.py").touch()
    target.chmod(0o700)
    return target


def test_what_is_planted_would_be_seen(home: Path) -> None:
    """So that the next test can fail."""
    plant(home)
    with start("/bin/sh", home) as one:
        one.talk()
        assert one.sent < len(launcher.server_archive())
        assert one.process.wait(TIMEOUT_S) == 7


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_cache_that_others_can_write_is_not_used(home: Path, mode: int) -> None:
    plant(home).chmod(mode)
    with start("/bin/sh", home) as one:
        runs_from_memory(one, home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of another user")
def test_a_cache_of_somebody_else_is_not_used(home: Path) -> None:
    os.chown(plant(home), 65534, 65534)
    with start("/bin/sh", home) as one:
        runs_from_memory(one, home)


def test_a_cache_without_its_end_is_not_used(home: Path) -> None:
    (plant(home) / "d1fleet" / "server" / "__main__.py").unlink()
    with start("/bin/sh", home) as one:
        runs_from_memory(one, home)


def test_a_file_in_the_caches_place(home: Path) -> None:
    cache(home).mkdir(parents=True)
    (cache(home) / launcher.server_hash()).touch()
    with start("/bin/sh", home) as one:
        runs_from_memory(one, home)


def test_several_at_once(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        starts = [stack.enter_context(start("/bin/sh", home)) for _ in range(4)]
        # Each must have asked before one is served: then all of them unpack.
        for one in starts:
            assert one.process.stdin and one.process.stdout
            while not one.sent:
                reply = one.launch.feed(os.read(one.process.stdout.fileno(), 65536))
                one.sent += len(reply)
                one.process.stdin.write(reply)
                one.process.stdin.flush()
        asked = [os.read(one.process.stdout.fileno(), 65536) for one in starts if one.process.stdout]
        assert asked == [b"need\n"] * len(starts)
        for one, data in zip(starts, asked, strict=True):
            assert one.process.stdin
            one.process.stdin.write(one.launch.feed(data))
            one.process.stdin.flush()
        for one in starts:
            one.talk()
            one.hello()
    assert [path.name for path in cache(home).iterdir()] == [launcher.server_hash()]


def test_what_arrives_damaged_is_not_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher.server_hash()  # of the sound one
    damaged = launcher.server_archive()[:-1] + b"?"
    with start("/bin/sh", home) as one:
        launcher._stage_2()
        monkeypatch.setattr(launcher, "server_archive", lambda: damaged)
        with pytest.raises(ServerStartError, match="not what was sent"):
            one.talk()
    assert not cache(home).exists()


def test_equal_sources_give_equal_archives() -> None:
    first = launcher.server_archive()
    launcher.server_archive.cache_clear()
    assert launcher.server_archive() == first


# Enrolled hosts: versions that the role has installed, and its launcher.


def installed(home: Path) -> Path:
    """The launcher as the role leaves it, but for the folder of versions, which is `home`/server."""
    pack.pack(home)
    file = home / "launcher"
    file.write_text(file.read_text().replace(f'"{launcher.INSTALLED}"', f'"{home}/server"'))
    return file


def unpacked(home: Path) -> Path:
    """This version, where the launcher of `installed` looks for it."""
    target = home / "server" / launcher.server_hash()
    with zipfile.ZipFile(home / f"{launcher.server_hash()}.zip") as archive:
        archive.extractall(target)
    return target


def runs(file: Path) -> list[str]:
    return [PYTHON, "-ISE", str(file)]


def test_the_launcher_says_where_the_role_puts_versions(home: Path) -> None:
    pack.pack(home)
    source = (home / "launcher").read_text()
    assert source.startswith("#!/usr/bin/python3 -ISE\n")
    assert f'INSTALLED = "{launcher.INSTALLED}"' in source
    assert launcher.INSTALLED_LAUNCHER.startswith(os.path.dirname(launcher.INSTALLED))
    assert (home / "launcher").stat().st_mode & 0o777 == 0o755


def test_the_launcher_starts_an_installed_version(home: Path) -> None:
    file = installed(home)
    unpacked(home)
    with ended(Start(runs(file), home)) as one:
        one.talk()
        assert one.sent < 100
        one.hello()
    assert not cache(home).exists()


def test_the_launcher_receives_a_version_that_is_not_there(home: Path) -> None:
    """Two colleagues with two versions of d1fleet use one host."""
    file = installed(home)
    with ended(Start(runs(file), home)) as one:
        one.talk()
        assert one.sent > len(launcher.server_archive())
        one.hello()
    assert [path.name for path in cache(home).iterdir()] == [launcher.server_hash()]


@pytest.mark.parametrize(
    "line",
    [b"exec('import os; os._exit(7)')\n", b"want ../../../tmp/xxxxxxxxxxxxxxxxxxxxx\n", b"want\n", b""],
)
def test_the_launcher_can_be_asked_for_nothing_else(home: Path, line: bytes) -> None:
    file = installed(home)
    done = subprocess.run(runs(file), input=line, capture_output=True, env={"HOME": str(home)}, timeout=60)
    assert done.returncode == 4
    said = b"bad this key starts builds of d1fleet and nothing else (the login works)"
    assert done.stdout.splitlines()[1:] == [said]


def asked(home: Path, command: str, serve: str | None) -> subprocess.CompletedProcess[str]:
    """The installed launcher, as sshd starts it when a client has asked for a command."""
    file = installed(home)
    file.write_text(file.read_text().replace(f'COMPILE = "{SERVE}"', f'COMPILE = "{home}/serve"'))
    if serve is not None:
        (home / "serve").write_text(serve)
        (home / "serve").chmod(0o755)
    return subprocess.run(
        runs(file),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"HOME": str(home), "SSH_ORIGINAL_COMMAND": command.replace("SERVE", f"{home}/serve")},
        timeout=60,
        check=False,
    )


def test_the_launcher_leads_distcc_to_the_compile_server(home: Path) -> None:
    """And keeps back what the client would have of it."""
    done = asked(home, f"SERVE {' '.join(SERVE_ARGUMENTS)}", '#!/bin/sh\necho served "$@"\n')
    assert (done.returncode, done.stdout, done.stderr) == (0, "served\n", "")


def test_the_launcher_says_that_there_is_no_compile_server(home: Path) -> None:
    done = asked(home, f"SERVE {' '.join(SERVE_ARGUMENTS)}", None)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "d1fleet: this host serves no distcc over SSH: No such file or directory\n"


@pytest.mark.parametrize(
    "command",
    [
        "SERVE",
        "SERVE --inetd",
        "SERVE --inetd --enable-tcp-insecure ",
        "SERVE --inetd --enable-tcp-insecure; id",
        "SERVE --inetd --enable-tcp-insecure --log-file=/tmp/x",
        "SERVE  --inetd --enable-tcp-insecure",
        "/bin/sh -c id",
        "distccd --inetd --enable-tcp-insecure",
    ],
)
def test_what_is_nearly_the_compile_server_is_none(home: Path, command: str) -> None:
    done = asked(home, command, "#!/bin/sh\necho served\n")
    assert done.returncode == 4
    (greeting,) = done.stdout.splitlines()
    assert greeting.startswith("D1FLEET-SERVER ")
    assert done.stderr == NOTHING_ELSE


NOTHING_ELSE = "d1fleet: this key starts builds of d1fleet and nothing else\n"


@contextlib.contextmanager
def silent_client(file: Path, home: Path, command: str | None) -> Iterator[subprocess.Popen[str]]:
    """Who asks the launcher for a command by a bound key (None: a plain login), and keeps stdin open."""
    environ = {"HOME": str(home)} if command is None else {"HOME": str(home), "SSH_ORIGINAL_COMMAND": command}
    with subprocess.Popen(
        runs(file),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as client:
        try:
            yield client
        finally:
            client.kill()


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "scp -t /tmp/x",
        "rsync --server -e.LsfxC . /tmp/x",
        "/usr/lib/openssh/sftp-server",
        "/bin/sh -c 'echo ~ada && sleep 0'",
        "exec python3 -c 'import os'",
        "exec python3 -ISE",
        "",
    ],
)
def test_other_clients_are_refused_at_once(home: Path, command: str) -> None:
    """They may wait for us as we would wait for them."""
    with silent_client(installed(home), home, command) as client:
        assert client.wait(20) == 4
        assert client.stderr and client.stderr.read() == NOTHING_ELSE


@pytest.mark.parametrize("python", [None, "/opt/py/bin/python3.9"])
def test_a_coordinators_command_is_none_of_those(home: Path, python: str | None) -> None:
    file = installed(home)
    unpacked(home)
    with ended(Start(runs(file), home, {"SSH_ORIGINAL_COMMAND": launcher.start_command(python)})) as one:
        one.talk()
        one.hello()


@pytest.mark.parametrize("words", ["", "want 0123"])
@pytest.mark.parametrize("command", [None, launcher.start_command(None)])
def test_who_says_nothing_in_time_is_given_up(home: Path, command: str | None, words: str) -> None:
    file = installed(home)
    file.write_text(file.read_text().replace("FIRST_LINE_S = 30\n", "FIRST_LINE_S = 1\n"))
    with silent_client(file, home, command) as client:
        assert client.stdin and client.stderr
        client.stdin.write(words)
        client.stdin.flush()
        assert client.wait(20) == 4
        late = ", and nobody has asked for one within 1 s\n"
        assert client.stderr.read() == NOTHING_ELSE.replace("\n", late)


def test_the_limit_ends_with_the_first_line(home: Path) -> None:
    """It is the server's stdin from then on, and that may be silent."""
    file = installed(home)
    file.write_text(file.read_text().replace("FIRST_LINE_S = 30\n", "FIRST_LINE_S = 1\n"))
    unpacked(home)
    with ended(Start(runs(file), home)) as one:
        one.talk()
        with pytest.raises(subprocess.TimeoutExpired):
            one.process.wait(1.5)
        one.hello()


def test_a_slow_coordinator_gives_up_first_or_is_in_time() -> None:
    said = re.search(r"^FIRST_LINE_S = (\d+)$", launcher.bootstrap(), re.MULTILINE)
    assert said and 20 <= int(said[1]) < START_LIMIT_S


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_an_installed_version_that_others_can_write_is_not_used(home: Path, mode: int) -> None:
    file = installed(home)
    target = unpacked(home)
    (target / "d1fleet" / "server" / "main.py").write_text("import os\nos._exit(7)\n")
    target.chmod(mode)
    with ended(Start(runs(file), home)) as one:
        one.talk()
        one.hello()


def test_a_key_for_a_launcher_that_is_gone(home: Path) -> None:
    with (
        pytest.raises(ServerStartError, match="launcher there, and that is missing") as caught,
        ended(Start(["/bin/sh", "-c", launcher.INSTALLED_LAUNCHER], home)) as one,
    ):
        one.talk()
    assert "site.yml" in caught.value.mend


def test_packing_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert pack.main([str(tmp_path / "file" / "folder")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert pack.main([]) == 2
    assert pack.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == launcher.server_hash()
