# Copyright (c) The d1fleet project
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# This file imports ansible, which is under the GNU General Public License, version 3 or later: so this file
# is, too. The rest of d1fleet is under the Apache License 2.0. It does not import this file, and this file
# imports nothing of it, but ansible and Python's standard library alone.
"""Ansible's inventory from d1fleet's registry."""

from __future__ import annotations

DOCUMENTATION = """
name: registry
author: The d1fleet project
short_description: Hosts and projects of a d1fleet registry
description:
  - Asks a registry (C(d1fleet registry serve)) for its projects and hosts.
  - Each project is a group below C(projects). Hosts that have said goodbye, or are not heard of, are in their
    projects and in C(registry_away) as well, drained ones in C(registry_drained). Those that were thrown out,
    or share their credential with another machine, are not in the inventory.
  - Nothing that a host reports is templated, and of the variables by which Ansible connects C(ansible_host)
    alone is set.
  - Answers are not cached, since a cache would give out hosts that are gone.
  - The file has to be called C(*.d1fleet.yml) or C(*.d1fleet.yaml).
options:
  plugin:
    description: This plugin's name.
    required: true
    choices: [d1.fleet.registry, registry]
  url:
    description:
      - Where the registry is, as V(https://192.0.2.1:33333).
      - V(http://) is for loopback addresses alone. V(unix:/var/lib/d1fleet-registry/admin.sock) is the socket
        of a registry on this machine.
    required: true
    type: str
  key_file:
    description:
      - A file with an API key, relative to the inventory file's folder. A viewer's is enough
        (C(d1fleet registry key create)).
      - Not needed for a socket.
    type: str
    env:
      - name: D1FLEET_REGISTRY_KEY_FILE
  certificate:
    description:
      - A PEM file with the registry's own certificate, or that of the authority that has signed it, relative
        to the inventory file's folder.
    type: str
  pin:
    description: Digest of the registry's certificate, as V(sha256:HEX), in place of O(certificate).
    type: str
"""

EXAMPLES = """
# fleet.d1fleet.yml, for: ansible-playbook -i fleet.d1fleet.yml site.yml
plugin: d1.fleet.registry
url: https://registry.example:33333
key_file: viewer.key
certificate: registry.pem
"""

import hashlib
import http.client
import io
import ipaddress
import json
import os
import re
import socket
import ssl
import time
import urllib.parse

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

NAMES = ("d1.fleet.registry", "registry")

PORT = 33333
ANSWER_S = 15.0
MOST_BYTES = 64 << 20
MOST_HOSTS = 100_000
MOST_PROJECTS = 10_000
MOST_SLOTS = 4096
LONGEST_WORD = 100

