"""`d1fleet registry project` and `token`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .registry_hosts import hosts_table
from .registry_talk import Talk, fields, listed, moment, said, segment, speaks, table


@click.group(short_help="Projects: list, show, create, change, delete.")
def project() -> None:
    """Projects: hosts that compile for each other."""


def _settings(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--option",
                "options",
                multiple=True,
                type=click.Choice(["lzo", "cpp"]),
                help="What hosts ask of each other; lzo where none is given.",
            ),
            click.option(
                "--transport", type=click.Choice(["tcp", "ssh"]), help="How hosts reach each other's distcc."
            ),
            click.option(
                "--toolchain-mismatch",
                type=click.Choice(["exclude", "ignore"]),
                help="What becomes of a host whose compilers are others than most hosts'.",
            ),
            click.option(
                "--old-clients/--no-old-clients",
                default=None,
                help="Take clients of dyndistcc, too. Nothing proves who they are.",
            ),
        )
    ):
        function = option(function)
    return function


def _given(ranges: tuple[str, ...], options: tuple[str, ...], **others: Any) -> dict[str, Any]:
    """What was said, and no more: the rest is the registry's default, or stays."""
    found: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    if ranges:
        found["ranges"] = list(ranges)
    if options:
        found["options"] = list(options)
    return found


@project.command("list")
@speaks
def list_projects(talk: Talk) -> None:
    """List all projects."""
    answer = talk.registry.get("/admin/projects")
    talk.show(answer, lambda: _projects(listed(answer, "projects")))


def _projects(projects: list[dict[str, Any]]) -> None:
    table(
        ("project", "hosts", "compile", "slots", "transport", "ranges"),
        [
            (
                each["name"],
                each["hosts"],
                each["peers"],
                each["slots"],
                each["transport"],
                " ".join(each["ranges"]),
            )
            for each in projects
        ],
        "there are no projects; d1fleet registry project create NAME --range NETWORK makes one",
    )


@project.command("show")
@click.argument("name")
@speaks
def show_project(talk: Talk, name: str) -> None:
    """Show project NAME, and its hosts."""
    found = talk.registry.get(f"/admin/projects/{segment(name)}")
    hosts = talk.registry.get("/admin/hosts", project=name)

    def lines() -> None:
        _describe(found)
        click.echo()
        hosts_table(listed(hosts, "hosts"), name)

    talk.show({"project": found, "hosts": hosts}, lines)


def _describe(found: dict[str, Any]) -> None:
    fields(
        {
            "project": found["name"],
            "ranges": " ".join(found["ranges"]),
            "transport": found["transport"],
            "options": " ".join(found["options"]),
            "toolchain mismatch": found["toolchain_mismatch"],
            "old clients": "yes" if found["old_clients"] else "no",
            "created": moment(found["created_at"]),
        }
    )


@project.command("create")
@click.argument("name")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    required=True,
    metavar="NETWORK",
    help="Network in which its hosts are, as 192.0.2.0/24; may be given again.",
)
@_settings
@speaks
def create_project(talk: Talk, name: str, **settings: Any) -> None:
    """Create project NAME."""
    answer = talk.registry.post("/admin/projects", {"name": name, **_given(**settings)})
    talk.show(answer, lambda: said(f"project {name} is there; d1fleet registry token create {name}"))


@project.command("change")
@click.argument("name")
@click.option("--range", "ranges", multiple=True, metavar="NETWORK", help="All its networks from now on.")
@_settings
@speaks
def change_project(talk: Talk, name: str, **settings: Any) -> None:
    """Change project NAME; what is not said stays as it is."""
    answer = talk.registry.patch(f"/admin/projects/{segment(name)}", _given(**settings))
    talk.show(answer, lambda: _describe(answer))


@project.command("delete")
@click.argument("name")
@click.option("--with-hosts", is_flag=True, help="Its hosts leave it. Without, it has to be empty.")
@speaks
def delete_project(talk: Talk, name: str, with_hosts: bool) -> None:
    """Delete project NAME, and its join tokens."""
    query = {"with_hosts": "true"} if with_hosts else {}
    answer = talk.registry.delete(f"/admin/projects/{segment(name)}", **query)
    talk.show(answer, lambda: said(f"project {name} is deleted"))


@click.group(short_help="Join tokens: list, create, rotate, revoke.")
def token() -> None:
    """Join tokens: with one of them, hosts join a project."""


@token.command("list")
@click.argument("name", metavar="PROJECT")
@speaks
def list_tokens(talk: Talk, name: str) -> None:
    """List the join tokens of PROJECT; the tokens themselves nobody knows."""
    answer = talk.registry.get(f"/admin/projects/{segment(name)}/tokens")
    talk.show(
        answer,
        lambda: table(
            ("token", "created", "last used", "note"),
            [
                (each["id"], moment(each["created_at"]), moment(each["used_at"]), each["note"])
                for each in listed(answer, "tokens")
            ],
            f"{name} has no join tokens; d1fleet registry token create {name} makes one",
        ),
    )


@token.command("create")
@click.argument("name", metavar="PROJECT")
@click.option("--note", metavar="TEXT", default="", help="What it is for.")
@speaks
def create_token(talk: Talk, name: str, note: str) -> None:
    """Create a join token of PROJECT, and print it with the command that hosts join by. It is shown once."""
    answer = talk.registry.post(f"/admin/projects/{segment(name)}/tokens", {"note": note})
    talk.show(answer, lambda: _shown(talk, answer))


@token.command("rotate")
@click.argument("name", metavar="PROJECT")
@speaks
def rotate_tokens(talk: Talk, name: str) -> None:
    """Make all join tokens of PROJECT void, and create a new one. Hosts that have joined stay."""
    answer = talk.registry.post(f"/admin/projects/{segment(name)}/tokens/rotate")
    talk.show(answer, lambda: _shown(talk, answer))


def _shown(talk: Talk, answer: dict[str, Any]) -> None:
    place = talk.registry.place
    url = answer.get("url") or (str(place) if not place.socket else "https://REGISTRY:33333")
    pin = answer.get("pin") or place.pin
    fields({"token": answer["token"], "id": answer["id"]})
    click.echo("\nIt is not shown again. On each host that shall join, as root:\n")
    words = ["d1fleet join", url, "--token", answer["token"], *(["--pin", pin] if pin else [])]
    said("  " + " ".join(words))


@token.command("revoke")
@click.argument("name", metavar="PROJECT")
@click.argument("identity", metavar="ID")
@speaks
def revoke_token(talk: Talk, name: str, identity: str) -> None:
    """Make the join token ID of PROJECT void. Hosts that have joined by it stay."""
    answer = talk.registry.delete(f"/admin/projects/{segment(name)}/tokens/{segment(identity)}")
    talk.show(answer, lambda: said(f"join token {identity} is void"))
