"""Real encryptors and policy engines before the real service, each configured as docs/gateways.md says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from clients.test_usable import DOMAIN, KEYS
from support.ports import free_port
from support.running import ROOT, Gpg, Service

root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root")

PAGE = (ROOT / "docs" / "gateways.md").read_text(encoding="utf-8")
CONFIG = """
[[upstream]]
name = "dead"
url = "hkp://127.0.0.1:9"

[[view]]
name = "gateway"
hkp_listen = ["127.0.0.1:0"]
ldap_listen = ["127.0.0.1:0"]
usable_only = true

[[domain]]
name = "strict.example"
must_encrypt = true
"""
EVERY, GATEWAY = 0, 1  # the number of a listener
STRICT = "nobody@strict.example"  # to whom no mail may leave in clear
UNKNOWN = "new@partner.example"  # its upstream cannot be reached
FILTER = Path(__file__).with_name("gpgme_filter.py")
MAIL = b"From: me@here.example\r\nTo: you@there.example\r\nSubject: s\r\nMessage-Id: <1@here.example>\r\n\r\nHello\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Keys of our own domain, usable and not; whoever else is asked for is unknown."""
    folder = tmp_path_factory.mktemp("encryptors")
    for name, one in KEYS.items():
        (folder / f"{name}.asc").write_text(one.armored)
    settings = {"policy.internal_domains": f'["{DOMAIN}", "strict.example"]'}
    settings |= {"verdict.listen": '"127.0.0.1:0"', "verdict.socketmap_listen": '"127.0.0.1:0"'}
    with Service(folder, settings=settings, config=CONFIG) as running:
        running.cli("cache", "import", *(str(folder / f"{name}.asc") for name in KEYS))
        yield running


def block(kind: str, of: str) -> str:
    """The code block of this kind in the page that has these words."""
    (found,) = [text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if of in text]
    return found


@contextmanager
def home(service: Service, scheme: str, listener: int) -> Iterator[Gpg]:
    """A gpg that asks one of the service's listeners, and looks there for keys that it does not have."""
    folder = Path(tempfile.mkdtemp(prefix="gpg"))  # short: its sockets lie in it
    one = Gpg(folder)
    try:
        (folder / "dirmngr.conf").write_text(
            f"disable-ipv6\nkeyserver {scheme}://127.0.0.1:{service.port(scheme, listener)}\n"
        )
        (folder / "gpg.conf").write_text("auto-key-locate clear,keyserver\ntrust-model always\n")
        yield one
    finally:
        subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def said(one: Gpg, address: str) -> str:
    """What gpg says of a recipient that it cannot encrypt to; empty where it can."""
    done = one.run("--recipient", f"<{address}>", "--output", "-", "--encrypt", "/dev/null", check=False)
    found = re.search(r"skipped: (.*)", done.stderr)
    assert (done.returncode == 0) is (found is None), done.stderr
    return found[1] if found else ""


@pytest.mark.parametrize("scheme", ["hkp", "ldap"])
def test_gpg_takes_a_failure_for_an_absence_by_hkp_and_not_by_ldap(service: Service, scheme: str) -> None:
    with home(service, scheme, GATEWAY) as one:
        assert said(one, f"fine@{DOMAIN}") == ""
        assert said(one, f"nobody@{DOMAIN}") == "No data"
        assert said(one, UNKNOWN) == {"hkp": "No data", "ldap": "LDAP server is unavailable"}[scheme]
        assert said(one, f"signer@{DOMAIN}") == said(one, f"expired@{DOMAIN}") == "No data"
    with home(service, scheme, EVERY) as one:
        assert said(one, f"fine@{DOMAIN}") == ""
        assert said(one, f"signer@{DOMAIN}") == said(one, f"expired@{DOMAIN}") == "Unusable public key"


NO_USER, TRY_AGAIN = 67, 75


