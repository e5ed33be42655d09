"""`d1fleet registry serve`, `certificate`, `backup` and `restore`: the service itself, on its own machine."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..words import counted, say
from .registry_talk import SOCKET, fields, moment, said

if TYPE_CHECKING:
    from ..registry.options import Options

_OPTIONS = {
    "data": ("FOLDER", "For the database, the registry's secret and the socket of operators here."),
    "listen": ("ADDRESS", "Address of this machine, or :: for all of them (127.0.0.1)."),
    "port": ("PORT", "TCP port (33333)."),
    "tls_certificate": ("FILE", "Certificate, in PEM; without one it listens on loopback alone."),
    "tls_key": ("FILE", "Its key, in PEM."),
    "database": ("URL", "postgresql+psycopg://...; a file in the folder of data where none is named."),
    "public_url": ("URL", "By which hosts and browsers reach it, for join commands."),
    "beat_s": ("S", "Seconds between two check-ins of a host (15)."),
    "gone_after_s": ("S", "Seconds of silence after which peers do not get a host any more (40)."),
    "old_clients_listen": ("ADDRESS", "Where clients of dyndistcc check in, by plain HTTP (nowhere)."),
    "old_clients_port": ("PORT", "The port for them (33333)."),
    "log_level": ("LEVEL", "debug, info, warning or error (info)."),
}
"""Those of d1fleet.registry.options.Options that can be said on the command line."""

_NUMBERS = {"port": int, "old_clients_port": int, "beat_s": float, "gone_after_s": float}


def configured(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command that goes by the service's options; these of them may be said."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            metavar, words = _OPTIONS[name]
            kind = _NUMBERS.get(name, str)
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            function = click.option(option, name, metavar=metavar, type=kind, help=words)(function)
        return click.option(
            "--config",
            metavar="FILE",
            help="The service's file (/etc/d1fleet/registry.yml, where there is one).",
        )(function)

    return decorate


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Inside, packages are imported that only the service needs.

    Raises:
        ToolError: one is not installed.
    """
    from ..errors import ToolError

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "d1fleet").split(".")[0] == "d1fleet":
            raise
        raise ToolError(
            f"what the registry itself needs is not installed ({error.name})",
            "pip install 'd1fleet[registry]'",
        ) from error


def _options(config: str | None, **given: Any) -> Options:
    with _extra():
        from ..registry.options import load_options
    return load_options(given, Path(config) if config else None)


@click.command(
    short_help="Run the registry.",
    epilog="The same can stand in /etc/d1fleet/registry.yml, with _ for -, and more. SIGHUP has it read its "
    "certificate again. docs/registry.md says how it is set up; role `registry` does that.",
)
@configured(*_OPTIONS)
def serve(config: str | None, **given: Any) -> None:
    """Run the registry, until a signal ends it."""
    options = _options(config, **given)
    with _extra():
        from ..registry.serve import serve as run

    def ready(ports: dict[str, int]) -> None:
        if sys.stderr.isatty():
            where = f"[{options.listen}]" if ":" in options.listen else options.listen
            url = f"http{'s' * options.tls}://{where}:{ports['registry']}"
            say(f"the registry answers at {url}; Ctrl-C ends it")

    run(options, ready)


