"""Works out who may reach whose distcc, and the hosts files of all members of all projects.

Runs on the controller with PYTHONPATH at d1fleet/'s folder. Standard input and output are JSON:

    in   {"projects": {PROJECT: [HOST, ...]}, "reference": {PROJECT: {"parts": {PART: TEXT}}},
          "hosts": {HOST: MEMBER}}
         MEMBER  {"known": BOOL: its facts are there, "address": its own word in the inventory, or "",
                  "host": ansible_host, or "", "default4": {...}, "default6": {...}: facts of that name,
                  "addresses": [...]: all it has, "slots": NUMBER, "port": NUMBER, "options": [...],
                  "networks": [...], "serves": BOOL, "default_project": PROJECT or "", "mismatch": TEXT,
                  "parts": {PART: TEXT}, "files": {PROJECT: TEXT}: its hosts files as they are}
    out  {"faults": [TEXT, ...], "hosts": {HOST: {
          "networks": [...]: of --allow, "members": [...]: addresses that may connect,
          "files": {PROJECT: TEXT}, "default": PROJECT or "", "left_out": {PROJECT: {HOST: REASON}}}}}

A host of which nothing is known now keeps the entries that it has in others' files: it may be off for an
hour, and its peers notice that by themselves.
"""

import ipaddress
import json
import sys

import fleet_report

from d1fleet import hostsfile

WIDEST = {4: 8, 6: 32}
"""Shortest prefix of a network that may be declared: shorter ones are the Internet."""


RANGES = {
    "d1fleet_distcc_port": (1, 65535),
    "d1fleet_distcc_jobs": (1, 4096),
    "d1fleet_distcc_job_lifetime_s": (10, 86400),
    "d1fleet_distcc_weight": (1, 10000),
}


def value_faults(values, projects):
    """What is wrong with a host's variables, before anything is asked of it.

    Args:
        values: {variable: value} of the right types.
        projects: those that the host is in.
    """
    for name, (least, most) in RANGES.items():
        if name in values and not least <= values[name] <= most:
            yield f"{name} is {values[name]}: it has to be from {least} to {most}"
    yield from _network_faults(values.get("d1fleet_distcc_networks") or [])
    options = values.get("d1fleet_distcc_options") or []
    if "cpp" in options and "lzo" not in options:
        yield "d1fleet_distcc_options: cpp wants lzo beside it"
    if values.get("d1fleet_address"):
        try:
            hostsfile.Peer("host", hostsfile.address_of(values["d1fleet_address"]), 1)
        except hostsfile.HostsFileError:
            yield f"d1fleet_address is {values['d1fleet_address']}: it has to be one that peers can use"
    default = values.get("d1fleet_default_project")
    if default and default not in projects:
        yield f"d1fleet_default_project is {default}: the host is in {', '.join(projects)} alone"


def work_out(given):
    """The answer; see above."""
    projects, hosts = given["projects"], given["hosts"]
    faults, peers = [], {}
    for name, host in hosts.items():
        faults += [f"{name}: {text}" for text in _network_faults(host["networks"])]
        if host["known"]:
            try:
                peers[name] = _peer(name, host)
            except hostsfile.HostsFileError as error:
                faults.append(f"{error}. Set d1fleet_address to the address by which its peers reach it")
    if faults:
        return {"faults": faults, "hosts": {}}
    answer = {}
    for name, host in hosts.items():
        own = [project for project, members in projects.items() if name in members]
        found = {"files": {}, "left_out": {}, "default": _default(host, own)}
        others = set()
        for project in own:
            wanted = (given["reference"].get(project) or {}).get("parts") or {}
            entries, left = _entries(name, project, projects[project], hosts, peers, wanted)
            found["left_out"][project] = left
            found["files"][project] = hostsfile.HostsFile(host["slots"], hostsfile.ring(name, entries)).text(
                [
                    f"distcc's hosts for project {project} on {name};"
                    " written by Ansible, role d1.fleet.distcc_hosts.",
                    *(f"left out: {each}: {why}" for each, why in left.items()),
                ]
            )
            others.update(_may_connect(project, projects[project], hosts, peers))
        found["networks"] = _networks(host, own, projects, hosts)
        allowed = [ipaddress.ip_network(network) for network in found["networks"]]
        found["members"] = [
            str(each)
            for each in sorted(map(ipaddress.ip_address, others), key=lambda each: (each.version, each))
            if any(each in network for network in allowed)
        ]
        answer[name] = found
    return {"faults": _unreachable(projects, hosts, peers, answer), "hosts": answer}