@pytest.mark.parametrize("listener", [EVERY, GATEWAY], ids=["every key", "usable_only"])
def test_a_filter_built_on_gpgme_fails_for_ever_unless_it_sees_only_what_encrypts(
    service: Service, listener: int
) -> None:
    """What Zeyple with its one line and gwmilter do; `keylist` in its own mode finds nobody but the imported."""
    with home(service, "ldap", listener) as one:

        def filtered(name: str) -> int:
            command = ["/usr/bin/python3", str(FILTER), str(one.home), f"{name}@{DOMAIN}"]
            done = subprocess.run(command, input=MAIL, capture_output=True, timeout=30)
            assert (done.returncode == 0) is done.stdout.startswith(b"-----BEGIN PGP MESSAGE-----"), done.stderr
            assert done.returncode != TRY_AGAIN or b"InvalidRecipients" in done.stderr
            return done.returncode

        codes = {name: filtered(name) for name in ("fine", "signer", "expired", "nobody", "signer")}
    unusable = NO_USER if listener == GATEWAY else TRY_AGAIN
    assert codes == {"fine": 0, "signer": unusable, "expired": unusable, "nobody": NO_USER}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that programs under other users may read."""
    folder = Path(tempfile.mkdtemp(prefix="encryptor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_rspamd_keeps_back_what_has_no_verdict(service: Service, place: Path) -> None:
    port = free_port()
    rule = block("lua", "CAN_ENCRYPT").replace("127.0.0.1:8372", f"127.0.0.1:{service.port('verdict')}")
    (place / "can_encrypt.lua").write_text(rule)
    (place / "tld").write_text("org\nexample\n")
    (place / "rspamd.conf").write_text(
        f'options {{ pidfile = "{place}/pid"; filters = ""; tempdir = "{place}"; hs_cache_dir = "{place}";\n'
        f'  url_tld = "{place}/tld"; cache_file = "{place}/symbols"; dns {{ nameserver = ["127.0.0.1:9"]; }} }}\n'
        f'logging {{ type = "file"; filename = "{place}/log"; level = "info"; }}\n'
        f'worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}\n'
        "lang_detection { languages = []; }\nactions { reject = 15; }\n"
        f'lua = "{place}/can_encrypt.lua";\n'
    )
    command = ["rspamd", "-f", "-i", "-u", "root", "-g", "root", "-c", str(place / "rspamd.conf")]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def checked(*recipients: str) -> tuple[str, set[str]]:
            headers = {"From": "me@here.example", "Rcpt": ",".join(recipients)}
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/checkv2", MAIL, headers)
            with urllib.request.urlopen(asked, timeout=20) as reply:
                found = json.load(reply)
            return found["action"], set(found["symbols"]["CAN_ENCRYPT"]["options"])

        until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1).close())
        fine, nobody = f"fine@{DOMAIN}", f"nobody@{DOMAIN}"
        assert checked(fine) == ("no action", {f"yes:{fine}"})
        assert checked(nobody) == ("no action", {f"no:{nobody}"})
        assert checked(f"a+{nobody}") == ("no action", {f"no:a+{nobody}"})
        assert checked(STRICT) == ("reject", {f"reject:{STRICT}"})
        assert checked(UNKNOWN) == ("soft reject", {f"unknown:{UNKNOWN}"})
    finally:
        running.terminate()
        running.wait(10)


def until(what: Callable[[], object]) -> None:
    """Call it until it raises nothing."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with suppress(OSError):
            what()
            return
        time.sleep(0.05)
    what()


@root
def test_exim_routes_by_the_verdict(service: Service, place: Path) -> None:
    """Debian's package, unpacked, as its programs and those of Postfix cannot both be installed; `-bt` shows routes."""
    download = ["apt-get", "download", "exim4-daemon-light"]
    if subprocess.run(download, cwd=place, capture_output=True).returncode:  # the lists are old, or never came
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        subprocess.run(download, cwd=place, check=True, capture_output=True)
    (package,) = place.glob("exim4-daemon-light*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(place / "exim")], check=True, capture_output=True)
    routers = block("exim", "begin routers").replace("gateway.example", "127.0.0.1")
    general, _, routers = routers.partition("begin routers\n")

    def config(port: int) -> str:
        return (
            f"exim_user = nobody\nexim_group = nogroup\nspool_directory = {place}\nlog_file_path = {place}/%slog\n"
            f"domainlist local_domains = here.example\n{general.replace(':8373', f':{port}')}begin routers\n{routers}"
            "clear:\n  driver = manualroute\n  route_list = * 127.0.0.1::2525\n  self = send\n"
            "  transport = remote_smtp\nbegin transports\nremote_smtp:\n  driver = smtp\n"
        )

    def routed(*addresses: str) -> Mapping[str, str]:
        """The router that takes each, or why none does."""
        # Its package's user, whom nobody but this command sees.
        for file, line in {
            "passwd": "Debian-exim:x:65533:65533::/:/bin/false",
            "group": "Debian-exim:x:65533:",
        }.items():
            (place / file).write_text(f"{Path('/etc', file).read_text()}{line}\n")
        mounts = "".join(f"mount --bind {place}/{file} /etc/{file} && " for file in ("passwd", "group"))
        inside = f'{mounts}exec {place}/exim/usr/sbin/exim4 "$@"'
        command = ["unshare", "--mount", "sh", "-c", inside, "sh", "-C", str(place / "exim.conf"), "-bt", *addresses]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        route = r"^(\S+@\S+)(?:\n  router = (\w+)| (?:cannot be resolved at this time|is undeliverable): (.*))"
        lines = re.findall(route, done.stdout, re.MULTILINE)
        assert len(lines) == len(addresses), done.stdout + done.stderr
        return {address: router or why for address, router, why in lines}

    (place / "exim.conf").write_text(config(service.port("socketmap")))
    fine, nobody, signer = (f"{name}@{DOMAIN}" for name in ("fine", "nobody", "signer"))
    assert routed(fine, nobody, signer, STRICT, UNKNOWN) == {
        fine: "encryptor",
        nobody: "clear",
        signer: "clear",
        STRICT: "mail to it must be encrypted, and cannot be",
        UNKNOWN: "nobody can say now whether mail to it can be encrypted",
    }
    (place / "exim.conf").write_text(config(free_port()))
    assert routed(fine) == {fine: "condition check lookup defer"}, "the service is down"
