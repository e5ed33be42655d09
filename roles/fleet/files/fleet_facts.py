"""What hosts say of themselves, as far as it can be meant. Pure.

Facts come from files and programs that root of that host can change, and others act on them as root. So only
known shapes and plain words are let through; what does not fit counts as not said.
"""

import ipaddress
import re

from d1fleet.server.toolchain import LONGEST_NAME, LONGEST_VALUE, MOST_PARTS

PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,199}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,199}")

MOST_PACKAGES = 2000


def mapping(value):
    return value if isinstance(value, dict) else {}


def _listed(value):
    return value if isinstance(value, list) else []


def _plain(value, longest):
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def is_package(value):
    return isinstance(value, str) and PACKAGE.fullmatch(value) is not None


def is_version(value):
    return isinstance(value, str) and VERSION.fullmatch(value) is not None


def versions(value):
    """{package: version}."""
    found = {name: each for name, each in mapping(value).items() if is_package(name) and is_version(each)}
    return dict(list(found.items())[:MOST_PACKAGES])


def packages(value):
    """{source: {package: version}}."""
    found = {name: versions(each) for name, each in mapping(value).items() if is_package(name)}
    return dict(list(found.items())[:MOST_PACKAGES])


def parts(value):
    """{part: text} of a toolchain."""
    found = {
        name: text
        for name, text in mapping(value).items()
        if _plain(name, LONGEST_NAME) and _plain(text, LONGEST_VALUE)
    }
    return dict(list(found.items())[:MOST_PARTS])


def record(value):
    """{project: {"parts": ..., "packages": ...}}: what a host has been told of its projects."""
    return {
        project: {"parts": parts(each.get("parts")), "packages": packages(each.get("packages"))}
        for project, each in mapping(value).items()
        if isinstance(each, dict)
    }


def obtainable(value):
    """What host_packages.py says that a host can get; {} where it has said nothing."""
    if not isinstance(value, dict) or "would" not in value:
        return {}
    return {
        "would": list(filter(is_package, _listed(value["would"]))),
        "there": versions(value.get("there")),
        "candidates": versions(value.get("candidates")),
        "versions": {
            name: list(filter(is_version, _listed(each)))
            for name, each in mapping(value.get("versions")).items()
            if is_package(name)
        },
    }


def address(value):
    """An address without its zone; empty for anything else."""
    try:
        return str(ipaddress.ip_address(value.partition("%")[0]))
    except (AttributeError, ValueError):
        return ""


def addresses(value):
    return list(filter(None, map(address, _listed(value))))


def default(value):
    """Facts of a default route: {"address": ADDRESS or "", "network": NETWORK or ""}."""
    value = mapping(value)
    own = address(value.get("address"))
    prefix = str(value.get("prefix") or value.get("netmask") or "")
    return {"address": own, "network": network(f"{own}/{prefix}") if own and prefix else ""}


def network(value):
    """A network, of an address in it as well; empty for anything else."""
    try:
        return str(ipaddress.ip_network(value, strict=False)) if isinstance(value, str) else ""
    except ValueError:
        return ""


def kept(value):
    """{"networks": [...], "addresses": {HOST: [...]}}: what a host's last run has noted of its peers."""
    value = mapping(value)
    return {
        "networks": list(filter(None, map(network, _listed(value.get("networks"))))),
        "addresses": {name: addresses(each) for name, each in mapping(value.get("addresses")).items()},
    }


def files(value):
    """{project: text} of hosts files."""
    return {project: text for project, text in mapping(value).items() if isinstance(text, str)}
