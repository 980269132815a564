"""Writes docs/configuration.md from the declaration: `python -m keyserver.config.document > docs/configuration.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from keyserver.config.loading import TABLES, models, reader_of
from keyserver.config.section import Restart, Section, restart_of

_HEAD = """\
# Configuration

<!-- Written by `python -m keyserver.config.document`; edit keyserver/config/sections instead. -->

The service reads one TOML file: the one that `--config` names, else `conf/keyserver.toml`, else
`/etc/keyserver/keyserver.toml`; where none of them is there it says so and goes by the defaults. Every key has one, so
an empty file is a working one (without upstreams).
`keyserver check` names every mistake at once, with the key, its value and what is accepted; a configuration with a
mistake starts nothing.

- **Durations** are `"90s"`, `"15m"`, `"1h"`, `"1d"`, or in words: `"15 minutes"`, `"1 day"`. `"0"` works where the
  bounds allow it. **Sizes** are `"512 KiB"`, `"1 MiB"`, `"10 GiB"`.
- **Listeners** are `"127.0.0.1:11371"`, `"[::1]:11371"`, `"tls:0.0.0.0:443"` or `"unix:/run/keyserver/hkp.sock"`, with
  `proxy:` before it where a proxy speaks the PROXY protocol to us; port 0 lets the system choose one. An empty list or
  string opens none.
- **Secrets** never stand in the file: a key that ends in `_file` names the file that holds one.
- **Environment and command line** override the file: `KEYSERVER_CACHE__TTL="12h"`, then `--set cache.ttl=12h`. Values
  are TOML, bare words allowed. Tables with two brackets, such as `[[upstream]]`, come from the file only;
  `--upstream URL` (repeatable) replaces all upstreams.
- SIGHUP, `keyserver reload` and `POST /api/v1/reload` read the file again while the service runs: all of it, or nothing
  where it has a mistake. Keys that say `restart` keep their values until there is one.
- Files are named relative to the working directory, which `scripts/serve` sets to the repository.

```toml
[cache]
ttl = "12 hours"

[policy]
internal_domains = ["example.com"]

[[upstream]]
name = "ubuntu"
url = "hkps://keyserver.ubuntu.com"

[[upstream]]
name = "keys.<domain>"
url = "ldap://keys.{domain}"
priority = 5
```
"""

_RESTART = {Restart.NEVER: "", Restart.ALWAYS: "; restart", Restart.SWITCHED: "; restart where it is set or taken away"}


def render() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *(_section(name, model) for name, model in models().items())])


def heading(name: str) -> str:
    """A section's name as it stands in the file."""
    return f"[[{name}]]" if name in TABLES else f"[{name}]"


@dataclass(frozen=True, slots=True)
class Row:
    """One key in words. default: as Markdown, "required" where there is none."""

    key: str
    default: str
    meaning: str
    accepted: str


def rows(model: type[Section]) -> Iterator[Row]:
    """The keys of one section."""
    for name, field in model.model_fields.items():
        reader = reader_of(model, name)
        yield Row(name, _default(field.default), _meaning(field), reader.brief if reader else "")


def _section(name: str, model: type[Section]) -> str:
    """One table of the file as a heading, a sentence and a table of keys."""
    lines = [f"| `{row.key}` | {row.default} | {row.meaning} | {_cell(row.accepted)} |" for row in rows(model)]
    table = ["| key | default | meaning | accepted |", "| --- | --- | --- | --- |", *lines]
    return "\n".join([f"## `{heading(name)}`", "", str(model.__doc__), "", *table, ""])


def _meaning(field: FieldInfo) -> str:
    return f"{field.description}{_RESTART[restart_of(field)]}"


def _default(value: Any) -> str:
    """A default as one would write it in the file."""
    return "required" if value is PydanticUndefined else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    sys.stdout.write(render())
