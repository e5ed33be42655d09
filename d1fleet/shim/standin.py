#!/usr/bin/python3 -ISE
"""What the recipes of a build find as `make`, on a machine without a C compiler: the contract is shim.c's.

Only what is built into the interpreter is imported: `import socket` alone would triple the time of a start.
It runs on Python 3.9 and newer. Where it cannot be as the C shim: the kernel hides argv[0] from a script, so
that is always the bare name; Python itself ignores SIGPIPE and SIGXFSZ, so these two count as not ignored;
two descriptors of one regular file count as one when offset and flags are equal, as there is no kcmp.
"""

# ruff: noqa: SIM105 - contextlib is a slow import
import _signal  # type: ignore[import-not-found]  # typeshed has `signal` alone, which imports enum
import _socket
import _stat
import errno
import posix
import sys

EXIT_GONE = 88
EXIT_NO_MAKE = 127
MARKER = b".d1fleet-shim"
FORWARDED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
LONG_WAIT_S = 1e6  # a receive is begun anew after it

MYPY = False
if MYPY:
    from typing import NoReturn

Environ = dict[bytes, bytes]


def main() -> None:
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # no traceback at Ctrl-C
    argv, block = call()
    environ: Environ = {}
    for entry in block.split(b"\0"):
        name, equals, value = entry[1:].partition(b"=")
        if equals:
            environ.setdefault(entry[:1] + name, value)
    path = environ.get(b"D1FLEET_SOCKET")
    if not path or must_stay_here(argv[0], environ):
        run_make(argv, environ)
    try:
        cwd = posix.getcwdb()
    except OSError:
        run_make(argv, environ)
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)
    passed: list[int] = []
    reply = b""
    try:
        reply = ask(path, request(argv, cwd, block, environ), passed, before)
    except OSError:
        pass  # as an answer that is cut off
    number = int.from_bytes(reply[1:], "big")
    if reply[:1] == b"L":
        run_here(argv, environ, passed, before)
    if reply[:1] in (b"X", b"I"):
        posix._exit(number & 255)
    if reply[:1] == b"S":
        die_of(number)
    # Never the real make here: the job may be running elsewhere, and a second writer would tear its targets.
    say(b"the coordinator of this build is gone; " + argv[0] + b" not run")
    posix._exit(EXIT_GONE)


