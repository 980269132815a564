"""An administrator beside a running service: what leaves a line, what a lookup's exit code says, what the page shows,
and what the service does when its database is taken away or cannot be written."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyserver.cli import main
from support.openpgp import make
from support.running import ROOT, Gpg, Service
from support.x509 import person

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SIGNS = "digital_signature"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each sort, named after it; the address in it is `<name>@example.org`."""
    place = tmp_path_factory.mktemp("certificates")
    year = 365 * 86400
    for name, options in {
        "usable": {},
        "expired": {"expires": year},
        "revoked": {"revoked": 0},
        "signs": {"encryption": None},
    }.items():
        (place / name).write_bytes(make([f"{name.title()} <{name}@example.org>"], **options).octets)
    (place / "smime").write_bytes(person("smime@example.org").pem)
    (place / "smime-signs").write_bytes(person("smime-signs@example.org", usage=SIGNS).pem)
    return place


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as started:
        started.cli("cache", "import", *map(str, sorted(certificates.iterdir())))
        yield started


def acts(service: Service) -> list[dict[str, Any]]:
    """The lines that administrators left."""
    lines = [json.loads(line) for line in service.log if '"administration"' in line]
    known = ("time", "level", "logger", "message")
    return [{name: value for name, value in line.items() if name not in known} for line in lines]


# ---- who did what


async def test_every_act_leaves_one_line(service: Service, certificates: Path) -> None:
    count = len(acts(service))
    one = json.loads(service.cli("cache", "show", "usable@example.org", "--json"))["fingerprint"]
    for words in (
        ("block", one, "--reason", "it says usable@example.org"),
        ("unblock", one),
        ("keep", one),
        ("approve", one),
        ("delete", one, "--source", "local"),
        ("undo",),
        ("delete", one, "--source", "local", "--no-undo"),
        ("import", str(certificates / "usable")),
        ("purge", "--domain", "nothing.example", "--yes"),
        ("purge", "--expired"),
    ):
        service.cli("cache", *words)
    service.cli("cache", "unblock", one, code=1)  # nothing was done: no line
    service.cli("cache", "show", one)
    await service.api(f"/api/v1/cache/{one}/block", "POST")
    await service.api(f"/api/v1/cache/{one}/unblock", "POST")
    lines = acts(service)[count:]
    shell = {"who": "admin", "way": "cli", "from": f"user {os.geteuid()}"}
    port = {"who": "admin", "way": "api", "from": "127.0.0.1"}
    hashed = {"certificate": lines[0]["certificate"]}
    counts = {"new": 1, "changed": 0, "same": 0, "blocked": 0, "refused": 0}
    assert lines == [
        {**shell, "act": "block", **hashed},
        {**shell, "act": "unblock", **hashed},
        {**shell, "act": "keep", **hashed},
        {**shell, "act": "approve", **hashed, "source": "local", "address": lines[3].get("address")},
        {**shell, "act": "delete", **hashed, "source": "local", "entries": 1, "undo": lines[5].get("undo")},
        {**shell, "act": "undo", "undo": lines[4].get("undo"), "entries": 1},
        {**shell, "act": "delete", **hashed, "source": "local", "entries": 1, "undo": "no"},
        {**shell, "act": "import", **counts},
        {**shell, "act": "purge", "domain": "nothing.example", "entries": 0},
        {**shell, "act": "purge", "expired": True, "entries": 0},
        {**port, "act": "block", **hashed},
        {**port, "act": "unblock", **hashed},
    ]
    assert re.fullmatch(r"#[0-9a-f]{16}", hashed["certificate"])
    assert re.fullmatch(r"#[0-9a-f]{16}", lines[3]["address"])
    assert re.fullmatch(r"[0-9a-f]{12}", lines[4]["undo"])
    text = "\n".join(service.log)
    assert one not in text
    assert "usable@example.org" not in text


