"""Real programs against the LDAP face: gpg, gpgsm, ldapsearch, ldap3, and slapd's own back-ldap in front of us.

Mail programs that cannot be run here are replayed: the filters, attributes and limits that their sources send.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes

from keyserver.faces.ldap.bind import Account
from keyserver.model import Absent, Found, Kind, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId
from keyserver.upstreams.base import Asking
from keyserver.upstreams.ldap.upstream import Ldap
from keyserver.wire import ldap as wire
from keyserver.wire.ldap import SearchRequest
from keyserver.wire.ldap_filter import And, Equal, Filter, Not, Or, Present, Substrings
from support.ldap_client import Client
from support.ldap_memory import BASE, Face, Memory, serving
from support.ldap_messages import write_bind, write_search
from support.openpgp import make
from support.tls import Authority
from support.x509 import authority as mail_authority
from support.x509 import name, person

pytestmark = pytest.mark.usefixtures("both_shapes")


with warnings.catch_warnings():  # ldap3 2.9.1 imports two names that pyasn1 0.6 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

ALICE = make(["Alice <alice@example.org>", "Alice (work) <alice@work.example>"], seed="alice", signing=True)
BOB = make(["Bob <bob@example.org>"], seed="bob")
GONE = make(["Gone <gone@example.org>"], seed="gone", revoked=1)
ROOT = mail_authority("Mail CA", begins=1_600_000_000)
CAROL = person("carol@example.org", ROOT, subject=name("Carol Example", surname="Example", given_name="Carol"))
CAROL_OLD = person("carol@example.org", ROOT, subject=name("Carol Example"), begins=1_650_000_000)
PEOPLE = f"ou=People,{BASE}"


@pytest.fixture(scope="module")
def memory() -> Memory:
    held = Memory(ALICE.octets, GONE.octets, CAROL_OLD.der, CAROL.der)
    held.add(BOB.octets, upstream=True)
    return held


@pytest.fixture(scope="module")
def face(memory: Memory) -> Iterator[Face]:
    with serving(memory) as running:
        yield running


@pytest.fixture
def home() -> Iterator[Path]:
    """A GnuPG home: short, because its sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="gpg"))
    folder.chmod(0o700)
    yield folder
    subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def run(*command: str | Path, env: dict[str, str] | None = None, stdin: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
    )
    return done.returncode, done.stdout.decode(errors="replace")


def gpg(home: Path, *arguments: str) -> tuple[int, str]:
    return run("gpg", "--homedir", home, "--batch", "--no-auto-key-import", *arguments)


# --- GnuPG -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        ALICE.fingerprint,
        ALICE.key_id,
        ALICE.subkeys[0].fingerprint,
        ALICE.subkeys[1].key_id,
        BOB.fingerprint,  # only upstream has it
    ],
)
@pytest.mark.parametrize("suffix", ["", f"/{BASE}", "/ou=PGP%20Keys,dc=keyserver,dc=local"])
def test_gpg_receives(face: Face, home: Path, wanted: str, suffix: str) -> None:
    code, said = gpg(home, "--keyserver", face.url + suffix, "--recv-keys", wanted)
    assert code == 0, said
    assert "imported: 1" in said
    owner = BOB if wanted == BOB.fingerprint else ALICE
    assert owner.fingerprint in gpg(home, "--with-colons", "--list-keys")[1]


def test_gpg_is_told_that_a_key_is_not_there(face: Face, home: Path) -> None:
    code, said = gpg(home, "--keyserver", face.url, "--recv-keys", "A" * 40)
    assert code != 0
    assert "No data" in said


@pytest.mark.parametrize(
    "text",
    ["alice@work.example", "<alice@work.example>", f"0x{ALICE.fingerprint}", "=Alice (work) <alice@work.example>"],
)
def test_gpg_searches(face: Face, home: Path, text: str) -> None:
    _, said = gpg(home, "--with-colons", "--keyserver", face.url, "--search-keys", text)
    assert f"pub:{ALICE.key_id}" in said or f"pub:{ALICE.fingerprint}" in said, said
    if "@" in text and not text.startswith("="):
        assert re.search(r"^uid:.*alice@work\.example", said, re.MULTILINE), said  # the matching one is shown


def test_gpg_may_not_browse(face: Face, home: Path) -> None:
    code, said = gpg(home, "--keyserver", face.url, "--search-keys", "alice")
    assert code != 0
    assert "Alice" not in said


