"""Works out who may reach whose distcc, and the hosts files of all members of all projects.

Runs on the controller with PYTHONPATH at d1fleet/'s folder. Standard input and output are JSON:

    in   {"projects": {PROJECT: [HOST, ...]}, "reference": {PROJECT: {"parts": {PART: TEXT}}} or {},
          "tools": {PROJECT: [TOOL, ...]}: that the inventory names, "hosts": {HOST: MEMBER}}
         MEMBER  {"known": BOOL: its facts are there, "address": its own word in the inventory, or "",
                  "host": ansible_host, or "", "default4": {...}, "default6": {...}: facts of that name,
                  "addresses": [...]: all it has, "slots": NUMBER, "port": NUMBER, "options": [...],
                  "networks": [...], "serves": BOOL, "transport": "tcp" or "ssh", "ssh_port": NUMBER: by which
                  Ansible reaches it, "checks_in": BOOL: a registry tells it who its peers are,
                  "default_project": PROJECT or "", "mismatch": TEXT,
                  "parts": {PART: TEXT}, "record": {PROJECT: {"parts": ...}}: what it has
                  been told of its projects, "files": {PROJECT: TEXT}: its hosts files as they are,
                  "kept": KEPT of the last run there}
    out  {"faults": [TEXT, ...], "reference": {...}, "hosts": {HOST: {
          "kept": KEPT, "listen": ADDRESS or "", "allow": [...]: for distccd, "networks": [...]: from which
          members come, "members": [...]: who may connect, "serves_ssh": BOOL: whether some come over SSH,
          "ssh_port": NUMBER: of its sshd, for peers, "files": {PROJECT: TEXT}, "ssh_config": TEXT or "": how
          it reaches peers over SSH, "default": PROJECT or "", "left_out": {PROJECT: {HOST: REASON}}}}}
         KEPT    {"networks": [...], "addresses": {HOST: [...]}}

What hosts say of themselves is read by fleet_facts.py: what cannot be meant counts as not said. A host of
which nothing is known now keeps the entries that it has in others' files, and its peers go on
letting it in: it may be off for an hour, and they notice that by themselves.
"""

import dataclasses
import ipaddress
import json
import sys

import fleet_facts
import fleet_report
import fleet_ways

from d1fleet import hostsfile

WIDEST = {4: 8, 6: 32}
"""Shortest prefix of a network that may be declared: shorter ones are the Internet."""

MOST_ADDRESSES = 16
"""From which a host may come, beside that by which its peers reach it: it names them itself."""

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
    projects = given["projects"]
    hosts = {name: _read(host) for name, host in given["hosts"].items()}
    faults, peers = [], {}
    for name, host in hosts.items():
        faults += [f"{name}: {text}" for text in _network_faults(host["networks"])]
        if host["checks_in"] and not host["networks"]:
            faults.append(f"{name}: a host that checks in wants d1fleet_distcc_networks, where members are")
        if host["known"]:
            try:
                peers[name] = _peer(name, host)
            except hostsfile.HostsFileError as error:
                # Of one that checks in, the registry knows better.
                faults += [] if host["checks_in"] else [str(error)]
    if faults:
        return {"faults": faults, "hosts": {}}
    reference = given["reference"] or _on_record(projects, hosts)
    for project, tools in given["tools"].items():
        reference.setdefault(project, {})["tools"] = tools
    ways = fleet_ways.ways(projects, {name: host["transport"] for name, host in hosts.items()})
    answer = {}
    for name, host in hosts.items():
        own = [project for project, members in projects.items() if name in members]
        found = {"files": {}, "left_out": {}, "default": _default(host, own)}
        over_ssh = {}
        for project in () if host["checks_in"] else own:
            wanted = (reference.get(project) or {}).get("parts") or {}
            entries, left = _entries(name, project, projects[project], hosts, peers, wanted)
            entries = [_by(each, ways[each.name][project], hosts[each.name]) for each in entries]
            over_ssh.update({peer.name: peer for peer in entries if peer.ssh})
            found["left_out"][project] = left
            found["files"][project] = hostsfile.HostsFile(host["slots"], tuple(entries)).text(
                [
                    f"distcc's hosts for project {project} on {name};"
                    " written by Ansible, role d1.fleet.distcc_hosts.",
                    *(f"left out: {each}: {why}" for each, why in left.items()),
                ]
            )
        members = dict.fromkeys(each for project in own for each in projects[project])
        addresses = {each: _addresses(each, hosts, peers) for each in members}
        networks = _networks(host, hosts, addresses)
        found["kept"] = {"networks": networks, "addresses": {} if host["checks_in"] else addresses}
        by_tcp = [project for project in own if ways[name][project] == fleet_ways.TCP]
        # Where nobody comes by TCP, nobody but this host itself is let in: peers come by a login.
        allowed = [ipaddress.ip_network(network) for network in (networks if by_tcp else ())]
        found["networks"] = list(map(str, allowed))
        found["members"] = _sorted(
            address
            for each in dict.fromkeys(each for project in by_tcp for each in projects[project])
            for address in (() if host["checks_in"] else addresses[each])
            if any(ipaddress.ip_address(address) in network for network in allowed)
        )
        found["listen"], found["allow"] = _for_distccd(allowed)
        # How a project's members reach each other is the registry's to say, and may change at any time.
        found["serves_ssh"] = host["serves"] and (host["checks_in"] or len(by_tcp) < len(own))
        found["ssh_port"] = _login(name, host, addresses[name]).port
        found["ssh_config"] = fleet_ways.ssh_config(
            name, {peer: _login(each, hosts[each], addresses[each]) for each, peer in over_ssh.items()}
        )
        answer[name] = found
    faults = _unreachable(projects, hosts, peers, answer, ways)
    return {"faults": faults, "reference": reference, "hosts": answer}


