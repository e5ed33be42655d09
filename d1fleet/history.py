"""What past builds taught: how long each job takes, where it ran last, and how fast hosts are. Pure.

A file of it is made to be searched as it lies there: records of one size, in the order of their keys.
Keys are digests, so that no command line lies about in clear.

    magic, CRC-32 of all that follows
    number of hosts, number of jobs
    hosts:  digest and length of the name, speed, sureness, last used; the name
    jobs:   key, seconds at speed 1, KiB of memory (0: unknown), digest of the host's name, last used
"""

from __future__ import annotations

import bisect
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

MOST_JOBS = 20_000
"""Jobs that are remembered; the longest unused go first. A large tree has some thousands."""

MOST_HOSTS = 5_000

_FRESH = 0.5
"""Share of what a new run counts against all before: sources change, and single runs are disturbed."""

LITTLE_TO_DO = 0.1
"""A run that took less than this share of what is known found nearly all made already (a guess): it does not
tell how long the job takes when there is work, nor how fast its host is.
"""

_FRESH_LITTLE = 0.001
"""Share of what such a run counts: a hundred builds a day in which nothing of it changed are usual."""

_MAGIC = b"d1fleet history 1\n"
_HEAD = struct.Struct("<I")
_COUNTS = struct.Struct("<II")
_HOST = struct.Struct("<8sHffI")
_JOB = struct.Struct("<12sfI8sI")
_KEY_BYTES = 12
_USED = struct.Struct("<I")
_MOST_KIB = 0xFFFFFFFF


class Known(NamedTuple):
    """What is known of a job."""

    seconds: float
    """Its run time on a host of speed 1."""
    memory_bytes: int | None
    host: str | None
    """Where it ran last."""
    used_s: int
    """When that was, seconds since 1970."""


class KnownHost(NamedTuple):
    """What is known of a machine."""

    speed: float
    """1 is the mean of all."""
    sureness: float
    """Observations that this stands on."""
    used_s: int


class DamagedHistoryError(ValueError):
    """A file is no history, or not all of one."""


def job_key(project: str, tree: bytes, folder: bytes, arguments: Sequence[bytes]) -> bytes:
    """What names a job over builds.

    Args:
        project: of the inventory; empty where there is none, and trees have nothing in common.
        tree: the folder in which the build was begun. What lies below is the same job in another checkout of
            the same name, where there is a project.
        arguments: of make, without its name.
    """
    name = os.path.basename(tree) if project else tree
    words = [os.fsencode(project), name, os.path.relpath(folder, tree), *arguments]
    text = b"".join(b"%d:%b" % (len(word), word) for word in words)
    return hashlib.blake2b(text, digest_size=_KEY_BYTES).digest()


