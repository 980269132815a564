"""The state directory: whose it is, the locks that say that a service runs, and the socket that proves which one.

Nobody but its owner may write into the directory. So whoever answers on its socket is the service whose cache and
token lie there: a command shows the token to nobody else. A lock is `flock`: it ends with the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LOCK = "keyserver.lock"  # in the state directory
DATABASE_LOCK = "-lock"  # behind the database's name: it may lie elsewhere
SOCKET = "admin.sock"

_LOOK_AGAIN = 0.05  # seconds
_UNLOCKABLE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class StateError(Exception):
    """The state directory cannot be used; one clear line."""


class Denied(StateError):
    """It belongs to another user, who alone gets in."""


class Held(StateError):
    """Somebody else holds a lock: a service, or commands that work on the store."""


class ReadOnly(StateError):
    """Nothing can be made in it: on a read-only file system a service answers, and commands cannot reach it."""


@dataclass(frozen=True, slots=True)
class State:
    """One state directory, and the file of the cache that it belongs to (None: a server has that, for several)."""

    directory: Path
    database: Path | None = None

    @contextlib.contextmanager
    def owned(self, *, wait: float = 0.0) -> Iterator[None]:
        """While a service runs: nobody else has the directory or the database. Raises Held, StateError."""
        with self._locked(fcntl.LOCK_EX, wait):
            yield

    @contextlib.contextmanager
    def shared(self, *, wait: float = 0.0) -> Iterator[None]:
        """While a command works on the store: other commands may, no service starts. Raises Held, StateError."""
        with self._locked(fcntl.LOCK_SH, wait):
            yield

    @contextlib.contextmanager
    def _locked(self, how: int, wait: float) -> Iterator[None]:
        waits = iter(range(round(wait / _LOOK_AGAIN)))  # of all locks together
        _make(self.directory)
        _ours(self.directory)
        with contextlib.ExitStack() as stack:
            for path in self._locks():
                descriptor = _opened(path)
                if descriptor is None:
                    continue
                stack.callback(os.close, descriptor)
                _lock(descriptor, how, path, waits)
                if how == fcntl.LOCK_EX and path.name == LOCK:  # the database's directory may be anybody's
                    with contextlib.suppress(OSError):  # read-only: it says nothing then
                        os.truncate(descriptor, 0)
                        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield

    def _locks(self) -> Sequence[Path]:
        found = [self.directory / LOCK]
        if self.database is not None:
            database = self.database.resolve()  # two names of one file are one cache
            _make(database.parent)
            found.append(database.with_name(database.name + DATABASE_LOCK))
        return found

    def listen(self) -> socket.socket:
        """The socket on which commands reach this service, made anew under its locks. Raises StateError."""
        listening = socket.socket(socket.AF_UNIX)
        try:
            with _entered(self.directory) as (place, _owner):
                with contextlib.suppress(FileNotFoundError):
                    if not stat.S_ISSOCK((place / SOCKET).lstat().st_mode):
                        raise StateError(f"{self.directory / SOCKET} is no socket; it was left as it is")
                    (place / SOCKET).unlink()  # of a service that was killed
                os.fchmod(listening.fileno(), 0o600)  # before it has a name
                listening.bind(str(place / SOCKET))
                (place / SOCKET).chmod(0o600)  # where the line above does not count
            listening.listen()
            listening.setblocking(False)
        except OSError as problem:
            listening.close()
            kind = ReadOnly if problem.errno == errno.EROFS else StateError
            raise kind(f"{self.directory / SOCKET}: {problem.strerror or problem}") from None
        except BaseException:
            listening.close()
            raise
        return listening

    def forget(self) -> None:
        """Take the socket's name away; only for who holds the locks."""
        with contextlib.suppress(OSError):
            (self.directory / SOCKET).unlink()

    def connect(self, seconds: float) -> socket.socket:
        """A connection to the service whose state this is. Raises StateError, and OSError where none listens."""
        with _entered(self.directory) as (place, owner):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(seconds)
            try:
                connection.connect(str(place / SOCKET))
                peer = peer_of(connection)
                if peer is not None and peer not in (owner, 0, os.geteuid()):
                    raise StateError(f"{self.directory / SOCKET}: user {peer} listens there, not the directory's owner")
            except BaseException:
                connection.close()
                raise
            return connection


def peer_of(connection: socket.socket) -> int | None:
    """The user at the other end of a Unix socket; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES) or not directory.is_dir():
            raise StateError(f"{directory}: {problem.strerror or problem}") from None


@contextlib.contextmanager
def _entered(directory: Path) -> Iterator[tuple[Path, int]]:
    """A name by which the directory's files are reached whatever its length (a socket's has 107 octets), and its owner.

    What is checked is what is used: nobody can put another directory in its place in between."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as problem:
        raise Denied(f"{directory}: {problem.strerror}") from None
    try:
        owner = _ours(directory, descriptor)
        short = Path(f"/proc/self/fd/{descriptor}")
        yield short if short.exists() else directory, owner
    finally:
        os.close(descriptor)


def _ours(directory: Path, descriptor: int | None = None) -> int:
    """The owner of a directory that only we, root or (where we are root) its owner may write into, or StateError."""
    try:
        found = directory.stat() if descriptor is None else os.fstat(descriptor)
    except OSError as problem:
        raise StateError(f"{directory}: {problem.strerror or problem}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{directory} is no directory")
    mend = "name another directory in server.state_dir"
    if found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        raise Denied(f"{directory} belongs to user {found.st_uid}, not to us: {mend}")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise StateError(f"{directory} (mode {mode:o}) can be written by others: chmod go-w {directory}, or {mend}")
    return found.st_uid


def _opened(path: Path) -> int | None:
    """A lock's file, made if it is not there; None where we may make none, and so may not write a database either."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES):
            raise StateError(f"{path}: {problem.strerror or problem}") from None
        try:
            return os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return None
        except OSError as again:
            raise Denied(f"{path}: {again.strerror}") from None
    if os.geteuid() == 0:  # root's command must not lock the service's user out
        with contextlib.suppress(OSError):
            os.fchown(descriptor, path.parent.stat().st_uid, -1)
    return descriptor


def _lock(descriptor: int, how: int, path: Path, waits: Iterator[int]) -> None:
    """Take a lock, or look again after each of `waits`. Raises Held, StateError."""
    while True:
        try:
            return fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if next(waits, None) is None:
                raise Held(_holder(descriptor, path, how)) from None
            time.sleep(_LOOK_AGAIN)
        except OSError as problem:
            if problem.errno in _UNLOCKABLE:
                hint = "this file system does not lock files; name a directory on a local one"
                raise StateError(f"{path}: {hint} (server.state_dir, cache.database)") from None
            raise StateError(f"{path}: {problem.strerror or problem}") from None


def _holder(descriptor: int, path: Path, how: int) -> str:
    """Who is in the way. A service has written its number; commands, which share the lock, do not."""
    if how == fcntl.LOCK_EX:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pass
        else:
            return f"{path} is in use: a command is working on the store without a service; start when it has ended"
    with contextlib.suppress(OSError):
        number = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        if number.isdigit():  # the database's lock holds none
            return f"{path} is in use: a service runs already, as process {number}"
    return f"{path} is in use: a service runs already"
