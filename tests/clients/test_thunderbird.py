"""A real Thunderbird: its own code for OpenPGP discovery, recipients and S/MIME certificates, and the real service.

What it sends is replayed in the short run: tests/unit/faces/http/test_thunderbird.py and faces/ldap beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.openpgp import make
from support.running import Service
from support.thunderbird import Thunderbird
from support.tls import Authority
from support.x509 import authority, person

pytestmark = pytest.mark.soak

SERVER = "keys.here.example"
NAMES = (SERVER, "openpgpkey.here.example", "localhost")
ALICE = make(["Alice <alice@partner.example>"], seed="alice")
ME = make(["Me <me@here.example>"], seed="me")
EXPIRED = make(["Carol <carol@partner.example>"], seed="expired", expires=86400)
CAROL = make(["Carol <carol@partner.example>"], seed="carol")
CA = authority()
BETWEEN = authority("Between", issuer=CA)
MINA, OLEG = person("mina@partner.example", CA), person("oleg@partner.example", authority("Nobody's CA"))
PIA = person("pia@partner.example", BETWEEN)

LOOK_UP = """
const { KeyLookupHelper } = ChromeUtils.importESModule("chrome://openpgp/content/modules/keyLookupHelper.sys.mjs");
const { CollectedKeysDB } = ChromeUtils.importESModule("chrome://openpgp/content/modules/CollectedKeysDB.sys.mjs");
const [server, how, what, address] = args;
Services.prefs.setStringPref("mail.openpgp.keyserver_list", server);
Services.cache2.clear();
let problem = "";
try {
  await KeyLookupHelper[how]("silent-collection", null, what, false);
} catch (thrown) {
  problem = thrown.errorDetails ?? String(thrown);
}
const database = await CollectedKeysDB.getInstance();
const found = await database.findKeysForEmail(address);
if (found.length) await database.deleteKeysForEmail(address);
return [problem, found.map(key => [key.fingerprint, key.sources.at(-1).type])];
"""
TRUST = """
const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
database.addCertFromBase64(args[0], args[1] ?? "CT,CT,CT");
"""
ADD_DIRECTORY = """
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const id = MailServices.ab.newAddressBook("Keys", args[0], Ci.nsIAbManager.LDAP_DIRECTORY_TYPE);
Services.prefs.setBoolPref("ldap_2.autoComplete.useDirectory", true);
Services.prefs.setCharPref("ldap_2.autoComplete.directoryServer", id);
return id;
"""
COMPLETE = """
const search = Cc["@mozilla.org/autocomplete/search;1?name=ldap"].createInstance(Ci.nsIAutoCompleteSearch);
return await new Promise(done => search.startSearch(args[0], JSON.stringify({ type: "addr_to" }), null, {
  onSearchResult: (_, found) => done(Array.from({ length: found.matchCount }, (_, n) => found.getValueAt(n))),
}));
"""
FETCH = """
const place = "chrome://messenger-smime/content/certFetchingStatus.xhtml";
const dialog = window.openDialog(place, "", "chrome,dialog=1", args[0], args[1]);
while (!dialog.closed) await new Promise(done => window.setTimeout(done, 50));
const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
return database.getCerts().map(one => one.sha256Fingerprint.replaceAll(":", ""));
"""
USABLE = """
const fields = Cc["@mozilla.org/messengercompose/composesecure;1"].createInstance(Ci.nsIMsgComposeSecure);
return await new Promise(done => fields.asyncFindCertByEmailAddr(args[0], {
  QueryInterface: ChromeUtils.generateQI(["nsIDoneFindCertForEmailCallback"]),
  findCertDone: (_, found) => done(found?.sha256Fingerprint.replaceAll(":", "") ?? ""),
}));
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Authority]]:
    """With listeners in clear, with TLS, and of a view of what can be encrypted to; nobody answers for partners."""
    folder = tmp_path_factory.mktemp("service")
    trusted = Authority(folder / "ca")
    issued = trusted.issue(NAMES)
    settings = {
        "hkp.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
        "policy.internal_domains": '["here.example"]',
    }
    view = '[[view]]\nname = "usable"\nhkp_listen = ["127.0.0.1:0"]\nusable_only = true\n'
    with Service(folder, upstreams=["hkp://127.0.0.1:9"], settings=settings, config=view) as running:
        for name, octets in (
            ("keys.asc", "".join(made.armored for made in (ALICE, ME, EXPIRED, CAROL)).encode()),
            ("people.pem", MINA.pem + OLEG.pem + PIA.pem),
        ):
            (folder / name).write_bytes(octets)
            running.cli("cache", "import", str(folder / name))
        yield running, trusted


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, service: tuple[Service, Authority]) -> Iterator[Thunderbird]:
    """One for which the names lead here, and which trusts the authority of our TLS certificate and of Mina's."""
    running, trusted = service
    settings = {
        "network.dns.localDomains": ", ".join(NAMES),
        "network.socket.forcePort": f"443={running.port('hkp', 1)}",
    }
    with Thunderbird(tmp_path_factory.mktemp("program") / "profile", settings) as started:
        for pem in (trusted.ca_file.read_bytes(), CA.pem):
            started.run(TRUST, base64_of(pem))
        yield started


