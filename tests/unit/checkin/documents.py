"""Documents as a registry answers them, and what a hostile one may make of them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NETWORKS = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))


def host_key(seed: int = 1) -> str:
    """An Ed25519 public key of nobody's."""
    kind = b"ssh-ed25519"
    blob = len(kind).to_bytes(4, "big") + kind + (32).to_bytes(4, "big") + bytes([seed]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def peer(name: str, address: str, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": address,
        "slots": 4,
        "port": 3632,
        "options": ["lzo"],
        "transport": "tcp",
        "ssh_port": 22,
        "host_keys": [],
        **others,
    }


ALDER, BIRCH, CEDAR = (
    peer("alder", "192.0.2.11"),
    peer("birch", "192.0.2.12", slots=8),
    peer("cedar", "2001:db8::13", port=3633, options=["lzo", "cpp"]),
)


def project(
    peers: Sequence[dict[str, Any]] = (ALDER, BIRCH, CEDAR), revision: str = "r1", **others: Any
) -> dict[str, Any]:
    return {
        "revision": revision,
        "ranges": ["192.0.2.0/24", "2001:db8::/32"],
        "options": ["lzo"],
        "peers": list(peers),
        "members": [each["address"] for each in peers],
        "left_out": {},
        **others,
    }


def answer(**others: Any) -> dict[str, Any]:
    projects = others.pop("projects", {"engine": project()})
    return {
        "epoch": "e1",
        "beat_s": 15.0,
        "jitter": 0.2,
        "gone_after_s": 40.0,
        "name": "alder",
        "state": "up",
        "message": "",
        "all": list(projects),
        "projects": projects,
        **others,
    }


def request(**others: Any) -> dict[str, Any]:
    """What the root helper is asked."""
    known = project()
    return {
        "name": "alder",
        "slots": 4,
        "projects": {"engine": {name: known[name] for name in ("peers", "members", "left_out")}},
        **others,
    }


EVIL_TEXTS = (
    *(
        "",
        " ",
        "@root@evil/64:/x",
        "alder\n@evil/1:/x",
        "a # b",
        "a b",
        "../../etc/passwd",
        "..",
        ".",
        "/etc/x",
    ),
    *("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "::ffff:192.0.2.1"),
    *(
        "--localslots=9999",
        "+zeroconf",
        "{{ 1 }}",
        "$(id)",
        "`id`",
        "\0",
        "\x1b[2J",
        "\ud800",
        "\u2028",
        "\uff41lder",
    ),
    *(
        "192.0.2.1/32",
        "192.0.2.1,lzo",
        "192.000.2.1",
        "3232235777",
        "0x7f.1",
        "192.0.2.1 }; flush ruleset",
        "\u0663",
    ),
    *("a" * 65, "a" * 5000, "none", "null", "d1j_x", "ssh-ed25519 AAAA", "cert-authority * ssh-ed25519 AAAA"),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(1 << 70), max_value=1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(EVIL_TEXTS),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=8,
)
"""Anything."""


def paths(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of each value in a document."""
    found = [above]
    inside: Any = ()
    if isinstance(document, dict):
        inside = document.items()
    elif isinstance(document, list):
        inside = enumerate(document)
    for key, value in inside:
        found += paths(value, (*above, key))
    return found


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same with another value at a place; the original stays as it is."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy
