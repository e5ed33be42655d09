"""python -m tests.containers: make and remove test hosts from a shell."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.containers import registry
from tests.containers.errors import ContainerError
from tests.containers.fleet import ContainerHosts
from tests.containers.image import ensure_image
from tests.containers.missing import missing_reason
from tests.containers.recipe import RELEASES, VARIANTS

FAULTS = ("pause", "unpause", "kill", "start", "cut", "restore", "drop", "reject", "accept")
"""Methods of `Host` without arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    arguments = _parser().parse_args(argv)
    reason = missing_reason()
    if reason:
        return _fail(reason)
    # What ends us must let us tidy up: an end by a signal would leave half a fleet.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        arguments.do(arguments)
    except (ContainerError, ValueError) as exc:
        return _fail(str(exc))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _fail(reason: str) -> int:
    print(f"tests.containers: {reason}", file=sys.stderr)
    return 1


def _image(arguments: argparse.Namespace) -> None:
    for release in [arguments.release] if arguments.release else RELEASES:
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
        sshfs=arguments.sshfs.absolute() if arguments.sshfs else "",
        ipv6=arguments.ipv6,
        debs=arguments.debs,
        project=arguments.project,
        inventory=arguments.inventory.absolute() if arguments.inventory else None,
    )
    hosts.up()
    hosts.keep()
    for what in ("inventory", "ssh_config", "known_hosts", "key"):
        print(f"{what}={getattr(hosts, what)}")


def _down(arguments: argparse.Namespace) -> None:
    if arguments.stale == bool(arguments.name):
        raise ValueError("down takes a name, or --stale")
    if arguments.name:
        with contextlib.suppress(
            ContainerError
        ):  # half-made, or another user's: no more is known than podman does
            ContainerHosts.attach(arguments.name).forget_inventory()
    with registry.machine_lock():
        if arguments.stale:
            for name in registry.remove_stale():
                print(f"removed {name}")
        elif not registry.take_down(arguments.name):
            raise ContainerError(f"there is no fleet {arguments.name}")


def _list(arguments: argparse.Namespace) -> None:
    for name, found in registry.find_fleets().items():
        states = sorted(found.containers.values())
        counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        owner = "kept" if found.kept else "stale" if found.stale else f"of process {found.owner}"
        print(f"{name}\t{owner}\t{counted or 'no hosts'}\t{found.folder}")


def _fault(arguments: argparse.Namespace) -> None:
    hosts = ContainerHosts.attach(arguments.name)
    if arguments.host not in [host.name for host in hosts]:
        raise ContainerError(f"the fleet {arguments.name} has no host {arguments.host}")
    getattr(hosts[arguments.host], arguments.fault)()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.containers", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="image|up|down|list|fault")

    image = verbs.add_parser("image", help="make the images, all of them unless told which")
    image.add_argument("release", nargs="?", choices=RELEASES)
    image.add_argument("--variant", choices=VARIANTS)
    image.set_defaults(do=_image)

    up = verbs.add_parser("up", help="make a fleet; it stays until `down`")
    up.add_argument("name")
    up.add_argument("--hosts", type=int, default=3, metavar="N")
    up.add_argument("--release", default="bookworm", help="of all hosts, or of each: bookworm,trixie")
    up.add_argument("--variant", choices=VARIANTS, default="bare")
    up.add_argument("--cpus", type=float, default=0.0, help="processors' worth of time for each host")
    up.add_argument("--volume", type=Path, action="append", default=[], metavar="PATH",
                    help="a folder that is at the same path in every host")  # fmt: skip
    up.add_argument("--sshfs", type=Path, metavar="PATH",
                    help="a folder that the first host has and the others mount from it")  # fmt: skip
    up.add_argument("--ipv6", action="store_true")
    up.add_argument("--debs", action="store_true", help="keep fetched packages for the next fleet")
    up.add_argument("--inventory", type=Path, metavar="FILE", help="`down` removes it too")
    up.add_argument("--project", default="test", help="the hosts' group below `projects`")
    up.set_defaults(do=_up)

    down = verbs.add_parser("down", help="remove a fleet")
    down.add_argument("name", nargs="?")
    down.add_argument("--stale", action="store_true", help="remove all whose owner is gone")
    down.set_defaults(do=_down)

    listing = verbs.add_parser("list", help="show the fleets of this machine")
    listing.set_defaults(do=_list)

    fault = verbs.add_parser("fault", help="do something to a host, or undo it")
    fault.add_argument("name")
    fault.add_argument("host")
    fault.add_argument("fault", choices=FAULTS)
    fault.set_defaults(do=_fault)
    return parser


if __name__ == "__main__":
    sys.exit(main())
