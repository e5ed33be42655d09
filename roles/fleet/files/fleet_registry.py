"""What is wrong with what an inventory says of checking in at a registry. Pure.

The check-in reads the same values on the host, by the same code.
"""

from d1fleet.checkin import config, values
from d1fleet.checkin.strictjson import BadDocumentError

REGISTRY = "d1fleet_registry"
NETWORKS = "d1fleet_distcc_networks"
PEM = "-----BEGIN CERTIFICATE-----"


def faults(said, late):
    """Args:
    said: {variable: value} of one host.
    late: variables whose values are not known before hosts are asked.
    """
    owner = said.get("d1fleet_owner")
    if owner and not values.OWNER.fullmatch(owner):
        yield f"d1fleet_owner is {owner!r}: plain letters, digits, blanks and . _ @ + -, at most 64"
    if REGISTRY in late:
        yield f"{REGISTRY} depends on a fact, or on another host's variables: write the URL as it is"
    url = said.get(REGISTRY)
    if not url:
        return
    try:
        config.registry(url)
    except BadDocumentError as error:
        yield f"{REGISTRY}: {error}"
    if not said.get(NETWORKS) and NETWORKS not in late:
        yield (
            f"{NETWORKS} has to name the networks in which members are, since {REGISTRY} is set: a registry"
            " says who is a member, and the inventory from where that may be"
        )
    certificate = said.get("d1fleet_registry_certificate") or ""
    if "\n" in certificate.strip() and not certificate.strip().startswith(PEM):
        yield (
            "d1fleet_registry_certificate is no certificate: name a file on this machine, or give what stands"
            f" in one, from {PEM} on"
        )
    tokens = said.get("d1fleet_registry_token") or ""
    if tokens and not values.JOIN_TOKEN.fullmatch(tokens):
        # Not the text itself: it may be a real one with a blank behind it.
        yield (
            "d1fleet_registry_token is none: they begin with d1j_, and are shown once"
            " (`d1fleet registry token create PROJECT`)"
        )
