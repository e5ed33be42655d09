"""What a private key's file shows without being unlocked."""

from __future__ import annotations

import base64
import struct


def public_blob(path: str) -> bytes | None:
    """The public half of a private key's file, without unlocking it: from FILE.pub, or from its own head."""
    try:
        with open(f"{path}.pub", "rb") as file:
            return base64.b64decode(file.read(64 << 10).split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        with open(path, "rb") as file:
            head, *lines, _ = file.read(64 << 10).strip().splitlines()
        if head != b"-----BEGIN OPENSSH PRIVATE KEY-----":
            return None
        # PROTOCOL.key: magic, cipher, kdf, its options, the number of keys, the first public key.
        data, at = base64.b64decode(b"".join(lines)), len(b"openssh-key-v1\0")
        for _ in range(3):
            at += 4 + struct.unpack_from(">I", data, at)[0]
        size = struct.unpack_from(">I", data, at + 4)[0]
        return data[at + 8 : at + 8 + size]
    except (OSError, ValueError, struct.error):
        return None


def is_security_key(path: str) -> bool:
    """Is it the handle of a key that lives in a token (FIDO)?"""
    # A blob begins with the length and the name of its kind; sk-ssh-ed25519@openssh.com and its like.
    return (public_blob(path) or b"")[4:7] == b"sk-"
