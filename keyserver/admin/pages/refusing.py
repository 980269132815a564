"""What cannot be done, as a page: the reason, and what could be meant."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from keyserver.admin.api.reading import Forbidden
from keyserver.admin.pages import Templates
from keyserver.admin.problems import Ambiguous, Busy, Candidate, NotKnown, Problem, Refusal, Undecided
from keyserver.store.base import StoreError

_STATUS = ((NotKnown, 404), (Refusal, 409), (Forbidden, 403), (StoreError, 503), (Busy, 503))


def refused(templates: Templates, trouble: Problem | StoreError, here: str, back: str) -> web.Response:
    """The page that says why. here: of the navigation; back: a path of ours."""
    candidates: Sequence[Candidate] = trouble.candidates if isinstance(trouble, Ambiguous) else ()
    return templates.page(
        "refused",
        status_of(trouble),
        here=here,
        back=back,
        text=str(trouble),
        candidates=candidates,
        choices=trouble.choices if isinstance(trouble, Undecided) else (),
    )


def status_of(trouble: Problem | StoreError) -> int:
    """Of the page that says it."""
    return next((status for type_, status in _STATUS if isinstance(trouble, type_)), 400)