class History:
    """All that is known; what a build adds is kept apart, so that it can be added to another's as well.

    Args:
        data: content of a file; empty for none.

    Raises:
        DamagedHistoryError: this is something else, or was cut off.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._jobs_at = self._count = 0
        self._host_names: dict[bytes, str] = {}
        self._hosts: dict[str, KnownHost] = {}
        self.new_jobs: dict[bytes, Known] = {}
        self.new_hosts: dict[str, KnownHost] = {}
        if data:
            self._read(data)

    def _read(self, data: bytes) -> None:
        at = len(_MAGIC) + _HEAD.size
        if not data.startswith(_MAGIC) or len(data) < at + _COUNTS.size:
            raise DamagedHistoryError("it is no history of this version")
        if zlib.crc32(memoryview(data)[at:]) != _HEAD.unpack_from(data, len(_MAGIC))[0]:
            raise DamagedHistoryError("its checksum is wrong")
        hosts, self._count = _COUNTS.unpack_from(data, at)
        at += _COUNTS.size
        try:
            for _ in range(hosts):
                digest, length, speed, sureness, used_s = _HOST.unpack_from(data, at)
                at += _HOST.size
                name = os.fsdecode(data[at : at + length])
                at += length
                self._host_names[digest] = name
                self._hosts[name] = KnownHost(speed, sureness, used_s)
        except struct.error as error:
            raise DamagedHistoryError("its hosts cannot be read") from error
        self._jobs_at = at
        if len(data) != at + self._count * _JOB.size:
            raise DamagedHistoryError("its jobs cannot be read")

    # -- questions ------------------------------------------------------------------------------------

    def job(self, key: bytes) -> Known | None:
        """What was known of a job before this build."""
        number = bisect.bisect_left(range(self._count), key, key=self._key_of)
        if number == self._count or self._key_of(number) != key:
            return None
        return self._known(self._record(number))

    def host(self, name: str) -> KnownHost | None:
        """What was known of a machine before this build."""
        return self._hosts.get(name)

    def _known(self, record: bytes) -> Known:
        _, seconds, kib, host, used_s = _JOB.unpack(record)
        return Known(seconds, kib * 1024 or None, self._host_names.get(host), used_s)

    def _record(self, number: int) -> bytes:
        at = self._jobs_at + number * _JOB.size
        return self._data[at : at + _JOB.size]

    def _key_of(self, number: int) -> bytes:
        at = self._jobs_at + number * _JOB.size
        return self._data[at : at + _KEY_BYTES]

    # -- additions ------------------------------------------------------------------------------------

    def ran(self, key: bytes, seconds: float, memory_bytes: int | None, host: str, now_s: float) -> None:
        """A job ran well.

        Args:
            seconds: its run time, taken to a host of speed 1 that is its own.
            now_s: seconds since 1970.
        """
        old = self.new_jobs.get(key)
        # What is called twice in a build has mostly little to do the second time.
        if seconds > old.seconds if old is not None else len(self.new_jobs) < MOST_JOBS:
            self.new_jobs[key] = Known(seconds, memory_bytes, host, int(now_s))

    def is_fast(self, host: str, speed: float, sureness: float, now_s: float) -> None:
        """A machine's speed, as it is known at the end of a build."""
        self.new_hosts[host] = KnownHost(speed, sureness, int(now_s))

    def with_new_of(self, other: History) -> bytes:
        """Content of a file that holds what was in this one, and what the other has added."""
        jobs = {record[:_KEY_BYTES]: record for record in map(self._record, range(self._count))}
        for key, new in other.new_jobs.items():
            seconds, memory = new.seconds, new.memory_bytes
            if key in jobs:
                old = self._known(jobs[key])
                fresh = _FRESH if seconds >= LITTLE_TO_DO * old.seconds else _FRESH_LITTLE
                seconds = fresh * seconds + (1 - fresh) * old.seconds
                memory = old.memory_bytes if memory is None else memory
            kib = min((memory or 0) // 1024, _MOST_KIB)
            jobs[key] = _JOB.pack(key, seconds, kib, _digest(new.host or ""), new.used_s)
        return _packed(_around_one({**self._hosts, **other.new_hosts}), jobs)


def _digest(host: str) -> bytes:
    return hashlib.blake2b(os.fsencode(host), digest_size=8).digest()


def _around_one(hosts: Mapping[str, KnownHost]) -> dict[str, KnownHost]:
    """Speeds whose geometric mean is 1: durations and speeds are learned from each other, and would drift."""
    if not hosts:
        return {}
    mean = math.exp(sum(math.log(host.speed) for host in hosts.values()) / len(hosts))
    return {name: host._replace(speed=host.speed / mean) for name, host in hosts.items()}


def _packed(hosts: Mapping[str, KnownHost], jobs: Mapping[bytes, bytes]) -> bytes:
    """Content of a file.

    Args:
        jobs: whole records, by their keys.
    """
    kept_hosts = sorted(hosts, key=lambda name: (-hosts[name].used_s, name))[:MOST_HOSTS]
    kept: Iterable[bytes] = jobs
    if len(jobs) > MOST_JOBS:
        kept = sorted(jobs, key=lambda key: (-_USED.unpack(jobs[key][-_USED.size :])[0], key))[:MOST_JOBS]
    records = [jobs[key] for key in sorted(kept)]
    body = [_COUNTS.pack(len(kept_hosts), len(records))]
    for name in kept_hosts:
        text = os.fsencode(name)
        body += [_HOST.pack(_digest(name), len(text), *hosts[name]), text]
    rest = b"".join(body + records)
    return _MAGIC + _HEAD.pack(zlib.crc32(rest)) + rest
