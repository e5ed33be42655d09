"""A swarm of pretended hosts that check in at a registry: `python -m bench.swarm` prints one JSON object.

Each has an address of its own and, as a real one, two connections: one for its beats, one that waits.
A plain client of HTTP/1.1 in one process; TLS where a certificate is given.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import resource
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

AT_ONCE = 50
"""Hosts that join side by side."""

ANSWER_WITHIN_S = 5.0
"""A beat that has no answer by then counts as missed."""


@dataclass
class Figures:
    """What was seen.

    Attributes:
        beats_s: how long each beat took to be answered.
        late_s: how long after its time each was sent: this process itself may be busy.
        refused: statuses other than 200.
        documents: documents that hosts were sent, by beats and by news.
        news_s: from a change to the last host that heard of it.
    """

    beats_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    missed: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    documents: int = 0
    news: int = 0


class Connection:
    """One kept-alive connection, from an address of the host's own."""

    def __init__(self, where: tuple[str, int], source: str, tls: ssl.SSLContext | None) -> None:
        self._where, self._source, self._tls = where, source, tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, credential: str = "") -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                *self._where,
                local_addr=(self._source, 0),
                ssl=self._tls,
                server_hostname="" if self._tls else None,
            )
        reader, writer = self._streams
        authorization = f"Authorization: Bearer {credential}\r\n" if credential else ""
        head = (
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: registry\r\nContent-Type: application/json\r\n"
            f"{authorization}Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        return int(answer.split()[1]), await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@dataclass
class PretendedHost:
    """One of the swarm."""

    number: int
    network: str
    where: tuple[str, int]
    tls: ssl.SSLContext | None
    figures: Figures
    credential: str = ""
    sequence: int = 0
    known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.address = f"{self.network}.{self.number // 250}.{self.number % 250 + 1}"
        self.name = f"h{self.number}"
        self.session = hashlib.sha256(self.name.encode()).hexdigest()[:32]
        self._beats = Connection(self.where, self.address, self.tls)
        self._waits = Connection(self.where, self.address, self.tls)

    def report(self) -> dict[str, Any]:
        self.sequence += 1
        return {
            "session": self.session,
            "sequence": self.sequence,
            "owner": "swarm",
            "addresses": [self.address],
            "slots": 8,
            "port": 3632,
            "ssh_port": 22,
            "serving": True,
            "version": "0.1.0",
            "system": "Debian GNU/Linux 12",
            "machine": hashlib.sha256(f"m{self.number}".encode()).hexdigest(),
            "host_keys": [f"ssh-ed25519 {'A' * 60}{self.number:08d}"],
            "toolchain": {
                part: f"{part} (Debian 12.2.0-14) 12.2.0 [4df7fe242d4a]" for part in ("cc", "c++", "as", "ld")
            },
            "jobs": random.randrange(8),
            "load_others_cpus": round(random.random(), 2),
            "load_1min": round(random.random() * 4, 2),
            "memory_available_bytes": random.randrange(1 << 34),
            "memory_bytes": 1 << 34,
            "disk_free_bytes": random.randrange(1 << 38),
            "error": "",
        }

    async def join(self, token: str) -> None:
        body = json.dumps({"token": token, "name": self.name, "report": self.report()}).encode()
        status, answer = await self._beats.post("join", body)
        if status != 201:
            raise RuntimeError(f"{self.name} cannot join: {status} {answer[:300]!r}")
        found = json.loads(answer)
        self.credential = found["credential"]
        self._learn(found)

    async def beat_on(self, beat_s: float, jitter: float, until: float) -> None:
        next_at = time.monotonic() + random.random() * beat_s
        while next_at < until:
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
            began = time.monotonic()
            self.figures.late_s.append(began - next_at)
            body = json.dumps({"report": self.report(), "known": self.known}).encode()
            try:
                status, answer = await asyncio.wait_for(
                    self._beats.post("checkin", body, self.credential), ANSWER_WITHIN_S
                )
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.figures.missed += 1
                self._beats.close()
                self._beats = Connection(self.where, self.address, self.tls)
            else:
                self.figures.beats_s.append(time.monotonic() - began)
                if status == 200:
                    self._learn(json.loads(answer))
                else:
                    self.figures.refused[status] += 1
            next_at += beat_s * (1 + jitter * (2 * random.random() - 1))

    async def wait_on(self, until: float) -> None:
        while time.monotonic() < until:
            body = json.dumps({"known": self.known, "wait_s": 55}).encode()
            try:
                status, answer = await self._waits.post("wait", body, self.credential)
            except (OSError, asyncio.IncompleteReadError):
                self._waits.close()
                self._waits = Connection(self.where, self.address, self.tls)
                await asyncio.sleep(random.random())
                continue
            if status == 200:
                self.figures.news += 1
                self._learn(json.loads(answer))
            else:
                self.figures.refused[status] += 1
                await asyncio.sleep(1)

    def _learn(self, answer: dict[str, Any]) -> None:
        for project, document in answer["projects"].items():
            self.known[project] = document["revision"]
            self.figures.documents += 1

    def close(self) -> None:
        self._beats.close()
        self._waits.close()


async def swarm(options: argparse.Namespace, tokens: list[str]) -> dict[str, Any]:
    """Join, then beat for a while.

    Args:
        tokens: of the projects, in which hosts take turns.
    """
    figures = Figures()
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(cafile=options.certificate)
        tls.check_hostname = False
    where = (options.address, options.port)
    hosts = [PretendedHost(number, options.network, where, tls, figures) for number in range(options.hosts)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def join(host: PretendedHost) -> None:
        async with gate:
            await host.join(tokens[host.number % len(tokens)])

    began = time.monotonic()
    await asyncio.gather(*map(join, hosts))
    joined_s = time.monotonic() - began
    print("joined", file=sys.stderr, flush=True)
    until = time.monotonic() + options.seconds
    waiting = [asyncio.create_task(host.wait_on(until)) for host in hosts]
    used = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(host.beat_on(options.beat, options.jitter, until) for host in hosts))
    now = resource.getrusage(resource.RUSAGE_SELF)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for host in hosts:
        host.close()
    return {
        "joined_s": joined_s,
        "beats": len(figures.beats_s),
        "missed": figures.missed,
        "refused": dict(figures.refused),
        "beats_s": sorted(figures.beats_s),
        "late_s": sorted(figures.late_s),
        "documents": figures.documents,
        "news": figures.news,
        "cpu_s": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
    }


def main() -> int:
    """The tokens stand on standard input, one a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--network", default="10.77", help="the first half of the hosts' addresses")
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--beat", type=float, default=15)
    parser.add_argument("--jitter", type=float, default=0.2)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(swarm(options, sys.stdin.read().split()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
