"""Every face that fronts have a part of. A new one is a module that describes it, and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.processes import http, ldap
from keyserver.processes.front import FrontPart

FRONTS: tuple[FrontPart, ...] = (
    http.FRONT,
    ldap.FRONT,
)

BY_FACE: Mapping[str, FrontPart] = {part.face: part for part in FRONTS}
