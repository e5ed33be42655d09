"""What in ssh's configuration only OpenSSH's client follows, and what nobody can without a question.

paramiko would ignore it, so that a host is let pass or a login made that was not asked for. What is not here
does no harm: `ssh -G` has followed it already (CanonicalizeHostname), or we are stricter
(StrictHostKeyChecking, VerifyHostKeyDNS), or it is a further way to log in, tried when no key does: Debian
has GSSAPIAuthentication on for everybody, and id_ed25519_sk is among ssh's own IdentityFiles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from ..errors import LoginError
from .keyfile import is_security_key

Answer = Mapping[str, list[str]]
"""What `ssh -G` said: values by keyword in lower case."""

_NO_RSA_LIMIT = 1024
"""RequiredRSASize of OpenSSH itself; paramiko takes keys of any length."""


def needs(settings: Answer, identities: Sequence[str], path: Callable[[str], str]) -> list[str]:
    """Why OpenSSH's client has to be used: keywords that are set, with their values.

    Args:
        identities: private keys that may be tried.
        path: expands a path of the configuration.
    """

    def value(name: str) -> str:
        return settings.get(name.lower(), ["none"])[0]

    found = [f"RevokedHostKeys {value('RevokedHostKeys')}"] if value("RevokedHostKeys") != "none" else []
    # Without its value: it is a command line, which may hold what is nobody's business.
    found += ["KnownHostsCommand"] if value("KnownHostsCommand") != "none" else []
    # Our keys' certificates are found where they usually are; ssh too passes over a file that is not there.
    there = [key for key in identities if os.path.exists(key) or os.path.exists(f"{key}.pub")]
    for text in settings.get("certificatefile", []):
        file = path(text)
        if text != "none" and os.path.exists(file) and file not in [f"{key}-cert.pub" for key in there]:
            found.append(f"CertificateFile {text}")
    provider = path(value("PKCS11Provider"))
    if provider != "none" and (os.path.exists(provider) or not os.path.isabs(provider)):
        found.append(f"PKCS11Provider {provider}")
    # Through a proxy, ssh itself opens no socket.
    jump, command = value("ProxyJump") != "none", value("ProxyCommand") != "none"
    if not jump and not command:
        names = ("BindAddress", "BindInterface")
        found += [f"{name} {value(name)}" for name in names if value(name) != "none"]
    elif not jump and _is_on(settings, "proxyusefdpass"):
        found.append("ProxyUseFdpass yes")
    size = value("RequiredRSASize")
    if size.isdigit() and int(size) > _NO_RSA_LIMIT:
        found.append(f"RequiredRSASize {size}")
    if not _keys_allowed(settings):
        found.append("PubkeyAuthentication no")
    preferred = _preferred(settings)
    if preferred is not None and "publickey" not in preferred:
        found.append(f"PreferredAuthentications {','.join(preferred)}")
    return found


def check_logins(alias: str, settings: Answer) -> None:
    """See that there is a way to log in that asks nobody anything.

    Raises:
        LoginError: there is none.
    """
    ways = ["publickey"] if _keys_allowed(settings) else []
    ways += ["hostbased"] if _is_on(settings, "hostbasedauthentication") else []
    ways += ["gssapi-with-mic"] if _is_on(settings, "gssapiauthentication") else []
    ways += ["gssapi-keyex"] if _is_on(settings, "gssapikeyexchange") else []
    preferred = _preferred(settings)
    if preferred is None and ways:
        return
    if preferred is not None and set(ways).intersection(preferred):
        return
    said = [] if _keys_allowed(settings) else ["PubkeyAuthentication no"]
    said += [] if preferred is None else [f"PreferredAuthentications {','.join(preferred)}"]
    raise LoginError(
        f"ssh's configuration or options for {alias} allow no login without a question: {', '.join(said)}",
        "allow keys there (PubkeyAuthentication yes, publickey among PreferredAuthentications), or name "
        "another configuration by --ssh-config FILE",
    )


def other_logins(settings: Answer, identities: Sequence[str]) -> list[str]:
    """Ways to log in that OpenSSH's client has beside the keys that paramiko can use."""
    names = [f"the security key {path}" for path in identities if is_security_key(path)]
    names += ["HostbasedAuthentication"] if _is_on(settings, "hostbasedauthentication") else []
    # Debian's configuration has it on for everybody; it matters to who has a ticket.
    if _is_on(settings, "gssapiauthentication") and (
        "KRB5CCNAME" in os.environ or os.path.exists(f"/tmp/krb5cc_{os.getuid()}")
    ):
        names.append("GSSAPIAuthentication")
    return names


def _keys_allowed(settings: Answer) -> bool:
    return settings.get("pubkeyauthentication", ["yes"])[0] not in ("no", "false")


def _preferred(settings: Answer) -> list[str] | None:
    text = settings.get("preferredauthentications", ["none"])[0]
    return None if text == "none" else text.split(",")


def _is_on(settings: Answer, keyword: str) -> bool:
    return settings.get(keyword, ["no"])[0] not in ("no", "false", "none")
