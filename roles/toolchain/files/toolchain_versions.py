"""Which versions a project has where the inventory names none, and what a host is asked for. Pure.

Runs on the controller: toolchain_versions.py VERB. Standard input and output are JSON:

    in      {"projects": {PROJECT: [HOST, ...]}, "resolve": BOOL: move on to what is newest,
            "reference": {PROJECT: {"parts": {PART: TEXT}}}: for `record` alone, "hosts": {HOST:
            {"packages": PACKAGES: what it has, "lacking": [NAME, ...]: of what it shall have,
            "versions": {NAME: VERSION}: that the inventory names, "parts": {PART: TEXT},
            "record": {PROJECT: {"packages": PACKAGES}}: what it has been told of its projects,
            "obtainable": what host_packages.py says of that, or {}}}}
            PACKAGES  {SOURCE: {PACKAGE: VERSION}}
    known   {HOST: [PACKAGE, ...]}: what members of its projects have, or have been told of these
    decide  {HOST: {"pins": {PACKAGE: VERSION}, "ask": [NAME or NAME=VERSION, ...], "why": {PACKAGE: TEXT}}},
            for hosts of which it is known what they can get
    record  {PROJECT: PACKAGES}

What hosts say of themselves is read by fleet_facts.py of role fleet: it goes to apt on other hosts, as root.
What most members have is the project's, since nothing is changed on them; then what is recorded; and of what
nobody has and nobody knows, the newest that all who would install it can get, and apt would take.
"""

import itertools
import json
import sys

import fleet_facts


def known(given):
    """Packages that each host is asked about; see above."""
    hosts = {name: _Host(host) for name, host in given["hosts"].items()}
    answer = {name: {} for name in hosts}
    for project, members in given["projects"].items():
        found = _recorded(project, [hosts[name] for name in members])
        for name in members:
            found.update(hosts[name].own)
        for name in members:
            answer[name].update(found)
    return {name: list(found) for name, found in answer.items()}


def decide(given):
    """What hosts are asked for; see above."""
    hosts = {name: _Host(host) for name, host in given["hosts"].items()}
    asked = {name: host for name, host in hosts.items() if host.obtainable}
    newest = _newest(list(asked.values()))
    answer = {}
    for name, host in asked.items():
        wanted = {}
        for project, members in given["projects"].items():
            if name in members:
                # Of two projects that differ, the first in the inventory: nobody can have both.
                wanted = {**_of_project(project, [hosts[each] for each in members]), **wanted}
        if given["resolve"]:
            wanted = {
                package: (source, newest.get(package, version))
                for package, (source, version) in wanted.items()
            }
        pins, why = host.pins(wanted, given["resolve"])
        fresh = {
            package: version
            for package, version in newest.items()
            if package not in wanted and version in host.table(package)
        }
        ask = [f"{each}={host.versions[each]}" if each in host.versions else each for each in host.lacking]
        ask += host.older(pins) if given["resolve"] else []
        answer[name] = {"pins": {**fresh, **pins}, "ask": ask, "why": why}
    return answer


def record(given):
    """What each project has; of one whose hosts are all away, what is on record."""
    answer = {}
    for project, members in given["projects"].items():
        parts = (given["reference"].get(project) or {}).get("parts") or {}
        hosts = [_Host(given["hosts"][name]) for name in members]
        equal = [host for host in hosts if parts and host.has(parts)]
        found = _most(equal, _recorded(project, hosts)) if equal else _recorded(project, hosts)
        answer[project] = {}
        for package, (source, version) in sorted(found.items()):
            answer[project].setdefault(source, {})[package] = version
    return answer


class _Host:
    """A host as it is given; of what it has, {package: (source, version)}."""

    def __init__(self, given):
        self.own = _flat(fleet_facts.packages(given["packages"]))
        self.lacking = given["lacking"]
        self.versions = given["versions"]
        self.parts = fleet_facts.parts(given["parts"])
        self.record = fleet_facts.record(given["record"])
        self.obtainable = fleet_facts.obtainable(given["obtainable"])
        # Also what nothing needs yet of that which it shall have.
        there = {package: version for package, (_, version) in self.own.items()}
        self.there = {**self.obtainable.get("there", {}), **there}

    def has(self, parts):
        return all(self.parts.get(part, "none") == text for part, text in parts.items())

    def table(self, package):
        """Versions that it can get, newest first."""
        return self.obtainable["versions"].get(package, [])

    def pins(self, wanted, resolve):
        """What it shall take of what is wanted, and why not the rest, as far as it would get some of that."""
        pins, why = {}, {}
        taken = self._taken(wanted, resolve)
        for package, (source, version) in wanted.items():
            there = package in self.there
            if package in self.versions or (there and not resolve):
                continue
            if version not in self.table(package):
                # Another release has packages of other names: that they are not there is nothing to tell.
                if there or package in self.obtainable["would"] or package in self.lacking:
                    why[package] = f"apt there has {', '.join(self.table(package)[:3]) or 'none'}"
            elif source not in taken:
                pins[package] = version
            elif taken[source]:
                why[package] = taken[source]
        return pins, why

    def _taken(self, wanted, resolve):
        """{source: why}: sources of which it has, or is to have, another version already. They fit together
        in one version alone.
        """
        found = {}
        for package, (source, version) in wanted.items():
            named = self.versions.get(package, version)
            there = self.there.get(package, version)
            if named != version:
                found[source] = ""
            elif there != version and not resolve:
                found.setdefault(source, f"it has {package} {there} already")
        return found

    def older(self, pins):
        """What it has older than that, with the version: the only way to have apt bring it up."""
        return [
            f"{package}={version}"
            for package, version in pins.items()
            if self.there.get(package) in self.table(package)
            and self.table(package).index(version) < self.table(package).index(self.there[package])
        ]


def _flat(packages):
    return {
        package: (source, version) for source, found in packages.items() for package, version in found.items()
    }


def _of_project(project, hosts):
    """{package: (source, version)}: what most have who lack nothing, else as recorded, else as found."""
    settled = [host for host in hosts if host.own and not host.lacking]
    recorded = _recorded(project, hosts)
    return {**_most(hosts, {}), **recorded, **_most(settled, recorded)}


def _most(hosts, recorded):
    """What most of these have of each package; of equally many, what is recorded, or the first one's."""
    found = {}
    for package in dict.fromkeys(itertools.chain.from_iterable(host.own for host in hosts)):
        votes = [host.own[package] for host in hosts if package in host.own]
        most = max(map(votes.count, votes))
        best = [vote for vote in votes if votes.count(vote) == most]
        found[package] = recorded[package] if recorded.get(package) in best else best[0]
    return found


def _recorded(project, hosts):
    """What most hosts have been told: one that was off has an old word."""
    told = [found for host in hosts if (found := (host.record.get(project) or {}).get("packages"))]
    return _flat(max(told, key=told.count)) if told else {}


def _newest(hosts):
    """{package: version}: the newest that apt would take on one of them, and that all can get who have the
    package, or would install it.
    """
    found = {}
    for package in dict.fromkeys(each for host in hosts for each in (*host.obtainable["would"], *host.there)):
        concerned = [host for host in hosts if package in host.there or package in host.obtainable["would"]]
        taken = {host.obtainable["candidates"].get(package) for host in concerned}
        common = [
            version
            for version in concerned[0].table(package)
            if version in taken and all(version in host.table(package) for host in concerned)
        ]
        if common:
            found[package] = common[0]
    return found


if __name__ == "__main__":
    verbs = {"known": known, "decide": decide, "record": record}
    json.dump(verbs[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
