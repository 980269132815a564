"""The HTML pages of the HTTP face: small, self-contained, without scripts.

Everything that comes from a certificate or a request is hostile text: `shown` is the only way of it into a page.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from string import Template
from urllib.parse import quote

from keyserver.display import algorithm, grouped, readable
from keyserver.model import Kind, Proof, Subkey, UserId, Validity

_TEMPLATES = ("layout", "search", "results", "certificate", "refusal", "stats")
_KINDS: Mapping[Kind, str] = {Kind.OPENPGP: "OpenPGP", Kind.X509: "S/MIME (X.509)"}
_SILENT: Mapping[Kind, str] = {
    Kind.OPENPGP: "Nobody can encrypt to it: it has no key for encryption that is valid now. It can only sign.",
    Kind.X509: "Nobody can encrypt to it: its key usage does not allow that. It can only sign.",
}


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """A page and the Content-Security-Policy under which it works."""

    html: str
    policy: str


class Pages:
    """The templates, read once."""

    def __init__(self) -> None:
        folder = files(__name__)
        self._templates = {name: Template((folder / f"{name}.html").read_text("utf-8")) for name in _TEMPLATES}
        self._style = (folder / "style.css").read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    def search(self) -> HtmlPage:
        """The page at `/`."""
        return self._page("Keyserver", "", self._fill("search"))

    def results(self, search: str, proofs: Sequence[Proof], now: int, *, detailed: bool) -> HtmlPage:
        """What a search has found; `detailed` shows subkeys too (`op=vindex`)."""
        heading = "1 certificate" if len(proofs) == 1 else f"{len(proofs)} certificates"
        certificates = "\n".join(self._certificate(proof, now, detailed) for proof in proofs)
        body = self._fill("results", heading=heading, certificates=certificates)
        return self._page(f"{shown(search)} – Keyserver", search, body)

    def refusal(self, search: str, text: str) -> HtmlPage:
        """Nothing found, or not understood: the sentence, and the form again."""
        heading, _, rest = text.partition(": ") if ": " in text[:20] else ("Sorry", "", text)
        return self._page(heading, search, self._fill("refusal", heading=heading, text=shown(_sentence(rest))))

    def stats(self, facts: Mapping[str, object]) -> HtmlPage:
        """Facts by name; a mapping becomes one row for each of its items."""
        rows: list[str] = []
        for name, value in facts.items():
            items = value.items() if isinstance(value, Mapping) else [("", value)]
            for item, one in items:
                label = f"{name}: {item}" if item else name
                rows.append(f"<dt>{shown(_sentence(label))}</dt><dd>{shown(_count(one))}</dd>")
        return self._page("Statistics – Keyserver", "", self._fill("stats", rows="\n".join(rows)))

    def _certificate(self, proof: Proof, now: int, detailed: bool) -> str:
        user_ids = [u for u in proof.user_ids if u.text]
        first = next((u for u in user_ids if not _state(u, now)), user_ids[0] if user_ids else None)
        links = _download(proof)
        if not detailed and (proof.subkeys or proof.marks or proof.x509):
            links += f'<a href="/pks/lookup?op=vindex&amp;search=0x{quote(proof.fingerprint)}">Details</a>'
        silent = proof.validity is Validity.VALID and not proof.can_encrypt
        expires = "Expired" if _past(proof.expires, now) else "Expires"
        return self._fill(
            "certificate",
            heading=shown(first.text) if first else "No user ID",
            badge="silent" if silent else proof.validity.value,
            validity="valid, cannot encrypt" if silent else proof.validity.value,
            remark=f'<p class="soft">{_SILENT[proof.kind]}</p>' if silent else "",
            kind=_KINDS[proof.kind],
            user_ids=_list([_user_id(u, now) for u in user_ids if u is not first or _state(u, now)]),
            grouped=_grouped(proof.fingerprint),
            algorithm=algorithm(proof.algorithm, proof.bits),
            created=_day(proof.created),
            expires=f"<dt>{expires}</dt><dd>{_day(proof.expires)}</dd>" if proof.expires is not None else "",
            more=_more(proof) if detailed else "",
            subkeys=_subkeys(proof.subkeys, now) if detailed else "",
            links=links,
        )

    def _fill(self, name: str, **values: str) -> str:
        return self._templates[name].substitute(values).strip()

    def _page(self, title: str, search: str, body: str) -> HtmlPage:
        page = self._fill("layout", title=title, style=self._style, search=shown(search), body=body)
        return HtmlPage(page + "\n", self._policy)


def shown(text: str) -> str:
    """Hostile text made fit for a page: readable, and escaped."""
    return html.escape(readable(text))


def _state(user_id: UserId, now: int) -> str:
    """Why a user ID does not count; empty when it does."""
    return "revoked" if user_id.revoked else "expired" if _past(user_id.expires, now) else ""


def _user_id(user_id: UserId, now: int) -> str:
    state = _state(user_id, now)
    remark = f' <span class="soft">{state}</span>' if state else ""
    return f"<li{' class=dead' if state else ''}><bdi>{shown(user_id.text)}</bdi>{remark}</li>"


def _download(proof: Proof) -> str:
    """A link to the certificate itself: by HKP, or by RFC 4387."""
    name = quote(proof.fingerprint)
    if proof.x509 is None:
        return f'<a href="/pks/lookup?op=get&amp;search=0x{name}" download="{name}.asc">Download</a>'
    digest = quote(base64.b64encode(bytes.fromhex(proof.x509.sha1)).decode().rstrip("="), safe="")
    return f'<a href="/certificates/search.cgi?certHash={digest}" download="{name}.cer">Download</a>'


def _more(proof: Proof) -> str:
    """What the list does not show."""
    rows = [("Key ID", proof.key_id)] if proof.x509 is None else []
    if (facts := proof.x509) is not None:
        rows += [("Subject", facts.subject), ("Issuer", facts.issuer), ("Serial", facts.serial)]
        rows += [("Usage", ", ".join(facts.key_usage).replace("_", " "))] if facts.key_usage else []
    rows += [("Remarks", ", ".join(proof.marks))] if proof.marks else []
    return "".join(f"<dt>{name}</dt><dd><bdi>{shown(value)}</bdi></dd>" for name, value in rows)


def _subkeys(subkeys: Sequence[Subkey], now: int) -> str:
    if not subkeys:
        return ""
    return "<h3>Subkeys</h3>\n" + _list([_subkey(s, now) for s in subkeys])


def _subkey(subkey: Subkey, now: int) -> str:
    remarks = [algorithm(subkey.algorithm, subkey.bits), f"created {_day(subkey.created)}"]
    if subkey.can_encrypt:
        remarks.append("encrypts")
    if subkey.expires is not None:
        remarks.append(f"{'expired' if _past(subkey.expires, now) else 'expires'} {_day(subkey.expires)}")
    if subkey.revoked:
        remarks.append("revoked")
    return f'<li><code>{_grouped(subkey.fingerprint)}</code><br><span class="soft">{", ".join(remarks)}</span></li>'


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _grouped(fingerprint: str) -> str:
    return shown(grouped(fingerprint))


def _day(instant: int) -> str:
    """The UTC date of an instant, as HTML; certificates may name any 32-bit time, and later ones by their lifetimes."""
    moment = datetime.fromtimestamp(max(0, min(instant, 253402300799)), UTC)  # at most the year 9999
    return f"<time>{moment:%Y-%m-%d}</time>"


def _past(instant: int | None, now: int) -> bool:
    return instant is not None and instant <= now


def _count(value: object) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if isinstance(value, int) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
