"""A certificate for a registry that has none: signed by itself, known to hosts by its digest (`pin`)."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import RegistryError, UsageError

CERTIFICATE = "registry.crt"
KEY = "registry.key"

YEARS = 10
"""Who pins a certificate does not ask a clock or an authority; to change it is work on each host."""

BACKDATED = datetime.timedelta(days=1)
"""Clocks of hosts may be slow."""

MOST_NAMES = 64
LONGEST_COMMON_NAME = 64
"""Characters (RFC 5280, ub-common-name)."""

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def make_certificate(names: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """Make a key and a certificate for it, in files of a folder that is there.

    Args:
        names: by which hosts and browsers reach the registry: names and addresses.

    Returns:
        The files of certificate and key.

    Raises:
        UsageError: a name is none.
        RegistryError: the files are there already, or cannot be written.
    """
    alternatives = [_alternative(name) for name in names]
    if not 1 <= len(alternatives) <= MOST_NAMES:
        raise UsageError(
            f"a certificate is for 1 to {MOST_NAMES} names, not for {len(alternatives)}",
            "name the registry as hosts and browsers reach it: its name, its address",
        )
    files = (folder / CERTIFICATE, folder / KEY)
    for file in files:
        if os.path.lexists(file):
            raise RegistryError(
                f"{file} is there already",
                "hosts know the registry by it; to have another one, move certificate and key away, and tell"
                " all hosts its pin",
            )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, alternatives, names[0])
    try:
        _write(
            files[1],
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            0o600,
        )
        _write(files[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise RegistryError(
            f"no certificate can be written in {folder}: {error.strerror}", "see `ls -ld` of that folder"
        ) from error
    return files


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _NAME.fullmatch(name):
        shown = "".join(each if each.isprintable() else "?" for each in name[:80])
        raise UsageError(
            f"{shown} is no name of a host, and no address", "write registry.example or 192.0.2.1"
        )
    return x509.DNSName(name.lower())


def _certificate(
    key: ec.EllipticCurvePrivateKey, alternatives: Sequence[x509.GeneralName], name: str
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:LONGEST_COMMON_NAME])])
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=round(YEARS * 365.25)))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        # It signs nothing but itself, whoever takes it for an authority.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never with another mode."""
    number, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # 0600
    try:
        with os.fdopen(number, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
            os.fchmod(opened.fileno(), mode)
        os.rename(name, file)
    except OSError:
        os.unlink(name)
        raise


def pin(pem: str) -> str:
    """By what hosts know the first certificate of a PEM text: `sha256:` and the digest of its DER.

    Raises:
        RegistryError: there is none in it.
    """
    try:
        first = x509.load_pem_x509_certificates(pem.encode())[0]
    except ValueError:
        raise RegistryError(
            "there is no certificate in this PEM text", "name the file that begins with BEGIN CERTIFICATE"
        ) from None
    return f"sha256:{first.fingerprint(hashes.SHA256()).hex()}"
