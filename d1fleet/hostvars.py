"""What an inventory's variables say of one host. Pure.

What comes in is the answer of `ansible-inventory --list`: group variables are merged in already, nothing is
templated, and what Ansible Vault keeps is still encrypted.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import sshargs
from .errors import InventoryError
from .model import DEFAULT_NICE, MISMATCHES, TRANSPORTS, Host

MOST_SLOTS = 4096
"""More is a slip of the finger (a guess)."""

_CONNECTIONS = {"ssh": "ssh", "smart": "ssh", "paramiko_ssh": "ssh", "paramiko": "ssh", "local": "local"}
_AUTOMATIC_PYTHONS = ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent")

VARIABLES = (
    *(
        "ansible_host",
        "ansible_ssh_host",
        "ansible_port",
        "ansible_ssh_port",
        "ansible_user",
        "ansible_ssh_user",
    ),
    *("ansible_connection", "ansible_ssh_private_key_file", "ansible_private_key_file"),
    *("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"),
    *("ansible_python_interpreter", "d1fleet_fence", "d1fleet_jobs", "d1fleet_makeargs", "d1fleet_max_jobs"),
    *(
        "d1fleet_nice",
        "d1fleet_server_setup",
        "d1fleet_slots",
        "d1fleet_toolchain_mismatch",
        "d1fleet_transport",
    ),
    "d1fleet_trees",
)
"""All that is read; nothing else of an inventory is kept anywhere, but what has our prefix."""

_PREFIX = "d1fleet_"

_SSH_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
"""In the order in which Ansible gives them to ssh. A ProxyCommand there may hold a password: errors name the
variable, never the value.
"""


def reduced(found: Mapping[str, Any]) -> dict[str, Any]:
    """Only what is read here: no other variable, and no ciphertext."""
    return {
        name: _without_secret(found[name])
        for name in found
        if name in VARIABLES or (isinstance(name, str) and name.startswith(_PREFIX))
    }


def _without_secret(value: Any) -> Any:
    return {"__ansible_vault": ""} if isinstance(value, Mapping) and "__ansible_vault" in value else value


class HostVariables:
    """Reads one host's variables; each fault names the host and the variable."""

    def __init__(self, name: str, found: Mapping[str, Any]) -> None:
        self.name = name
        self._found = found

    def host(self) -> Host:
        """The host.

        Raises:
            InventoryError: a variable has a value that cannot be used.
        """
        self._check_names()
        if not is_plain_word(self.name):
            raise InventoryError(
                f"host {self.name!r} has a name that ssh could take for something else", "rename it"
            )
        identity = self._word("ansible_ssh_private_key_file", "ansible_private_key_file", blanks=True)
        python = self._word("ansible_python_interpreter")
        return Host(
            name=self.name,
            address=self._word("ansible_host", "ansible_ssh_host"),
            port=self._number("ansible_port", "ansible_ssh_port", least=1, most=65535),
            user=self._word("ansible_user", "ansible_ssh_user"),
            identity_file=os.path.expanduser(identity) if identity else None,
            ssh_args=tuple(word for name in _SSH_ARGS for word in self._ssh_args(name)),
            python=None if python in _AUTOMATIC_PYTHONS else python,
            transport=self._transport(),
            slots=self._number("d1fleet_slots", least=1, most=MOST_SLOTS),
            max_jobs=self._number("d1fleet_max_jobs", least=1, most=MOST_SLOTS),
            nice=DEFAULT_NICE if (nice := self._number("d1fleet_nice", least=0, most=19)) is None else nice,
            setup=self._text("d1fleet_server_setup") or "",
            fence=self._text("d1fleet_fence") or "",
            makeargs=self._list("d1fleet_makeargs"),
            trees=self._trees(),
            toolchain_mismatch=self._choice("d1fleet_toolchain_mismatch", MISMATCHES),
        )

    def _check_names(self) -> None:
        """A misspelt variable of ours would be ignored in silence. Others with our prefix are the roles'."""
        for name in self._found:
            near = difflib.get_close_matches(name, VARIABLES, 1, 0.85) if name not in VARIABLES else []
            if near and name.startswith(_PREFIX):
                raise InventoryError(
                    f"host {self.name}: there is no variable {name}", f"did you mean {near[0]}?"
                )

    def jobs(self) -> int | None:
        """The -j that the project wants: None for none, 0 for all slots.

        Raises:
            InventoryError: it is neither `auto` nor a number.
        """
        if self._plain("d1fleet_jobs") == "auto":
            return 0
        return self._number("d1fleet_jobs", least=1, most=MOST_SLOTS)

    # One variable

    def _fault(self, variable: str, message: str, mend: str) -> InventoryError:
        return InventoryError(f"host {self.name}: {variable} {message}", mend)

    def _plain(self, variable: str) -> Any:
        """The value, and nothing that would still have to be decrypted or templated; None when not set."""
        value = self._found.get(variable)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping) and "__ansible_vault" in each:
                raise self._fault(
                    variable, "is encrypted by Ansible Vault", "give it as a plain value: it is no secret"
                )
            if isinstance(each, str) and any(mark in each for mark in ("{{", "{%")):
                raise self._fault(
                    variable,
                    "is a template" if variable in _SSH_ARGS else f"is a template ({each!r})",
                    "give it as a plain value: d1fleet does not run templates",
                )
        # A string that Ansible was told not to template, as a registry's hosts send it.
        return (
            value["__ansible_unsafe"] if isinstance(value, Mapping) and "__ansible_unsafe" in value else value
        )

    def _first(self, variables: Sequence[str]) -> str:
        return next((name for name in variables if self._found.get(name) is not None), variables[0])

    def _text(self, variable: str) -> str | None:
        value = self._plain(variable)
        if value is None or isinstance(value, str):
            return value
        raise self._fault(variable, f"is {value!r}", "it has to be a text")

    def _word(self, *variables: str, blanks: bool = False) -> str | None:
        variable = self._first(variables)
        value = self._text(variable)
        if value is None or is_plain_word(value.replace(" ", "_") if blanks else value):
            return value
        raise self._fault(
            variable, f"is {value!r}", "it must not be empty, start with a dash, or hold blanks"
        )

    def _number(self, *variables: str, least: int, most: int) -> int | None:
        variable = self._first(variables)
        value = self._plain(variable)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if value is None or (
            isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        ):
            return value
        raise self._fault(variable, f"is {value!r}", f"it has to be a whole number from {least} to {most}")

    def _list(self, variable: str, split: Callable[[str], list[str]] = shlex.split) -> tuple[str, ...]:
        value = self._plain(variable)
        if isinstance(value, str):
            try:
                value = split(value)
            except ValueError as error:
                raise self._fault(variable, f"is {value!r}: {error}", "write it as a list") from error
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(each, str) and "\0" not in each for each in value):
            return tuple(value)
        raise self._fault(variable, f"is {value!r}", "it has to be a list of texts, or one text")

    def _ssh_args(self, variable: str) -> tuple[str, ...]:
        """What one of Ansible's variables says of how to connect."""
        value = self._plain(variable)
        if value is None:
            return ()
        try:
            if not isinstance(value, str) or "\0" in value:
                raise ValueError("it is no text")
            return sshargs.of_inventory(shlex.split(value))
        except sshargs.BadOption as error:
            what = f"lacks the value of -{error.letter}" if error.lacks_value else f"has {error}"
            raise self._fault(
                variable,
                f"{what}, which cannot stand there",
                "give only options of ssh that say how to connect",
            ) from None
        except ValueError as error:
            raise self._fault(variable, f"cannot be split: {error}", "write it as for a shell") from None

    def _choice(self, variable: str, choices: Sequence[str]) -> str:
        """One of a few words; the first of them when nothing is said."""
        value = self._text(variable)
        if value is None or value in choices:
            return value or choices[0]
        raise self._fault(variable, f"is {value!r}", f"it is one of {', '.join(choices)}")

    def _trees(self) -> tuple[str, ...]:
        found = self._list("d1fleet_trees", lambda text: [text])
        for tree in found:
            if not os.path.isabs(tree):
                raise self._fault("d1fleet_trees", f"names {tree!r}", "give absolute paths")
        return found

    def _transport(self) -> str:
        transport = self._text("d1fleet_transport")
        if transport is not None:
            if transport not in TRANSPORTS:
                raise self._fault(
                    "d1fleet_transport", f"is {transport!r}", f"it is one of {', '.join(TRANSPORTS)}"
                )
            return transport
        connection = self._text("ansible_connection")
        if connection is None:
            return TRANSPORTS[0]
        known = _CONNECTIONS.get(connection.rpartition(".")[2])
        if known is None:
            raise self._fault(
                "ansible_connection",
                f"is {connection!r}",
                f"d1fleet knows {', '.join(_CONNECTIONS)}; or set d1fleet_transport",
            )
        return known


def is_plain_word(text: str) -> bool:
    """Whether a name can stand in an argument list: printable, no blanks, and no option in disguise."""
    return text.isprintable() and not any(map(str.isspace, text)) and not text.startswith("-") and text != ""
