"""All targets by name."""

from __future__ import annotations

from collections.abc import Mapping

from fuzz import administration, connections, directory, door, mail, openpgp, others, outgoing, smime, web
from fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    **openpgp.TARGETS,
    **smime.TARGETS,
    **directory.TARGETS,
    **connections.TARGETS,
    **door.TARGETS,
    **web.TARGETS,
    **mail.TARGETS,
    **others.TARGETS,
    **outgoing.TARGETS,
    **administration.TARGETS,
}
