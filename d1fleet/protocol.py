"""Frames and messages between coordinator and d1make server. No I/O: bytes in, messages out.

PROTOCOL.md beside this file is the document; a test holds the two against each other.

A frame is a header (`!IBI`: payload length, kind, attempt) and a payload. Control fields are one JSON
object. What need not be UTF-8 (arguments, environment, folders, output) travels as raw bytes behind it.
Attempts, which the coordinator opens, have even numbers; requests of a server, odd ones; 0 is the
connection itself.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from . import changes
from .errors import ProtocolError

VERSION = 4

HEADER = struct.Struct("!IBI")

MAX_PAYLOAD = 16 << 20
"""Longest payload in bytes: well above Linux's ARG_MAX for arguments and environment (6 MiB at most)."""

STDIN, STDOUT, STDERR = 0, 1, 2

STREAM_CREDIT = 256 << 10
"""Bytes that may be under way for one stream before the reader has to grant more."""

STDIN_AHEAD = 64 << 10
"""Bytes of standard input that a job is given before it has taken the ones before them."""

MOST_ARGUMENTS = 8 << 20
"""Bytes of arguments and environment, with a pointer for each string, of a request: Linux starts no program
with more than 6 MiB.
"""

OUTPUT_CHUNK = 64 << 10
"""Most bytes of output in one frame: a pipe's usual capacity."""

# Classes of an exit by infrastructure.
_NOT_DEADLY = (17, 18, 19, 20, 21, 22, 23, 28)
"""Signals that stop, continue or do nothing: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH."""

LOST, REFUSED, CANCELLED, FENCED, NO_SPACE, INTERNAL = (
    "lost",
    "refused",
    "cancelled",
    "fenced",
    "no-space",
    "internal",
)
_INFRASTRUCTURE = ("", LOST, REFUSED, CANCELLED, FENCED, NO_SPACE, INTERNAL)

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "float": (float, int),
    "list[int]": (list,),
    "list[str]": (list,),
    "dict[str, str]": (dict,),
}
_ITEMS: dict[str, type] = {"list[int]": int, "list[str]": str}
_INT_LIMIT = 1 << 64
_FLOAT_LIMIT = 1e15
_LONGEST_S = 1e6
_LENGTH = struct.Struct("!I")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder()
_MOST_PARTS, _LONGEST_NAME, _LONGEST_TEXT = 64, 100, 400
"""Of a toolchain's parts, names and texts; server/toolchain.py has the same."""

SHIM_PLACE = b"%d1fleet-shim%"
"""Stands in a PATH that travels where the folder of shims stood: each machine has its own."""

MOST_EXAMINED = 1 << 20
"""Bytes of what an examination is told, and of what it answers."""

LONGEST_EXAMINATION_S = 60.0

_MANY = 1 << 16
"""Above any count of slots, tokens or descriptors."""

_dumps = json.JSONEncoder(separators=(",", ":")).encode

M = TypeVar("M", bound="Message")


