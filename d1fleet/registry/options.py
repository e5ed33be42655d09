"""How the service is set up: its file, /etc/d1fleet/registry.yml or another, and what the command line says.

The command line comes first. Every key of the file has the name of a field of `Options`; `limits` holds
fields of `Limits`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from ..errors import UsageError
from . import option_values as values
from .limits import Limits
from .pool import MISSED_BEATS, Timing

USUAL_FILE = Path("/etc/d1fleet/registry.yml")
USUAL_PORT = 33333
OLD_CLIENTS_PORT = 33333
"""Where clients of dyndistcc look for it, on an address of its own."""

SYSTEM_FOLDER = Path("/var/lib/d1fleet-registry")
LARGEST_FILE_BYTES = 1 << 16
SHORTEST_BEAT_S = 0.2
LONGEST_BEAT_S = 300.0


@dataclass(frozen=True)
class Options:
    """What the service is told.

    Attributes:
        data: folder for the secret, the socket of operators on this machine and, usually, the database.
        listen: address of this machine; `::` and `0.0.0.0` are all of them.
        tls_certificate, tls_key: PEM files; both or none. Read again at SIGHUP.
        database: URL; "" for a file in `data`.
        beat_s, jitter, gone_after_s: see `pool.Timing`.
        public_url: by which hosts and browsers reach the service; "" for as they have asked.
        old_clients_listen: address for clients of dyndistcc, plain HTTP; "" for nowhere.
        forwarded_from: proxies whose word about who asks is taken (X-Forwarded-For).
        limits: see `Limits`.
    """

    data: Path
    listen: str = "127.0.0.1"
    port: int = USUAL_PORT
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    database: str = ""
    beat_s: float = 15.0
    jitter: float = 0.2
    gone_after_s: float = 40.0
    public_url: str = ""
    old_clients_listen: str = ""
    old_clients_port: int = OLD_CLIENTS_PORT
    forwarded_from: tuple[str, ...] = ()
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)

    @property
    def timing(self) -> Timing:
        return Timing(self.beat_s, self.jitter, self.gone_after_s)

    @property
    def store_url(self) -> str:
        """As `Store` wants it."""
        # SQLAlchemy decodes percent signs in what stands in a URL.
        return self.database or f"sqlite:///{quote(str(self.data / 'registry.db'))}"

    @property
    def tls(self) -> bool:
        return self.tls_certificate is not None


def load_options(
    given: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Options:
    """All options.

    Args:
        given: fields of `Options` that the command line gave; those that are None were not given.
        config: a file that has to be there; None for the usual one, if there is one.

    Raises:
        UsageError: a key is unknown or has a value that cannot be used, or the file cannot be read; it says
            where.
    """
    found: dict[str, Any] = {"data": _usual_folder(environ)}
    file = config or USUAL_FILE
    if config is not None or USUAL_FILE.exists():
        found.update(_read(_content(file), values.Source(file)))
    on_line = {key: value for key, value in (given or {}).items() if value is not None}
    found.update(_read(on_line, values.Source(None)))
    options = Options(**found)
    _check(options)
    return options


def _usual_folder(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    base = environ.get("XDG_DATA_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.local/share"), SYSTEM_FOLDER.name)


def _content(file: Path) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read(LARGEST_FILE_BYTES + 1)
        found = yaml.safe_load(text) if len(text) <= LARGEST_FILE_BYTES else text
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "see `ls -l` of it") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{file}{where} is no YAML", "write lines such as `port: 33333`") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UsageError(f"{file} holds no mapping", "write lines such as `port: 33333`")
    return found


def _read(said: Mapping[str, Any], source: values.Source) -> dict[str, Any]:
    for key in said:
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, 1)
            where = "the options" if source.file is None else source.file
            raise UsageError(
                f"{where}: there is no key {values.plain(key)}",
                f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(_READERS))}",
            )
    return {key: _READERS[key](value, key, source) for key, value in said.items()}


_READERS: dict[str, values.Reader] = {
    "data": values.path,
    "listen": values.address,
    "port": values.number(0, 65535),
    "tls_certificate": values.path,
    "tls_key": values.path,
    "database": values.database,
    "beat_s": values.number(SHORTEST_BEAT_S, LONGEST_BEAT_S, float),
    "jitter": values.number(0, 0.5, float),
    "gone_after_s": values.number(SHORTEST_BEAT_S, 3600, float),
    "public_url": values.url,
    "old_clients_listen": values.address_or_none,
    "old_clients_port": values.number(0, 65535),
    "forwarded_from": values.networks,
    "log_level": values.level,
    "limits": values.limits,
}


def _check(options: Options) -> None:
    """Do they fit together?"""
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise UsageError(
            "tls_certificate and tls_key: one is given without the other",
            "name both files, or none: d1fleet registry certificate makes a pair",
        )
    if not options.tls and not ipaddress.ip_address(options.listen).is_loopback:
        raise UsageError(
            f"listen: {options.listen} can be reached from elsewhere, and without TLS everybody there reads"
            " tokens and keys",
            "make a certificate (d1fleet registry certificate) and name it in tls_certificate and tls_key;"
            " or listen on 127.0.0.1, behind a proxy on this machine",
        )
    latest_s = MISSED_BEATS * options.beat_s * (1 + options.jitter)
    if options.gone_after_s < latest_s:
        raise UsageError(
            f"gone_after_s: a host whose one beat is lost would be given up after {options.gone_after_s:g} s",
            f"with this beat_s and jitter it has to be at least {latest_s:g}",
        )
    old = (options.old_clients_listen, options.old_clients_port)
    if options.old_clients_listen and options.port and old == (options.listen, options.port):
        raise UsageError(
            f"old_clients_listen: {options.listen} port {options.port} is where the service itself listens",
            "give one of them another address or port",
        )