def test_in_clear_where_the_log_names_identities(tmp_path: Path, certificates: Path) -> None:
    with Service(tmp_path, settings={"log.identities": "true"}) as service:
        service.cli("cache", "import", str(certificates / "usable"))
        one = json.loads(service.cli("cache", "show", "usable@example.org", "--json"))["fingerprint"]
        service.cli("cache", "block", one)
        assert acts(service)[-1]["certificate"] == one
        service.cli("cache", "purge", "--all", "--yes")
        assert acts(service)[-1] == {
            "who": "admin", "way": "cli", "from": f"user {os.geteuid()}", "act": "purge", "all": True, "entries": 1,
        }  # fmt: skip


# ---- lookup's exit codes


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("usable@example.org", 0),
        ("smime@example.org", 0),
        ("nobody@example.org", 1),
        ("1234ABCD", 2),
        ("just some text", 2),
        ("expired@example.org", 4),
        ("revoked@example.org", 4),
        ("signs@example.org", 4),
        ("smime-signs@example.org", 4),
    ],
)
def test_the_exit_code_of_a_lookup(service: Service, query: str, code: int) -> None:
    service.cli("lookup", query, code=code)


def test_a_lookup_without_a_store_is_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / "keyserver.toml"
    config.write_text(f'[cache]\ndatabase = "sqlite:///{tmp_path}/file/k.db"\n')
    assert main(["lookup", "a@example.org", "--config", str(config)]) == 3


def test_lookup_help_says_what_the_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lookup", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("0 found and usable", "1 absent", "2 wrong", "3 trouble", "4 found but not usable", "5 unknown"):
        assert words in text


# ---- the search page


async def page(service: Service, target: str) -> str:
    status, _, body = await service.get(f"/pks/lookup?{target}")
    assert status == 200, body
    return body.decode()


async def test_the_page_finds_smime_and_links_to_the_certificate(service: Service, certificates: Path) -> None:
    found = await page(service, "op=index&search=smime@example.org")
    assert "<dt>Kind</dt><dd>S/MIME (X.509)</dd>" in found
    assert 'class="badge valid">valid<' in found
    link = re.search(r'href="(/certificates/search\.cgi\?certHash=[^"]+)"', found)
    assert link is not None
    status, _, der = await service.get(link[1])
    assert status == 200
    pem = (certificates / "smime").read_text()
    assert der == subprocess.run(["openssl", "x509", "-outform", "DER"], input=pem.encode(), capture_output=True).stdout
    details = re.search(r'href="(/pks/lookup\?op=vindex&amp;search=0x[0-9A-F]{64})"', found)
    assert details is not None
    more = await page(service, details[1].partition("?")[2].replace("&amp;", "&"))
    assert "<dt>Issuer</dt>" in more
    assert "digital signature, key encipherment" in more
    assert "Details" not in more
    status, _, body = await service.get("/pks/lookup?op=index&options=mr&search=smime@example.org")
    assert (status, b"smime" in body) == (404, False), "programs hear of OpenPGP only"
    assert (await service.get("/pks/lookup?op=get&search=smime@example.org"))[0] == 404


@pytest.mark.parametrize("name", ["signs", "smime-signs"])
async def test_who_can_only_sign_is_not_simply_valid(service: Service, name: str) -> None:
    found = await page(service, f"op=index&search={name}@example.org")
    assert "valid</span>" not in found.replace("valid, cannot encrypt", "")
    assert ">valid, cannot encrypt</span>" in found
    assert "Nobody can encrypt to it" in found
    assert "Nobody can encrypt" not in await page(service, "op=index&search=usable@example.org")


async def test_details_are_offered_where_there_are_any(service: Service) -> None:
    assert "Details" in await page(service, "op=index&search=usable@example.org")
    assert "Details" not in await page(service, "op=index&search=signs@example.org"), "it has no subkeys"
    more = await page(service, "op=vindex&search=usable@example.org")
    assert "<h3>Subkeys</h3>" in more
    assert "<dt>Key ID</dt>" in more


# ---- the database goes, or cannot be written