@dataclass
class Message:
    """One message; `attempt` stands in the frame's header, the other fields in its payload."""

    KIND: ClassVar[int] = 0
    SENDER: ClassVar[str] = ""
    """Who may send it: coordinator, server, or either."""
    RAW: ClassVar[tuple[str, ...]] = ()
    """Fields that travel as raw bytes, in this order."""
    _JSON: ClassVar[tuple[tuple[str, str], ...]] = ()

    attempt: int = 0

    def payload(self) -> bytes:
        """The payload: control fields as JSON, raw fields with a length each."""
        values = self.__dict__
        head = _dumps({name: values[name] for name, _ in self._JSON}).encode()
        parts = [_LENGTH.pack(len(head)), head]
        for name in self.RAW:
            data = values[name]
            parts += (_LENGTH.pack(len(data)), data)
        return b"".join(parts)

    @classmethod
    def parse(cls: type[M], attempt: int, payload: bytes) -> M:
        """The message in `payload`.

        Raises:
            ProtocolError: the payload is cut off, is no JSON object, or a field is missing, unknown or
                of another type.
        """
        sections = _sections(payload, 1 + len(cls.RAW), cls.__name__)
        try:
            values = _DECODER.decode(sections[0].decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{cls.__name__}: control fields are not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ProtocolError(f"{cls.__name__}: control fields are no JSON object")
        for name, kind in cls._JSON:
            if name not in values:
                raise ProtocolError(f"{cls.__name__}: field {name} is missing")
            _check(cls.__name__, name, kind, values[name])
        if len(values) != len(cls._JSON):
            unknown = sorted(set(values) - {name for name, _ in cls._JSON})
            raise ProtocolError(f"{cls.__name__}: unknown fields {', '.join(unknown)[:200]}")
        for name, data in zip(cls.RAW, sections[1:]):
            values[name] = data
        message = cls(attempt=attempt, **values)
        fault = message.fault()
        if fault:
            raise ProtocolError(f"{cls.__name__}: {fault}")
        return message

    def fault(self) -> str:
        """What is out of range in it; empty when nothing is."""
        return ""


def _check(message: str, name: str, kind: str, value: Any) -> None:
    # What json makes has these very types, and bool is not int here.
    good = type(value) in _TYPES[kind]
    if not good or kind == "bool":
        pass
    elif kind == "int":
        good = 0 <= value < _INT_LIMIT
    elif kind == "float":
        good = 0 <= value < _FLOAT_LIMIT
    elif kind == "str":
        good = "\0" not in value and (value.isascii() or not _SURROGATE.search(value))
    elif value and kind in _ITEMS:
        good = set(map(type, value)) == {_ITEMS[kind]}
        if good and kind == "list[int]":
            good = min(value) >= 0 and max(value) < _INT_LIMIT
    elif kind == "dict[str, str]":
        for each in value.items():
            for text in each:
                _check(message, name, "str", text)
    if not good:
        raise ProtocolError(f"{message}: field {name} is not of type {kind}")


def _parts_fault(name: str, parts: dict[str, str]) -> str:
    if len(parts) > _MOST_PARTS:
        return f"{name} has more than {_MOST_PARTS} parts"
    good = all(0 < len(part) <= _LONGEST_NAME and len(text) <= _LONGEST_TEXT for part, text in parts.items())
    return "" if good else f"{name} has a part whose name or text is out of range"


def _words_size(block: bytes) -> int:
    """Bytes that a program's start takes for these strings."""
    return len(block) + 8 * block.count(b"\0")


def _block_fault(name: str, block: bytes) -> str:
    return f"{name} is cut off" if block and block[-1:] != b"\0" else ""


def _sections(payload: bytes, count: int, message: str) -> list[bytes]:
    found, at = [], 0
    for _ in range(count):
        if len(payload) < at + 4:
            raise ProtocolError(f"{message}: payload is cut off")
        (length,) = _LENGTH.unpack_from(payload, at)
        at += 4
        if len(payload) < at + length:
            raise ProtocolError(f"{message}: payload is cut off")
        found.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise ProtocolError(f"{message}: {len(payload) - at} bytes too many")
    return found


KINDS: dict[int, type[Message]] = {}


def _message(kind: int, sender: str) -> Any:
    def register(cls: type[M]) -> type[M]:
        cls.KIND, cls.SENDER = kind, sender
        cls._JSON = tuple(
            (f.name, str(f.type)) for f in fields(cls) if f.name != "attempt" and f.name not in cls.RAW
        )
        KINDS[kind] = cls
        return cls

    return register


# -- the connection ------------------------------------------------------------------------------


@_message(1, "coordinator")
@dataclass
class Welcome(Message):
    """First message of a coordinator: the build, and how its jobs shall run there."""

    version: int = VERSION
    build: str = ""
    capabilities: list[str] = field(default_factory=list)
    uid: int = 0
    """Effective uid of the build; a host where we are somebody else would leave other people's files."""
    slots: int = 0
    """Recipes at once on this machine; 0 asks for its usable CPUs."""
    nice: int = 0
    setup: str = ""
    lease_s: float = 10.0
    grace_s: float = 6.0
    heartbeat_s: float = 2.0
    serial: bool = False
    """The build has no -j: no make gets a jobserver."""
    project: str = ""
    """Whose toolchain this host should have; empty when no project is known."""
    toolchain: bool = False
    """Say what compiles there also where nothing is recorded of the project: hosts are to be compared."""
    host: str = ""
    """What the build calls this host."""
    environment: bytes = b""
    """The environment the build began with, NAME=value, NUL behind each: what makefiles changed is seen
    against it.
    """
    folder: bytes = b""
    """The build's tree: where a note goes of what may have written there after its lease; empty for none."""
    RAW = ("environment", "folder")

    def fault(self) -> str:
        if self.slots >= _MANY or self.nice > 19:
            return "slots or nice out of range"
        if not all(0 < length < _LONGEST_S for length in (self.lease_s, self.heartbeat_s)):
            return "lease or heartbeat out of range"
        if len(self.project) > _LONGEST_TEXT or len(self.host) > _LONGEST_TEXT:
            return "the name of project or host is too long"
        if b"\0" in self.folder or self.folder[:1] not in (b"", b"/"):
            return "folder is malformed"
        return _block_fault("environment", self.environment)


@_message(2, "server")
@dataclass
class Hello(Message):
    """First message of a server: what this host is."""

    version: int = VERSION
    capabilities: list[str] = field(default_factory=list)
    machine: str = ""
    """The same for all names of one machine (machine id, or boot id where there is none, and uid
    namespace).
    """
    hostname: str = ""
    uid: int = 0
    pid: int = 0
    slots: int = 0
    cpus: int = 0
    make: str = ""
    """Version of make there, such as 4.3; empty where there is none that fits."""
    python: str = ""
    toolchain: dict[str, str] = field(default_factory=dict)
    """What compiles there: a text for each part; empty when nobody wants to know."""
    toolchain_places: dict[str, str] = field(default_factory=dict)
    """Paths of those of its tools that lie outside the system's folders: for people, and never compared."""
    project_toolchain: dict[str, str] = field(default_factory=dict)
    """The same as it was recorded there for the project; empty when nothing was."""
    record_fault: str = ""
    """Why that record is not believed; empty when it is, or there is none."""
    as_enrolled: bool = False
    """`toolchain` is what this host had when that record was written."""

    def fault(self) -> str:
        if self.slots >= _MANY or self.cpus >= _MANY:
            return "slots or CPUs out of range"
        return (
            _parts_fault("toolchain", self.toolchain)
            or _parts_fault("toolchain_places", self.toolchain_places)
            or _parts_fault("project_toolchain", self.project_toolchain)
        )


@_message(3, "server")
@dataclass
class Unfit(Message):
    """The host cannot take part; the server ends."""

    reason: str = ""
    mend: str = ""


@_message(4, "coordinator")
@dataclass
class CheckTree(Message):
    """Is the folder there the one that we see here? `nonce` is a file that holds `content`."""

    tree: int = 0
    folder: bytes = b""
    nonce: bytes = b""
    content: bytes = b""
    RAW = ("folder", "nonce", "content")

    def fault(self) -> str:
        return "a NUL in a path" if b"\0" in self.folder + self.nonce else ""


@_message(5, "server")
@dataclass
class TreeChecked(Message):
    """Answer to CheckTree; `reason` is empty when the folder is the same."""

    tree: int = 0
    reason: str = ""
    late: bool = False
    """It lies on a mount that may show late what other machines have changed."""


@_message(6, "server")
@dataclass
class Beat(Message):
    """A sign of life, the request for a longer lease, and the host's load."""

    seq: int = 0
    others_cpus: float = 0.0
    """CPUs (1.0 = one CPU busy) that others used since the last beat."""
    own_cpus: float = 0.0
    memory_available_bytes: int = 0
    load_1min: float = 0.0
    running: int = 0
    """Attempts that are running."""
    waited_s: float = 0.0
    """How long the oldest attempt has waited for slots that others hold."""
    tokens: int = 0
    """Slots of the machine that this server holds."""


@_message(7, "coordinator")
@dataclass
class Grant(Message):
    """The lease that beat `seq` asked for: it runs `lease_s` from the server's own sending of that beat."""

    seq: int = 0


@_message(8, "server")
@dataclass
class FencedLate(Message):
    """The server could not act on its lease in time (frozen, suspended); these attempts may have written
    since.
    """

    attempts: list[int] = field(default_factory=list)
    late_s: float = 0.0


@_message(9, "coordinator")
@dataclass
class Pause(Message):
    """Stop (on) or continue all processes of the build on this host: Ctrl-Z and fg. Leases go on."""

    on: bool = False


@_message(10, "either")
@dataclass
class Drain(Message):
    """This host gets no new attempts, in no build; those at work go on. From `d1fleet drain`, instead of
    Welcome, it asks for that (or, with on False, takes it back); from the server it says how things are.
    """

    on: bool = True
    reason: str = ""
    """For people."""
    everybody: bool = False
    """From the server: it holds for all users' builds, not for this user's alone."""


@_message(11, "coordinator")
@dataclass
class Bye(Message):
    """The build has ended: end what still runs, say how much that was, and go."""

    kill: bool = False
    """The build was broken off: no grace for what still runs."""


@_message(12, "server")
@dataclass
class Gone(Message):
    """Answer to Bye, the last message: nothing of the build is left here."""

    left: int = 0
    """Processes that had outlived their sub-make and were ended."""
    debt_s: float = 0.0
    """How long more recipes ran than there were slots, because ones that had waited went on."""


@_message(13, "coordinator")
@dataclass
class Examine(Message):
    """From `d1fleet doctor`, instead of Welcome, and as often as it likes: look at this host, change
    nothing, and tell.
    """

    number: int = 0
    """Comes back with the answer."""
    question: str = ""
    """One of server/examination.py."""
    limit_s: float = 10.0
    """What is not known by then is left out of the answer."""
    setup: str = ""
    given: bytes = b""
    """A JSON object: what is asked about."""
    environment: bytes = b""
    """As of Welcome."""
    RAW = ("given", "environment")

    def fault(self) -> str:
        if not 0 < self.limit_s <= LONGEST_EXAMINATION_S:
            return "limit out of range"
        if len(self.given) > MOST_EXAMINED:
            return "it asks about too much"
        return _block_fault("environment", self.environment)


@_message(14, "server")
@dataclass
class Examined(Message):
    """Answer to Examine."""

    number: int = 0
    at_s: float = 0.0
    """This host's clock: seconds since 1970."""
    failure: str = ""
    """Why nothing is known, for people; else empty."""
    answer: bytes = b""
    """A JSON object."""
    RAW = ("answer",)

    def fault(self) -> str:
        return "the answer is too long" if len(self.answer) > MOST_EXAMINED else ""


@_message(15, "server")
@dataclass
class Alone(Message):
    """Nothing is left on this host of earlier connections of the same build to it: of its attempts there, all
    have ended.
    """


# -- trees that are seen late ----------------------------------------------------------------------


@_message(50, "coordinator")
@dataclass
class Watch(Message):
    """From now on tell by Changed what programs there change below a folder, before each Exit and Ask."""

    recent_s: float = 0.0
    """What has changed so many seconds before counts as well."""
    folder: bytes = b""
    RAW = ("folder",)

    def fault(self) -> str:
        if self.recent_s > _LONGEST_S:
            return "recent_s out of range"
        return "folder is malformed" if b"\0" in self.folder or self.folder[:1] != b"/" else ""


@_message(51, "server")
@dataclass
class Changed(Message):
    """What programs there have changed, as they see it: `changes.encode`."""

    changes: bytes = b""
    RAW = ("changes",)

    def fault(self) -> str:
        return _changes_fault(self.changes)


@_message(52, "coordinator")
@dataclass
class See(Message):
    """What has been changed elsewhere: whatever says so begins there when that is seen."""

    number: int = 0
    """No lower than the last one's."""
    more: bool = False
    """Something with the same number follows."""
    changes: bytes = b""
    RAW = ("changes",)

    def fault(self) -> str:
        return _changes_fault(self.changes)


@_message(53, "server")
@dataclass
class Unseen(Message):
    """Something of a See is not seen there, though any cache should be over; nothing waits for it longer."""

    path: bytes = b""
    RAW = ("path",)

    def fault(self) -> str:
        return "path is malformed" if b"\0" in self.path or self.path[:1] != b"/" else ""


@_message(54, "server")
@dataclass
class Unwatched(Message):
    """What changes there is not known from now on."""

    reason: str = ""


def _changes_fault(block: bytes) -> str:
    try:
        changes.decode(block)
    except ValueError as error:
        return str(error)
    return ""


# -- attempts ------------------------------------------------------------------------------------


@_message(20, "coordinator")
@dataclass
class Run(Message):
    """Run a sub-make."""

    job: int = 0
    epoch: int = 0
    """Counts the attempts of one job; frames of older epochs are refused."""
    umask: int = 0o022
    ignored: int = 0
    """Mask of ignored signals, bit n-1 for signal n."""
    limits: list[int] = field(default_factory=list)
    """Soft limits: RLIMIT_ number and value in turn; all 64 bits set means unlimited."""
    streams: int = 7
    """Open standard streams, bit n for descriptor n."""
    same: bool = False
    """stdout and stderr are one open file: one pipe serves both, so that their order survives."""
    stdin: bool = False
    """Standard input is forwarded; otherwise it is /dev/null."""
    jobserver: list[int] = field(default_factory=list)
    """Descriptor numbers of the make's token pipes, read and write end; empty where it has none."""
    tokens: bool = False
    """The pipes are its jobserver; otherwise they are only held open, as they are for it under plain make."""
    fifo: bool = False
    """Its jobserver is a fifo where it was asked for (make 4.4); so it should be on a host whose make
    can do that.
    """
    keep_auth: bool = True
    """False takes -j and the jobserver out of MAKEFLAGS: its arguments have a -j that we put there."""
    weight: int = 1
    """Slots it needs: 1, or what a -jN of its own asks for."""
    grouped: bool = False
    """Output sync is on: pass groups on whole."""
    sees: int = 0
    """It begins when each See with a number up to this one is seen."""
    program: str = "make"
    """Name of the program, looked up in the job's PATH on the host."""
    folder: bytes = b""
    argv: bytes = b""
    """Arguments, NUL behind each."""
    environment: bytes = b""
    """NAME=value, NUL behind each."""
    RAW = ("folder", "argv", "environment")

    def fault(self) -> str:
        fds = self.jobserver
        if len(fds) not in (0, 2) or any(fd >= _MANY for fd in fds) or (self.tokens and not fds):
            return "jobserver is no pair of descriptors"
        if fds and (fds[0] == fds[1] or min(fds) <= STDERR):
            return "jobserver descriptors are not of their own"
        if len(self.limits) % 2 or max(self.limits[::2], default=0) >= 64:
            return "limits are no pairs of RLIMIT_ number and value"
        if self.umask > 0o777 or self.streams > 7 or self.weight > _MANY or not self.argv:
            return "umask, streams, weight or argv out of range"
        if b"\0" in self.folder or "/" in self.program or not self.program:
            return "folder or program is malformed"
        return _block_fault("argv", self.argv) or _block_fault("environment", self.environment)


@_message(21, "either")
@dataclass
class Exit(Message):
    """An attempt has ended and all of its output was sent."""

    code: int = 0
    signal: int = 0
    """Signal that ended the make, 0 for none."""
    infrastructure: str = ""
    """Class of an end that was not make's own: lost, refused, cancelled, fenced, no-space, internal;
    else empty.
    """
    text: str = ""
    waited_s: float = 0.0
    """Time from its arrival to its start."""
    ran_s: float = 0.0
    left: int = 0
    """1 when processes of it still run."""
    short: str = ""
    """What was short there while it ran, when it has failed: memory, or room; else empty."""

    def fault(self) -> str:
        if self.code > 255 or self.signal > 64 or self.signal in _NOT_DEADLY or (self.code and self.signal):
            return "no exit code or deadly signal"
        if self.short not in ("", "memory", "room"):
            return "no such shortage"
        return "" if self.infrastructure in _INFRASTRUCTURE else "no such class of an end by infrastructure"


@_message(22, "either")
@dataclass
class Signal(Message):
    """Send a signal to the make's process group, as a terminal or make itself would."""

    signal: int = 0

    def fault(self) -> str:
        return "" if 1 <= self.signal <= 64 else "no such signal"


@_message(23, "either")
@dataclass
class Cancel(Message):
    """Nobody waits for this attempt any more: end it."""

    kill: bool = False
    """With SIGKILL at once, no ladder."""


@_message(24, "server")
@dataclass
class Ask(Message):
    """A job on this host has called make: where shall that run? Opens a request with an odd number."""

    parent: int = 0
    """Attempt that it came from."""
    umask: int = 0o022
    ignored: int = 0
    """Mask of ignored signals, bit n-1 for signal n."""
    limits: list[int] = field(default_factory=list)
    """Soft limits: RLIMIT_ number and value in turn; all 64 bits set means unlimited."""
    streams: int = 7
    """Open standard streams, bit n for descriptor n."""
    same: bool = False
    """stdout and stderr are one open file."""
    stdin: bool = False
    """Standard input is something that can be forwarded."""
    jobserver: bool = False
    """The pair of descriptors that its MAKEFLAGS names is open."""
    hungry: bool = True
    """The make that waits for it may have use for another token."""
    folder: bytes = b""
    argv: bytes = b""
    """Arguments, NUL behind each."""
    environment: bytes = b""
    """NAME=value, NUL behind each."""
    RAW = ("folder", "argv", "environment")

    @property
    def arguments(self) -> list[bytes]:
        return unpack_block(self.argv)

    def fault(self) -> str:
        if len(self.limits) % 2 or max(self.limits[::2], default=0) >= 64:
            return "limits are no pairs of RLIMIT_ number and value"
        if self.umask > 0o777 or self.streams > 7 or not self.argv:
            return "umask, streams or argv out of range"
        if b"\0" in self.folder or self.folder[:1] != b"/":
            return "folder is malformed"
        if _words_size(self.argv) + _words_size(self.environment) > MOST_ARGUMENTS:
            return "no program is started with so many arguments"
        return _block_fault("argv", self.argv) or _block_fault("environment", self.environment)


@_message(25, "coordinator")
@dataclass
class Stay(Message):
    """Answer to an Ask, and the end of that request: run it where it is, as part of the job it came from."""

    tell_over_s: float = 0.0
    """Tell by Stayed how long it ran, when that was more than this; 0 means no."""
    sees: int = 0
    """It begins when each See with a number up to this one is seen."""


@_message(26, "coordinator")
@dataclass
class Placed(Message):
    """First answer to an Ask: a host runs it as a job of its own. Its streams follow, and an Exit ends it, or
    a Stay when that host would not start it.
    """


@_message(27, "server")
@dataclass
class Stayed(Message):
    """What was answered by Stay has ended, and ran longer than its tell_over_s."""

    ran_s: float = 0.0


@_message(28, "server")
@dataclass
class Called(Message):
    """A job has called a make that runs there as a part of it, and for which nobody need be asked."""

    folder: bytes = b""
    argv: bytes = b""
    """Arguments, NUL behind each."""
    environment: bytes = b""
    """NAME=value, NUL behind each."""
    RAW = ("folder", "argv", "environment")

    def fault(self) -> str:
        if b"\0" in self.folder or self.folder[:1] != b"/" or not self.argv:
            return "folder or argv is malformed"
        return _block_fault("argv", self.argv) or _block_fault("environment", self.environment)


@_message(30, "either")
@dataclass
class Data(Message):
    """Bytes of a stream: output from the make, or its standard input."""

    stream: int = STDOUT
    group_end: bool = False
    """With output sync: these bytes end a whole number of groups."""
    data: bytes = b""
    RAW = ("data",)

    _HEAD: ClassVar[struct.Struct] = struct.Struct("!BB")

    def payload(self) -> bytes:
        return self._HEAD.pack(self.stream, self.group_end) + self.data

    @classmethod
    def parse(cls, attempt: int, payload: bytes) -> Data:
        if len(payload) < 2:
            raise ProtocolError("Data: payload is cut off")
        stream, end = payload[0], payload[1]
        if stream > STDERR:
            raise ProtocolError(f"Data: no such stream {stream}")
        return cls(attempt, stream, bool(end), payload[2:])


@_message(31, "either")
@dataclass
class Credit(Message):
    """The reader has taken `amount` bytes of the stream: as many more may be sent."""

    stream: int = STDOUT
    amount: int = 0

    def fault(self) -> str:
        return "" if self.stream <= STDERR else "no such stream"


@_message(32, "either")
@dataclass
class Close(Message):
    """No more of this stream: its end (from the writer), or nobody reads it any more (from the reader)."""

    stream: int = STDOUT

    def fault(self) -> str:
        return "" if self.stream <= STDERR else "no such stream"


@_message(33, "either")
@dataclass
class StdinUsed(Message):
    """The job has read `amount` more bytes of its standard input; what it did not read stays where it is."""

    amount: int = 0


# -- tokens --------------------------------------------------------------------------------------


@_message(40, "server")
@dataclass
class Want(Message):
    """The attempt's make could use `count` more tokens."""

    count: int = 1

    def fault(self) -> str:
        return "" if self.count < _MANY else "count out of range"


@_message(41, "coordinator")
@dataclass
class Offer(Message):
    """`count` tokens for the attempt's make."""

    count: int = 1
    probe: bool = False
    """The machine has no slot for it: hosts are idle, and the make's next recipe may be a sub-make."""

    def fault(self) -> str:
        return "" if self.count < _MANY else "count out of range"


@_message(42, "server")
@dataclass
class Return(Message):
    """`count` tokens of the attempt come back."""

    count: int = 1

    def fault(self) -> str:
        return "" if self.count < _MANY else "count out of range"


@_message(43, "coordinator")
@dataclass
class Recall(Message):
    """Others wait: give back the next `count` tokens that the attempt's make does not use."""

    count: int = 1

    def fault(self) -> str:
        return "" if self.count < _MANY else "count out of range"


@_message(44, "server")
@dataclass
class Credited(Message):
    """`count` slots of the attempt are free for others: as many of its recipes wait for jobs placed
    elsewhere.
    """

    count: int = 0

    def fault(self) -> str:
        return "" if self.count < _MANY else "count out of range"


# -- frames --------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """The frame for `message`.

    Raises:
        ProtocolError: the message is longer than a frame may be.
    """
    payload = message.payload()
    if len(payload) > MAX_PAYLOAD:
        raise ProtocolError(
            f"{type(message).__name__} is {len(payload)} bytes long, the longest allowed is {MAX_PAYLOAD}"
        )
    return HEADER.pack(len(payload), message.KIND, message.attempt) + payload


class Decoder:
    """Cuts a stream of bytes into messages.

    Args:
        peer: who sends: "coordinator" or "server"; messages that only the other side may send are refused.
    """

    def __init__(self, peer: str) -> None:
        self._refuse = {"coordinator": "server", "server": "coordinator"}[peer]
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with `data`.

        Raises:
            ProtocolError: a frame is too long, of unknown kind, not for this direction, or malformed.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, kind, attempt = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise ProtocolError(f"a frame of {length} bytes, the longest allowed is {MAX_PAYLOAD}")
            cls = KINDS.get(kind)
            if cls is None or self._refuse == cls.SENDER:
                raise ProtocolError(
                    f"a frame of kind {kind} is not for this direction" if cls else f"unknown kind {kind}"
                )
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[HEADER.size : end])
            del self._buffer[:end]
            yield cls.parse(attempt, payload)

    @property
    def partial(self) -> bool:
        """Part of a frame is there: an end of the stream now would cut it off."""
        return bool(self._buffer)


def pack_block(items: list[bytes]) -> bytes:
    """Strings with a NUL behind each."""
    return b"".join(item + b"\0" for item in items)


def unpack_block(block: bytes) -> list[bytes]:
    """The strings of a block.

    Raises:
        ProtocolError: the last one has no NUL behind it.
    """
    if not block:
        return []
    if block[-1:] != b"\0":
        raise ProtocolError("a block of strings is cut off")
    return block[:-1].split(b"\0")
