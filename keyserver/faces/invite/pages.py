"""The pages that owners see: plain, without scripts, the same words for whoever guesses and whoever mistypes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from string import Template

from keyserver.display import grouped
from keyserver.faces.http import pages
from keyserver.faces.http.pages import HtmlPage, shown
from keyserver.model import Kind
from keyserver.store.invitations import Invitation, Refused

_TEMPLATES = ("layout", "about", "confirm", "confirmed", "withdraw", "text", "start")
_KINDS: Mapping[Kind, str] = {Kind.OPENPGP: "OpenPGP", Kind.X509: "S/MIME (X.509)"}
_FOOTER = '<footer class="soft"><a href="/">What is this?</a></footer>'

UNKNOWN = "This link is not complete, or leads to nothing that is known here. Please copy all of it from the mail."
TROUBLE = "This cannot be done at the moment. Nothing has changed, and the link still works: please try again later."
CHANGED = (
    "The certificate that this invitation was about does not show this address as it did, is revoked or has expired, "
    "or cannot be used for encryption any more. Nothing has changed."
)
_REASONS: Mapping[Refused, str] = {
    Refused.USED: "This invitation has been used already.",
    Refused.EXPIRED: "This invitation has expired. Nothing has changed.",
    Refused.REPLACED: "A later invitation has taken the place of this one. Please use the link in the latest mail.",
    Refused.WITHDRAWN: "The consent to this invitation has been withdrawn, and the certificate was deleted here.",
    Refused.GONE: "The certificate that this invitation was about is not known here any more, or is known otherwise "
    "now. Nothing has changed.",
    Refused.BLOCKED: "The certificate that this invitation was about has been blocked here by an administrator. "
    "Nothing has changed.",
}


class OwnersPages:
    """The templates, read once."""

    def __init__(self) -> None:
        folder = files(__package__)
        self._templates = {name: Template((folder / f"{name}.html").read_text("utf-8")) for name in _TEMPLATES}
        self._style = (files(pages.__name__) / "style.css").read_text("utf-8").strip()
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    def start(self, sender: str) -> HtmlPage:
        """The page at `/`. sender: where administrators are reached; may be empty."""
        contact = f", or the administrators at {shown(sender)}" if sender else ""
        return self._page("Certificates for encrypted mail", self._fill("start", contact=contact), footer="")

    def confirm(self, invitation: Invitation) -> HtmlPage:
        """What is asked, with its button."""
        body = self._fill("confirm", about=self._about(invitation), expires=_minute(invitation.expires_at))
        return self._page("Is this your certificate?", body)

    def confirmed(self, invitation: Invitation, withdraw: str, *, before: bool) -> HtmlPage:
        """It is done, or was `before`. withdraw: the path of the link that takes it back."""
        when = _minute(invitation.confirmed_at)
        sentence = (
            f"You have confirmed this certificate on {when} (UTC). Nothing else is to be done."
            if before
            else f"Thank you. From now on this certificate is used for mail to you. On record since {when} (UTC)."
        )
        body = self._fill("confirmed", sentence=sentence, about=self._about(invitation), withdraw=withdraw)
        return self._page("Already confirmed" if before else "Confirmed", body)

    def withdraw(self, invitation: Invitation) -> HtmlPage:
        """What is asked, with its button."""
        return self._page("Withdraw your consent?", self._fill("withdraw", about=self._about(invitation)))

    def withdrawn(self) -> HtmlPage:
        """It is done."""
        text = "Your consent is withdrawn, and the certificate is deleted here. This link has done its work."
        return self.text("Withdrawn", text)

    def refused(self, why: Refused) -> HtmlPage:
        """Why a link does nothing any more."""
        return self.text("Nothing to do here", _REASONS.get(why, UNKNOWN))

    def text(self, title: str, text: str) -> HtmlPage:
        """A sentence."""
        return self._page(title, self._fill("text", text=shown(text)))

    def _about(self, invitation: Invitation) -> str:
        return self._fill(
            "about",
            address=shown(invitation.address),
            kind=_KINDS[invitation.kind],
            fingerprint=shown(grouped(invitation.fingerprint)),
        )

    def _fill(self, name: str, **values: str) -> str:
        return self._templates[name].substitute(values).strip()

    def _page(self, title: str, body: str, footer: str = _FOOTER) -> HtmlPage:
        page = self._fill("layout", title=title, style=self._style, body=body, footer=footer)
        return HtmlPage(page + "\n", self._policy)


def _minute(instant: int) -> str:
    return f"<time>{datetime.fromtimestamp(max(0, min(instant, 253402300799)), UTC):%Y-%m-%d %H:%M}</time>"