def _read(host):
    """A member whose word is of the right shape."""
    return {
        **host,
        "default4": fleet_facts.default(host["default4"]),
        "default6": fleet_facts.default(host["default6"]),
        "addresses": fleet_facts.addresses(host["addresses"]),
        "parts": fleet_facts.parts(host["parts"]),
        "record": fleet_facts.record(host["record"]),
        "files": fleet_facts.files(host["files"]),
        "kept": fleet_facts.kept(host["kept"]),
    }


def _on_record(projects, hosts):
    """What each project's toolchain is, as most hosts have been told: one that was off has an old word."""
    found = {}
    for project, members in projects.items():
        votes = [
            json.dumps({"parts": record["parts"]}, sort_keys=True)
            for each in members
            if (record := hosts[each]["record"].get(project)) and record["parts"]
        ]
        if votes:
            found[project] = json.loads(max(dict.fromkeys(votes), key=votes.count))
    return found


def _sorted(addresses):
    numbers = {ipaddress.ip_address(each) for each in addresses}
    return [str(each) for each in sorted(numbers, key=lambda each: (each.version, each))]


def _for_distccd(networks):
    """Where it listens ("" for IPv4 alone), and whom --allow names: on IPv6, IPv4 clients are mapped."""
    if not networks:
        return "127.0.0.1", ["127.0.0.1"]
    if all(network.version == 4 for network in networks):
        return "", ["127.0.0.1", *map(str, networks)]
    mapped = [
        f"::ffff:{each.network_address}/{96 + each.prefixlen}"
        for each in [ipaddress.ip_network("127.0.0.1"), *networks]
        if each.version == 4
    ]
    return "::", ["::1", *mapped, *(str(each) for each in networks if each.version == 6)]


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
    said = _literal(host["host"])
    # Behind a router, Ansible reaches it by an address that is not its own.
    address = host["address"] or (said if said in host["addresses"] else "")
    address = address or host["default4"]["address"] or host["default6"]["address"]
    try:
        if not address:
            raise hostsfile.HostsFileError(f"{name} has no address that is known")
        hostsfile.Peer(name, hostsfile.address_of(address), 1)
    except hostsfile.HostsFileError as error:
        words = str(error) if str(error).startswith(name) else f"{name}: {error}"
        raise hostsfile.HostsFileError(
            f"{words}. Set d1fleet_address to the address by which its peers reach it"
        ) from None
    return hostsfile.Peer(
        name, hostsfile.address_of(address), host["slots"], host["port"], tuple(host["options"])
    )


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
    """The peers that stand in a host's file, from the one behind it on, and who is left out."""
    own = _strange(hosts[name], project, wanted)
    if own:
        return (), {each: f"{name} is not as the project is: {own}" for each in members if each != name}
    entries, left = [], {}
    at = members.index(name)
    for each in [*members[at + 1 :], *members[:at]]:
        if not hosts[each]["serves"]:
            left[each] = "it serves no distcc (d1fleet_distcc: false)"
        elif each in peers:
            why = _strange(hosts[each], project, wanted)
            if why:
                left[each] = why
            else:
                entries.append(peers[each])
        else:
            old = _old(each, project, [name, *members], hosts)
            if old is None:
                left[each] = "nothing is known of it: it was not reached"
            else:
                entries.append(old)
    return tuple(entries), left


