"""The d1make server on this machine, over pipes."""

from __future__ import annotations

from ..errors import ServerStartError, ToolError
from . import pipes


def connect(argv: list[str]) -> pipes.PipeChannel:
    """Start `argv` on this machine.

    Raises:
        ServerStartError: it cannot be started.
    """
    try:
        return pipes.PipeChannel(pipes.start(argv))
    except ToolError as error:
        raise ServerStartError(error.message) from error
