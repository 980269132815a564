"""Problems as pages, for browsers that asked for one."""

from __future__ import annotations

import json

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from keyserver.admin.pages import Templates

_KEPT = ("Allow", "Retry-After", "WWW-Authenticate")


def troubles(templates: Templates) -> Middleware:
    """A middleware around `problems`: what is wrong with a page becomes one, in the words that the API has for it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if not (isinstance(response, web.Response) and response.content_type == "application/problem+json"):
            return response
        if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
            return response
        assert isinstance(response.body, bytes)
        problem = json.loads(response.body)
        page = templates.page("problem", response.status, title=problem["title"], detail=problem["detail"])
        page.headers.update({name: response.headers[name] for name in _KEPT if name in response.headers})
        page.headers["Server"] = response.headers["Server"]
        if response.keep_alive is False:
            page.force_close()
        return page

    return middleware
