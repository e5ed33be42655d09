"""What a host in several projects gets: Ansible shows it but one group's value of a variable. Pure.

What a project says is read from its hosts that are in no other, as `_d1fleet_tools` in the role's variables
does.
"""

import itertools

BUILDERS = "d1fleet_builders"
PACKAGES = "d1fleet_toolchain_packages"
VERSIONS = "d1fleet_toolchain_versions"


class Projects:
    """Projects with their hosts, and what each host has.

    Args:
        projects: {project: [host, ...]}, in the inventory's order.
        values: {host: {variable: value}}.
        late: {host: [variable, ...]}: set, but not to be known before hosts were asked for facts.
    """

    def __init__(self, projects, values, late):
        self.projects = projects
        self.values = values
        self.late = late
        self.of = {}
        for project, hosts in projects.items():
            for host in hosts:
                self.of.setdefault(host, []).append(project)

    @property
    def shared(self):
        """Hosts in several projects."""
        return [host for host, projects in self.of.items() if len(projects) > 1]

    def telling(self, project):
        """Who knows what a project says."""
        hosts = self.projects[project]
        return [host for host in hosts if len(self.of[host]) == 1] or hosts

    def said(self, host, variable):
        """[(project or host, value), ...] of a variable, of a host's projects and its own, each once."""
        found = [
            (project, self.values[each][variable])
            for project in self.of[host]
            for each in self.telling(project)
            if variable in self.values[each]
        ]
        if variable in self.values[host]:
            found.append((host, self.values[host][variable]))
        values = [value for _, value in found]
        return [pair for number, pair in enumerate(found) if pair[1] not in values[:number]]

    def unsaid(self, host, variable):
        """Whether a project of this host leaves a variable to its default."""
        return not all(
            any(variable in self.values[each] for each in self.telling(project)) for project in self.of[host]
        )

    def unknown(self, host):
        """Variables of which it cannot be told yet what this host's projects say."""
        hosts = {host, *itertools.chain.from_iterable(map(self.telling, self.of[host]))}
        return {name for each in hosts for name in self.late.get(each, ())}


def builders(said):
    """Union by name of lists of people, and faults where two entries of one name differ."""
    found, faults = {}, []
    for where, people in said:
        for one in people:
            first, other = found.setdefault(one["name"], (where, one))
            differs = [key for key in one if not _equal(key, one[key], other[key])]
            if differs:
                what = ", ".join(
                    key if key == "authorized_keys" else f"{key} ({other[key]} and {one[key]})"
                    for key in differs
                )
                faults.append(f"builder {one['name']} of {first} and of {where} differ in {what}")
    return [one for _, one in found.values()], faults


def _equal(key, one, other):
    return sorted(one) == sorted(other) if key in ("authorized_keys", "groups") else one == other


def packages(said):
    """Union, in order."""
    return list(dict.fromkeys(itertools.chain.from_iterable(value for _, value in said)))


def versions(said):
    """Union of {package: version}, and faults where two contradict."""
    found, faults = {}, []
    for where, mapping in said:
        for name, version in mapping.items():
            first, other = found.setdefault(name, (where, version))
            if other != version:
                faults.append(f"{name} is {other} of {first} and {version} of {where}")
    return {name: version for name, (_, version) in found.items()}, faults
