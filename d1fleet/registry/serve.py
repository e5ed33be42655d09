"""The service as a process: its sockets, its signals, its start and its end.

SIGTERM and SIGINT end it: those who wait are answered, what is not stored yet is stored. SIGHUP has it read
its certificate again. systemd is told when it is ready (sd_notify(3)).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import psutil
import uvicorn
import uvloop

from ..errors import RegistryError
from . import logs, place
from .app import build_app
from .connections import Connections, Server
from .core import Core
from .credentials import Credentials, load_secret
from .old_clients import OldClients
from .options import Options
from .protocol import HttpProtocol
from .shared import Shared, share
from .store import Store, StoreError
from .tls import Tls

log = logging.getLogger("d1fleet.registry")

END_S = 3
"""For answers that are under way at the end; all of it shall take less than five seconds."""

OWN_ADDRESSES_S = 10.0
"""So old may be what is known of this machine's addresses; to ask takes a tenth of a millisecond, or more."""

SPARE_FILES = 128
"""Open files that are not connections."""

Ready = Callable[[dict[str, int]], None]
"""Told the ports, by name, once everybody can be answered."""


def serve(options: Options, ready: Ready = lambda ports: None) -> None:
    """Run the service until a signal ends it.

    Raises:
        D1fleetError: it cannot start; it says why.
    """
    logs.set_up(options.log_level)
    place.make_folder(options.data)
    with place.taken(options.data):
        secret = load_secret(options.data / place.SECRET)
        tls = Tls(options) if options.tls else None
        with contextlib.ExitStack() as stack:
            sockets = {"operators": stack.enter_context(place.operators_socket(options.data))}
            sockets["registry"] = stack.enter_context(
                place.tcp_socket(options.listen, options.port, "the registry")
            )
            if options.old_clients_listen:
                sockets["old clients"] = stack.enter_context(
                    place.tcp_socket(
                        options.old_clients_listen, options.old_clients_port, "the listener for old clients"
                    )
                )
            stack.callback(_forget_socket, options)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(options, secret, sockets, tls, ready))


def _forget_socket(options: Options) -> None:
    with contextlib.suppress(OSError):
        os.unlink(options.data / place.SOCKET)


class OwnAddresses:
    """Those of this machine, asked for now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = -1.0
        self._known: tuple[str, ...] = ()

    def __call__(self) -> Iterable[str]:
        if self._clock() >= self._until_s:
            self._known = tuple(
                each.address.partition("%")[0]
                for interface in psutil.net_if_addrs().values()
                for each in interface
                if each.family in (socket.AF_INET, socket.AF_INET6)
            )
            self._until_s = self._clock() + OWN_ADDRESSES_S
        return self._known


async def _run(
    options: Options, secret: bytes, sockets: dict[str, socket.socket], tls: Tls | None, ready: Ready
) -> None:
    core = await _core(options, secret)
    try:
        shared = share(core, secret, options, pin=(lambda: tls.pin) if tls else str)
        servers = _servers(shared, sockets, tls)
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        loop.add_signal_handler(signal.SIGHUP, _read_again, tls)
        await _serve_until(ending, servers, shared, sockets, ready)
    finally:
        await core.stop()
        log.info("ended")


async def _core(options: Options, secret: bytes) -> Core:
    """Raises:
    RegistryError: the database cannot be used.
    """
    try:
        store = Store(options.store_url)
        core = Core(store, Credentials(secret), options.timing, own_addresses=OwnAddresses())
        try:
            await core.start()
        except StoreError:
            await core.stop()
            raise
    except StoreError as error:
        raise RegistryError(error.message, error.mend) from error
    return core


def _servers(shared: Shared, sockets: dict[str, socket.socket], tls: Tls | None) -> list[Server]:
    options = shared.options
    proxies = [ipaddress.ip_network(each) for each in options.forwarded_from]

    def is_proxy(source: str) -> bool:
        address = ipaddress.ip_address(source)
        return any(address in network for network in proxies if network.version == address.version)

    limits = options.limits
    most = min(limits.connections, _open_files() - SPARE_FILES)
    connections = Connections(limits, most, is_proxy, shared.metrics.turned_away.inc)
    applications = {
        "operators": build_app(shared, local=True),
        "registry": build_app(shared),
        "old clients": OldClients(shared),
    }
    return [
        Server(
            uvicorn.Config(
                applications[name],  # type: ignore[arg-type]
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=round(limits.idle_s),
                timeout_graceful_shutdown=END_S,
            ),
            sock,
            connections,
            tls.context if tls and name == "registry" else None,
        )
        for name, sock in sockets.items()
    ]


def _open_files() -> int:
    """How many files may be open; as many as may be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


async def _serve_until(
    ending: asyncio.Event,
    servers: list[Server],
    shared: Shared,
    sockets: dict[str, socket.socket],
    ready: Ready,
) -> None:
    serving = [asyncio.create_task(server.serve()) for server in servers]
    try:
        if await _come(serving, *(server.begun.wait() for server in servers)):
            options = shared.options
            ports = {name: sock.getsockname()[1] for name, sock in sockets.items() if name != "operators"}
            log.info("ready", extra={"listen": options.listen, "port": ports["registry"], "pin": shared.pin})
            notify("READY=1")
            ready(ports)
            await _come(serving, ending.wait())
    finally:
        notify("STOPPING=1")
        for server in servers:
            server.should_exit = True
        shared.end()
        await asyncio.gather(*serving)


async def _come(serving: Iterable[asyncio.Task[None]], *events: Coroutine[Any, Any, object]) -> bool:
    """Wait for all of these events. False where a server ends by itself meanwhile: then it has failed."""
    whole: asyncio.Future[Any] = asyncio.gather(*events)
    waited: set[asyncio.Future[Any]] = {whole, *serving}
    done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    whole.cancel()
    await asyncio.gather(whole, return_exceptions=True)
    return done == {whole}


def _read_again(tls: Tls | None) -> None:
    if tls is None:
        log.info("there is no certificate to be read again")
        return
    try:
        tls.load()
    except RegistryError as error:
        log.error("the certificate was not read again: %s", error.message, extra={"mend": error.mend})
    else:
        log.info("the certificate was read again", extra={"pin": tls.pin})


def notify(text: str, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Tell systemd something: sd_notify(3). Without systemd nobody listens."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall(text.encode())