PROJECT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
HOST_NAME = re.compile(
    r"(?=.{1,100}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)
URL_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
PIN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
KEY = re.compile(r"d1k_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", re.ASCII)
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

RESERVED = re.compile(r"all|ungrouped|projects|localhost|(d1fleet|registry)_.*", re.ASCII | re.IGNORECASE)
"""Names that mean something else in an inventory, or in our playbooks."""

THIS_MACHINE = re.compile(
    r"(.*\.)?(localhost\d?|ip6-(localhost|loopback)|0x[0-9a-f]+|\d+)(\.localdomain\d?)?", re.ASCII
)
"""Names by which Ansible, or the resolver, takes a host for the one that Ansible runs on; and addresses."""

AWAY = "registry_away"
DRAINED = "registry_drained"
GROUPS = {
    "up": None,
    "suspect": None,
    "drained": DRAINED,
    "left": AWAY,
    "gone": AWAY,
}
"""A host's state, and the group that says so."""

OUTCASTS = ("expunged", "cloned")


class InventoryModule(BaseInventoryPlugin):
    """See DOCUMENTATION."""

    NAME = "d1.fleet.registry"

    # What hosts report stays text, whatever is in it.
    trusted_by_default = False

    def verify_file(self, path):
        """Is it a file of ours, by its name?"""
        return super().verify_file(path) and path.endswith((".d1fleet.yml", ".d1fleet.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Put the registry's projects and hosts into the inventory."""
        super().parse(inventory, loader, path, cache)
        # A checkout's ansible.cfg calls it by its short name, files say the whole one.
        self._redirected_names = [*(getattr(self, "_redirected_names", None) or []), *NAMES]
        config = self._read_config_data(path)
        options = {name: self.get_option(name) for name in ("url", "key_file", "certificate", "pin")}
        if options["key_file"] and not config.get("key_file"):  # of the environment
            options["key_file"] = os.path.abspath(os.path.expanduser(options["key_file"]))
        try:
            answer = ask(Registry(options, os.path.dirname(os.path.abspath(path))))
            projects = projects_of(answer)
            self._add_projects(projects)
            self._add_hosts(hosts_of(answer, projects), projects)
        except Fault as fault:
            # Ansible would say again what a cause says.
            raise AnsibleParserError(f"{path}: {fault}") from None

    def _add_projects(self, projects):
        inventory = self.inventory
        for group in ("projects", AWAY, DRAINED):
            inventory.add_group(group)
        ours = {group.name for group in inventory.groups["projects"].get_descendants()}
        for name, project in projects.items():
            if name in inventory.hosts or (name in inventory.groups and name not in ours):
                raise Fault(
                    f"the registry has a project {name}, and the inventory something else of that name:"
                    " rename one of them"
                )
            inventory.add_group(name)
            inventory.add_child("projects", name)
            inventory.set_variable(name, "d1fleet_distcc_transport", project["transport"])
            inventory.set_variable(name, "d1fleet_distcc_options", project["options"])

    def _add_hosts(self, hosts, projects):
        inventory = self.inventory
        for name, host in hosts.items():
            # Whoever has a join token chooses a host's name.
            known = inventory.hosts.get(name)
            if name in inventory.groups or (
                known is not None and "projects" not in {group.name for group in known.get_groups()}
            ):
                self.display.warning(
                    f"host {name} of the registry is left out: the inventory has something else of that name"
                )
                continue
            inventory.add_host(name)
            for group in (*host["projects"], GROUPS[host["state"]]):
                if group:
                    inventory.add_child(group, name)
            ranges = {text: None for project in host["projects"] for text in projects[project]["ranges"]}
            said = {
                "d1fleet_slots": host["slots"],
                "d1fleet_distcc_networks": list(ranges),
                "d1fleet_registry_host": {word: host[word] for word in ("owner", "state", "version")},
            }
            if host["address"]:
                said.update(ansible_host=host["address"], d1fleet_address=host["address"])
            for variable, value in said.items():
                # What another inventory says of it is its owner's word.
                if known is None or variable not in known.vars:
                    inventory.set_variable(name, variable, value)


class Fault(Exception):
    """Something that a user is told: what is wrong, and what to do."""


# What the registry says. A registry that was broken into must not get further by it.


def projects_of(answer):
    """{name: {"ranges", "options", "transport"}}, checked.

    Raises:
        Fault: it could mean something else than projects.
    """
    found = {}
    for name, project in _mapping(answer, "projects", MOST_PROJECTS).items():
        if not PROJECT_NAME.fullmatch(name) or RESERVED.fullmatch(name):
            raise _unusable(f"a project is called {_quoted(name)}, which is no name for one")
        project = _is(project, dict, f"project {name}")
        transport = project.get("transport")
        if transport not in ("tcp", "ssh"):
            raise _unusable(f"project {name} has a transport other than tcp and ssh")
        options = _is(project.get("options"), list, f"project {name}, options")
        if any(option not in ("lzo", "cpp") for option in options):
            raise _unusable(f"project {name} has options other than lzo and cpp")
        ranges = _is(project.get("ranges"), list, f"project {name}, ranges")
        found[name] = {
            "transport": transport,
            "options": options,
            "ranges": [_network(text, name) for text in ranges],
        }
    return found


def hosts_of(answer, projects):
    """{name: {"address", "slots", "projects", "state", "owner", "version"}}, checked, but those thrown out.

    Args:
        projects: as `projects_of` has them.

    Raises:
        Fault: it could mean something else than hosts.
    """
    found = {}
    for name, host in _mapping(answer, "hosts", MOST_HOSTS).items():
        if not HOST_NAME.fullmatch(name) or RESERVED.fullmatch(name) or THIS_MACHINE.fullmatch(name):
            raise _unusable(f"a host is called {_quoted(name)}, which is no name for one")
        host = _is(host, dict, f"host {name}")
        state = host.get("state")
        if not isinstance(state, str) or (state not in GROUPS and state not in OUTCASTS):
            raise _unusable(f"host {name} has an unknown state")
        if state in OUTCASTS:
            continue
        slots = host.get("slots")
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
            raise _unusable(f"host {name} has no number of slots from 1 to {MOST_SLOTS}")
        own = _is(host.get("projects"), list, f"host {name}, projects")
        if not all(isinstance(project, str) and project in projects for project in own):
            raise _unusable(f"host {name} is in a project that is not there")
        found[name] = {
            "address": _address(host.get("address"), name),
            "slots": slots,
            "projects": own,
            "state": state,
            "owner": _word(host.get("owner", ""), f"host {name}, owner"),
            "version": _word(host.get("version", ""), f"host {name}, version"),
        }
    return found


def _mapping(answer, name, most):
    found = _is(_is(answer, dict, "it").get(name), dict, name)
    if len(found) > most:
        raise _unusable(f"it has more than {most} {name}")
    return found


def _is(value, kind, what):
    if not isinstance(value, kind):
        raise _unusable(f"{what} is no {'mapping' if kind is dict else 'list'}")
    return value


def _network(text, project):
    try:
        if not isinstance(text, str):
            raise ValueError
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise _unusable(f"project {project} has a range that is no network") from None


def _address(text, name):
    """As ipaddress writes it; never one that means each machine itself, or a zone, which may be any text."""
    if text == "":
        return ""
    try:
        if not isinstance(text, str) or "%" in text:
            raise ValueError
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _unusable(f"host {name} has an address that is none") from None
    own = found.is_loopback or found.is_unspecified or found.is_multicast or found.is_link_local
    if own or (found.version == 6 and found.ipv4_mapped is not None):
        raise _unusable(f"host {name} has the address {found}, by which nobody else could reach it")
    return str(found)


def _word(text, what):
    if not isinstance(text, str) or len(text) > LONGEST_WORD or not text.isprintable():
        raise _unusable(f"{what} is no short text")
    return text


def _plain(text):
    return "".join(each if each.isprintable() and each.isascii() else "?" for each in text[:100])


def _quoted(text):
    return _plain(repr(text)[:60])


def _unusable(why):
    return Fault(
        f"the registry's answer cannot be used: {why}. Look whether url is right, and the registry has"
        " the version of this plugin"
    )


# Asking it


class Registry:
    """Where it is, how we know that it is that one, and the key that we show it.

    Raises:
        Fault: it cannot be told from the options.
    """

    def __init__(self, options, folder):
        url = str(options["url"])
        self.url = url
        self.socket = url.removeprefix("unix:") if url.startswith("unix:/") else ""
        self.host, self.port, self.tls, self.key = "", PORT, False, ""
        self.certificate, self.pin = "", ""
        if self.socket:
            return
        try:
            parts = urllib.parse.urlsplit(url)
            self.host, self.port = parts.hostname or "", PORT if parts.port is None else parts.port
        except ValueError:
            raise Fault(f"url: {_quoted(url)} is no URL such as https://192.0.2.1:{PORT}") from None
        rest = (
            parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/")
        )
        is_host = _is_address(self.host) or URL_HOST.fullmatch(self.host)
        if parts.scheme not in ("http", "https") or rest or not is_host or not self.port:
            raise Fault(f"url: {_quoted(url)} is no URL such as https://192.0.2.1:{PORT}")
        self.tls = parts.scheme == "https"
        if not self.tls and not (_is_address(self.host) and ipaddress.ip_address(self.host).is_loopback):
            raise Fault(
                "url: http:// is for loopback addresses alone, since whoever listens would get the key. Say https://"
            )
        self._trust(options, folder)
        self.key = self._key(options["key_file"], folder)

    def _trust(self, options, folder):
        if options["certificate"] and options["pin"]:
            raise Fault("certificate and pin are both given: leave one of them out")
        if options["certificate"]:
            self.certificate = os.path.join(folder, os.path.expanduser(str(options["certificate"])))
        if options["pin"]:
            name, _, digits = str(options["pin"]).strip().lower().partition(":")
            self.pin = f"{name}:{digits.replace(':', '')}"
            if not PIN.fullmatch(self.pin):
                raise Fault(
                    "pin: it has to be sha256: and 64 hex digits, as `d1fleet registry certificate` shows it"
                )

    def _key(self, path, folder):
        if not path:
            raise Fault(
                "no key is named: set key_file, or D1FLEET_REGISTRY_KEY_FILE, to a file with one that"
                " `d1fleet registry key create` has made"
            )
        file = os.path.join(folder, os.path.expanduser(str(path)))
        try:
            with open(file, encoding="ascii", errors="replace") as opened:
                text = opened.read(200).strip()
        except OSError as error:
            raise Fault(f"the key file {file} cannot be read: {error.strerror}") from error
        if not KEY.fullmatch(text):
            raise Fault(f"{file} holds no key of a registry: it has to hold d1k_... and no more")
        return text

    @property
    def authority(self):
        """Host and port, as in a URL."""
        if self.socket:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, end):
        """Raises:
        OSError: it cannot be reached.
        Fault: it is another one.
        """
        if self.socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(_left(end))
            try:
                sock.connect(self.socket)
            except OSError:
                sock.close()
                raise
            return sock
        if not self.tls:
            return socket.create_connection((self.host, self.port), _left(end))
        # A pinned certificate, or the registry's own, is compared as a whole; others are checked as usual.
        if self.pin or self.certificate:
            wanted = [self.pin] if self.pin else [_digest(each) for each in _certificates(self.certificate)]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            sock = self._secured(context, end)
            if _digest(sock.getpeercert(binary_form=True) or b"") in wanted:
                return sock
            sock.close()
            if self.pin:
                raise Fault(
                    f"{self.url} shows another certificate than the one that is pinned: it may be another one"
                    " that answers there. `d1fleet registry certificate` on the registry shows its pin"
                )
        return self._secured(ssl.create_default_context(cafile=self.certificate or None), end)

    def _secured(self, context, end):
        plain = socket.create_connection((self.host, self.port), _left(end))
        try:
            plain.settimeout(_left(end))
            return context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def ask(registry):
    """What /api/v1/admin/inventory answers.

    Raises:
        Fault: the registry is away, refuses, or is none.
    """
    end = time.monotonic() + ANSWER_S
    headers = {"Host": registry.authority, "Accept": "application/json", "Connection": "close"}
    if registry.key:
        headers["Authorization"] = f"Bearer {registry.key}"
    connection = http.client.HTTPConnection("registry")
    try:
        with registry.connect(end) as sock:
            connection.sock = _Line(sock, end)
            connection.request("GET", "/api/v1/admin/inventory", headers=headers)
            answer = connection.getresponse()
            status, data = answer.status, answer.read()
    except ssl.SSLCertVerificationError as error:
        raise Fault(
            f"nobody vouches for the certificate of {registry.url}: {error.verify_message}. Set certificate"
            " or pin to what `d1fleet registry certificate` shows on the registry"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Fault(
            f"the registry {registry.url} cannot be asked: {_plain(why)}. Look whether it runs"
            " (systemctl status d1fleet-registry), and whether url is right"
        ) from error
    finally:
        connection.sock = None
        connection.close()
    if status == 401:
        raise Fault(
            f"the registry {registry.url} does not know the key in key_file:"
            " `d1fleet registry key create` makes one"
        )
    if status != 200:
        raise Fault(f"{registry.url} answers with HTTP {status}: `d1fleet registry status` may say why")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Fault(
            f"{registry.url} does not answer as a registry: its answer is no JSON. Look whether url is right"
        ) from None


def _is_address(text):
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _digest(certificate):
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"


def _certificates(path):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            blocks = CERTIFICATE.findall(file.read(1 << 20))
        found = [ssl.PEM_cert_to_DER_cert(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise Fault(f"the certificate {path} cannot be read: {error}") from error
    if not found:
        raise Fault(f"{path} holds no certificate: it has to be one in PEM, -----BEGIN CERTIFICATE")
    return found


def _left(end):
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it does not answer in time")
    return left


class _Line:
    """A socket for http.client that gives up at an end, however slowly bytes come, and where there are too
    many.
    """

    def __init__(self, sock, end):
        self._sock = sock
        self._end = end

    def sendall(self, data):
        self._sock.settimeout(_left(self._end))
        self._sock.sendall(data)

    def makefile(self, mode):
        return io.BufferedReader(_Bounded(self._sock, self._end))

    def close(self):
        """Whoever made the socket closes it."""


class _Bounded(io.RawIOBase):
    def __init__(self, sock, end):
        self._sock = sock
        self._end = end
        self._left = MOST_BYTES

    def readable(self):
        return True

    def readinto(self, buffer):
        self._sock.settimeout(_left(self._end))
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise Fault(f"the registry's answer is longer than {MOST_BYTES >> 20} MiB")
        return count
