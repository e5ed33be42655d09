"""Settings from options, environment and files: who is followed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d1fleet.errors import TrustError, UsageError
from d1fleet.model import Host
from d1fleet.settings import Settings, load_settings
from d1fleet.trust import trust


class Place:
    """A build's folder, the user's configuration, an environment."""

    def __init__(self, root: Path) -> None:
        self.tree = root / "tree"
        self.folder = self.tree / "sub"
        self.folder.mkdir(parents=True)
        self.user_file = root / "config/d1fleet/config.yml"
        self.user_file.parent.mkdir(parents=True)
        self.environ = {"XDG_CONFIG_HOME": str(root / "config")}

    def tree_file(self, text: str, trusted: bool = True) -> Path:
        file = self.tree / "d1fleet.yml"
        file.write_text(text)
        if trusted:
            trust(file)
        return file

    def load(self, **options: Any) -> Settings:
        return load_settings(options, self.environ, self.folder)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Place(tmp_path)


def test_nobody_said_anything(place: Place) -> None:
    assert place.load() == Settings()
    assert place.load(hosts=None, strict=None) == Settings()


def test_the_first_that_says_something_is_followed(place: Place) -> None:
    place.user_file.write_text("{setup: user, makeargs: [user], slots: 5, policy: d1make, hosts: user}")
    assert place.load().setup == "user"
    place.tree_file("{setup: tree, makeargs: [tree], slots: 4, hosts: tree}")
    assert (place.load().setup, place.load().policy) == ("tree", "d1make")
    place.environ |= {"D1MAKE_SERVER_SETUP": "env", "D1MAKE_CLIENT_MAKEARGS": "env", "D1MAKE_HOSTS": "d1make"}
    assert (place.load().setup, place.load().makeargs, place.load().slots) == ("env", ("env",), 4)
    assert place.load().hosts == (Host("d1make"),)
    place.environ["D1FLEET_HOSTS"] = "d1fleet"
    assert place.load().hosts == (Host("d1fleet"),)
    found = place.load(setup="option", hosts="option")
    assert (found.setup, found.makeargs, found.slots, found.policy) == ("option", ("env",), 4, "d1make")
    assert found.hosts == (Host("option"),)


def test_hosts_and_a_project_are_two_answers_to_one_question(place: Place) -> None:
    place.user_file.write_text("hosts: x")
    place.tree_file("{inventory: inv, project: p}")
    found = place.load()
    assert (found.hosts, found.inventory, found.project) == ((), (str(place.tree / "inv"),), "p")
    found = place.load(hosts="a")
    assert (found.hosts, found.inventory, found.project) == ((Host("a"),), (), None)
    place.environ["D1MAKE_HOSTS"] = "b"
    assert place.load().hosts == (Host("b"),)
    found = place.load(project="q")
    assert (found.hosts, found.inventory, found.project) == ((), (str(place.tree / "inv"),), "q")
    place.environ["D1FLEET_PROJECT"] = "r"
    assert (place.load().project, place.load().hosts) == ("r", ())


@pytest.mark.parametrize("other", [{"inventory": ["i"]}, {"project": "p"}])
def test_hosts_and_a_project_from_one_mouth_contradict(place: Place, other: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--hosts and --{next(iter(other))} contradict"):
        place.load(hosts="a", **other)
    place.environ |= {"D1FLEET_HOSTS": "a", "D1FLEET_INVENTORY": "i"}
    with pytest.raises(UsageError, match="D1FLEET_HOSTS and D1FLEET_INVENTORY contradict"):
        place.load()


def test_a_project_needs_an_inventory(place: Place) -> None:
    with pytest.raises(UsageError, match="--project is given, and no inventory"):
        place.load(project="p")


def test_paths_are_relative_to_where_they_stand(place: Place, tmp_path: Path) -> None:
    place.user_file.write_text("{record: log, trees: [../t, /usr]}")
    (place.user_file.parent.parent / "t").mkdir()
    place.tree_file("{inventory: [../inv, ~/inv, /inv], ssh_config: cfg}")
    (place.tree / "cfg").touch()
    found = place.load()
    assert found.inventory == (str(tmp_path / "inv"), str(tmp_path / "home/inv"), "/inv")
    assert found.ssh_config == str(place.tree / "cfg")
    assert (found.record, found.trees) == (
        str(place.user_file.parent / "log"),
        (str(place.user_file.parent.parent / "t"), "/usr"),
    )
    place.environ["D1FLEET_INVENTORY"] = "a:b c"
    assert place.load().inventory == (str(place.folder / "a"), str(place.folder / "b c"))
    assert place.load(inventory=("x",)).inventory == (str(place.folder / "x"),)


# d1make's variables


def test_d1makes_variables(place: Place) -> None:
    place.environ |= {
        "D1MAKE_HOSTS": " one   two ",
        "D1MAKE_SERVER_SETUP": ". /sdk/env;",
        "D1MAKE_CLIENT_MAKEARGS": "-k 'A=b c' B=\\$x",
        "D1MAKE_EXTRA_SSH_PARAMETERS": '-4 -o ProxyCommand="ssh -W %h:%p gw" -p2222 -vF cfg',
        "D1MAKE_SSH_CTL_PATH": "/tmp/x",
    }
    found = place.load()
    assert found.hosts == (Host("one"), Host("two"))
    assert (found.setup, found.makeargs) == (". /sdk/env;", ("-k", "A=b c", "B=$x"))
    assert found.ssh_options == ("-4", "-o", "ProxyCommand=ssh -W %h:%p gw", "-p2222", "-vF", "cfg")
    (note,) = found.notes
    assert note.startswith("D1MAKE_SSH_CTL_PATH is set and not used")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("host", "'host' is no option"),
        ("-4 -- -o x", "-- of ssh cannot be used"),
        ("-", "'-' is no option"),
        ("-o", "-o lacks its value"),
        ("-4p", "-p lacks its value"),
        ("-N", "-N of ssh cannot be used"),
        ("-vfo x", "-f of ssh cannot be used"),
        ("-p 22 ls", "'ls' is no option"),
        ("-S /tmp/x", "-S of ssh cannot be used"),
        ("-o 'x", "written as for a shell"),
    ],
)
def test_other_words_for_ssh_are_refused(place: Place, text: str, said: str) -> None:
    place.environ["D1MAKE_EXTRA_SSH_PARAMETERS"] = text
    with pytest.raises(UsageError) as caught:
        place.load()
    assert said in str(caught.value)
    assert "D1MAKE_EXTRA_SSH_PARAMETERS" in caught.value.message


@pytest.mark.parametrize(
    "variable", ["D1FLEET_HOSTS", "D1MAKE_HOSTS", "D1FLEET_INVENTORY", "D1FLEET_PROJECT"]
)
def test_a_blank_variable_is_a_mistake(place: Place, variable: str) -> None:
    place.environ[variable] = " "
    with pytest.raises(UsageError, match=variable):
        place.load()


@pytest.mark.parametrize(
    "variable",
    [
        *("D1FLEET_HOSTS", "D1FLEET_INVENTORY", "D1FLEET_PROJECT", "D1FLEET_HOST"),
        *("D1MAKE_HOSTS", "D1MAKE_SERVER_SETUP", "D1MAKE_CLIENT_MAKEARGS", "D1MAKE_EXTRA_SSH_PARAMETERS"),
    ],
)
def test_an_empty_variable_says_nothing(place: Place, variable: str) -> None:
    place.user_file.write_text("{hosts: a, setup: s, makeargs: [m], ssh_options: ['-4']}")
    expected = place.load()
    place.environ[variable] = ""
    assert place.load() == expected


def test_hosts_twice_are_named_with_the_variable(place: Place) -> None:
    place.environ["D1MAKE_HOSTS"] = "a b  a"
    with pytest.raises(UsageError, match="D1MAKE_HOSTS names a twice"):
        place.load()


# Files


def test_a_trees_file_waits_for_trust(place: Place) -> None:
    file = place.tree_file("hosts: [", trusted=False)
    with pytest.raises(TrustError, match="not trusted") as caught:
        place.load(hosts="a")
    assert f"d1fleet trust {place.tree}" in caught.value.mend
    trust(file)
    with pytest.raises(UsageError, match="is no YAML"):
        place.load()
    place.tree_file("setup: x")
    assert place.load().setup == "x"


def test_the_nearest_file_counts(place: Place) -> None:
    place.tree_file("setup: far")
    near = place.folder / "d1fleet.yml"
    near.write_text("slots: 3")
    trust(near)
    assert (place.load().setup, place.load().slots) == ("", 3)


def test_a_file_that_anybody_could_have_put_there_is_passed_over(place: Place) -> None:
    place.tree_file("setup: x", trusted=False)
    place.tree.chmod(0o1777)
    assert place.load() == Settings()
    place.tree.chmod(0o777)
    with pytest.raises(TrustError):
        place.load()


@pytest.mark.parametrize(
    ("text", "said", "mend"),
    [
        ("a: [\n", "config.yml:2 is no YAML", "correct"),
        ("a: \t- x\n", "config.yml:1 is no YAML", "correct"),
        ("just words", "holds no settings", "name: value"),
        ("- a\n", "holds no settings", "name: value"),
        ("invntory: x", "there is no setting 'invntory'", "did you mean inventory?"),
        ("3: x", "there is no setting 3", "known settings: hosts, inventory"),
        ("notes: [x]", "there is no setting 'notes'", ""),
        ("slots: 0", "config.yml: slots is 0", "whole number from 1"),
        ("slots: -1", "config.yml: slots is -1", "whole number from 1"),
        ("slots: '" + 5000 * "1" + "'", "slots is", "whole number from 1"),
        ("slots: four", "config.yml: slots is 'four'", "whole number from 1"),
        ("slots: true", "config.yml: slots is True", "whole number from 1"),
        ("strict: 1", "strict is 1", "true or false"),
        ("policy: best", "policy is 'best'", "cost, d1make"),
        ("transport: telnet", "transport is 'telnet'", "one of ssh, openssh, local"),
        ("setup: [x]", "setup is ['x']", "a text"),
        ("setup:", "setup is None", "a text"),
        ("makeargs: [1]", "makeargs is [1]", "list of texts"),
        ("makeargs: {a: b}", "makeargs is {'a': 'b'}", "list of texts"),
        ("inventory: []", "inventory is []", "a path"),
        ("inventory: [3]", "inventory is [3]", "list of texts"),
        ("hosts: 7", "hosts is 7", "list of texts"),
        ("hosts: [a, a]", "config.yml: hosts names a twice", ""),
        ("lease_s: soon", "lease_s is 'soon'", "0.5 to 3600 seconds"),
        ("lease_s: .nan", "lease_s is nan", "0.5 to 3600 seconds"),
        ("lease_s: .inf", "lease_s is inf", "0.5 to 3600 seconds"),
        ("lease_s: true", "lease_s is True", "0.5 to 3600 seconds"),
        ("grace_s: -1", "grace_s is -1", "0.5 to 3600 seconds"),
    ],
)
def test_a_bad_file_says_where_and_what(place: Place, text: str, said: str, mend: str) -> None:
    place.user_file.write_text(text)
    with pytest.raises(UsageError) as caught:
        place.load()
    assert said in caught.value.message
    assert mend in caught.value.mend
    assert str(place.user_file) in caught.value.message


def test_a_file_that_is_no_text(place: Place) -> None:
    place.user_file.write_bytes(b"a: \xff\xfe")
    with pytest.raises(UsageError, match="is no YAML"):
        place.load()
    place.user_file.unlink()
    place.user_file.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        place.load()


@pytest.mark.parametrize(
    ("text", "found"), [("1", True), ("True", True), ("yes", True), ("0", False), ("no", False), ("", False)]
)
def test_hosts_are_trusted_by_the_environment(place: Place, text: str, found: bool) -> None:
    place.environ["D1FLEET_TRUST_HOSTS"] = text
    assert place.load().trust_hosts is found
    assert place.load(trust_hosts=True).trust_hosts
    assert not place.load(trust_hosts=False).trust_hosts


def test_a_doubtful_word_trusts_nobody(place: Place) -> None:
    place.environ["D1FLEET_TRUST_HOSTS"] = "alder"
    with pytest.raises(UsageError, match="D1FLEET_TRUST_HOSTS is 'alder'"):
        place.load()


def test_an_empty_file_says_nothing(place: Place) -> None:
    place.user_file.write_text("# nothing yet\n")
    assert place.load() == Settings()


def test_all_settings_can_stand_in_a_file(place: Place) -> None:
    place.user_file.write_text(
        "{hosts: [a, b/2], slots: 3, transport: local, setup: s, makeargs: -k x, trees: /usr,"
        " keep_environment: [A],"
        " ssh_config: /dev/../etc/passwd, ssh_options: [-p, '22'], heartbeat_s: 1, lease_s: 4, grace_s: 2.5,"
        " connect_timeout_s: 5,"
        " policy: d1make, strict: true, trust_hosts: true, record: /r, summary: false, local_slots: 6,"
        " keep_local: [goal=docs], not_repeatable: '!goal=release'}"
    )
    assert place.load() == Settings(
        hosts=(Host("a"), Host("b", slots=2)),
        slots=3,
        transport="local",
        setup="s",
        makeargs=("-k", "x"),
        trees=("/usr",),
        keep_environment=("A",),
        ssh_config="/etc/passwd",
        ssh_options=("-p", "22"),
        heartbeat_s=1.0,
        lease_s=4.0,
        grace_s=2.5,
        connect_timeout_s=5.0,
        policy="d1make",
        strict=True,
        trust_hosts=True,
        record="/r",
        summary=False,
        local_slots=6,
        keep_local=("goal=docs",),
        not_repeatable=("!goal=release",),
    )


def test_what_is_no_rule_is_shown_one(place: Place) -> None:
    place.user_file.write_text("keep_local: [goal=docs, install]")
    with pytest.raises(UsageError, match=r"config\.yml: keep_local: 'install' is no rule") as caught:
        place.load()
    assert "goal=, folder=, argument=" in caught.value.mend
    assert "`goal=install-*`" in caught.value.mend


def test_an_option_that_is_none_is_a_mistake_of_ours(place: Place) -> None:
    with pytest.raises(UsageError, match="the options: there is no setting 'stric'"):
        place.load(stric=True)


# Times


@pytest.mark.parametrize(
    ("options", "heartbeat_s"),
    [
        ({}, 2.0),
        ({"lease_s": 2}, 0.4),
        ({"lease_s": "2"}, 0.4),
        ({"lease_s": 60}, 2.0),
        ({"lease_s": 4, "heartbeat_s": 2}, 2.0),
    ],
)
def test_heartbeats_fit_the_lease(place: Place, options: dict[str, Any], heartbeat_s: float) -> None:
    assert place.load(**options).heartbeat_s == pytest.approx(heartbeat_s)


def test_a_heartbeat_too_long_for_its_lease(place: Place) -> None:
    with pytest.raises(UsageError, match=r"--heartbeat is 5\.1 s, too long for a lease of 10 s") as caught:
        place.load(heartbeat_s=5.1)
    assert "5 s or less" in caught.value.mend
    place.user_file.write_text("heartbeat_s: 3")
    with pytest.raises(UsageError, match=r"config\.yml: heartbeat_s is 3 s, too long for a lease of 4 s"):
        place.load(lease_s=4)


@pytest.mark.parametrize(("name", "value"), [("ssh_config", "nowhere"), ("trees", ("nowhere",))])
def test_what_is_not_there_is_an_error_at_once(place: Place, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        place.load(**{name: value})


def test_a_useless_variable_does_not_overrule_an_option(place: Place) -> None:
    place.environ |= {"D1FLEET_HOSTS": " ", "D1MAKE_HOSTS": " "}
    assert place.load(hosts="a").hosts == (Host("a"),)
    with pytest.raises(UsageError, match="D1FLEET_HOSTS"):
        place.load()


def test_a_misspelt_variable_is_noted(place: Place) -> None:
    place.environ["D1FLEET_HOST"] = "a"
    assert any("D1FLEET_HOSTS?" in note for note in place.load().notes)