def base64_of(pem: bytes) -> str:
    return b"".join(pem.splitlines()[1:-1]).decode()


@pytest.fixture(params=["hkp", "hkps", "vks"])
def server(request: pytest.FixtureRequest, service: tuple[Service, Authority]) -> str:
    """As `mail.openpgp.keyserver_list` has it."""
    running, _ = service
    hkp = {"hkp": f"hkp://127.0.0.1:{running.port()}", "hkps": f"hkps://localhost:{running.port('hkp', 1)}"}
    return hkp.get(request.param, f"vks://{SERVER}")


def by_address(program: Thunderbird, server: str, address: str) -> Any:
    return program.run(LOOK_UP, server, "lookupAndImportByEmail", address, address)


FOUND = ["", [[ALICE.fingerprint, "keyserver"]]]


def test_a_key_is_found(program: Thunderbird, server: str, service: tuple[Service, Authority]) -> None:
    hkp = f"hkp://127.0.0.1:{service[0].port()}"
    assert by_address(program, server, "alice@partner.example") == FOUND
    for how, what in (
        ("lookupAndImportByKeyID", ALICE.fingerprint),
        ("lookupAndImportByKeyID", ALICE.key_id),
        # to refresh a key that it has; of VKS it asks for nothing then
        ("downloadDirectlyByFingerprint", ALICE.fingerprint),
    ):
        if how.startswith("download") and server.startswith("vks"):
            server = f"{server}, {hkp}"
        assert program.run(LOOK_UP, server, how, what, "alice@partner.example") == FOUND, how


def test_a_failure_is_told_from_nobody(program: Thunderbird, server: str) -> None:
    assert by_address(program, server, "nobody@here.example") == ["", []]
    assert by_address(program, server, "unknown@partner.example") == ["The keyserver reported an error.", []]


def test_of_two_keys_it_takes_what_vks_answers(program: Thunderbird, server: str) -> None:
    """Of an index with two it takes none, and says that there is none."""
    found = [[CAROL.fingerprint, "keyserver"]] if server.startswith("vks") else []
    assert by_address(program, server, "carol@partner.example") == ["", found]


def test_of_two_keys_one_of_which_is_usable_it_takes_that_from_a_view(
    program: Thunderbird, service: tuple[Service, Authority]
) -> None:
    view = f"hkp://127.0.0.1:{service[0].port('hkp', 2)}"
    assert by_address(program, view, "carol@partner.example") == ["", [[CAROL.fingerprint, "keyserver"]]]


def test_our_web_key_directory_comes_first(program: Thunderbird, server: str) -> None:
    assert by_address(program, server, "me@here.example") == ["", [[ME.fingerprint, "wkd"]]]


def test_recipients_are_completed_and_certificates_fetched(
    program: Thunderbird, service: tuple[Service, Authority]
) -> None:
    url = f"ldap://127.0.0.1:{service[0].port('ldap')}/dc=keyserver,dc=local??sub?(objectclass=*)"
    directory = program.run(ADD_DIRECTORY, url)
    assert program.run(COMPLETE, "mina@partner.example") == ["Mina <mina@partner.example>"]
    assert program.run(COMPLETE, "mina") == program.run(COMPLETE, "nobody@here.example") == []
    kept = program.run(FETCH, directory, ["mina@partner.example"])
    assert MINA.fingerprint in kept and OLEG.fingerprint not in kept
    people = {"mina@partner.example": MINA, "oleg@partner.example": OLEG, "pia@partner.example": PIA}
    kept = program.run(FETCH, directory, [*people, "nobody@here.example"])
    assert {one.fingerprint for one in people.values()} <= set(kept)
    usable = [MINA.fingerprint, "", ""]
    assert [program.run(USABLE, address) for address in people] == usable, "who leads to an authority that it trusts"
    program.run(TRUST, base64_of(BETWEEN.pem), ",,")
    assert program.run(USABLE, "pia@partner.example") == PIA.fingerprint
