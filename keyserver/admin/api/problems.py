"""Every error of the admin API as an RFC 9457 problem document."""

from __future__ import annotations

import json
import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from keyserver.admin.api.reading import MAX_JSON, Forbidden, Unsupported, visible
from keyserver.admin.plain import plain
from keyserver.admin.problems import Ambiguous, Busy, NotKnown, Problem, Refusal, Undecided
from keyserver.admin.reloading import Mistaken
from keyserver.store.base import StoreError

_DETAILS = {404: "there is nothing at this address", 413: f"a JSON body of more than {MAX_JSON} octets"}
_LOG = logging.getLogger("keyserver.admin")


def problem(status: int, title: str, detail: str, **more: object) -> web.Response:
    """An `application/problem+json` document (RFC 9457 §3)."""
    body = visible({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as a problem document."""
    try:
        response = await handler(request)
    except Ambiguous as refusal:
        response = problem(409, "Ambiguous", str(refusal), certificates=refusal.candidates)
    except Undecided as refusal:
        response = problem(409, "Ambiguous", str(refusal), choices=refusal.choices)
    except NotKnown as refusal:
        response = problem(404, "Not found", str(refusal))
    except Refusal as refusal:
        response = problem(409, "Conflict", str(refusal))
    except Unsupported as refusal:
        response = problem(415, "Unsupported media type", str(refusal))
    except Forbidden as refusal:
        response = problem(403, "Forbidden", str(refusal))
    except Mistaken as refusal:
        response = problem(400, "Bad configuration", str(refusal), mistakes=plain(refusal.mistakes))
    except Busy as refusal:
        response = problem(503, "Busy", str(refusal))
        response.headers["Retry-After"] = "5"
    except Problem as refusal:
        response = problem(400, "Bad request", str(refusal))
    except StoreError as trouble:
        response = problem(503, "Store unavailable", str(trouble))
    except web.HTTPMethodNotAllowed as refusal:
        allow = ", ".join(sorted(refusal.allowed_methods))
        response = problem(405, "Method not allowed", f"this address accepts {allow}")
        response.headers["Allow"] = allow
    except web.HTTPException as refusal:
        response = problem(refusal.status, refusal.reason, _DETAILS.get(refusal.status, refusal.reason))
    except ConnectionError:
        raise  # the client is gone
    except Exception:
        resource = request.match_info.route.resource
        _LOG.exception("unhandled error at %s", resource.canonical if resource is not None else "an unknown path")
        response = problem(500, "Internal error", "see the log")
    if not response.prepared:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "keyserver"
    return response
