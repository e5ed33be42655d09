"""Runs on a host before the server is there: finds the wanted version of it, or takes it from stdin.

Sent as source by launcher.py, which sets WANTED (the hash) in front; or installed by the role of the server
as the one command that a key may start: then it greets like the start command, and is told the hash. Answers
lines on stdout: "have", or "need" and then "have" when the archive has come, or "bad REASON". When installed,
it also leads clients of distcc to the compile server, on hosts that are reached over SSH.
"""

import os
import sys

INSTALLED = "/usr/local/lib/d1fleet/server"
"""Where the role puts versions for all users."""

COMPILE = "/usr/local/lib/d1fleet/distcc/serve"
"""What the role distcc puts there on hosts whose peers come over SSH."""

COMPILE_ASKED = f"{COMPILE} --inetd --enable-tcp-insecure"
"""How distcc asks for it. The last word would let it run any program, and goes nowhere: COMPILE has none."""

FIRST_LINE_S = 30
"""A coordinator sends its line as soon as it reads our greeting, and gives up 45 s after its login: who is
silent for so long is something else, and might wait for ever.
"""

NOTHING_ELSE = "this key starts builds of d1fleet and nothing else"

say = sys.stdout
base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
base = os.path.join(base, "d1fleet", "server")


def answer(text: str) -> None:
    say.write(text + "\n")
    say.flush()


def asked() -> str:
    """The hash that the coordinator wants; of an installed launcher nothing else but COMPILE can be asked."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND")
    if command == COMPILE_ASKED:
        try:
            os.execv(COMPILE, [COMPILE])
        except OSError as error:
            sys.stderr.write(f"d1fleet: this host serves no distcc over SSH: {error.strerror}\n")
            sys.exit(4)
    answer(f"D1FLEET-SERVER {sys.version_info[0]}.{sys.version_info[1]} launcher")
    if command is not None and not starts_a_server(command):
        give_up()  # whoever reads our greeting as something else (rsync, scp, Ansible) may wait, too
    line = first_line().decode("ascii", "replace")
    wanted = line[len("want ") :].strip()
    if not line.startswith("want ") or len(wanted) != 32 or set(wanted) - set("0123456789abcdef"):
        # Mostly a person, who has logged in by hand to see whether that works.
        answer(f"bad {NOTHING_ELSE} (the login works)")
        sys.exit(4)
    return wanted


def starts_a_server(command: str) -> bool:
    """Is this what coordinators ask for, of whatever version? See start_command in launcher.py."""
    words = command.split(" ", 4)
    return len(words) == 5 and words[0] == "exec" and words[2:4] == ["-ISE", "-c"]


def first_line() -> bytes:
    """What a coordinator says behind our greeting, in time."""
    import signal

    late = f", and nobody has asked for one within {FIRST_LINE_S} s"
    signal.signal(signal.SIGALRM, lambda *_: give_up(late))
    signal.alarm(FIRST_LINE_S)
    line = sys.stdin.buffer.readline(64)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return line


def give_up(why: str = "") -> None:
    """Tell a person; stdout may be for a program that takes it for something else."""
    sys.stderr.write(f"d1fleet: {NOTHING_ELSE}{why}\n")
    sys.exit(4)


def usable(folder: str) -> bool:
    """Is this folder ours or the system's, and complete?"""
    try:
        status = os.stat(folder)
        return (
            status.st_uid in (0, os.geteuid())
            and not status.st_mode & 0o022
            and os.path.isfile(os.path.join(folder, "d1fleet", "server", "__main__.py"))
        )
    except OSError:
        return False


def receive() -> bytes:
    """The archive: a line with its length, then its bytes."""
    size = int(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        sys.exit(4)
    return data


def on_disk(file: str) -> None:
    """What the name of the finished folder promises must outlast a power cut."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unpack(data: bytes) -> str:
    """Into the cache, whole or not at all; where that cannot be, into memory. Returns what to import from."""
    import io
    import shutil
    import tempfile
    import zipfile

    target, staging = os.path.join(base, WANTED), None
    try:
        if not os.path.isdir(os.path.expanduser("~")):
            raise FileNotFoundError("a home that does not exist is not made by us")
        os.makedirs(base, 0o700, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".new-", dir=base)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                archive.extract(name, staging)
                on_disk(os.path.join(staging, name))
        try:
            os.rename(staging, target)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)  # a colleague's build was faster
        if usable(target):
            return target
    except OSError:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    memory = os.memfd_create("d1fleet-server")
    os.write(memory, data)
    return f"/proc/self/fd/{memory}"


WANTED = globals().get("WANTED") or asked()
places = [os.path.join(folder, WANTED) for folder in (INSTALLED, base)]
place = next(filter(usable, places), None)
if place is None:
    import hashlib

    answer("need")
    archive_bytes = receive()
    if hashlib.sha256(archive_bytes).hexdigest()[:32] != WANTED:
        answer("bad what arrived is not what was sent")
        sys.exit(4)
    place = unpack(archive_bytes)
sys.path.insert(0, place)
answer("have")
from d1fleet.server.main import main  # noqa: E402

sys.exit(main())