def _by(peer, way, host):
    """Its entry, reached as the inventory says: one that was kept may be older."""
    if way == fleet_ways.SSH:
        return dataclasses.replace(peer, ssh=True, port=hostsfile.PORT)
    return dataclasses.replace(peer, ssh=False, port=host["port"] if peer.ssh else peer.port)


def _login(name, host, addresses):
    """By which name a peer's host key is known, and the port of its sshd."""
    said = _literal(host["host"])
    # Where Ansible's way to it is not an address of its own, the port is that of the way, too.
    forwarded = host["host"] == "localhost" or _is_loopback(host["host"]) or (said and said not in addresses)
    return fleet_ways.Login(name, host["ssh_port"], 22 if forwarded else host["ssh_port"])


def _is_loopback(text):
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _strange(host, project, wanted):
    """In what a host's toolchain is not the project's; empty where that does not matter, or is not known."""
    if host["mismatch"] == "ignore" or not host["known"]:
        return ""
    return fleet_report.differs({**host, "state": "done"}, project, wanted)


def _old(name, project, members, hosts):
    """Its entry in the first of the members' files that has one. Where none has, of another project: that may
    be this one by its former name.
    """
    files = [hosts[member]["files"].get(project, "") for member in members]
    files += [text for member in members for text in hosts[member]["files"].values()]
    for text in files:
        try:
            peers = hostsfile.parse(text).peers
        except hostsfile.HostsFileError:
            continue
        for peer in peers:
            if peer.name == name:
                return peer
    return None


def _addresses(name, hosts, peers):
    """Addresses from which a member may come: its own, or what the inventory and its peers still know. None
    is among them by which another one is reached: to claim that makes nobody that host.
    """
    if name in peers:
        said, claimed = [peers[name].address], hosts[name]["addresses"]
    else:
        said = [hosts[name]["address"], _literal(hosts[name]["host"])]
        kept = [host["kept"]["addresses"].get(name, ()) for host in hosts.values()]
        claimed = list(dict.fromkeys(each for addresses in kept for each in addresses))
    others = {peer.address for each, peer in peers.items() if each != name}
    claimed = [each for each in claimed if _reaches(each) and each not in others]
    return _sorted([*filter(_reaches, said), *claimed[:MOST_ADDRESSES]])


def _reaches(text):
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (
        address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    )


def _networks(host, hosts, addresses):
    """Declared ones, else those in which members' default addresses are; of members that are away, those
    where they have been let in before.
    """
    if host["networks"]:
        return list(dict.fromkeys(str(ipaddress.ip_network(text)) for text in host["networks"]))
    found = {}
    for each, known in addresses.items():
        for fact in (hosts[each]["default4"], hosts[each]["default6"]):
            if fact["network"]:
                network = ipaddress.ip_network(fact["network"])
                if network.prefixlen >= WIDEST[network.version] and not network.is_link_local:
                    found[str(network)] = None
        if not hosts[each]["known"]:
            for text in host["kept"]["networks"]:
                network = ipaddress.ip_network(text)
                wide = network.prefixlen < WIDEST[network.version]
                if not wide and any(ipaddress.ip_address(address) in network for address in known):
                    found[text] = None
    # Facts come in the inventory's order; those that are kept must not change theirs when a host is away.
    return sorted(found)


def _unreachable(projects, hosts, peers, answer, ways):
    """Members whose address is in no network that their peers let in."""
    for project, members in projects.items():
        for name in members:
            if ways[name][project] == fleet_ways.SSH or hosts[name]["checks_in"]:
                continue
            networks = answer[name]["kept"]["networks"]
            allowed = [ipaddress.ip_network(network) for network in networks]
            for each in members:
                if each in peers and each != name and hosts[name]["serves"] and hosts[name]["known"]:
                    address = ipaddress.ip_address(peers[each].address)
                    if not any(address in network for network in allowed):
                        said = ", ".join(networks) or "none"
                        return [
                            f"project {project}: {each} has the address {address}, which is in no network"
                            f" that {name} lets in ({said}): name all of the project's networks in"
                            " d1fleet_distcc_networks"
                        ]
    return []


if __name__ == "__main__":
    json.dump(work_out(json.load(sys.stdin)), sys.stdout)