def test_gpg_locates_and_refreshes(face: Face, home: Path) -> None:
    locate = ("--auto-key-locate", "clear,keyserver", "--keyserver", face.url, "--locate-external-keys")
    code, said = gpg(home, *locate, "alice@example.org")
    assert code == 0, said
    assert ALICE.fingerprint in said
    code, said = gpg(home, "--keyserver", face.url, "--refresh-keys")
    assert code == 0, said
    assert "unchanged: 1" in said
    code, said = gpg(home, *locate, "gone@example.org")
    assert GONE.fingerprint not in said  # revoked: left out of what one encrypts to
    code, said = gpg(home, "--keyserver", face.url, "--recv-keys", GONE.fingerprint)
    assert "imported: 1" in said  # but its revocation is there for who asks


def test_gpg_with_start_tls(memory: Memory, home: Path, tmp_path: Path) -> None:
    """`ldaps://` means StartTLS to GnuPG 2.2; whom to trust stands in dirmngr's configuration."""
    ca = Authority(tmp_path)
    with serving(memory, tls=context(ca)) as face:
        where = f"ldaps://127.0.0.1:{face.port}"
        env = {"LDAPTLS_CACERT": str(ca.ca_file)}
        code, said = run(
            "gpg", "--homedir", home, "--batch", "--keyserver", where, "--recv-keys", ALICE.key_id, env=env
        )
        assert code == 0, said
        run("gpgconf", "--homedir", home, "--kill", "all")
        code, said = run("gpg", "--homedir", home, "--batch", "--keyserver", where, "--recv-keys", ALICE.key_id)
        assert code != 0, said  # an authority that nobody knows


def context(ca: Authority, **options: float) -> ssl.SSLContext:
    issued = ca.issue(**options)  # type: ignore[arg-type]
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(issued.certificate, issued.key)
    return made


