"""python -m tests.containers: make and remove test hosts from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.containers.errors import ContainerError
from tests.containers.fleet import ContainerHosts, take_down
from tests.containers.image import ensure_image
from tests.containers.missing import missing_reason
from tests.containers.recipe import RELEASES, VARIANTS
from tests.containers.registry import find_fleets, machine_lock, remove_stale


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    arguments = _parser().parse_args(argv)
    reason = missing_reason()
    if reason:
        print(f"tests.containers: {reason}", file=sys.stderr)
        return 1
    try:
        arguments.do(arguments)
    except (ContainerError, ValueError) as exc:
        print(f"tests.containers: {exc}", file=sys.stderr)
        return 1
    return 0


def _image(arguments: argparse.Namespace) -> None:
    for release in arguments.release or RELEASES:
        for variant in [arguments.variant] if arguments.variant else VARIANTS:
            print(ensure_image(release, variant))


def _up(arguments: argparse.Namespace) -> None:
    hosts = ContainerHosts(
        arguments.name,
        count=arguments.hosts,
        release=arguments.release,
        variant=arguments.variant,
        cpus=arguments.cpus,
        volumes=[path.absolute() for path in arguments.volume],
        ipv6=arguments.ipv6,
        project=arguments.project,
        inventory=arguments.inventory.absolute() if arguments.inventory else None,
    )
    hosts.up()
    hosts.keep()
    for what in ("inventory", "ssh_config", "known_hosts", "key"):
        print(f"{what}={getattr(hosts, what)}")


def _down(arguments: argparse.Namespace) -> None:
    with machine_lock():
        if arguments.stale:
            for name in remove_stale():
                print(f"removed {name}")
        for name in arguments.name:
            take_down(name)


def _list(arguments: argparse.Namespace) -> None:
    for name, found in find_fleets().items():
        states = sorted(found.containers.values())
        counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        owner = "kept" if found.kept else "stale" if found.stale else f"of process {found.owner}"
        print(f"{name}\t{owner}\t{counted or 'no hosts'}\t{found.folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.containers", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="image|up|down|list")

    image = verbs.add_parser("image", help="make the images, all of them unless told which")
    image.add_argument("release", nargs="*", choices=(*RELEASES, []))
    image.add_argument("--variant", choices=VARIANTS)
    image.set_defaults(do=_image)

    up = verbs.add_parser("up", help="make a fleet; it stays until `down`")
    up.add_argument("name")
    up.add_argument("--hosts", type=int, default=3, metavar="N")
    up.add_argument("--release", choices=RELEASES, default="bookworm")
    up.add_argument("--variant", choices=VARIANTS, default="bare")
    up.add_argument("--cpus", type=float, default=0.0, help="processors' worth of time for each host")
    up.add_argument("--volume", type=Path, action="append", default=[], metavar="PATH")
    up.add_argument("--ipv6", action="store_true")
    up.add_argument("--inventory", type=Path, metavar="FILE")
    up.add_argument("--project", default="test", help="the hosts' group below `projects`")
    up.set_defaults(do=_up)

    down = verbs.add_parser("down", help="remove fleets")
    down.add_argument("name", nargs="*")
    down.add_argument("--stale", action="store_true", help="those whose owner is gone")
    down.set_defaults(do=_down)

    listing = verbs.add_parser("list", help="show the fleets of this machine")
    listing.set_defaults(do=_list)
    return parser


if __name__ == "__main__":
    sys.exit(main())
