"""`d1fleet simulate`: how long would a build take on another fleet?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError

if TYPE_CHECKING:
    from ..simulator import Outcome, SimulatedHost
    from ..traces import TraceJob

_USUAL_SLOTS = 4
"""For hosts of an inventory that says nothing of slots."""

_FLEETS_SPREAD = 0.4
"""Speeds of a made-up fleet: two of three hosts between two thirds and one and a half."""


def _numbers(least: float, most: float) -> Callable[[Any, Any, str | None], tuple[float, ...]]:
    """Reads numbers by commas; hosts take them in turn."""

    def read(context: Any, option: Any, value: str | None) -> tuple[float, ...]:
        try:
            numbers = tuple(float(word) for word in value.split(",")) if value is not None else ()
        except ValueError as error:
            raise click.BadParameter(f"{value!r} are not numbers by commas") from error
        if not all(least <= number <= most for number in numbers):
            raise click.BadParameter(f"{value!r}: each has to be between {least:g} and {most:g}")
        return numbers

    return read


@click.command()
@click.argument("records", nargs=-1, metavar="[RECORD]...")
@click.option("--hosts", type=click.IntRange(1, 10_000), metavar="N", help="Hosts of the fleet (10).")
@click.option("--inventory", multiple=True, metavar="PATH", help="The hosts of an inventory instead.")
@click.option("--project", metavar="GROUP", help="Group of the inventory whose hosts are used.")
@click.option(
    "--slots",
    metavar="NUMBERS",
    callback=_numbers(1, 1024),
    help="Slots and CPUs of hosts, as 4,8,16 (2 to 16).",
)
@click.option(
    "--speeds", metavar="NUMBERS", callback=_numbers(0.1, 10), help="How fast hosts are, as 1,0.5 (mixed)."
)
@click.option(
    "--others",
    metavar="NUMBERS",
    callback=_numbers(0, 1024),
    help="CPUs that others keep busy, as 0,0,2 (some).",
)
@click.option("--family", "families", multiple=True, metavar="NAME", help="Made-up builds (all of them).")
@click.option("--jobs-a-slot", type=click.IntRange(1, 1000), default=20, help="Of made-up builds (20).")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="cost, d1make, round-robin (all).")
@click.option("--look-ahead", type=click.IntRange(0), help="Jobs asked for beyond the slots (all at once).")
@click.option("--no-history", is_flag=True, help="Nothing is known of jobs and hosts, as in a first build.")
@click.option("--seed", type=int, default=0, help="Another one makes other builds and fleets (0).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def simulate(records: Sequence[str], families: Sequence[str], as_json: bool, **options: Any) -> None:
    """Place the jobs of recorded or made-up builds on a fleet, without running them.

    RECORDs are files that `d1fleet build --record` has written; without one, builds are made up. What a job
    had waited for is not in a record: the job that ended last before it was asked for is taken to be it. Run
    times are taken as they were, so the record should come from hosts that were not overloaded.
    """
    # Not above: other commands do not pay for it.
    from ..traces import FAMILIES, made_up

    fleet = _fleet(options)
    builds: list[tuple[str, Sequence[TraceJob]]] = [(path, _recorded(path)) for path in records]
    if families or not records:
        slots = sum(host.slots for host in fleet)
        builds += [
            (family, made_up(family, slots * options["jobs_a_slot"], options["seed"]))
            for family in families or FAMILIES
        ]
    if not as_json:
        click.echo(f"{len(fleet)} hosts with {sum(host.slots for host in fleet)} slots")
        click.echo(
            f"{'build':<24} {'policy':<12} {'jobs':>7} {'s':>9} {'bound':>9} {'ratio':>6} {'in use':>6}"
        )
    for build, policy, outcome in _outcomes(builds, fleet, options):
        if as_json:
            click.echo(json.dumps({"build": build, "policy": policy, **outcome.as_json()}))
        else:
            click.echo(
                f"{build[-24:]:<24} {policy:<12} {outcome.jobs:7} {outcome.makespan_s:9.2f}"
                f" {outcome.bound_s:9.2f} {outcome.ratio:6.3f} {outcome.utilisation:6.1%}"
            )


def _outcomes(
    builds: Sequence[tuple[str, Sequence[TraceJob]]],
    fleet: Sequence[SimulatedHost],
    options: dict[str, Any],
) -> Iterator[tuple[str, str, Outcome]]:
    from ..machines import METHODS
    from ..simulator import Knowledge, simulate

    knowledge = Knowledge(durations=None, speeds=None) if options["no_history"] else Knowledge()
    policies = options["policies"] or tuple(METHODS)
    for policy in policies:
        if policy not in METHODS:
            raise UsageError(f"there is no policy {policy}", f"known: {', '.join(METHODS)}")
    for build, trace in builds:
        for policy in policies:
            yield (
                build,
                policy,
                simulate(trace, fleet, METHODS[policy], knowledge, options["look_ahead"], options["seed"]),
            )


def _fleet(options: dict[str, Any]) -> list[SimulatedHost]:
    """The hosts that the options ask for."""
    from ..simulator import SimulatedHost, mixed_fleet

    if options["inventory"]:
        if options["hosts"]:
            raise UsageError("--hosts and --inventory contradict each other", "give one of them")
        from ..build import fleet_of
        from ..history_file import load_history
        from ..settings import Settings

        found = fleet_of(Settings(inventory=options["inventory"], project=options["project"])).hosts
        history = load_history()
        fleet = []
        for host in found:
            known = history.host(host.name)
            slots = host.slots or _USUAL_SLOTS
            fleet.append(SimulatedHost(slots, slots, known.speed if known else 1.0))
    else:
        fleet = mixed_fleet(options["hosts"] or 10, options["seed"], _FLEETS_SPREAD)
    return [_as_told(host, number, options) for number, host in enumerate(fleet)]


def _as_told(host: SimulatedHost, number: int, options: dict[str, Any]) -> SimulatedHost:
    if options["slots"]:
        slots = int(options["slots"][number % len(options["slots"])])
        host = replace(host, slots=slots, cpus=slots, others_cpus=min(host.others_cpus, slots))
    if options["speeds"]:
        host = replace(host, speed=options["speeds"][number % len(options["speeds"])])
    if options["others"]:
        host = replace(host, others_cpus=options["others"][number % len(options["others"])])
    return host


def _recorded(path: str) -> list[TraceJob]:
    from ..traces import recorded

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            events = [json.loads(line) for line in file if line.strip()]
    except OSError as error:
        raise UsageError(
            f"the record {path} cannot be read: {error.strerror}", "name another file"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} is no record of a build: {error}", "give a file that d1fleet build --record has written"
        ) from error
    jobs = recorded(events)
    if not jobs:
        raise UsageError(f"in {path} no job has run on a host", "record a build that has used some")
    return jobs
