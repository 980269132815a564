"""`keyserver harvest`: mail files through the harvest: single mails, mailbox files of any size, Maildirs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from keyserver.cli.options import DONE, NOT_FOUND, CommandError, ConfigOption, SetOption, load_config
from keyserver.wire.mbox import MAX_MAIL, Letter, Splitter, is_mbox

_CHUNK = 1 << 18


def harvest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Single mails, mailbox files, Maildirs; - for stdin.")
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Only say what would happen to each mail, and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each mail; stable.")] = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Take certificates from mail files as if the mail came in now."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach
    from keyserver.cli.progress import bar

    counts: Counter[str] = Counter()
    missing = False
    path = f"/api/v1/harvest{'?explain=1' if explain else ''}"
    with reach(configuration) as client, bar() as progress:
        for file in files:
            try:
                places = list(_places(file))
            except OSError as error:
                print(f"{show.safe(file)}: {error.strerror}", file=sys.stderr)
                missing = True
                continue
            task = progress.add_task(show.safe(file), total=_size(places))
            for where, letter in _letters(places, partial(progress.advance, task)):
                octets = b"x" * (MAX_MAIL + 1) if letter.cut else letter.octets
                report = client.upload(path, _pieces(octets), len(octets), "message/rfc822")
                counts[report["verdict"]] += 1
                if as_json:
                    print(json.dumps({"mail": where, **report}))
                elif explain or report["certificates"]:
                    _print(where, report)
    if not as_json:
        _print_counts(counts)
    return NOT_FOUND if missing else DONE


def _print(where: str, report: dict[str, Any]) -> None:
    """The report on one mail: the verdict, then each certificate and each remark."""
    from rich.text import Text

    from keyserver.cli import show

    console = show.console()
    sender = f"  from {report['sender']}" if report["sender"] else ""
    message_id = f"  {report['message_id']}" if report["message_id"] else ""
    console.print(
        Text.assemble(
            (show.safe(where), "bold"), show.safe(f"{sender}{message_id}  "), show.word(report["verdict"]),
            show.safe(f": {report['text']}"),
        ),
        soft_wrap=True,
    )  # fmt: skip
    for row in report["certificates"]:
        what = f"  {row['fingerprint']}  {row['kind']}, {row['how']}: {row['result']}"
        console.print(
            Text(show.safe(what + (f" ({'; '.join(row['reasons'])})" if row["reasons"] else ""))), soft_wrap=True
        )
        if row["changed"]:
            console.print(
                Text(show.safe(f"    this address showed before: {', '.join(row['changed'])}")), soft_wrap=True
            )
    for row in report["remarks"]:
        detail = f" ({row['detail']})" if row["detail"] else ""
        if row["text"] != report["text"] or detail:
            console.print(Text(show.safe(f"  {row['why']}: {row['text']}{detail}"), style="dim"), soft_wrap=True)


def _print_counts(counts: Counter[str]) -> None:
    total = sum(counts.values())
    each = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    print(f"{total} mail{'' if total == 1 else 's'}: {each or 'none'}")


def _places(file: str) -> Iterator[Path | None]:
    """The files that are meant: itself, those of a Maildir with its folders, or the .eml files of a directory.

    None is stdin."""
    if file == "-":
        yield None
        return
    path = Path(file)
    if not path.is_dir():
        path.stat()
        yield path
        return
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir() and p.name.startswith("."))]
    maildirs = [folder for folder in folders if (folder / "cur").is_dir() or (folder / "new").is_dir()]
    for maildir in maildirs:
        for part in ("new", "cur"):
            if (maildir / part).is_dir():
                yield from sorted(p for p in (maildir / part).iterdir() if p.is_file())
    if not maildirs:
        yield from sorted(path.glob("*.eml"))


def _size(places: list[Path | None]) -> int | None:
    """Octets of all files together; None where stdin is among them."""
    return None if None in places else sum(p.stat().st_size for p in places if p is not None)


def _letters(places: list[Path | None], advance: Callable[[int], None]) -> Iterator[tuple[str, Letter]]:
    """Every mail, with the words for where it stands."""
    for place in places:
        name = "-" if place is None else str(place)
        try:
            with sys.stdin.buffer if place is None else place.open("rb") as stream:
                yield from _of(stream, name, advance)
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}", code=NOT_FOUND) from None


def _of(stream: IO[bytes], name: str, advance: Callable[[int], None]) -> Iterator[tuple[str, Letter]]:
    start = stream.read(_CHUNK)
    if is_mbox(start):
        splitter = Splitter()
        number = 0
        chunk = start
        while chunk:
            for number, letter in enumerate(splitter.feed(chunk), number + 1):  # noqa: B020  goes on counting
                yield f"{name} #{number}", letter
            advance(len(chunk))
            chunk = stream.read(_CHUNK)
        for letter in splitter.end():
            yield f"{name} #{number + 1}", letter
        return
    octets = start + stream.read(MAX_MAIL + 1 - len(start))
    yield name, Letter(b"", cut=True) if len(octets) > MAX_MAIL else Letter(octets)
    advance(len(octets))


def _pieces(octets: bytes) -> Iterator[bytes]:
    for at in range(0, len(octets), _CHUNK):
        yield octets[at : at + _CHUNK]
