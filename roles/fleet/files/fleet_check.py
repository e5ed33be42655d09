"""Finds mistakes in an inventory before any host is touched, and joins what several projects say of one host.

Runs on the controller with PYTHONPATH at d1fleet/'s folder. Standard input and output are JSON:

    in   {"projects": {NAME: [HOST, ...]}, "values": {HOST: {VARIABLE: VALUE}},
          "late": {HOST: [VARIABLE, ...]}, "known": [VARIABLE, ...], "roles": FOLDER,
          "patterns": {"version": ..., "package": ..., "tool": ...}}
    out  {"faults": [TEXT, ...], "builders": {HOST: [...]},
          "joined": {HOST: {"packages": [...], "default_packages": BOOL, "versions": {...}}}}

`joined` is for hosts in several projects alone.

Every value is of the type that the roles' argument_specs want, or a fault.
"""

import difflib
import json
import pathlib
import re
import sys

import fleet_join
import fleet_members
import fleet_people
import fleet_registry
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from d1fleet.errors import InventoryError
from d1fleet.fleet import PROJECTS, Inventory
from d1fleet.hostvars import HostVariables

_OURS = "d1fleet_"
_SHOWN = 5
"""Hosts that are named with one fault: a group's variable is that of all its hosts."""

NAME = "d1fleet_inventory_name"


