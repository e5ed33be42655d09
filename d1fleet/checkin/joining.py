"""A host's first word to a registry, and its last: `join` and `leave` of the program."""

from __future__ import annotations

import json
from collections.abc import Callable

from ..errors import ConnectError, LoginError, ProtocolError, RuntimeFolderError, UsageError
from . import answer, compilers, report, talk, values
from .answer import Answer
from .client import Client, Reply
from .config import Configuration
from .places import CONFIG
from .report import Reporter
from .state import State
from .strictjson import BadDocumentError

LIMIT_S = 20.0
"""For an answer: who joins is written to a disk first."""


def join(settings: Configuration, state: State, name: str, token: str) -> dict[str, object]:
    """Become a member of a token's project; a host that is one of another goes on as that.

    Where the configuration names no networks, peers are in the ranges that the registry says.

    Returns:
        {"changed": BOOL, "name": its name, "projects": {PROJECT: {"ranges": [CIDR, ...],
        "transport": "tcp" or "ssh"}}}. By a token that it has joined by before, nothing is changed.

    Raises:
        UsageError: name, token or the registry's certificate cannot be used.
        LoginError: the registry refuses.
        ConnectError: it is not there.
        ProtocolError: it is none, or answers what cannot be taken; then this host may have joined.
        RuntimeFolderError: what it answers cannot be kept.
    """
    try:
        values.host_name(name, "the name")
    except BadDocumentError as error:
        raise UsageError(str(error), "a host's name in lower case, such as alder.example: --name") from error
    if not values.JOIN_TOKEN.fullmatch(token):
        raise UsageError("the join token is none", "it begins with d1j_, and was shown once by the registry")
    credential = state.credential()
    identity = token[: token.index("_", len("d1j_"))]
    if credential and identity in state.tokens():
        reply = _ask(settings, "/wait", {"known": {}, "wait_s": 1}, credential)
        return _said(_judged(reply, settings), changed=False)
    try:
        machine = state.machine()
    except OSError as error:
        raise RuntimeFolderError(f"the state cannot be written: {error.strerror}") from error
    known = report.durable(settings, compilers.look(state.cache, settings.tools))
    words: dict[str, object] = {
        "token": token,
        "name": name,
        "report": Reporter(machine).report(settings, known, report.Meter().sample()),
    }
    reply = _ask(settings, "/join", words, credential)
    if reply.status not in (200, 201):
        _refuse(reply)
    # First of all: without it, a host that does not like the rest would be a member and could not say so.
    _keep(state, reply, identity)
    return _said(_judged(reply, settings), changed=True)


def _keep(state: State, reply: Reply, identity: str) -> None:
    try:
        credential = answer.read_credential(reply.body)
    except BadDocumentError as error:
        raise ProtocolError(f"the registry's answer is not taken: {error}") from error
    if not credential:
        raise ProtocolError("the registry answers without a credential")
    try:
        state.keep_credential(credential)
        state.keep_token(identity)
    except OSError as error:
        raise RuntimeFolderError(
            f"the credential cannot be kept: {error.strerror}",
            "mend that, have this host forgotten by an operator, and join again",
        ) from error


def _said(found: Answer, *, changed: bool) -> dict[str, object]:
    projects = {
        name: {
            "ranges": [str(each) for each in news.ranges],
            "transport": "ssh" if news.project.is_over_ssh else "tcp",
        }
        for name, news in found.news.items()
    }
    return {"changed": changed, "name": found.name, "projects": projects}


def leave(settings: Configuration, state: State, *, for_good: bool) -> None:
    """Say goodbye; for good, the credential is forgotten, too.

    Raises:
        UsageError: the registry's certificate cannot be used.
        LoginError: the registry refuses.
        ConnectError: it is not there; nothing is forgotten.
        ProtocolError: it is none.
        RuntimeFolderError: the credential cannot be removed.
    """
    credential = state.credential()
    if credential:
        reply = _ask(settings, "/leave", {"for_good": for_good}, credential)
        # Of what it has forgotten already it says that it does not know it.
        if reply.status not in (200, 204, 401):
            _refuse(reply)
    if for_good:
        try:
            state.forget_membership()
        except OSError as error:
            raise RuntimeFolderError(f"the credential cannot be removed: {error.strerror}") from error


def _ask(settings: Configuration, path: str, words: dict[str, object], credential: str) -> Reply:
    try:
        certificate = talk.read_certificate(settings.certificate)
    except OSError as error:
        raise UsageError(f"{settings.certificate} cannot be read: {error.strerror}") from error
    client = Client(settings.registry, certificate, talk.AGENT)
    try:
        return client.post(path, json.dumps(words).encode(), credential, LIMIT_S)
    finally:
        client.close()


def _judged(reply: Reply, settings: Configuration) -> Answer:
    if reply.status not in (200, 201):
        _refuse(reply)
    try:
        return answer.read(reply.body, settings.networks or None)
    except BadDocumentError as error:
        raise ProtocolError(
            f"the registry's answer is not taken: {error}",
            f"where it is right, the networks in {CONFIG} are not",
        ) from error


def _refuse(reply: Reply) -> None:
    try:
        refusal = answer.read_refusal(reply.status, reply.body)
    except BadDocumentError as error:
        raise ProtocolError(
            f"{reply.status} is answered, and not as a registry does: {error}",
            "look whether it is the registry's address, with its port",
        ) from error
    kind: Callable[[str, str], Exception] = ConnectError if reply.status >= 500 else LoginError
    raise kind(f"the registry refuses: {refusal}", refusal.mend)
