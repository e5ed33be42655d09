"""Words, forms, choices and messages of the panel, without pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from d1fleet.registry import panel_messages, panel_words
from d1fleet.registry.model import State
from d1fleet.registry.panel_forms import Form, own_page, project_settings, typed_project
from d1fleet.registry.panel_messages import LAST_S, MOST, Messages
from d1fleet.registry.panel_rows import SORTS, Choice
from d1fleet.registry.refusals import Refused


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s ago"),
        (0, "0 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 day ago"),
        (172800, "2 days ago"),
    ],
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert panel_words.ago(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 << 10, "10 KiB"),
        (999 << 20, "999 MiB"),
        (1000 << 20, "1.0 GiB"),
        (16 << 30, "16 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert panel_words.size(count) == text


def test_moments() -> None:
    assert panel_words.moment(0) == "never"
    assert panel_words.moment(1700000000) == "2023-11-14 22:13:20 UTC"
    assert panel_words.machine_moment(1700000000.9) == "2023-11-14T22:13:20Z"


def test_each_state_is_explained() -> None:
    assert panel_words.STATES.keys() == set(State)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_fingerprints_of_keys_are_those_of_ssh(kind: str, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen")
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    said = subprocess.run(["ssh-keygen", "-lf", str(path)], check=True, capture_output=True, text=True).stdout
    name, blob, *_ = path.with_suffix(".pub").read_text().split()
    assert panel_words.key_fingerprint(f"{name} {blob}") == f"{name} {said.split()[1]}"


@pytest.mark.parametrize(
    "key", ["", "ssh-ed25519", "ssh-ed25519 AAA", "ssh-ed25519 \u00e9\u00e9\u00e9\u00e9"]
)
def test_keys_that_are_none(key: str) -> None:
    assert panel_words.key_fingerprint(key).endswith(
        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
    ) or ("unreadable" in panel_words.key_fingerprint(key))


def test_nothing_is_known_of_no_toolchain() -> None:
    assert panel_words.short_fingerprint({}) == ""
    assert len(panel_words.short_fingerprint({"cc": "gcc"})) == panel_words.SHORT_FINGERPRINT


# Forms


@pytest.mark.parametrize(
    "page",
    [
        "/",
        "/?q=a%20b&sort=jobs&down=1",
        "/projects/engine",
        "/projects/engine?page=2",
        "/hosts/a-1.lab.example",
        "/audit",
        "/people",
    ],
)
def test_own_pages(page: str) -> None:
    assert own_page(page, "otherwise") == page


@pytest.mark.parametrize(
    "page",
    [
        "",
        "//h",
        "/\\h",
        "https://h",
        "javascript:x",
        " /",
        "/\n",
        "/\u00e9",
        "/hosts/",
        "/hosts/..",
        "/hosts/a/forget",
        "/projects/a/b",
        "/projects/a#x",
        "/?next=//h",
        "/" + "?" + "a" * 600,
    ],
)
def test_pages_of_others(page: str) -> None:
    assert own_page(page, "otherwise") == "otherwise"


def test_networks_are_separated_by_what_people_type() -> None:
    typed = typed_project(
        {"name": "engine", "ranges": "192.0.2.0/24,198.51.100.0/24\r\n\r\n 2001:db8::/48 ,"}
    )
    assert project_settings(typed)["ranges"] == ("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/48")
    assert project_settings(typed)["options"] == ()


def test_what_is_wrong_with_a_field_that_is_not_there_is_said_of_the_form() -> None:
    error = Refused(422, "field", "note: too long", "shorten it", "note")
    assert Form("f").refused(error, ("note",)) == Form("f", {}, "too long", "note", "shorten it")
    assert Form("f").refused(error, ()) == Form("f", {}, "note: too long", "", "shorten it")


# Choices


def test_a_choice_is_written_as_it_is_read() -> None:
    choice = Choice("a b", "trouble", "jobs", True, 3)
    assert Choice.read(choice.query()) == choice
    assert Choice.read({}) == Choice()
    assert Choice().query() == {}
    assert choice.query(page=1, down=False) == {"q": "a b", "state": "trouble", "sort": "jobs"}


@pytest.mark.parametrize(
    "query",
    [
        {"page": "0x2"},
        {"page": "\u0663"},
        {"page": "9" * 9},
        {"sort": "__class__"},
        {"state": "UP"},
        {"down": "true"},
    ],
)
def test_a_choice_that_makes_no_sense_is_none(query: dict[str, str]) -> None:
    assert Choice.read(query) == Choice()


def test_everything_can_be_sorted_by() -> None:
    for sort in SORTS:
        assert Choice.read({"sort": sort}).sort == sort


# Messages


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_message_is_shown_once_to_its_session() -> None:
    messages = Messages(_Clock())
    name = messages.keep("session", "done", "secret")
    assert messages.take("another", name) == panel_messages.NOTHING
    once = messages.take("session", name)
    assert (once.messages[0].text, once.secret) == ("done", "secret")
    assert messages.take("session", name) == panel_messages.NOTHING


def test_a_message_is_not_kept_for_long_and_not_many_are() -> None:
    clock = _Clock()
    messages = Messages(clock)
    first = messages.keep("session", "first", "secret")
    clock.now_s += LAST_S + 1
    assert messages.take("session", first) == panel_messages.NOTHING
    names = [messages.keep("session", str(number)) for number in range(MOST + 1)]
    assert messages.take("session", names[0]) == panel_messages.NOTHING
    assert messages.take("session", names[1]).messages[0].text == "1"