@click.command(short_help="Show the registry's certificate, or make one.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--folder", metavar="FOLDER", help="Where a new one is put (the folder of data).")
@click.option("--pem", is_flag=True, help="Print the certificate itself.")
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@configured("data")
def certificate(
    names: tuple[str, ...],
    folder: str | None,
    pem: bool,
    as_json: bool,
    config: str | None,
    data: str | None,
) -> None:
    """Show the registry's certificate, and the pin by which hosts know it.

    With NAMEs, names and addresses by which it is reached, make one that it signs itself.
    """
    from ..errors import UsageError

    options = _options(config, data=data)
    with _extra():
        from ..registry.certificate import CERTIFICATE, make_certificate, pin
        from ..registry.place import make_folder
    key: Path | None = None
    if names:
        place = Path(os.path.abspath(folder)) if folder else options.data
        if not place.exists():
            make_folder(place)
        file, key = make_certificate(names, place)
        _give(file, key)
    else:
        file = options.tls_certificate or options.data / CERTIFICATE
    try:
        text = file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"there is no certificate in {file}: {getattr(error, 'strerror', error)}",
            "d1fleet registry certificate NAME [ADDRESS]... makes one",
        ) from error
    found = {"certificate": str(file), "pin": pin(text), **({"key": str(key)} if key else {})}
    if as_json:
        click.echo(json.dumps({**found, "pem": text}, indent=1))
    elif pem:
        click.echo(text, nl=False)
    else:
        fields(found)
        if key:
            click.echo("\nFor /etc/d1fleet/registry.yml:")
            said(f"  tls_certificate: {file}")
            said(f"  tls_key: {key}")


def _give(*files: Path) -> None:
    """What root makes in the service's folder has to be the service's."""
    owner = files[0].parent.stat()
    if os.geteuid() == 0:
        for file in files:
            os.chown(file, owner.st_uid, owner.st_gid)


@click.command(short_help="Write all that the registry must not lose into a file.")
@click.argument("file")
@configured("data", "database")
def backup(file: str, config: str | None, **given: Any) -> None:
    """Write all that the registry must not lose into FILE: also while it runs.

    Whoever has FILE can speak for every host: keep it as a password.
    """
    from ..errors import RegistryError, UsageError
    from ..registryclient import AwayError, Registry
    from ..registryplace import Place

    options = _options(config, **given)
    with _extra():
        from ..registry.backup import write_backup
        from ..registry.credentials import load_secret
        from ..registry.place import SECRET
        from ..registry.store import Store
    target = Path(os.path.abspath(file))
    try:
        # Who runs has the database for itself alone.
        document = Registry(Place(socket=str(options.data / SOCKET))).get("/admin/backup")
    except AwayError:
        if not (options.data / SECRET).exists():
            raise UsageError(
                f"there is no registry in {options.data}",
                "name its folder by --data, or its file by --config",
            ) from None
        with Store(options.store_url) as store:
            write_backup(store, load_secret(options.data / SECRET), target)
    except RegistryError as error:
        raise RegistryError(
            f"the registry that runs gives no backup: {error.message}",
            "stop it, make the backup, and start it again: hosts and builds go on meanwhile",
        ) from error
    else:
        _write(target, json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
    said(f"the backup is in {target}")


def _write(target: Path, data: bytes) -> None:
    """Whole or not at all, for its owner alone."""
    number, name = tempfile.mkstemp(prefix=".backup-", dir=target.parent)
    try:
        with open(number, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(number)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


@click.command(short_help="Put what a backup holds into the registry.")
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="What it has by now may go.")
@configured("data", "database")
def restore(file: str, overwrite: bool, config: str | None, **given: Any) -> None:
    """Put what is in FILE, a backup, into the registry, which must not run meanwhile.

    Hosts that have joined since it was made come back by themselves.
    """
    options = _options(config, **given)
    with _extra():
        from ..registry.backup import restore as put_back
        from ..registry.credentials import load_secret, write_secret
        from ..registry.place import SECRET, make_folder, taken
    if not options.data.exists():
        make_folder(options.data)
    secret = options.data / SECRET
    with taken(options.data):
        known = load_secret(secret) if secret.exists() else None
        found = put_back(options.store_url, file, overwrite)
        if known != found.secret:
            write_secret(secret, found.secret)
            _give(secret)
    snapshot = found.snapshot
    said(
        f"the registry has {counted(len(snapshot.projects), 'project')} and"
        f" {counted(len(snapshot.hosts), 'host')},"
        f" as they were at {moment(found.made_at)}; start it"
    )
