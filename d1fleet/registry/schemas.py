"""What requests may hold: typed, bounded, and nothing else. What a value means is for `model` to say.

A field is missing, unknown or wrong: `Refused` names it. What was sent is not repeated, but for the names of
fields, with all that cannot be printed taken out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..hostsfile import MOST_SLOTS
from ..server.toolchain import LONGEST_NAME, LONGEST_VALUE, MOST_PARTS
from . import model
from .administration import LONGEST_NOTE, LONGEST_PASSWORD, SHORTEST_PASSWORD
from .refusals import Refused
from .service import LONGEST_WAIT_S

LONGEST_REVISION = 64
LONGEST_TOKEN = 100
LONGEST_ADDRESS = 45
LONGEST_RANGE = 49
LONGEST_HOST_KEY = 1600

_LONGEST_FIELD = 60
"""Characters of a part of a field's name that are repeated."""

M = TypeVar("M", bound=BaseModel)

_WORDS: dict[str, str] = {}
"""Pattern -> what it means, for people."""


def _text(pattern: re.Pattern[str] | str, most: int, words: str) -> Any:
    """A text of that pattern; patterns are written as JSON Schema and pydantic both understand them."""
    source = pattern if isinstance(pattern, str) else pattern.pattern
    whole = f"^(?:{source})$"
    _WORDS[whole] = words
    return Field(pattern=whole, max_length=most, description=words)


ProjectName = Annotated[
    str, _text(model.PROJECT_NAME, 63, "letters, digits and _, at most 63, no digit in front")
]
HostName = Annotated[
    # Without its look-ahead, which JSON Schema's readers need not know: the length says the same.
    str,
    _text(
        model.HOST_NAME.pattern.removeprefix(r"(?=.{1,100}\Z)"),
        100,
        "a host's name in lower case, at most 100 characters",
    ),
]
Revision = Annotated[str, Field(max_length=LONGEST_REVISION)]
Address = Annotated[str, _text("[0-9A-Fa-f:.]{2,45}", LONGEST_ADDRESS, "an address such as 192.0.2.1")]
AddressOrNone = Annotated[
    str, _text("|[0-9A-Fa-f:.]{2,45}", LONGEST_ADDRESS, "an address such as 192.0.2.1, or empty")
]
Range = Annotated[str, _text("[0-9A-Fa-f:./]{2,49}", LONGEST_RANGE, "a network such as 192.0.2.0/24")]
Printable = Annotated[str, Field(max_length=LONGEST_VALUE)]
Kind = Literal["viewer", "operator"]
Bytes = Annotated[int, Field(ge=0, le=model.MOST_BYTES)]
Cpus = Annotated[float, Field(ge=0, le=model.MOST_CPUS)]
Port = Annotated[int, Field(ge=1, le=65535)]
Note = Annotated[str, Field(max_length=LONGEST_NOTE)]