async def ready(service: Service) -> tuple[int, bytes]:
    status, _, body = await service.get("/readyz")
    return status, body


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_nothing_is_acknowledged_into_a_database_that_is_gone(tmp_path: Path, how: str) -> None:
    with Service(tmp_path) as service:
        service.cli("cache", "import", str(KEYRING))
        one = json.loads(service.cli("cache", "list", "--json"))["entries"][0]["fingerprint"]
        assert (await ready(service))[0] == 200
        if how == "replaced":
            shutil.copy(tmp_path / "keyserver.db", tmp_path / "copy")
            (tmp_path / "copy").rename(tmp_path / "keyserver.db")
        else:
            for file in tmp_path.glob("keyserver.db*"):
                file.unlink()
        status, body = await ready(service)
        assert status == 503
        assert f"keyserver.db was {how} while it was open".encode() in body
        for words in (("import", str(KEYRING)), ("block", one), ("purge", "--all", "--yes")):
            assert f"was {how}" in service.cli("cache", *words, code=3)
        assert (await service.lookup(one))[0] == 200, "lookups go on"
        until = time.monotonic() + 10
        while not any(f"was {how} while it was open" in line for line in service.log) and time.monotonic() < until:
            time.sleep(0.1)
        assert any('"level": "error"' in line and f"was {how}" in line for line in service.log)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """A file system that cannot be written, for root too where root may mount."""
    if os.geteuid() != 0:
        place.chmod(0o500)
        yield
        place.chmod(0o700)
        return
    mount = ["mount", "--bind", str(place), str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may not mount here, and to root nothing else is read-only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("state", ["there too", "elsewhere"])
async def test_a_read_only_file_system_serves_lookups(tmp_path: Path, state: str) -> None:
    place, elsewhere = tmp_path / "var", tmp_path / "state"
    place.mkdir(mode=0o700)
    database = f'"sqlite:///{place / "keyserver.db"}"'
    with Service(tmp_path, settings={"cache.database": database}) as service:
        service.cli("cache", "import", str(KEYRING))
        one = json.loads(service.cli("cache", "list", "--json"))["entries"][0]["fingerprint"]
        assert service.stop() == 0
    more = {} if state == "there too" else {"server.state_dir": f'"{elsewhere}"'}
    where = [] if state == "there too" else ["--set", f"server.state_dir={elsewhere}"]
    with read_only(place), Service(tmp_path, settings={"cache.database": database, **more}) as service:
        assert (await service.lookup(one))[0] == 200
        status, body = await ready(service)
        assert status == 503
        assert b"cannot write" in body
        if where:
            assert one in service.cli("cache", "list", *where)
            assert "readonly" in service.cli("cache", "block", one, *where, code=3)
            assert service.stop() == 0
        else:
            assert any("commands cannot reach this service" in line for line in service.log)
            assert "does not answer" in service.cli("cache", "list", code=3)
            assert service.stop() == 0
            assert one in service.cli("cache", "list"), "without a service, too"


# ---- what gpg makes of a failure: the operating guide quotes it


class Failing(http.server.BaseHTTPRequestHandler):
    """An upstream that fails."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_gpg_tells_a_failure_from_an_absence_over_ldap_only(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "operating.md").read_text()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        url = f"hkp://127.0.0.1:{upstream.server_address[1]}"
        with Service(tmp_path, upstreams=[url]) as service, Gpg(tmp_path / "gpg") as gpg:
            for face, words in (("hkp", "No data"), ("ldap", "LDAP server is unavailable")):
                keyserver = f"{face}://127.0.0.1:{service.port(face)}"
                done = gpg.run("--keyserver", keyserver, "--recv-keys", "A" * 40, check=False)
                assert f"keyserver receive failed: {words}" in done.stderr
                assert f"`keyserver receive failed: {words}`" in guide
        upstream.shutdown()


# ---- the README


def test_two_minutes_of_the_readme_work_as_pasted(tmp_path: Path) -> None:
    """Every block after the first, one after the other in one shell; only ports, upstream and key are ours."""
    part = (ROOT / "README.md").read_text().partition("## Two minutes")[2].partition("All checks,")[0]
    first, *blocks = re.findall(r"^```sh\n(.*?)^```", part, re.S | re.M)
    assert first == "./scripts/serve\n"
    assert len(blocks) == 6
    (tmp_path / "behind").mkdir(mode=0o700)
    (tmp_path / "front").mkdir(mode=0o700)
    (tmp_path / "gpg").mkdir(mode=0o700)
    with Service(tmp_path / "behind") as behind:
        behind.cli("cache", "import", "/usr/share/keyrings/debian-archive-keyring.gpg")
        known = json.loads(behind.cli("cache", "list", "--json"))["entries"][-1]["fingerprint"]
        with Service(tmp_path / "front", upstreams=[f"hkp://127.0.0.1:{behind.port()}"]) as front:
            script = "set -eux\n" + "\n".join(blocks)
            for old, new in {
                "127.0.0.1:11371": f"127.0.0.1:{front.port()}",
                "127.0.0.1:1389": f"127.0.0.1:{front.port('ldap')}",
                "F6ECB3762474EDA9D21B7022871920D1991BC93C": known,
                ".venv/bin/keyserver ": f"{sys.executable} -m keyserver ",
                "var/admin.token": str(tmp_path / "front" / "admin.token"),
                "--trace\n": "--trace || test $? = 4  # a signing key: nobody encrypts to it\n",
            }.items():
                assert old in script
                script = script.replace(old, new)
            environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSERVER_")}
            environment |= {"GNUPGHOME": str(tmp_path / "gpg"), "PYTHONPATH": str(ROOT)}
            environment["KEYSERVER_CACHE__DATABASE"] = front.settings["cache.database"]
            work = tmp_path / "work"
            work.mkdir()
            done = subprocess.run(
                ["bash", "-c", script], cwd=work, env=environment, capture_output=True, text=True, timeout=120
            )
            subprocess.run(["gpgconf", "--homedir", str(tmp_path / "gpg"), "--kill", "all"], capture_output=True)
            assert done.returncode == 0, (done.stdout, done.stderr)
            assert "HIT" in done.stdout
            assert "userCertificate;binary::" in done.stdout
            x509 = ["openssl", "x509", "-inform", "DER", "-in", str(work / "alice.cer"), "-noout", "-email"]
            assert subprocess.run(x509, capture_output=True, text=True).stdout == "alice@example.org\n"


# ---- the package


def starts(site: Path, empty: Path) -> None:
    """The package in `site` starts in an empty directory, without a configuration file."""
    empty.mkdir(mode=0o700)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSERVER_")} | {"PYTHONPATH": str(site)}
    ports = [word for face in ("hkp", "ldap", "admin") for word in ("--set", f"{face}.listen=127.0.0.1:0")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "keyserver", "serve", *ports],
        cwd=empty, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while not any(line.startswith("ready admin") for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        assert "neither conf/keyserver.toml nor /etc/keyserver/keyserver.toml exists: built-in defaults" in lines[0]
        (url,) = [line.split()[2] for line in lines if line.startswith("ready hkp")]
        with urllib.request.urlopen(f"{url}/", timeout=20) as reply:
            assert b"<h1>Find a public key</h1>" in reply.read()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert (empty / "var" / "keyserver.db").exists()


def test_it_starts_in_an_empty_directory(tmp_path: Path) -> None:
    """Of the package, only what a wheel holds."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["keyserver"]
    for file in [file for pattern in ["**/*.py", *data] for file in (ROOT / "keyserver").glob(pattern)]:
        to = tmp_path / "site" / file.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    starts(tmp_path / "site", tmp_path / "empty")


@pytest.mark.soak
def test_the_wheel_starts_in_an_empty_directory(tmp_path: Path) -> None:
    """Built as anybody would; setuptools comes from the package registry."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "keyserver", source / "keyserver", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("keyserver_cache-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    starts(tmp_path / "site", tmp_path / "empty")
