"""`keyserver cache import` and `export`: keyrings of any size, in bounded memory, with a progress bar."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from keyserver.cli.options import DONE, NOT_FOUND, CommandError, ConfigOption, JsonOption, SetOption, load_config
from keyserver.cli.progress import bar

_CHUNK = 1 << 16


def import_keyrings(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Keyrings, or X.509 as PEM or DER; - for stdin.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Import keyrings of any size as local entries, which never expire."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    reports: list[dict[str, Any]] = []
    with reach(configuration) as client, bar() as progress:
        for file in files:
            stream, size = _opened(file)
            with stream:
                task = progress.add_task(show.safe(file), total=size)
                chunks = _watched(stream, lambda count, task=task: progress.advance(task, count))
                reports.append({"file": file, **client.upload("/api/v1/cache/import", chunks, size)})
    if as_json:
        show.print_json({"imports": reports})
    else:
        _print_reports(reports)
    return DONE if any(row["new"] + row["changed"] + row["same"] for row in reports) else NOT_FOUND


def _print_reports(reports: list[dict[str, Any]]) -> None:
    from keyserver.cli import show

    for row in reports:
        counts = ", ".join(f"{row[n]} {n}" for n in ("new", "changed", "same", "blocked", "refused") if row[n])
        print(
            f"{show.safe(row['file'])}: {row['read']} certificate{'' if row['read'] == 1 else 's'}: {counts or 'none'}"
        )
        for problem in row["problems"]:
            print(f"  {show.safe(problem)}", file=sys.stderr)


def export_keyring(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - for stdout.")],
    source: Annotated[str, typer.Option("--source", metavar="S", help="keyserver, mailflow or local.")] = "",
    upstream: Annotated[str, typer.Option("--upstream", metavar="U", help="What this upstream answered.")] = "",
    domain: Annotated[str, typer.Option("--domain", metavar="D", help="Certificates with an address there.")] = "",
    x509: Annotated[bool, typer.Option("--x509", help="The X.509 certificates instead, as PEM.")] = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Export the OpenPGP certificates of the cache, armored, or the X.509 ones."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client, bar() as progress:
        task = progress.add_task("exporting", total=None)
        blocks = 0
        kind, mark = ("x509", b"-----BEGIN CERT") if x509 else ("openpgp", b"-----BEGIN PGP")
        chosen = {"source": source, "upstream": upstream, "domain": domain, "kind": kind}
        chunks = client.download("/api/v1/cache/export", **chosen)
        with _written(file) as stream:
            tail = b""
            for chunk in chunks:
                stream.write(chunk)
                seen = tail + chunk
                blocks += seen.count(mark)
                tail = seen[1 - len(mark) :]  # one octet short of what is counted: a mark across two chunks counts once
                progress.update(task, advance=len(chunk), description=f"exporting {blocks}")
    print(f"exported {blocks} certificate{'' if blocks == 1 else 's'}", file=sys.stderr)
    return DONE


def _opened(file: str) -> tuple[IO[bytes], int | None]:
    """A file to read and its size; None where that is not known before the end."""
    if file == "-":
        return sys.stdin.buffer, None
    try:
        stream = Path(file).open("rb")  # noqa: SIM115  the caller closes it
        return stream, os.fstat(stream.fileno()).st_size if Path(file).is_file() else None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", code=NOT_FOUND) from None


def _watched(stream: IO[bytes], advance: Any) -> Iterator[bytes]:
    """What a file holds, piece by piece, telling how far it is."""
    while chunk := stream.read(_CHUNK):
        yield chunk
        advance(len(chunk))


class _written:
    """A file that appears under its name only when it is complete; `-` is stdout."""

    def __init__(self, file: str) -> None:
        self._path = None if file == "-" else Path(file)
        self._draft = Path(f"{file}.{secrets.token_hex(4)}.part")

    def __enter__(self) -> IO[bytes]:
        if self._path is None:
            self._stream: IO[bytes] = sys.stdout.buffer
            return self._stream
        try:
            self._stream = self._draft.open("xb")
        except OSError as error:
            raise CommandError(f"{self._path}: {error.strerror}", code=NOT_FOUND) from None
        return self._stream

    def __exit__(self, kind: object, *_rest: object) -> None:
        self._stream.flush()
        if self._path is None:
            return
        self._stream.close()
        if kind is None:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)