def test_gpgsm_finds_a_certificate_and_encrypts_to_it(face: Face, home: Path) -> None:
    """Through dirmngr, as a mail program with GnuPG does: one entry per certificate, so it reads them all."""
    (home / "dirmngr.conf").write_text(f"ldapserver 127.0.0.1:{face.port}:::{PEOPLE}:\n")
    (home / "trustlist.txt").write_text(f"{ROOT.certificate.fingerprint(hashes.SHA1()).hex().upper()} S relax\n")
    (home / "gpgsm.conf").write_text("disable-crl-checks\n")
    root, found, mail = home / "root.pem", home / "found.der", home / "mail.p7m"
    root.write_bytes(ROOT.pem)
    assert run("gpgsm", "--homedir", home, "--batch", "--import", root)[0] == 0
    listing = ("--with-colons", "--list-external-keys", "<carol@example.org>")
    code, said = run("gpgsm", "--homedir", home, "--batch", *listing)
    assert code == 0, said
    listed = {line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:")}
    assert listed == {c.certificate.fingerprint(hashes.SHA1()).hex().upper() for c in (CAROL, CAROL_OLD)}, said
    code, said = run("dirmngr-client", "--lookup", "<carol@example.org>", env={"GNUPGHOME": str(home)})
    assert code == 0, said
    octets = base64.b64decode("".join(line for line in said.splitlines() if re.fullmatch(r"[A-Za-z0-9+/=]+", line)))
    assert octets == CAROL.der + CAROL_OLD.der  # newest first
    found.write_bytes(octets[: len(CAROL.der)])
    code, said = run("gpgsm", "--homedir", home, "--batch", "--import", found)
    assert code == 0, said
    encrypt = ("--encrypt", "--recipient", "carol@example.org", "--output", mail)
    code, said = run("gpgsm", "--homedir", home, "--batch", *encrypt, stdin="hello")
    assert code == 0, said
    (home / "carol.key").write_bytes(CAROL.key_pem)
    (home / "carol.pem").write_bytes(CAROL.pem)
    decrypt = ("-decrypt", "-inform", "DER", "-in", mail, "-inkey", home / "carol.key", "-recip", home / "carol.pem")
    assert run("openssl", "cms", *decrypt) == (0, "hello")


# --- OpenLDAP ----------------------------------------------------------------------------------------------------


def ldapsearch(url: str, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    return run("ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-H", url, *arguments, env=env)


def test_ldapsearch(face: Face) -> None:
    code, said = ldapsearch(face.url, "-x", "-b", BASE, "(mail=carol@example.org)", "cn", "mail")
    assert code == 0, said
    assert said.count("dn: uid=") == 2
    assert "givenName" not in said
    code, said = ldapsearch(face.url, "-x", "-b", "", "-s", "base", "+")
    assert f"namingContexts: {BASE}" in said
    code, said = ldapsearch(face.url, "-x", "-b", "cn=Subschema", "-s", "base", "attributeTypes")
    assert "gpgFingerprint" in said
    code, said = ldapsearch(face.url, "-x", "-b", BASE, "(cn=*)")
    assert code == 53
    code, said = ldapsearch(face.url, "-x", "-E", "!pr=1/noprompt", "-b", BASE, "(mail=carol@example.org)", "1.1")
    assert code == 0, said
    assert said.count("dn: uid=") == 2
    assert run("ldapwhoami", "-x", "-H", face.url) == (0, "anonymous\n")
    assert ldapsearch(face.url, "-x", "-D", "cn=admin", "-w", "x", "-b", BASE, "(mail=a@b.org)")[0] == 49
    assert run("ldapdelete", "-x", "-H", face.url, f"cn=x,{BASE}")[0] == 53
    assert run("ldapcompare", "-x", "-H", face.url, BASE, "dc:x")[0] == 53


def test_ldapsearch_over_tls(memory: Memory, tmp_path: Path) -> None:
    ca, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger", "Stranger CA")
    search = ("-x", "-b", BASE, "(mail=carol@example.org)", "1.1")

    def trusting(authority: Authority) -> dict[str, str]:
        return {"LDAPTLS_CACERT": str(authority.ca_file)}

    with serving(memory, tls=context(ca)) as face:
        code, said = ldapsearch(face.url, "-ZZ", *search, env=trusting(ca))
        assert (code, said.count("dn:")) == (0, 2), said
        assert ldapsearch(face.url, "-ZZ", *search, env=trusting(stranger))[0] != 0
    with serving(memory, tls=context(ca), ldaps=True) as face:
        url = face.url.replace("ldap:", "ldaps:")
        assert ldapsearch(url, *search, env=trusting(ca))[0] == 0
        assert ldapsearch(url, *search, env=trusting(stranger))[0] != 0
    with serving(memory, tls=context(ca, begins=-20, ends=-10), ldaps=True) as face:
        assert ldapsearch(face.url.replace("ldap:", "ldaps:"), *search, env=trusting(ca))[0] != 0


def test_slapd_stands_in_front_of_us(face: Face, tmp_path: Path) -> None:
    """OpenLDAP's back-ldap as our client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [f"include /etc/ldap/schema/{n}.schema" for n in ("core", "cosine", "inetorgperson")]
    lines += ["modulepath /usr/lib/ldap", "moduleload back_ldap", f"pidfile {tmp_path}/pid", "access to * by * read"]
    lines += ["database ldap", f'suffix "{BASE}"', f'uri "{face.url}"']
    (tmp_path / "slapd.conf").write_text("\n".join(lines) + "\n")
    slapd = shutil.which("slapd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert slapd, "slapd is not installed"
    url = f"ldap://127.0.0.1:{port}"
    process = subprocess.Popen(
        [slapd, "-d", "0", "-f", str(tmp_path / "slapd.conf"), "-h", f"{url}/"], stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 10
        while ldapsearch(url, "-x", "-b", "", "-s", "base")[0] and time.monotonic() < until:
            time.sleep(0.05)
        code, said = ldapsearch(url, "-x", "-b", BASE, "(mail=carol@example.org)", "cn", "userCertificate;binary")
        assert code == 0, said
        assert said.count("userCertificate;binary::") == 2
    finally:
        process.terminate()
        process.wait(10)


# --- ldap3 -------------------------------------------------------------------------------------------------------


def test_ldap3(face: Face) -> None:
    server = ldap3.Server("127.0.0.1", face.port, get_info=ldap3.ALL)  # reads the subschema
    connection = ldap3.Connection(server, auto_bind=True)
    try:
        assert "gpgFingerprint" in server.schema.attribute_types
        assert connection.search(BASE, "(mail=carol@example.org)", attributes=["cn", "userCertificate;binary"])
        held = {bytes(e["raw_attributes"]["userCertificate;binary"][0]) for e in connection.response}
        assert held == {CAROL.der, CAROL_OLD.der}
        assert connection.extend.standard.who_am_i() is None
        found = connection.extend.standard.paged_search(
            BASE, "(mail=carol@example.org)", attributes=["cn"], paged_size=1, generator=False
        )
        assert len(found) == 2
        assert not connection.delete(f"cn=x,{BASE}")
        assert connection.result["result"] == 53
    finally:
        connection.unbind()


# --- clients that must bind --------------------------------------------------------------------------------------

ACCOUNT = Account("cn=gateway,dc=example,dc=org", b"s3cret, with a comma")
PASSWORD = ACCOUNT.password.decode()


def test_ldapsearch_binds(memory: Memory, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    trusting = {"LDAPTLS_CACERT": str(ca.ca_file)}
    search = ("-b", BASE, "(&(objectClass=user)(proxyAddresses=smtp:carol@example.org))", "proxyAddresses")
    right = ("-x", "-D", ACCOUNT.name, "-w", PASSWORD)
    with serving(memory, account=ACCOUNT, tls=context(ca)) as face:
        for arguments in (
            right,
            ("-ZZ", *right),
            ("-x", "-D", "CN=Gateway, DC=Example, DC=Org", "-w", PASSWORD),
            ("-x",),
        ):
            code, said = ldapsearch(face.url, *arguments, *search, env=trusting)
            assert (code, said.count("proxyAddresses: SMTP:carol@example.org")) == (0, 2), said
        for wrong in (("-D", ACCOUNT.name, "-w", "guess"), ("-D", "cn=admin", "-w", PASSWORD)):
            assert ldapsearch(face.url, "-x", *wrong, *search)[0] == 49
        whoami = ("ldapwhoami", "-H", face.url)
        assert run(*whoami, *right) == (0, f"dn:{ACCOUNT.name}\n")
        assert run(*whoami, "-x") == (0, "anonymous\n")


def test_ldap3_binds(memory: Memory) -> None:
    with serving(memory, account=ACCOUNT) as face:
        server = ldap3.Server("127.0.0.1", face.port, get_info=ldap3.NONE)
        connection = ldap3.Connection(server, ACCOUNT.name, PASSWORD, auto_bind=True)
        try:
            assert connection.extend.standard.who_am_i() == f"dn:{ACCOUNT.name}"
            found = "(&(objectCategory=person)(|(mail=carol@example.org)(userPrincipalName=carol@example.org)))"
            assert connection.search(BASE, found, attributes=["userCertificate;binary"])
            assert len(connection.response) == 2
        finally:
            connection.unbind()
        refused = ldap3.Connection(server, ACCOUNT.name, "guess")
        assert not refused.bind()
        assert refused.result["result"] == 49
        refused.unbind()


def test_gpg_binds(memory: Memory, home: Path) -> None:
    with serving(memory, account=ACCOUNT) as face:
        for password, good in ((PASSWORD, True), ("guess", False)):
            options = f"bindname={quote(ACCOUNT.name, safe='')},password={quote(password, safe='')}"
            where = f"{face.url}/{quote(BASE, safe='')}????{options}"
            code, said = gpg(home, "--keyserver", where, "--recv-keys", ALICE.fingerprint)
            assert (code == 0) is good, said
            assert ("imported: 1" in said) is good, said
            run("gpgconf", "--homedir", home, "--kill", "all")


# --- another frontend of ours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [f"/{BASE}", ""])
async def test_another_frontend_has_us_as_its_upstream(memory: Memory, suffix: str) -> None:
    kinds = frozenset({Kind.OPENPGP, Kind.X509})
    alice = next(a.certificate.octets for a in memory.held if a.certificate.fingerprint == ALICE.fingerprint)
    with serving(memory, instance="back.example") as face, ThreadPoolExecutor(2) as threads:
        upstream = Ldap(UpstreamSpec("us", kinds=kinds), face.url + suffix, threads=threads, monotonic=time.monotonic)
        try:
            for query, octets in (
                (ByAddress("alice", "example.org"), {alice}),
                (ByFingerprint(ALICE.fingerprint), {alice}),
                (ByKeyId(ALICE.subkeys[0].key_id), {alice}),
                (ByAddress("carol", "example.org", Kind.X509), {CAROL.der, CAROL_OLD.der}),
            ):
                outcome = await upstream.fetch(query, Asking(left=5, via="front.example"))
                assert isinstance(outcome, Found), (query, outcome)
                assert {raw.octets for raw in outcome.raw} >= octets, query  # X.509 comes as PKCS#7 too
            outcome = await upstream.fetch(ByAddress("nobody", "example.org"), Asking(left=5, via="front.example"))
            assert outcome == Absent(outcome.reason, remember=True)
            # a question that has been here before: absent for now, not remembered
            outcome = await upstream.fetch(ByAddress("nobody", "example.com"), Asking(left=5, via="back.example"))
            assert outcome == Absent(outcome.reason, remember=False)
        finally:
            await upstream.close()


# --- replayed ----------------------------------------------------------------------------------------------------


def ask(
    face: Face, filter_: Filter, *attributes: str, size: int = 0, base: str = BASE, bind: bool = True
) -> list[dict[str, list[bytes]]]:
    with Client(face.port) as client:
        if bind:
            client.send(write_bind())
            assert client.result().code == 0
        client.send(write_search(SearchRequest(base, 2, size, 0, False, filter_, attributes)))
        answer = client.finish()
        assert answer.code in (0, 4), answer.done
        client.send(b"\x42\x00")
        assert client.closed()
        return [entry.attributes for entry in answer.entries]


CAROLS = b"carol@example.org"


def test_thunderbird_fetches_certificates(face: Face) -> None:
    """certFetchingStatus.js: one address, then two, size limit twice their number."""
    found = ask(face, And((Present("objectclass"), Equal("mail", CAROLS))), "usercertificate;binary", size=2)
    assert list(found[0].items()) == [("userCertificate;binary", [CAROL.der])]  # newest first
    two = Or((Equal("mail", CAROLS), Equal("mail", b"nobody@example.org")))
    assert len(ask(face, And((Present("objectclass"), two)), "usercertificate;binary", size=4)) == 2


def test_thunderbird_completes_a_whole_address(face: Face) -> None:
    names = ("cn", "mail", "sn")
    assert len(ask(face, Or(tuple(Substrings(n, CAROLS, (), None) for n in names)), "cn", "mail", size=100)) == 2
    words = ("givenName", "sn", "displayName", "mail", "cn", "o", "ou", "title", "telephoneNumber", "mobile", "l")
    quick = Or(tuple(Substrings(n, None, (CAROLS,), None) for n in words[:5] + words[7:]))
    assert len(ask(face, And((Present("objectclass"), quick)), size=100)) == 2


def test_outlook_looks_an_address_up(face: Face) -> None:
    inner = Or((Substrings("sn", CAROLS, (), None), Substrings("givenName", CAROLS, (), None)))
    names = Or((Substrings("mail", CAROLS, (), None), Or((Substrings("cn", CAROLS, (), None), inner))))
    found = ask(face, And((Present("mail"), names)), "mail", "cn", "userSMIMECertificate", "userCertificate;binary")
    assert len(found) == 2
    assert CAROL.der in found[0]["userSMIMECertificate"][0]
    assert found[0]["userCertificate;binary"] == [CAROL.der]


def test_kde_and_evolution_look_an_address_up(face: Face) -> None:
    classes = Or((Equal("objectclass", b"person"), Equal("objectclass", b"groupOfNames"), Present("mail")))
    names = Or(tuple(Substrings(n, CAROLS, (), None) for n in ("cn", "mail", "givenName", "sn")))
    assert len(ask(face, And((classes, names)))) == 2
    found = ask(face, And((Equal("objectClass", b"inetOrgPerson"), Equal("mail", CAROLS))))  # all attributes
    assert {"cn", "sn", "mail", "userCertificate;binary"} <= set(found[0])


def test_seahorse_and_pgp_find_keys(face: Face) -> None:
    with Client(face.port) as client:
        info = client.search("cn=pgpServerInfo", Present("objectClass"), "basekeyspacedn", "pgpbasekeyspacedn", scope=0)
        space = info.entries[0].attributes["baseKeySpaceDN"][0].decode()
    assert space == "OU=ACTIVE,O=PGP KEYSPACE,C=US"
    shown = (
        "pgpcertid",
        "pgpuserid",
        "pgprevoked",
        "pgpdisabled",
        "pgpkeycreatetime",
        "pgpkeyexpiretime",
        "pgpkeysize",
    )
    found = ask(face, Substrings("pgpuserid", None, (b"alice@example.org",), None), *shown, base=space, bind=False)
    assert found[0]["pgpCertID"] == [ALICE.key_id.encode()]
    enabled = Equal("pgpDisabled", b"0")
    for query in (
        Substrings("pgpUserID", None, (b"<alice@example.org>",), None),
        Equal("pgpCertID", ALICE.key_id.encode()),
        Equal("pgpSubKeyID", ALICE.subkeys[0].key_id.encode()),
    ):
        found = ask(face, And((query, enabled)), "pgpKeyV2", base=space, bind=False)
        assert found[0]["pgpKeyV2"][0].startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")


def test_gpg_lists_nobody(face: Face) -> None:
    everything = Not(Or((Equal("pgpRevoked", b"1"), Equal("pgpDisabled", b"1"))))
    with Client(face.port) as client:
        answer = client.search(f"ou=PGP Keys,{BASE}", everything, controls=(wire.page_control(100, b""),))
        assert (answer.code, answer.entries) == (53, [])
