"""The state directory: one service or several commands at a time, and a socket that only its owner's service has."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from keyserver.state import LOCK, SOCKET, Held, State, StateError, peer_of


def test_a_service_has_it_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "state", tmp_path / "cache" / "keyserver.db")
    with state.owned():
        assert (state.directory / LOCK).read_text() == f"{os.getpid()}\n"
        with pytest.raises(Held, match=f"a service runs already, as process {os.getpid()}"), state.shared():
            pass
        with pytest.raises(Held, match="a service runs already"), state.owned(wait=0.1):
            pass
    with state.owned():
        pass


def test_two_state_directories_share_no_database(tmp_path: Path) -> None:
    database = tmp_path / "keyserver.db"
    other = tmp_path / "other.db"
    other.symlink_to(database)
    with State(tmp_path / "a", database).owned():
        with pytest.raises(Held, match=r"keyserver\.db-lock"), State(tmp_path / "b", other).owned():
            pass
        with State(tmp_path / "b").owned():
            pass


def test_commands_share_it_and_no_service_starts_meanwhile(tmp_path: Path) -> None:
    state = State(tmp_path)
    tmp_path.chmod(0o700)
    alone = pytest.raises(Held, match="a command is working on the store without a service")
    with state.shared(), state.shared(), alone, state.owned():
        pass


def test_commands_reach_the_service_by_its_socket(tmp_path: Path) -> None:
    state = State(tmp_path / ("long" * 40))
    with state.owned(), state.listen() as listening:
        assert (state.directory / SOCKET).stat().st_mode & 0o777 == 0o600
        with state.connect(1.0) as connection:
            assert peer_of(connection) == os.geteuid()
        state.forget()
        state.forget()
        with pytest.raises(FileNotFoundError):
            state.connect(1.0)
    assert listening.fileno() == -1


def test_the_socket_of_a_killed_service_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    with state.owned():
        state.listen().close()
        with state.listen(), state.connect(1.0):
            pass
        state.forget()
        (state.directory / SOCKET).write_text("a file")
        with pytest.raises(StateError, match="is no socket; it was left as it is"):
            state.listen()
    assert (state.directory / SOCKET).read_text() == "a file"


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"can be written by others: chmod go-w"), State(open_to_all).owned():
        pass
    with pytest.raises(StateError, match="can be written by others"):
        State(open_to_all).connect(1.0)
    with pytest.raises(StateError), State(tmp_path / "file").owned():
        pass
    with pytest.raises(StateError), State(tmp_path / "file" / "below").shared():
        pass


def test_a_pair_of_sockets_has_our_own_user_at_both_ends() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == peer_of(other) == os.geteuid()
