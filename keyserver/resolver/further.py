"""What further questions behind a finished absence have in common. Pure."""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import Answer, How, State


def is_finished_absence(answer: Answer) -> bool:
    """Does nobody have anything? What failed is unknown, and what was found but may not be answered is there."""
    return answer.state is State.ABSENT and answer.final and not answer.in_vain


def together(first: Answer, second: Answer, which: str) -> Answer:
    """The answer to a question by that to a further one (`which`): it depends on both, and holds no longer than
    either."""
    found = second.state is State.FOUND
    return replace(
        second,
        how=max(first.how, second.how, key=(How.HIT, How.MISS, How.STALE).index),
        reason=f"{first.reason}; {which}: {second.reason}",
        names=first.names | second.names,
        since=second.since if found else min(first.since, second.since),
        until=min(first.until, second.until),
        keep=first.keep and second.keep,
        steps=first.steps + second.steps,
        query=first.query,
        missing=tuple(dict.fromkeys(first.missing + second.missing)),
    )
