"""`keyserver cache migrate`: there and back, what it says, and when it does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.postgres import PASSWORD, fresh, shared
from support.running import Service

ALICE = make(["Alice <alice@example.org>"])


@pytest.fixture
def database() -> Iterator[str]:
    with fresh() as name:
        yield name


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """Not started; it holds Alice's certificate, and an act."""
    service = Service(tmp_path)
    (tmp_path / "alice.pgp").write_bytes(ALICE.octets)
    service.cli("cache", "import", str(tmp_path / "alice.pgp"))
    return service


def moved(service: Service, directory: Path, url: str) -> Service:
    """The service on another store."""
    directory.mkdir(exist_ok=True)
    service.settings |= {"cache.database": f'"{url}"', "server.state_dir": f'"{directory}"'}
    return service


def seen(service: Service) -> object:
    entries = json.loads(service.cli("cache", "list", "--json"))
    return entries, json.loads(service.cli("audit", "--json"))["acts"]


def test_there_and_back(service: Service, database: str, tmp_path: Path) -> None:
    before = seen(service)
    urls = [shared().url(database), f"sqlite:///{tmp_path}/back/keyserver.db"]
    for n, url in enumerate(urls):
        said = service.cli("cache", "migrate", "--to", url)
        assert "1 entries" in said
        assert f'set cache.database = "{url}"' in said
        assert service.cli("cache", "migrate", "--to", url) == said  # nothing is left to do
        assert seen(moved(service, tmp_path / str(n), url)) == before
    with service:
        assert ALICE.fingerprint in service.cli("cache", "list")


def test_not_while_a_service_runs(service: Service, database: str, tmp_path: Path) -> None:
    with service:
        said = service.cli("cache", "migrate", "--to", shared().url(database), code=3)
        assert "a service runs already" in said
        assert "stop it first" in said
    other = Service(tmp_path, settings={"cache.database": f'"sqlite:///{tmp_path}/other/k.db"'})
    with other:
        to = other.settings["cache.database"].strip('"')
        assert "stop it first" in service.cli("cache", "migrate", "--to", to, code=3)


def test_a_store_that_holds_something_else_is_left_as_it_is(service: Service, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    other = moved(Service(tmp_path / "x"), tmp_path / "y", f"sqlite:///{tmp_path}/y/k.db")
    (tmp_path / "bob.pgp").write_bytes(make(["Bob <bob@example.org>"]).octets)
    other.cli("cache", "import", str(tmp_path / "bob.pgp"))
    before = seen(other)
    said = service.cli("cache", "migrate", "--to", f"sqlite:///{tmp_path}/y/k.db", code=3)
    assert "copy to an empty store" in said
    assert seen(other) == before


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql://u:geheim@h/db", "a password does not belong here"),
        ("mysql://u:geheim@h/db", "accepted is"),
        ("sqlite:///{}/keyserver.db", "the store of now"),
    ],
)
def test_a_wrong_target_is_said_without_its_password(service: Service, tmp_path: Path, url: str, hint: str) -> None:
    said = service.cli("cache", "migrate", "--to", url.format(tmp_path), code=2)
    assert hint in said
    assert "geheim" not in said


def test_the_password_to_the_target_comes_from_a_file(service: Service, database: str, tmp_path: Path) -> None:
    shared().sql("GRANT ALL ON SCHEMA public TO guarded", database=database)
    file = tmp_path / "password"
    file.write_text("Falsch-1")
    file.chmod(0o600)
    command = ["cache", "migrate", "--to", shared().url(database, user="guarded", loopback=True)]
    command += ["--to-password-file", str(file)]
    said = service.cli(*command, code=3)
    assert "password" in said
    assert "Falsch-1" not in said
    file.write_text(PASSWORD)
    assert "1 entries" in service.cli(*command)