def read_whole(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    parts = [posix.read(fd, 1 << 20)]
    while parts[-1]:
        parts.append(posix.read(fd, 1 << 20))
    posix.close(fd)
    return b"".join(parts)


def call() -> tuple[list[bytes], bytes]:
    """Arguments and environment block as the kernel got them: Python decodes the one, adds to the other."""
    try:
        words, block = read_whole("/proc/self/cmdline").split(b"\0")[:-1], read_whole("/proc/self/environ")
    except OSError:
        words = [word.encode(sys.getfilesystemencoding(), "surrogateescape") for word in sys.argv]
        block = b"".join(name + b"=" + value + b"\0" for name, value in posix.environ.items())
    name = sys.argv[0].rpartition("/")[2].encode(sys.getfilesystemencoding(), "surrogateescape")
    return [name, *words[len(words) - len(sys.argv) + 1 :]], block


def is_open(fd: int) -> bool:
    try:
        posix.fstat(fd)
    except OSError:
        return False
    return True


def say(text: bytes) -> None:
    try:
        posix.write(2, b"d1fleet: " + text + b"\n")
    except OSError:
        pass  # nobody is left to be told


def is_this_program(path: bytes) -> bool:
    try:
        us, it = posix.stat(sys.argv[0]), posix.stat(path)
    except OSError:
        return False
    return (us.st_dev, us.st_ino) == (it.st_dev, it.st_ino)


def exec_next(name: bytes, argv: list[bytes], environ: Environ) -> None:
    """Executes the first `name` in PATH that is no shim; returns if there is none."""
    for folder in environ.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
        prefix = folder and folder + b"/"
        if not posix.access(prefix + MARKER, posix.F_OK) and not is_this_program(prefix + name):
            try:
                posix.execve(prefix + name, argv, environ)
            except OSError:
                pass  # the next one


def run_make(argv: list[bytes], environ: Environ) -> "NoReturn":
    """Becomes the real make; PATH stays as it is, as the sub-makes of this make must meet the shim again."""
    for number in IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    name, real = argv[0], environ.get(b"D1FLEET_MAKE", b"")
    if not real or name != b"make":
        exec_next(name, argv, environ)
    if real and not is_this_program(real):
        try:
            posix.execve(real, argv, environ)
        except OSError as exc:
            say(real + b": " + (exc.strerror or "").encode())
    else:
        exec_next(b"make", argv, environ)
        say(b"no " + name + b" in PATH but the one of d1fleet itself")
    posix._exit(EXIT_NO_MAKE)


def must_stay_here(called: bytes, environ: Environ) -> bool:
    """As in shim.c, where the reasons stand."""
    if b"MAKE_RESTARTS" in environ or environ.get(b"FAKEROOTKEY") or environ.get(b"LD_PRELOAD"):
        return True
    if environ.get(b"MAKE", called) != called:
        return True
    if environ.get(b"D1FLEET_LEVEL") == (environ.get(b"MAKELEVEL") or b"0"):
        return True
    try:
        root, mnt = posix.stat("/"), posix.stat("/proc/self/ns/mnt")
    except OSError:
        return True
    here = f"{posix.geteuid()}:{root.st_dev}:{root.st_ino}:{mnt.st_ino}"
    return environ.get(b"D1FLEET_ORIGIN") != here.encode()


def same_stream(a: int, b: int) -> bool:
    sa, sb = posix.fstat(a), posix.fstat(b)
    if (sa.st_dev, sa.st_ino) != (sb.st_dev, sb.st_ino):
        return False
    if not _stat.S_ISREG(sa.st_mode):
        return True
    # The first two lines are `pos:` and `flags:`, the flags in octal.
    ia, ib = (read_whole(f"/proc/self/fdinfo/{fd}").split(b"\n")[:2] for fd in (a, b))
    if int(ia[1].split()[1], 8) & int(ib[1].split()[1], 8) & posix.O_APPEND:
        return True  # there is no offset of their own
    return ia == ib


def is_pipe(fd: int) -> bool:
    try:
        return _stat.S_ISFIFO(posix.fstat(fd).st_mode)
    except (OSError, OverflowError):
        return False


def jobserver(makeflags: bytes) -> list[int]:
    """The pair of the last --jobserver-auth=R,W before `--`, if both are open; else nothing."""
    pair: list[int] = []
    # A blank within a word is escaped, and so is a backslash; neither occurs in the word that is looked for.
    for escaped in (b"\\\\", b"\\ ", b"\\\t"):
        makeflags = makeflags.replace(escaped, b"\1\1")
    for word in makeflags.replace(b"\t", b" ").split(b" "):
        if word == b"--":
            break
        option, _, value = word.partition(b"=")
        if option in (b"--jobserver-auth", b"--jobserver-fds"):
            numbers = value.split(b",")
            valid = len(numbers) == 2 and all(number.isdigit() for number in numbers)
            pair = [int(number) for number in numbers] if valid else []
    return pair if all(is_pipe(fd) for fd in pair) else []


def request(argv: list[bytes], cwd: bytes, block: bytes, environ: Environ) -> tuple[bytes, list[int]]:
    flags = 0
    fds = [fd for fd in (0, 1, 2) if is_open(fd)]
    for fd in fds:
        flags |= 2 << fd
    if 1 in fds and 2 in fds and same_stream(1, 2):
        flags |= 1
    pair = jobserver(environ.get(b"MAKEFLAGS", b""))
    if pair:
        flags |= 16
    umask = posix.umask(0)
    posix.umask(umask)
    ignored = 0
    for number in range(1, _signal.NSIG):
        if number not in IGNORED_BY_PYTHON and _signal.getsignal(number) is _signal.SIG_IGN:
            ignored |= 1 << (number - 1)
    limits = b""
    count = 0
    # Line n, after the heading, is RLIMIT number n; the soft limit stands in columns 26 to 46.
    for line in read_whole("/proc/self/limits").split(b"\n")[1:17]:
        soft = line[26:46].strip()
        limits += u32(count) + (b"\xff" * 8 if soft == b"unlimited" else int(soft).to_bytes(8, "big"))
        count += 1
    args = b"".join(word + b"\0" for word in argv)
    head = b"D1S1" + u32(flags) + u32(umask) + ignored.to_bytes(8, "big") + u32(count) + limits
    sizes = u32(len(argv)) + u32(len(args)) + u32(len(cwd)) + u32(len(block))
    body = head + sizes + args + cwd + block
    return u32(len(body)) + body, fds + pair


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def ask(path: bytes, message: tuple[bytes, list[int]], passed: list[int], before: set[int]) -> bytes:
    """The coordinator's answer, cut off if the connection was; `passed` gets the signals passed on meanwhile.

    Raises: OSError when there is no connection.
    """
    data, fds = memoryview(message[0]), message[1]
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.connect(path)
    # Non-blocking for the wakeup descriptor; with a timeout it still waits.
    sock.settimeout(LONG_WAIT_S)
    try:
        while data:
            rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
            try:
                data = data[sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL) :]
                fds = []
            except OSError as exc:
                if exc.errno != errno.ETOOMANYREFS:
                    raise
                _signal.sigtimedwait([], 0.005)  # the coordinator is to take some of this user's fds first
    except OSError:
        pass  # a coordinator that refuses may answer and close before it has read everything
    _signal.set_wakeup_fd(sock.fileno(), warn_on_full_buffer=False)  # writes each signal's number as a byte
    for number in FORWARDED:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, lambda number, frame: passed.append(number))
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    reply = b""
    while len(reply) < 5:
        try:
            part = sock.recv(5 - len(reply))
        except _socket.timeout:  # another class than TimeoutError in Python 3.9
            continue
        if not part:
            return b""
        reply += part
    _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)
    _signal.set_wakeup_fd(-1)
    return reply


def run_here(argv: list[bytes], environ: Environ, passed: list[int], before: set[int]) -> "NoReturn":
    if passed:
        die_of(passed[-1])  # a make that starts after Ctrl-C would be the only one to outlive it
    for number in FORWARDED:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    run_make(argv, environ)


def die_of(number: int) -> "NoReturn":
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _signal.signal(number, _signal.SIG_DFL)
    except (OSError, ValueError):
        pass  # SIGKILL has no other action
    posix.kill(posix.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
    posix._exit(128 + number)


if __name__ == "__main__":
    main()
