"""Every face of the service. A new one is a module that describes itself, and its line here."""

from __future__ import annotations

from keyserver.faces.face import Face
from keyserver.faces.http.face import HTTP
from keyserver.faces.ldap.face import LDAP
from keyserver.faces.verdict.http import VERDICT
from keyserver.faces.verdict.socketmap import SOCKETMAP

FACES: tuple[Face, ...] = (
    HTTP,
    LDAP,
    VERDICT,
    SOCKETMAP,
)
