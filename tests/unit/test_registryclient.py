"""What is asked of a registry, and what becomes of every kind of answer and of none."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet import registryclient
from d1fleet.errors import RegistryError, UsageError
from d1fleet.registryclient import AwayError, Registry, read_key
from d1fleet.registryplace import Place, read_place
from d1fleet.registrytls import as_pem, pin_of
from tests.support.pretended import KEY, Certificate, Pretended, make_certificate, pretended, scripted


@pytest.fixture
def served() -> Iterator[Pretended]:
    with pretended() as found:
        yield found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def test_each_kind_of_request(served: Pretended) -> None:
    client = Registry(read_place(served.url), KEY)
    served.answers = {
        "GET /api/v1/admin/hosts?project=a+%26b": [1],
        "POST /api/v1/admin/hosts/alder/drain": {"name": "alder"},
        "POST /api/v1/admin/keys": (201, {"id": "x"}),
        "PATCH /api/v1/admin/hosts/alder": {"name": "birch"},
        "DELETE /api/v1/admin/projects/a?with_hosts=true": (204, None),
    }
    assert client.get("/admin/hosts", project="a &b") == [1]
    assert client.post("/admin/hosts/alder/drain") == {"name": "alder"}
    assert client.post("/admin/keys", {"kind": "viewer"}) == {"id": "x"}
    assert client.patch("/admin/hosts/alder", {"address": "ü"}) == {"name": "birch"}
    assert client.delete("/admin/projects/a", with_hosts="true") is None
    assert [each.method for each in served.asked] == ["GET", "POST", "POST", "PATCH", "DELETE"]
    assert served.bodies == [None, None, {"kind": "viewer"}, {"address": "ü"}, None]
    assert {each.headers["Authorization"] for each in served.asked} == {f"Bearer {KEY}"}
    assert {each.headers["Host"] for each in served.asked} == {served.url.removeprefix("http://")}
    assert served.asked[3].headers["Content-Type"] == "application/json"


def test_its_socket(tmp_path: Path) -> None:
    with pretended(tmp_path / "admin.sock") as served:
        served.answers["GET /api/v1/admin/hosts"] = []
        assert Registry(read_place(served.url)).get("/admin/hosts") == []
        assert "Authorization" not in served.asked[0].headers


@pytest.mark.parametrize(
    ("answer", "message", "mend"),
    [
        ((409, {"error": {"code": "x", "message": "no\x1b[2J", "mend": "do"}}), "no?[2J", "do"),
        ((404, {"error": {"code": "x", "message": "there is no host a"}}), "there is no host a", ""),
        ((401, {"error": {"code": "x", "message": "void"}}), "void", "one that it knows: --key-file FILE"),
        ((401, {"error": "?"}), "the registry does not know this key", "--key-file FILE"),
        ((429, None), "the registry is asked too often", "wait a minute"),
        ((413, []), "asked with more than it takes", ""),
        ((500, {"error": {"code": 1}}), "HTTP 500", ""),
        ((302, {}), "sends us elsewhere (HTTP 302), which is not followed", "name the registry itself"),
    ],
)  # fmt: skip
def test_a_refusal_is_told(served: Pretended, answer: Any, message: str, mend: str) -> None:
    served.answers["GET /api/v1/x"] = answer
    with pytest.raises(RegistryError) as caught:
        Registry(read_place(served.url)).get("/x")
    assert message in caught.value.message
    assert mend in caught.value.mend
    assert not isinstance(caught.value, AwayError)


def test_a_redirect_is_not_followed(served: Pretended) -> None:
    served.answers["GET /api/v1/x"] = b"HTTP/1.1 307 Go\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(RegistryError, match="elsewhere"):
        Registry(read_place(served.url), KEY).get("/x")
    assert len(served.asked) == 1


@pytest.mark.parametrize("data", [b"<html>", b"", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"])
def test_what_is_no_json(served: Pretended, data: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
    served.answers["GET /api/v1/x"] = head + data
    with pytest.raises(RegistryError, match="does not answer as a registry: HTTP 200"):
        Registry(read_place(served.url)).get("/x")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[]", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "does not speak HTTP"),
    ],
)
def test_what_is_no_http(data: bytes, why: str) -> None:
    with scripted(data) as url, pytest.raises(AwayError, match=why):
        Registry(read_place(url)).get("/x")


@pytest.mark.parametrize("then", ["hang", "drip"])
def test_an_answer_that_never_ends_is_given_up(then: str) -> None:
    began = time.monotonic()
    with (
        scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[", then) as url,
        pytest.raises(AwayError, match="not answer in time"),
    ):
        Registry(read_place(url), answer_s=0.3).get("/x")
    assert time.monotonic() - began < 5


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registryclient, "MOST_BYTES", 1 << 20)
    with (
        scripted(b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * (2 << 20)) as url,
        pytest.raises(RegistryError, match="longer than 1 MiB"),
    ):
        Registry(read_place(url)).get("/x")


def test_nobody_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AwayError, match="nothing listens there"):
        Registry(Place("", "127.0.0.1", port, False)).get("/x")
    for path in (tmp_path / "none.sock", tmp_path / "old.sock"):
        if path.name == "old.sock":
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        with pytest.raises(AwayError, match="no registry runs here") as caught:
            Registry(Place(str(path))).get("/x")
        assert "--registry URL" in caught.value.mend
    with pytest.raises(AwayError, match="has no address"):
        Registry(Place("", "nosuch.invalid", 1, False)).get("/x")


def test_health_is_told_also_where_it_is_bad(served: Pretended) -> None:
    client = Registry(read_place(served.url))
    served.answers["GET /healthz"] = (503, {"status": "degraded"})
    assert client.health() == {"status": "degraded"}
    served.answers["GET /healthz"] = (404, {})
    with pytest.raises(RegistryError, match="is no registry"):
        client.health()


# TLS


def test_its_own_certificate_or_its_pin_is_enough(certificate: Certificate) -> None:
    with pretended(certificate=certificate) as served:
        served.answers["GET /api/v1/x"] = 1
        for said in ({"certificate": str(certificate.file)}, {"pin": pin_of(certificate.der)}):
            assert Registry(read_place(served.url, **said), KEY).get("/x") == 1


def test_one_of_another_name_is_enough_too(tmp_path: Path) -> None:
    other = make_certificate(tmp_path / "other", "other.example")
    with pretended(certificate=other) as served:
        served.answers["GET /api/v1/x"] = 1
        assert Registry(read_place(served.url, str(other.file)), KEY).get("/x") == 1


@pytest.mark.parametrize("how", ["nothing", "pin", "certificate"])
def test_another_one_gets_no_key(certificate: Certificate, tmp_path: Path, how: str) -> None:
    other = make_certificate(tmp_path / "other")
    said = {"pin": {"pin": pin_of(other.der)}, "certificate": {"certificate": str(other.file)}}.get(how, {})
    with pretended(certificate=certificate) as served:
        with pytest.raises(RegistryError) as caught:
            Registry(read_place(served.url, **said), KEY).get("/x")
        assert served.asked == []
    assert "d1fleet registry certificate" in caught.value.mend
    assert not isinstance(caught.value, AwayError)


def test_an_authority_may_vouch_for_it(tmp_path: Path) -> None:
    """As for a certificate that is not the registry's own: then its names count."""
    own = make_certificate(tmp_path / "own")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(as_pem(make_certificate(tmp_path / "other").der) + own.file.read_text())
    with pretended(certificate=own) as served:
        served.answers["GET /api/v1/x"] = 1
        assert Registry(read_place(served.url, str(bundle)), KEY).get("/x") == 1


def test_tls_and_none_are_told_apart(served: Pretended, certificate: Certificate) -> None:
    with pytest.raises(AwayError, match="not speak TLS as it should"):
        Registry(read_place(served.url.replace("http:", "https:"), pin=pin_of(b""))).get("/x")
    with pretended(certificate=certificate) as secured, pytest.raises(AwayError, match="not speak HTTP"):
        Registry(read_place(secured.url.replace("https:", "http:"))).get("/x")


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"])
def test_a_file_that_is_no_certificate(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "c.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RegistryError, match=r"c\.pem"):
        Registry(read_place("https://127.0.0.1:1", str(file))).get("/x")


# Keys


def test_a_key_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(str(tmp_path / "key")) == KEY


@pytest.mark.parametrize(
    "text", ["", "d1k_x", KEY + "\n" + KEY, KEY.replace("d1k", "d1j"), KEY + "a", "ä" * 60]
)
def test_what_is_no_key_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(UsageError, match="holds no key") as caught:
        read_key(str(tmp_path / "key"))
    assert KEY not in str(caught.value)


def test_no_file_of_a_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(str(tmp_path / "none"))


def test_secrets_are_not_shown() -> None:
    assert KEY not in repr(Registry(Place("", "a"), KEY))
