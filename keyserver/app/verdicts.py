"""Whether mail to an address can be encrypted: what decides it, and the policies by which it is asked."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.app.context import Context
from keyserver.app.resolver import Lookups
from keyserver.faces.context import FaceRules
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Policy


def make_verdicts(context: Context, lookups: Lookups) -> Verdicts:
    """The one that everybody asks."""
    return Verdicts(lookups.resolver, lookups.rules, context.clocks.now, context.clocks.monotonic)


def policies(faces: FaceRules) -> Mapping[str, Policy]:
    """Those that these rules name."""
    return {name: named.policy for name, named in faces.policies.items()}
