"""What all processes go by: whole or not at all, also for processes that are started later."""

from __future__ import annotations

import os

import pytest

from keyserver.processes.agreed import ROOM, Agreed


def test_the_latest_is_read_here_and_in_a_process_that_was_forked() -> None:
    agreed = Agreed()
    assert agreed.read() == (0, b"")
    for number, octets in enumerate((b"one", b"another, longer one", b"", b"x" * ROOM), 1):
        agreed.write(octets)
        assert agreed.read() == (number, octets)
    with pytest.raises(ValueError, match="octets"):
        agreed.write(b"x" * (ROOM + 1))
    assert agreed.number == 4, "what is too large changes nothing"
    agreed.write(b"for the child")
    child = os.fork()
    if not child:
        os._exit(0 if agreed.read() == (5, b"for the child") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_reads_while_it_is_written_twice_reads_again() -> None:
    class Interrupted(Agreed):
        """After a reader's first look at the number others write twice, into both rooms."""

        others: tuple[bytes, ...] = ()

        @property
        def number(self) -> int:
            number = super().number
            others, self.others = self.others, ()
            for octets in others:
                self.write(octets)
            return number

    agreed = Interrupted()
    agreed.write(b"first")
    agreed.others = (b"second", b"third")
    assert agreed.read() == (3, b"third")
