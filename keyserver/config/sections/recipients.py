"""Sections about recipients: can mail to them be encrypted, and rules for their domains."""

from __future__ import annotations

from typing import Annotated

from keyserver.config.fields import Certificates, Networks, OneListener, PlainListener, PrivateKey, Switch, Title
from keyserver.config.kinds import (
    Choice,
    Duration,
    Many,
    One,
    Tables,
    Text,
    read_domain_pattern,
    read_fingerprint,
    read_kind,
    read_minimum,
)
from keyserver.config.section import Restart, Section, key, required

_MAP_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_MAP_VALUE = r"(?:[!-z|~]|\{kind\}|\{domain\})(?:(?:[ -z|~]|\{kind\}|\{domain\})*(?:[!-z|~]|\{kind\}|\{domain\}))?"
_REJECT_VALUE = r"(?:[!-z|~]|\{text\})(?:(?:[ -z|~]|\{text\})*(?:[!-z|~]|\{text\}))?"
Minimum = Annotated[tuple[str, ...], Many('"chained" and "approved"', read_minimum)]


class VerdictPolicySection(Section):
    """A named question: can mail to this address be encrypted? Without any table there is one, `encrypt`."""

    name: Annotated[str, Text("a name of letters, digits, dot, hyphen and underscore", _MAP_NAME, 64)] = required(
        "its name, also that of its socketmap; each only once"
    )
    kind: Annotated[str, Choice(("openpgp", "smime", "either", "both"))] = key(
        "either", "which certificates there must be"
    )
    view: Title = key("default", "the view whose policy says what may be used")
    minimum: Minimum = key([], "what a certificate must be beside usable: chained (S/MIME only), approved (or local)")
    valid_for: Annotated[int, Duration("0", "365d")] = key("0", "at least so long it must still be valid")
    yes: Annotated[str, Text("printable ASCII, in braces only {kind} and {domain}", _MAP_VALUE, 500)] = key(
        "smtp:[gateway.example]:10025",
        "what the socketmap returns for yes; {domain} is the recipient's domain as an A-label, {kind} what there is: "
        "openpgp, smime or both",
    )
    reject: Annotated[str, Text("printable ASCII, in braces only {text}", _REJECT_VALUE, 500)] = key(
        "error:5.7.1 {text}",
        "what the socketmap returns where a [[domain]] must be encrypted to and cannot; {text} is what that says",
    )
    unknown: Annotated[str, Choice(("tempfail", "notfound"))] = key(
        "tempfail", "what the socketmap returns for unknown: mail waits, or goes as if there were no certificate"
    )


class VerdictSection(Section):
    """Mail servers ask whether a recipient can be encrypted to."""

    listen: OneListener = key("", "HTTP, `GET /verdict?address=…&policy=…`", restart=Restart.ALWAYS)
    socketmap_listen: PlainListener = key("", "Postfix socketmap", restart=Restart.ALWAYS)
    allowed_clients: Networks = key([], "who may ask either, beside this machine")
    tls_certificate: Certificates = key("", 'certificate for a "tls:" listener', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", "private key to it", restart=Restart.SWITCHED)
    policy: Annotated[tuple[VerdictPolicySection, ...], Tables()] = key([], "named questions")

    @property
    def policies(self) -> tuple[VerdictPolicySection, ...]:
        """The named questions; where the file has none, the one that there always is."""
        return self.policy or (VerdictPolicySection(name="encrypt"),)


class DomainCertificateSection(Section):
    """A partner whose gateway decrypts for all of a domain. Rows of the most specific domain count, one each kind."""

    domain: Annotated[str, One("a domain such as partner.example, or *.partner.example", read_domain_pattern)] = (
        required("whose addresses, where they have no certificate of their own; *. means all below, without itself")
    )
    fingerprint: Annotated[str, One("a fingerprint of 40 or 64 hex digits", read_fingerprint)] = required(
        "the gateway's certificate (X.509: its SHA-256), which must be a local entry: import it"
    )

    @property
    def name(self) -> str:
        """Which one it is."""
        return f"{self.domain} {self.fingerprint}"


class DomainSection(Section):
    """Rules for recipients of one domain. Any number of these tables; the most specific holds."""

    name: Annotated[
        str, One("a domain such as partner.example, or *.partner.example for what lies below it", read_domain_pattern)
    ] = required("the domain; each only once")
    upstreams: Annotated[tuple[str, ...], Many("names of upstreams", str)] = key(
        [],
        "only these are told its addresses and believed about them; of mail only what is approved. Empty: any",
    )
    kinds: Annotated[tuple[str, ...], Many('"openpgp" and "smime"', read_kind)] = key(
        [], "which certificates count: openpgp, smime. Empty: both"
    )
    require_chain: Switch = key(
        False, "true: an X.509 certificate without a good chain is not answered unless approved or local"
    )
    pinned: Annotated[tuple[str, ...], Many("fingerprints of 40 or 64 hex digits", read_fingerprint)] = key(
        [], "fingerprints: nothing else answers its addresses, whoever brings it"
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")
    ttl: Annotated[int | None, Duration("1h", "999d", optional=True)] = key(
        "", "overrides cache.ttl and those of upstreams, for its addresses"
    )
    must_encrypt: Switch = key(False, 'the verdict "no" is "reject"')
    reject_text: Annotated[str, Text("printable ASCII", r"[ -~]*", 200)] = key(
        "", "what whoever sends the mail is told then; empty: a sentence of ours"
    )
