"""For schemathesis (SCHEMATHESIS_HOOKS): how bodies are written whose types it does not know."""

from __future__ import annotations

import schemathesis


@schemathesis.serializer("message/rfc822", "application/pgp-keys")
def octets(context: schemathesis.SerializationContext, value: object) -> bytes:
    """Strings of `format: binary` come as octets; anything else is sent as it is spelled."""
    given = getattr(value, "data", value)
    return given if isinstance(given, bytes) else str(given).encode(errors="replace")
