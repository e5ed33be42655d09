"""`d1fleet chaos`: break things while a build runs, and see whether what it makes is right."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import MakeCommand, host_options, lease_options, tree_option

if TYPE_CHECKING:
    from ..chaos_faults import Fault


@click.command(
    cls=MakeCommand,
    short_help="Break hosts in the middle of builds, and compare what is made.",
    epilog="Run it in the folder that you build in, after `make clean`. A copy of it, in .d1fleet-chaos, is "
    "built by plain make, by d1fleet, and once or twice for each fault; some faults take lease and grace. "
    "Only processes of these builds, and yours, are touched. Exit codes: 0 where everything was made as by "
    "plain make; 98 where not, where no fault could be made, or where the tree does not build without one; "
    "others as of build. docs/faults.md has the faults.",
)
@host_options
@tree_option
@lease_options
@click.option("--faults", metavar="NAMES", help="Which, by commas; `list` lists them.")
@click.option(
    "--own",
    metavar="NAME=COMMAND",
    multiple=True,
    help="A fault of your own: a command that breaks the host D1FLEET_CHAOS_HOST, such as a power switch.",
)
@click.option(
    "--own-heal", metavar="NAME=COMMAND", multiple=True, help="What mends it when lease and grace are over."
)
@click.option("--times", metavar="N", type=click.IntRange(1, 1000), default=1, help="So often each (1).")
@click.option("--seed", metavar="N", type=int, help="For the same hosts and moments as another time.")
@click.option("--keep", is_flag=True, help="Leave .d1fleet-chaos there, with logs and records.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def chaos(
    context: click.Context,
    /,
    faults: str | None,
    own: tuple[str, ...],
    own_heal: tuple[str, ...],
    times: int,
    seed: int | None,
    keep: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Build with make and MAKE ARGUMENTS, break something in the middle of it, and compare what was made.

    A table says for each fault what it hit, how the build ended, and whether everything was made as by plain
    make. From the first word that is no option of ours, all is make's.
    """
    from .. import chaos_report
    from ..build import fleet_of
    from ..chaos import Chaos
    from ..chaos_faults import BY_NAME, FAULTS, NEEDS_LOGIN
    from ..errors import ChaosError, UsageError
    from ..settings import load_settings
    from ..words import counted, say

    if faults == "list":
        for fault in FAULTS:
            note = " (over SSH)" if fault.how in NEEDS_LOGIN else "" if fault.usual else " (only when named)"
            click.echo(f"{fault.name:12} {fault.what}{note}\n{'':12}   -> {fault.wanted}")
        return
    known = {**BY_NAME, **_own(own, own_heal)}
    names = faults.replace(",", " ").split() if faults else [name for name in known if known[name].usual]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--faults: there is no fault {unknown[0]!r}", "d1fleet chaos --faults list")
    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = load_settings(given)
    fleet = fleet_of(settings)
    if not settings.inventory and not settings.hosts:
        raise UsageError("no hosts are named", "--hosts or --inventory: faults are made on hosts")
    arguments = list(context.obj)
    if arguments[:1] == ["make"]:
        del arguments[0]
    typed = ["--no-trust-hosts", *_typed(context.command, options)]
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    tree = Path(os.path.realpath(os.getcwd()))
    with Chaos(settings, fleet, tree, arguments, typed, say, rng=random.Random(seed)) as trial:
        try:
            count = len(names) * times
            say(f"{counted(count, 'fault')}: a copy of the tree is built at least {count + 2} times")
            peace = trial.peace()
            trial.connect()
            outcomes = []
            for _ in range(times):
                for name in names:
                    outcomes.append(trial.strike(known[name], peace))
                    say(chaos_report.line(outcomes[-1]))
        except BaseException:
            say(f"logs are in {trial.folder}")
            raise
        wrong = [outcome for outcome in outcomes if outcome.wrong]
        if as_json:
            click.echo(chaos_report.as_json(peace, outcomes, seed))
        else:
            for line in chaos_report.text(peace, outcomes, seed):
                click.echo(line.encode("utf-8", "replace"))
        if wrong or keep:
            say(f"logs, records and what was made wrong are in {trial.folder}")
        else:
            trial.remove()
    if all(outcome.skipped for outcome in outcomes):
        raise ChaosError("no fault could be made, so that nothing is proved", "it says above why")
    if wrong:
        raise ChaosError(
            f"{counted(len(wrong), 'run')} of {len(outcomes)} did not end as with plain make",
            "the table says which",
        )
    sys.exit(0)


def _own(commands: Sequence[str], heals: Sequence[str]) -> dict[str, Fault]:
    """Faults that the site makes by itself."""
    from ..chaos_faults import BY_NAME, own
    from ..errors import UsageError

    parts: list[dict[str, str]] = []
    for option, given in (("--own", commands), ("--own-heal", heals)):
        pairs = [each.partition("=")[::2] for each in given]
        for name, command in pairs:
            if not name.isidentifier() or name in BY_NAME or not command.strip():
                raise UsageError(
                    f"{option} {name}={command}: NAME is taken, or is no name, or nothing is run",
                    f"{option} power='ipmitool -H $D1FLEET_CHAOS_HOST-ipmi power off'",
                )
        parts.append(dict(pairs))
    strikes, mends = parts
    lost = [name for name in mends if name not in strikes]
    if lost:
        raise UsageError(f"--own-heal {lost[0]}: there is no --own of that name", "give both the same name")
    return {name: own(name, command, mends.get(name, "")) for name, command in strikes.items()}


def _typed(command: click.Command, options: Mapping[str, Any]) -> Iterator[str]:
    """Options that are those of `build` too, as they are typed; paths are absolute, for the build runs in
    another folder than this one.
    """
    names = {parameter.name: parameter.opts[0] for parameter in command.params}
    for name, value in options.items():
        for each in value if isinstance(value, tuple) else [value]:
            if each is not None:
                path = name in ("inventory", "ssh_config", "trees")
                yield from (names[name], os.path.abspath(each) if path else each)
