"""How much one may ask for: the numbers, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one address or host may do.

    Attributes:
        failures_a_minute: of one address that shows something void; four hosts that were thrown out make 16,
            and do not mind.
        joins_a_minute: of one address. A fleet behind one address translator joins in batches of so many.
        sign_ins_a_minute: of one address; people mistype three times, and each costs a tenth of a second.
        sign_ins_at_once: each takes 64 MB (argon2) and a core while it is checked.
        checkins_a_second: of one host, which has one each 15 s, and one for each change it sees.
        waits_a_second: of one host. News are gathered for 0.2 s, so that it may be told something five times.
        old_clients_a_minute: of one address; a client of dyndistcc comes every five minutes.
        loud_a_minute: lines in the log about refusals, of one address: the disk is everybody's.
        operator_body_bytes: a project with 32 ranges is some 2 KB.
        host_body_bytes: a report with a toolchain of 64 parts is 40 KB at most.
        body_s: for the whole of a body; 64 KB in 10 s are 50 kbit/s.
        head_s: for a request's head, and for TLS; as slow.
        head_bytes: of a request's head; a credential has 8 KB at most.
        idle_s: a connection may wait for its next request: longer than a beat, so that hosts keep theirs.
        connections_a_source: at once. A host needs two, a panel three; a hundred hosts may share an address.
        connections: at once, of all: three for each of 5,000 hosts. With 64 KB each they would take 1 GB.
    """

    failures_a_minute: int = 10
    joins_a_minute: int = 30
    sign_ins_a_minute: int = 5
    sign_ins_at_once: int = 2
    checkins_a_second: int = 4
    waits_a_second: int = 8
    old_clients_a_minute: int = 20
    loud_a_minute: int = 60
    operator_body_bytes: int = 16 << 10
    host_body_bytes: int = 64 << 10
    body_s: float = 10.0
    head_s: float = 10.0
    head_bytes: int = 16 << 10
    idle_s: float = 30.0
    connections_a_source: int = 256
    connections: int = 16_000
