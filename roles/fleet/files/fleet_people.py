"""Entries of d1fleet_builders with all defaults said, and what is wrong with them. Pure."""

import base64
import binascii
import re
import struct

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
"""Names as useradd(8) takes them."""

_KEY = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)( [^\n\r]*)?")
"""A line of NAME.pub. Options in front would undo ours."""

_FIELDS = {"ssh-ed25519": 2, "ssh-rsa": 3, "ssh-dss": 5, "sk-ssh-ed25519@openssh.com": 3}
"""Fields of a public key, its type too (RFC 4253, RFC 8709, OpenSSH's PROTOCOL.u2f). ECDSA has 3, or 4 on a
security key.
"""


def people(builders):
    """The same list with every key said.

    A group's number is the first that is given for it, else the uid of its first builder.
    """
    gids = {}
    for each in builders:
        if each.get("gid") is not None:
            gids.setdefault(_group(each), each["gid"])
    for each in builders:
        gids.setdefault(_group(each), each["uid"])
    return [
        {
            "name": each["name"],
            "uid": each["uid"],
            "group": _group(each),
            "gid": gids[_group(each)] if each.get("gid") is None else each["gid"],
            "groups": each.get("groups") or [],
            "home": each.get("home") or ("/root" if each["uid"] == 0 else f"/home/{each['name']}"),
            "shell": each.get("shell") or "",
            "comment": each.get("comment") or "",
            "authorized_keys": [key.strip() for key in each.get("authorized_keys") or []],
            "forced_command": each.get("forced_command") is not False,
        }
        for each in builders
    ]


def _group(each):
    return each.get("group") or each["name"]


def faults(found):
    """What is wrong with a list of people, in words."""
    words = []
    for one in found:
        names = [one["name"], one["group"], *one["groups"]]
        words += [
            f"{name!r} is no name: small letters, digits, dash and underscore, a letter in front"
            for name in names
            if not _NAME.fullmatch(name)
        ]
        words += [f"{what} of {one['name']} is negative" for what in ("uid", "gid") if one[what] < 0]
        wrong = filter(None, map(key_fault, one["authorized_keys"]))
        words += [f"a key of {one['name']} {fault}" for fault in wrong]
    words += _twice(found, "name", "uid", "each needs a name of its own")
    words += _twice(found, "uid", "name", "each needs a uid of its own")
    words += _twice(found, "group", "gid", "a group has one gid", equal=True)
    words += _twice(found, "gid", "group", "a gid is one group's", equal=True)
    return words


def _twice(found, key, other, rule, equal=False):
    """Where one `key` stands with several values of `other`; with `equal`, equal values are none."""
    words = {}
    seen = {}
    for one in found:
        if one[key] in seen and not (equal and seen[one[key]] == one[other]):
            words[one[key]] = f"{key} {one[key]} has {other} {seen[one[key]]} and {one[other]}: {rule}"
        seen.setdefault(one[key], one[other])
    return list(words.values())


def key_fault(line):
    """What is wrong with one public key; empty when nothing is."""
    begin = f"({line[:40]}...)"
    match = _KEY.fullmatch(line)
    if not match:
        return f"{begin} is not one line as ssh-keygen writes it into NAME.pub, without options in front"
    kind, text = match[1], match[2]
    try:
        fields = _fields(base64.b64decode(text, validate=True))
    except (binascii.Error, struct.error, ValueError):
        return f"{begin} is not whole: copy the line from NAME.pub again"
    if fields[0] != kind.encode():
        return f"{begin} says another type than its {kind}: copy the line from NAME.pub again"
    wanted = _FIELDS.get(kind, 4 if kind.startswith("sk-ecdsa-") else 3)
    if "cert" not in kind and len(fields) != wanted:
        return f"{begin} is not whole: copy the line from NAME.pub again"
    return ""


def _fields(blob):
    """The texts that a key is made of, each with its length in front."""
    fields = []
    while blob:
        (size,) = struct.unpack(">I", blob[:4])
        if len(blob) < 4 + size:
            raise ValueError("it ends too early")
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if not fields:
        raise ValueError("it is empty")
    return fields