def _network_faults(networks):
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            yield f"d1fleet_distcc_networks: {error}. Write networks as 192.0.2.0/24"
            continue
        if network.prefixlen < WIDEST[network.version]:
            yield (
                f"d1fleet_distcc_networks: {text} is open to the world, and who reaches distcc runs programs"
                f" there. Name your own networks (a prefix of at least /{WIDEST[network.version]})"
            )


def _peer(name, host):
    """How others reach it: what the inventory says, or what Ansible uses if that is an address, or the
    address of its default route.
    """
    address = host["address"] or _literal(host["host"])
    address = address or host["default4"].get("address") or host["default6"].get("address") or ""
    if not address:
        raise hostsfile.HostsFileError(f"{name} has no address that is known")
    try:
        address = hostsfile.address_of(address)
    except hostsfile.HostsFileError as error:
        raise hostsfile.HostsFileError(f"{name}: {error}") from None
    return hostsfile.Peer(name, address, host["slots"], host["port"], tuple(host["options"]))


def _literal(text):
    """An address that others could use, too; a name, or a loopback address with a port forwarded, is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return "" if address.is_loopback else str(address)


def _default(host, own):
    if host["default_project"]:
        return host["default_project"]
    return own[0] if len(own) == 1 else ""


def _entries(name, project, members, hosts, peers, wanted):
    """What stands in a file, with the host itself to know where the ring begins, and who is left out."""
    entries, left = [], {}
    for each in members:
        if each == name:
            entries.append(peers.get(each) or _placeholder(each))
        elif not hosts[each]["serves"]:
            left[each] = "it serves no distcc (d1fleet_distcc: false)"
        elif hosts[each]["known"]:
            why = fleet_report.differs({**hosts[each], "state": "done"}, project, wanted)
            if why and hosts[each]["mismatch"] != "ignore":
                left[each] = why
            else:
                entries.append(peers[each])
        else:
            old = _old(each, project, [name, *members], hosts)
            if old is None:
                left[each] = "nothing is known of it: it was not reached"
            else:
                entries.append(old)
    return entries, left


def _placeholder(name):
    """Stands where the host itself is, whatever is known of it."""
    return hostsfile.Peer(name, "192.0.2.1", 1)


def _old(name, project, members, hosts):
    """Its entry in the first of the members' files that has one."""
    for member in members:
        try:
            peers = hostsfile.parse(hosts[member]["files"].get(project) or "").peers
        except hostsfile.HostsFileError:
            continue
        for peer in peers:
            if peer.name == name:
                return peer
    return None


def _may_connect(project, members, hosts, peers):
    """Addresses from which members may come: all of those that are known."""
    for each in members:
        if each in peers:
            yield peers[each].address
            yield from (
                str(address)
                for text in hosts[each]["addresses"]
                if (address := ipaddress.ip_address(text.partition("%")[0]))
                and not (address.is_loopback or address.is_link_local)
            )
        else:
            old = _old(each, project, members, hosts)
            if old is not None:
                yield old.address


def _networks(host, own, projects, hosts):
    """Of --allow: declared ones, else those in which members' default addresses are."""
    if host["networks"]:
        return list(dict.fromkeys(str(ipaddress.ip_network(text)) for text in host["networks"]))
    found = {}
    for each in dict.fromkeys(member for project in own for member in projects[project]):
        for version, fact in ((4, hosts[each]["default4"]), (6, hosts[each]["default6"])):
            prefix = str(fact.get("prefix") or fact.get("netmask") or "")
            if fact.get("address") and prefix:
                network = ipaddress.ip_network(f"{fact['address'].partition('%')[0]}/{prefix}", strict=False)
                if network.prefixlen >= WIDEST[version]:
                    found[str(network)] = None
    return list(found)


def _unreachable(projects, hosts, peers, answer):
    """Members whose address is in no network that their peers let in."""
    for project, members in projects.items():
        for name in members:
            allowed = [ipaddress.ip_network(network) for network in answer[name]["networks"]]
            for each in members:
                if each in peers and each != name and hosts[name]["serves"] and hosts[name]["known"]:
                    address = ipaddress.ip_address(peers[each].address)
                    if not any(address in network for network in allowed):
                        said = ", ".join(answer[name]["networks"]) or "none"
                        return [
                            f"project {project}: {each} has the address {address}, which is in no network"
                            f" that {name} lets in ({said}): name all of the project's networks in"
                            " d1fleet_distcc_networks"
                        ]
    return []


if __name__ == "__main__":
    json.dump(work_out(json.load(sys.stdin)), sys.stdout)
