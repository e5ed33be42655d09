"""TLS: the certificate that the service shows, and may be told to read again."""

from __future__ import annotations

import ssl

from ..errors import RegistryError
from . import certificate
from .options import Options


class Tls:
    """The certificate that the service shows.

    Raises:
        RegistryError: it cannot be used.
    """

    def __init__(self, options: Options) -> None:
        assert options.tls_certificate is not None and options.tls_key is not None
        self._files = options.tls_certificate, options.tls_key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.load()

    def load(self) -> None:
        """Read the files, at first and again: connections that begin from now on get what is in them.

        Raises:
            RegistryError: they cannot be used; what was read before goes on to be.
        """
        file, key = self._files
        for each in self._files:
            try:
                with open(each, "rb"):
                    pass
            except OSError as error:
                raise RegistryError(
                    f"{each} cannot be read: {error.strerror}",
                    "see `ls -l` of it; d1fleet registry certificate makes a pair",
                ) from error
        try:
            # A pair that does not fit must not be left half loaded.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key, password=_no_password)
            self.context.load_cert_chain(file, key, password=_no_password)
        except (ssl.SSLError, ValueError, OSError) as error:
            reason = getattr(error, "reason", None) or "no certificate with its key"
            raise RegistryError(
                f"{file} and {key} cannot be used: {str(reason).lower().replace('_', ' ')}",
                "name a certificate in PEM and its own key, without a password",
            ) from error
        self.pin = certificate.pin(file.read_text("ascii", "replace"))


def _no_password() -> str:
    raise ValueError("the key has a password")