def specs(roles):
    """All options of all roles."""
    found = {}
    for path in sorted(pathlib.Path(roles).glob("*/meta/argument_specs.yml")):
        found.update(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"])
    return found


def check(given):
    """The answer to what is given; see above."""
    faults = Faults()
    options = specs(given["roles"])
    values, people = {}, {}
    for host, variables in given["values"].items():
        values[host], people[host] = {}, []
        late = given["late"].get(host, ())
        unknown = [name for name in [*variables, *late] if _is_unknown(name, given["known"])]
        for name in unknown:
            near = difflib.get_close_matches(name, given["known"], 1, 0.8)
            faults.add(f"there is no variable {name}" + (f" (did you mean {near[0]}?)" if near else ""), host)
        own = {name: value for name, value in variables.items() if name not in unknown}
        of_roles = {name: value for name, value in own.items() if name in options}
        spec = {name: _without_default(options[name]) for name in of_roles}
        result = ArgumentSpecValidator(spec).validate(of_roles)
        if result.error_messages:
            faults.add(" ".join(result.error_messages), host)
            continue
        values[host] = typed = result.validated_parameters
        people[host] = fleet_people.people(typed.get(fleet_join.BUILDERS) or [])
        faults.add_all((f"{fleet_join.BUILDERS}: {each}" for each in fleet_people.faults(people[host])), host)
        faults.add_all(_pattern_faults(typed, given["patterns"]), host)
        faults.add_all(_ccache_faults(typed), host)
        own_projects = [project for project, hosts in given["projects"].items() if host in hosts]
        faults.add_all(fleet_members.value_faults(typed, own_projects), host)
        faults.add_all(fleet_registry.faults(typed, late), host)
        if fleet_join.BUILDERS in late:
            faults.add(f"{fleet_join.BUILDERS} holds a variable that does not exist, or a fact", host)
        try:
            HostVariables(host, own).host()
            HostVariables(host, own).jobs()
        except InventoryError as error:
            faults.add(_words(error).removeprefix(f"host {host}: "), host)
    if faults.words:
        return {"faults": faults.words}
    faults.add_all(_names(values))
    faults.add_all(_of_builds(given))
    answer = {"joined": {}, "builders": people}
    _join(fleet_join.Projects(given["projects"], values, given["late"]), answer, faults)
    if not faults.words:
        faults.add_all(_uids(given["projects"], answer["builders"]))
    return {"faults": faults.words, **answer}


class Faults:
    """Each said once, with the hosts that have it."""

    def __init__(self):
        self._hosts = {}

    def add(self, text, host=""):
        self._hosts.setdefault(text, []).append(host)

    def add_all(self, texts, host=""):
        for text in texts:
            self.add(text, host)

    @property
    def words(self):
        return [
            (f"{_some(list(dict.fromkeys(hosts)))}: " if hosts[0] else "") + text
            for text, hosts in self._hosts.items()
        ]


def _some(hosts):
    more = len(hosts) - _SHOWN
    return ", ".join(hosts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _words(error):
    return error.message + (f": {error.mend}" if error.mend else "")


def _is_unknown(name, known):
    return name.startswith(_OURS) and name not in known


def _without_default(option):
    return {key: value for key, value in option.items() if key != "default"}


def _pattern_faults(values, patterns):
    def wrong(kind, texts):
        fits = re.compile(patterns[kind]).fullmatch
        return [str(text) for text in texts if not (isinstance(text, str) and fits(text))]

    versions = values.get(fleet_join.VERSIONS) or {}
    names = wrong("package", [*versions, *(values.get(fleet_join.PACKAGES) or [])])
    if names:
        yield f"{names[0]!r} is no name of a package ({fleet_join.PACKAGES}, {fleet_join.VERSIONS})"
    for text in wrong("version", versions.values()):
        yield (
            f'{fleet_join.VERSIONS}: {text} is no version: write it complete and in quotes ("4:12.2.0-3";'
            " `apt-cache policy PACKAGE` lists them)"
        )
    tools = values.get("d1fleet_toolchain_tools") or []
    if wrong("tool", tools) or len(tools) > 32:
        yield "d1fleet_toolchain_tools: give at most 32 names or absolute paths of programs"


def _ccache_faults(values):
    size = values.get("d1fleet_ccache_max_size")
    if size is not None and not re.fullmatch(r"[1-9][0-9]{0,5}[kMGT]", size):
        yield f"d1fleet_ccache_max_size is {size}: write it as 5G, a whole number and k, M, G or T"
    folder, group = (values.get(f"d1fleet_ccache_{name}") or "" for name in ("folder", "group"))
    if bool(folder) != bool(group):
        yield "d1fleet_ccache_folder and d1fleet_ccache_group are wanted together: who shares that cache?"
    # ccache reads a dollar as a variable, and a folder that is there already would become the group's.
    if folder and not re.fullmatch(r"(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*){2,}", folder):
        yield f"d1fleet_ccache_folder is {folder}: name a folder of its own, as /var/cache/d1fleet-ccache"
    if group and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", group):
        yield f"d1fleet_ccache_group is {group}: that is no name of a group"


def _names(values):
    """An inventory has one name."""
    names = {found.get(NAME) or "": host for host, found in values.items()}
    if len(names) > 1:
        some = ", ".join(f"{name or 'none'} ({host})" for name, host in names.items())
        yield f"{NAME} has to be the same for all hosts, and is {some}: set it in group_vars/projects.yml"
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", name):
            yield f"{NAME} is {name!r}: letters, digits, dot, dash and underscore"


def _of_builds(given):
    """What a build says of a project as a whole."""
    inventory = Inventory({PROJECTS: list(given["projects"])}, given["projects"], given["values"])
    for project, hosts in given["projects"].items():
        try:
            if hosts:
                inventory.fleet(project)
        except InventoryError as error:
            yield _words(error)


def _join(projects, answer, faults):
    people = {host: {fleet_join.BUILDERS: found} for host, found in answer["builders"].items()}
    said = fleet_join.Projects(projects.projects, people, {})
    joined = {}
    for host in projects.shared:
        where = f"{host} is in projects {' and '.join(projects.of[host])}"
        late = {fleet_join.PACKAGES, fleet_join.VERSIONS} & projects.unknown(host)
        if late:
            faults.add(f"{where}: there {', '.join(sorted(late))} must not depend on facts")
        joined[host], wrong = fleet_join.builders(said.said(host, fleet_join.BUILDERS))
        versions, contradict = fleet_join.versions(projects.said(host, fleet_join.VERSIONS))
        for text in [*(wrong or fleet_people.faults(joined[host])), *contradict]:
            faults.add(
                f"{where}, which contradict each other: {text}. Make them equal,"
                " or say it once in group_vars/projects.yml"
            )
        answer["joined"][host] = {
            "packages": fleet_join.packages(projects.said(host, fleet_join.PACKAGES)),
            "default_packages": projects.unsaid(host, fleet_join.PACKAGES),
            "versions": versions,
        }
    answer["builders"] = {**answer["builders"], **joined}


def _uids(projects, builders):
    """In a project a name means one uid and one gid, and a uid one name."""
    for project, hosts in projects.items():
        seen = {}
        for host in hosts:
            for one in builders[host]:
                for key, value in (("name", "uid"), ("name", "gid"), ("uid", "name")):
                    first, other = seen.setdefault((key, one[key], value), (host, one[value]))
                    if other != one[value]:
                        yield (
                            f"project {project}: builder with {key} {one[key]} has {value} {other} on {first}"
                            f" and {one[value]} on {host}: make it the same on all hosts of a project"
                        )


if __name__ == "__main__":
    json.dump(check(json.load(sys.stdin)), sys.stdout)
