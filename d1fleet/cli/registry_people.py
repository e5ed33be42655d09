"""`d1fleet registry operator`, `key` and `audit`: who may do what, and who did."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .registry_talk import Talk, fields, listed, moment, said, segment, speaks, table

_LONGEST_PASSWORD = 1024


@click.group(short_help="Those who sign in at the panel: list, add, remove.")
def operator() -> None:
    """Those who sign in at the panel."""


@operator.command("list")
@speaks
def list_operators(talk: Talk) -> None:
    """List those who sign in at the panel."""
    answer = talk.registry.get("/admin/operators")
    talk.show(
        answer,
        lambda: table(
            ("name", "may", "since"),
            [
                (each["name"], _rights(each["kind"]), moment(each["created_at"]))
                for each in listed(answer, "operators")
            ],
            "nobody signs in yet; d1fleet registry operator add NAME",
        ),
    )


def _rights(kind: str) -> str:
    return {"viewer": "look", "operator": "change"}.get(kind, kind)


@operator.command("add")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["operator", "viewer"]),
    default="operator",
    show_default=True,
    help="A viewer changes nothing.",
)
@click.option(
    "--password-file",
    metavar="FILE",
    help="Holds the password; - for standard input. Default: it is asked for.",
)
@speaks
def add_operator(talk: Talk, name: str, kind: str, password_file: str | None) -> None:
    """Add NAME, or give them another password."""
    body = {"name": name, "password": _password(password_file), "kind": kind}
    answer = talk.registry.post("/admin/operators", body)
    talk.show(answer, lambda: said(f"{name} may sign in, and {_rights(kind)}"))


def _password(file: str | None) -> str:
    from ..errors import UsageError

    if file is None and not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for the password", "--password-file FILE, or - for standard input"
        )
    if file is None:
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    try:
        if file == "-":
            text = sys.stdin.readline(_LONGEST_PASSWORD + 2)
        else:
            with open(file, encoding="utf-8") as opened:
                text = opened.readline(_LONGEST_PASSWORD + 2)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password in {file} cannot be read: {error}", "see `ls -l` of it") from error
    return text.rstrip("\r\n")


@operator.command("remove")
@click.argument("name")
@speaks
def remove_operator(talk: Talk, name: str) -> None:
    """Let NAME sign in no more."""
    answer = talk.registry.delete(f"/admin/operators/{segment(name)}")
    talk.show(answer, lambda: said(f"{name} may not sign in any more"))


@click.group(short_help="API keys of programs: list, create, remove.")
def key() -> None:
    """API keys: programs show them, such as an inventory."""


@key.command("list")
@speaks
def list_keys(talk: Talk) -> None:
    """List API keys; the keys themselves nobody knows."""
    answer = talk.registry.get("/admin/keys")
    talk.show(
        answer,
        lambda: table(
            ("key", "may", "created", "note"),
            [
                (each["id"], _rights(each["kind"]), moment(each["created_at"]), each["note"])
                for each in listed(answer, "keys")
            ],
            "there are no keys; d1fleet registry key create makes one",
        ),
    )


@key.command("create")
@click.option(
    "--kind",
    type=click.Choice(["viewer", "operator"]),
    default="viewer",
    show_default=True,
    help="A viewer changes nothing, which is enough for an inventory.",
)
@click.option("--note", metavar="TEXT", default="", help="Whose it is, or what for.")
@click.option("--output", metavar="FILE", help="Write it there (mode 0600), and show it nowhere.")
@speaks
def create_key(talk: Talk, kind: str, note: str, output: str | None) -> None:
    """Create an API key. It is shown once."""
    file = _new_file(output) if output else None
    try:
        answer = talk.registry.post("/admin/keys", {"kind": kind, "note": note})
        if file is not None and output is not None:
            os.write(file, f"{answer['key']}\n".encode())
            answer = {**answer, "key": None, "file": output}
    except BaseException:
        if output is not None:
            os.unlink(output)
        raise
    finally:
        if file is not None:
            os.close(file)
    talk.show(answer, lambda: _shown(answer, output))


def _new_file(path: str) -> int:
    """Before there is a key that could be lost."""
    from ..errors import UsageError

    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made: {error.strerror}", "name a file that is not there"
        ) from error


def _shown(answer: dict[str, Any], output: str | None) -> None:
    if output:
        said(f"key {answer['id']} is in {output}")
    else:
        fields({"key": answer["key"], "id": answer["id"]})
        click.echo("\nIt is not shown again. Write it into a file for --key-file, mode 0600.")


@key.command("remove")
@click.argument("identity", metavar="ID")
@speaks
def remove_key(talk: Talk, identity: str) -> None:
    """Make the API key ID void."""
    answer = talk.registry.delete(f"/admin/keys/{segment(identity)}")
    talk.show(answer, lambda: said(f"key {identity} is void"))


@click.command(short_help="Tell who did what.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="The last N."
)
@speaks
def audit(talk: Talk, limit: int) -> None:
    """Tell who did what to whom, the last things first."""
    answer = talk.registry.get("/admin/audit", limit=limit)
    talk.show(
        answer,
        lambda: table(
            ("when", "who", "what", "whom", "from", ""),
            [
                (
                    moment(each["at"]),
                    each["who"],
                    each["what"],
                    each["whom"],
                    each["source"],
                    each["detail"],
                )
                for each in listed(answer, "audit")
            ],
            "nothing has been done yet",
        ),
    )
