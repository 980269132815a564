"""Settings that must be the same on all nodes of one cache, or they answer differently. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from keyserver.config.models import Config
from keyserver.config.settings import settings_of

_MUST = re.compile(
    r"cache\.(ttl|negative_ttl|serve_stale)"
    r"|policy\..+"
    r"|smime\.(require_chain|trust_anchors)"
    r"|smime\.crl\[.+\]\.stale"
    r"|mailflow\.(hold_changed|require_authenticated_sender)"
    r"|upstream\[.+\]\.(url|priority|domains|ttl|on_change)"
    r"|view\[.+\]\.(answer_mailflow|domain_certificates|on_change)"
    r"|domain_certificate\[.+\]\..+"
    r"|domain\[.+\]\..+"
    r"|history\..+"
    r"|verdict\.policy\[.+\]\..+"
)
"""How an upstream is reached from where a node stands (proxy, files, time-outs) is that node's own."""

_OPTIONAL = ("view[", "verdict.policy[")
"""What a node may do without: it opens other listeners."""

NONE = ""
"""The value of a setting that a node does not have."""


def agreeing(config: Config) -> Mapping[str, str]:
    """Their keys with their values, as one would write them in the file; no secret is among them."""
    return {setting.key: _text(setting.value) for setting in settings_of(config) if _MUST.fullmatch(setting.key)}


def differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """(key, my value, their value) of what differs, by key."""
    return tuple(
        (key, mine.get(key, NONE), theirs.get(key, NONE))
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
        and not (key.startswith(_OPTIONAL) and (key not in mine or key not in theirs))
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
