"""TLS to a registry: is it the one that was named?

A certificate that is pinned, or is the registry's own, is compared as a whole: then it matters neither who
has signed it, nor what names are in it, nor how old it is. Any other is checked as browsers do.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Callable

from .errors import RegistryError
from .registryplace import Place

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_SHOW = "on the registry `d1fleet registry certificate` shows its own, to compare"


def secured(place: Place, left_s: Callable[[], float]) -> ssl.SSLSocket:
    """A connection to the registry of that place and no other; nothing has been sent on it.

    Args:
        left_s: seconds that are left; raises TimeoutError when there are none.

    Raises:
        OSError: it cannot be reached.
        RegistryError: it is another one, or nothing says that it is the right one.
    """
    if place.pin:
        sock = _shake_hands(place, _trusting(), left_s)
        found = pin_of(_shown(sock))
        if found == place.pin:
            return sock
        sock.close()
        raise RegistryError(
            f"{place} shows another certificate than the one that is pinned: {found}",
            f"it may be another one that answers there; {_SHOW}",
        )
    if place.certificate:
        own = _certificates(place.certificate)
        sock = _shake_hands(place, _trusting(), left_s)
        if _shown(sock) in own:
            return sock
        sock.close()
    try:
        context = ssl.create_default_context(cafile=place.certificate or None)
        return _shake_hands(place, context, left_s)
    except ssl.SSLCertVerificationError as error:
        if place.certificate:
            raise RegistryError(
                f"{place} shows a certificate that {place.certificate} does not vouch for:"
                f" {error.verify_message}",
                f"it may be another one that answers there, or have a new certificate; {_SHOW}",
            ) from error
        raise RegistryError(
            f"nobody whom this machine trusts vouches for the certificate of {place}: {error.verify_message}",
            "say which it is: --certificate FILE or --pin sha256:...; "
            "`d1fleet registry certificate` on the registry shows both",
        ) from error


def fetch(place: Place, left_s: Callable[[], float]) -> bytes:
    """The certificate that whoever answers at a place shows, as DER. Nothing vouches for it.

    Raises:
        OSError: it cannot be reached, or speaks no TLS.
    """
    with _shake_hands(place, _trusting(), left_s) as sock:
        return _shown(sock)


def pin_of(certificate: bytes) -> str:
    """Args:
    certificate: DER.
    """
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"


def as_pem(certificate: bytes) -> str:
    """Args:
    certificate: DER.
    """
    return ssl.DER_cert_to_PEM_cert(certificate)


def _trusting() -> ssl.SSLContext:
    """For those who compare what is shown themselves, before they send anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _shake_hands(place: Place, context: ssl.SSLContext, left_s: Callable[[], float]) -> ssl.SSLSocket:
    plain = socket.create_connection((place.host, place.port), left_s())
    try:
        plain.settimeout(left_s())
        return context.wrap_socket(plain, server_hostname=place.host)
    except BaseException:
        plain.close()
        raise


def _shown(sock: ssl.SSLSocket) -> bytes:
    # Without one, a handshake does not succeed.
    return sock.getpeercert(binary_form=True) or b""


def _certificates(path: str) -> list[bytes]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(1 << 20)
        found = [ssl.PEM_cert_to_DER_cert(block) for block in _BLOCK.findall(text)]
    except OSError as error:
        raise RegistryError(
            f"the certificate {path} cannot be read: {error.strerror}", "see `ls -l` of it"
        ) from error
    except ValueError:
        found = []
    if not found:
        raise RegistryError(f"{path} holds no certificate", "it has to be one in PEM: -----BEGIN CERTIFICATE")
    return found
