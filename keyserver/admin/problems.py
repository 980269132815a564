"""Why an operation cannot be done; every text is for the administrator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keyserver.admin.approving import EntryChoice


class Problem(Exception):
    """An operation that cannot be done; the text is for the administrator."""


class Unusable(Problem):
    """The request itself is wrong: what, and what is accepted."""


class NotKnown(Problem):
    """Nothing of that name is there."""


class Refusal(Problem):
    """Understood, but the state of things forbids it."""


class Busy(Problem):
    """Too much of this is under way; the same may be done a little later."""


class Ambiguous(Refusal):
    """An address or key ID that fits several certificates; one of them must be named."""

    def __init__(self, term: str, candidates: Sequence[Candidate]) -> None:
        super().__init__(f"{term} fits {len(candidates)} certificates: name one by its fingerprint")
        self.candidates = tuple(candidates)


class Undecided(Refusal):
    """An approval that fits several entries or addresses; one of them must be named."""

    def __init__(self, fit: Sequence[EntryChoice]) -> None:
        super().__init__(
            f"an approval of {fit[0].fingerprint} fits {len(fit)} entries or addresses:"
            " name one by its address, source and upstream"
        )
        self.choices = tuple(fit)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One certificate that an ambiguous term may mean."""

    fingerprint: str
    identities: tuple[str, ...]