class Strict(BaseModel):
    """No type is turned into another, no unknown field is passed over, no error repeats what was sent."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class ReportBody(Strict):
    """What a host says of itself; see `model.Report`."""

    session: Annotated[str, _text(model.SESSION, 32, "32 hex digits")]
    sequence: Annotated[int, Field(ge=1, le=model.MOST_SEQUENCE)]
    owner: Annotated[
        str, _text(f"|{model.OWNER.pattern}", 64, "a name of plain letters and digits, at most 64 characters")
    ]
    addresses: Annotated[tuple[Address, ...], Field(max_length=model.MOST_ADDRESSES)]
    slots: Annotated[int, Field(ge=1, le=MOST_SLOTS)]
    port: Port
    ssh_port: Port
    serving: bool
    version: Annotated[str, _text(model.VERSION, 32, "a version such as 0.1.0")]
    system: Annotated[str, _text(model.SYSTEM, 64, "the name of a distribution, at most 64 characters")]
    machine: Annotated[str, _text(model.MACHINE, 64, "64 hex digits")]
    host_keys: Annotated[
        tuple[
            Annotated[
                str,
                _text(model.HOST_KEY, LONGEST_HOST_KEY, "public keys as ssh writes them, without a comment"),
            ],
            ...,
        ],
        Field(max_length=model.MOST_HOST_KEYS),
    ]
    toolchain: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)], Printable],
        Field(max_length=MOST_PARTS),
    ]
    jobs: Annotated[int, Field(ge=0, le=model.MOST_JOBS)]
    load_others_cpus: Cpus
    load_1min: Cpus
    memory_available_bytes: Bytes
    memory_bytes: Bytes
    disk_free_bytes: Bytes
    error: Annotated[str, Field(max_length=model.LONGEST_ERROR)]

    def report(self) -> model.Report:
        """Raises:
        FieldError: a value cannot be meant.
        """
        try:
            return model.Report(**dict(self))
        except model.FieldError as error:
            raise model.FieldError(f"report.{error.field}", error.fault) from None


Known = Annotated[dict[ProjectName, Revision], Field(max_length=model.MOST_PROJECTS)]


class Join(Strict):
    token: Annotated[str, Field(min_length=1, max_length=LONGEST_TOKEN)]
    name: HostName
    report: ReportBody


class CheckIn(Strict):
    report: ReportBody
    known: Known


class Wait(Strict):
    known: Known
    wait_s: Annotated[float, Field(ge=1, le=LONGEST_WAIT_S)]


class Leave(Strict):
    for_good: bool


_Ranges = Annotated[tuple[Range, ...], Field(min_length=1, max_length=model.MOST_RANGES)]
_Options = Annotated[tuple[Literal["lzo", "cpp"], ...], Field(max_length=2)]
_Transport = Literal["tcp", "ssh"]
_Mismatch = Literal["exclude", "ignore"]


class CreateProject(Strict):
    name: ProjectName
    ranges: _Ranges
    options: _Options = ("lzo",)
    transport: _Transport = "tcp"
    toolchain_mismatch: _Mismatch = "exclude"
    old_clients: bool = False


class ChangeProject(Strict):
    """Those fields that shall change."""

    # None of these is what is meant by a field that is not there: see `given`.
    ranges: _Ranges = Field(default_factory=tuple)
    options: _Options = Field(default_factory=tuple)
    transport: _Transport = Field(default_factory=lambda: "tcp")
    toolchain_mismatch: _Mismatch = Field(default_factory=lambda: "exclude")
    old_clients: bool = Field(default_factory=bool)


class CreateToken(Strict):
    note: Note = ""


class ChangeHost(Strict):
    """Those fields that shall change. An empty address is the one that the host is seen at."""

    projects: Annotated[tuple[ProjectName, ...], Field(min_length=1, max_length=model.MOST_PROJECTS)] = Field(
        default_factory=tuple
    )
    address: AddressOrNone = Field(default_factory=str)


class PutOperator(Strict):
    name: Annotated[
        str,
        _text(model.OPERATOR_NAME, 32, "lower case letters, digits and ._-, at most 32, a letter in front"),
    ]
    password: Annotated[str, Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)]
    kind: Kind = "operator"


class CreateKey(Strict):
    kind: Kind
    note: Note = ""


class ErrorView(BaseModel):
    """Why something was refused: a word for programs, and for people what is wrong and what to do."""

    code: str
    message: str
    field: str = Field(default_factory=str, description="Which field is wrong")
    mend: str = Field(default_factory=str, description="What can be done about it")


class ErrorBody(BaseModel):
    """What every refusal is answered with."""

    error: ErrorView


REQUESTS: tuple[type[BaseModel], ...] = (
    *(Join, CheckIn, Wait, Leave),
    *(CreateProject, ChangeProject, CreateToken, ChangeHost, PutOperator, CreateKey),
)


def given(body: BaseModel) -> dict[str, Any]:
    """Those fields that were sent."""
    return {name: getattr(body, name) for name in body.model_fields_set}


def parse(wanted: type[M], body: bytes) -> M:
    """Raises:
    Refused: it is no JSON (400), or a field cannot be used (422).
    """
    try:
        return wanted.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "json_invalid":
        return Refused(400, "json", f"the body is no JSON: {context.get('error', '')}")
    name = field_name(first["loc"])
    if kind == "missing":
        fault = "it is missing"
    elif kind == "extra_forbidden":
        fault = "there is no such field"
    elif kind == "string_pattern_mismatch":
        fault = f"it has to be {_WORDS.get(str(context.get('pattern')), 'of another form')}"
    else:
        fault = re.sub(r"^[A-Z]\w* should ", "it has to ", first["msg"])
    return Refused(422, "field", f"{name or 'the body'}: {fault}", field=name)


def field_name(location: Sequence[int | str]) -> str:
    """A field by the way to it. Keys that somebody has sent may be part of it."""
    parts = [part for part in location if part != "[key]"]
    return ".".join(model.plain(str(part), _LONGEST_FIELD) for part in parts)
