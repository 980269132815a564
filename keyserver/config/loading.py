"""Reads the file, the environment and the command line into one Config, or says every mistake at once.

Later ones win: built-in defaults, the TOML file, `KEYSERVER_SECTION__KEY` in the environment, `--set SECTION.KEY=VALUE`
and `--upstream URL`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from keyserver.config.checks import cross_checks
from keyserver.config.kinds import Listeners, Many, Rows, Value
from keyserver.config.models import Config
from keyserver.config.problem import ConfigError, Problem, show
from keyserver.config.section import Section
from keyserver.config.sections.caching import CrlSection
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.config.sources import Origin, Sources, Where, no_mistakes

MOST = 1 << 20
"""Octets that a configuration file may have."""

TABLES = ("upstream", "view", "domain", "domain_certificate", "verdict.policy", "smime.crl")
"""[[upstream]] and the like: any number, by file only."""

_NAMED_BY = {"smime.crl": "url"}
"""The key that tells a row from others, where that is not `name`."""

Location: TypeAlias = tuple[str | int, ...]
Tree: TypeAlias = dict[str, Any]


def load(
    file: Path | None,
    settings: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    upstreams: Sequence[str] = (),
    mistakes: Callable[[UpstreamSection | CrlSection], Iterable[Problem]] = no_mistakes,
) -> Config:
    """The configuration of a file (None: defaults only) with what overrides it.

    settings: `SECTION.KEY=VALUE`, values in TOML, bare strings allowed. environ: of which `KEYSERVER_SECTION__KEY` is
    read. upstreams: URLs that replace the configured upstreams. mistakes: those in one upstream or revocation list,
    whose protocols are known elsewhere (`upstreams.checks`). Raises ConfigError with every mistake.
    """
    problems: list[Problem] = []
    tree = _read(file, problems) if file is not None else {}
    origins: dict[Location, str] = {}
    for name, value in sorted((environ or {}).items()):
        if name.startswith("KEYSERVER_") and "__" in name:
            path = name.removeprefix("KEYSERVER_").lower()
            _override(tree, origins, path.split("__"), value, f"environment {name}", problems)
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            problems.append(Problem("--set", show("", setting), "accepted is SECTION.KEY=VALUE, such as cache.ttl=12h"))
        else:
            _override(tree, origins, path.strip().split("."), value, f"--set {path.strip()}", problems)
    if upstreams:
        tree["upstream"] = _from_urls(upstreams)
    label = str(file) if file is not None else ""
    config = _validate(tree, origins, label, problems)
    known = {problem.key for problem in problems}
    asked: list[UpstreamSection | CrlSection] = [*config.upstream, *config.smime.crl]
    found = (*cross_checks(config), *(problem for one in asked for problem in mistakes(one)))
    problems += [problem for problem in found if problem.key not in known]
    if problems:
        raise ConfigError(problems, config)
    kept = {name: value for name, value in (environ or {}).items() if name.startswith("KEYSERVER_")}
    where = dict(_where(tree, config, origins, label, bool(upstreams)))
    return config.with_sources(Sources(file, tuple(settings), kept, tuple(upstreams), mistakes, where))


def load_again(config: Config) -> Config:
    """The same file, as it is now, under the same environment and command line. Raises ConfigError."""
    sources = config.sources or Sources()
    return load(sources.file, sources.settings, sources.environ, sources.upstreams, sources.mistakes)


def _where(
    tree: Tree, config: Config, overridden: Mapping[Location, str], label: str, from_urls: bool
) -> Iterator[tuple[str, Where]]:
    """Each key that is said somewhere, and where. `config`: all of the tree, which has no mistake."""
    in_file, option = Where(Origin.FILE, label), Where(Origin.COMMAND_LINE, "--upstream")
    for section, value in tree.items():
        if section in TABLES:
            said = option if from_urls and section == "upstream" else in_file
            both = zip(value, rows_of(config, section), strict=True)
            yield from ((f"{section}[{read.name}].{name}", said) for row, read in both for name in row)
            continue
        for name in value:
            if f"{section}.{name}" in TABLES:
                table = f"{section}.{name}"
                by = _NAMED_BY.get(table, "name")
                named = ((f"{table}[{row[by]}]", row) for row in value[name] if by in row)
                yield from ((f"{row}.{inner}", in_file) for row, keys in named for inner in keys)
                continue
            kind, _, by = overridden.get((section, name), "").partition(" ")
            origin = {"environment": Origin.ENVIRONMENT, "--set": Origin.COMMAND_LINE}.get(kind)
            yield f"{section}.{name}", in_file if origin is None else Where(origin, by if kind != "--set" else kind)


def _read(file: Path, problems: list[Problem]) -> Tree:
    """The file as TOML; one that cannot be read is one problem, and the rest is still checked."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST + 1)
        if len(content) > MOST:
            raise ValueError(f"larger than {MOST >> 20} MiB")
        return tomllib.loads(content.decode())
    except OSError as error:
        problems.append(Problem(str(file), "", f"cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError:
        problems.append(Problem(str(file), "", "accepted is TOML in UTF-8"))
    except (ValueError, RecursionError) as error:
        problems.append(Problem(str(file), "", f"this is not TOML: {error}"))
    return {}


def _override(
    tree: Tree, origins: dict[Location, str], path: list[str], text: str, where: str, problems: list[Problem]
) -> None:
    """Put one setting over what the file says."""
    if len(path) != 2 or not all(path):
        problems.append(Problem(where, "", "accepted is one section and one key"))
        return
    section, name = path
    model = models().get(section)
    if section in TABLES or (model and isinstance(reader_of(model, name), Rows)):
        table = section if section in TABLES else f"{section}.{name}"
        problems.append(Problem(where, "", f"[[{table}]] is set in the file only; --upstream URL replaces upstreams"))
        return
    value = _bare(text)
    if value == text and _is_list(section, name):
        value = [text] if text else []
    if section not in tree:
        origins[(section,)] = where
    table = tree.setdefault(section, {})
    if isinstance(table, dict):
        table[name] = value
        origins[(section, name)] = where


def _bare(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _is_list(section: str, name: str) -> bool:
    """Does this key hold a list? Then one bare word on the command line is a list of one."""
    model = models().get(section)
    field = model.model_fields.get(name) if model else None
    return field is not None and any(isinstance(item, Listeners | Many) for item in field.metadata)


def _from_urls(urls: Sequence[str]) -> list[Tree]:
    """One upstream of each URL, named after its host."""
    found: list[Tree] = []
    taken: set[str] = set()
    for url in urls:
        try:
            base = urlsplit(url).netloc.rpartition("@")[2][:48] or "upstream"
        except ValueError:
            base = "upstream"
        name, number = base, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        found.append({"name": name, "url": url})
    return found


def models() -> dict[str, type[Section]]:
    """Each section's name and model, in the order of the declaration; what stands below a section behind it."""
    found: dict[str, type[Section]] = {}
    for name, field in Config.model_fields.items():
        model = found[name] = _model(field)
        found |= {
            f"{name}.{key}": _model(inner) for key, inner in model.model_fields.items() if f"{name}.{key}" in TABLES
        }
    return found


def _model(field: FieldInfo) -> type[Section]:
    inner = (field.annotation, *get_args(field.annotation))
    return next(t for t in inner if isinstance(t, type) and issubclass(t, BaseModel) and issubclass(t, Section))


def rows_of(config: Config, section: str) -> tuple[Any, ...]:
    """The tables of this name; one that is no table of many is one."""
    value: Any = config
    for name in section.split("."):
        value = getattr(value, name)
    return value if isinstance(value, tuple) else (value,)


def _validate(tree: Tree, origins: Mapping[Location, str], label: str, problems: list[Problem]) -> Config:
    """The model of everything that is right; what is wrong becomes problems and is left out.

    What is left out may leave something missing, hence the rounds; each takes at least one value away."""
    while True:
        try:
            return Config.model_validate(tree)
        except ValidationError as error:
            for location, kind, message, value in _errors(error):
                where = origins.get(location, label)
                if problem := _problem(tree, location, kind, message, value, where):
                    problems.append(problem)
            _leave_out(tree, [location for location, *_ in _errors(error)])


def _errors(error: ValidationError) -> Iterator[tuple[Location, str, str, Any]]:
    """(where, type, message, value) of each mistake; the message without pydantic's prefix."""
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        yield item["loc"], item["type"], str(cause or ""), item["input"]


def _leave_out(tree: Tree, locations: Iterable[Location]) -> None:
    """Take wrong values out of the tree; a table whose required key is wrong or missing goes as a whole."""
    rows: set[tuple[str, int]] = set()
    for location in locations:
        *way, last = location
        table, rest = _table(location)
        if table in TABLES and rest and (len(rest) == 1 or _is_required(table, str(last))):
            rows.add((table, int(rest[0])))
            continue
        _node(tree, way).pop(last, None)
    for table, number in sorted(rows, reverse=True):
        del _node(tree, table.split("."))[number]


def _is_required(table: str, name: str) -> bool:
    field = models()[table].model_fields.get(name)
    return field is not None and field.is_required()


def _table(location: Location) -> tuple[str, Location]:
    """Which section a place is in, and the place there: a key, or a row's number and a key of it."""
    below = ".".join(map(str, location[:2]))
    return (below, location[2:]) if below in TABLES else (str(location[0]), location[1:])


def _node(tree: Tree, way: Iterable[str | int]) -> Any:
    node: Any = tree
    for step in way:
        node = node[step]
    return node


def _problem(tree: Tree, location: Location, kind: str, message: str, value: Any, where: str) -> Problem | None:
    """What to say about one of pydantic's errors."""
    section, place = _table(location)
    if not place:
        return _section_problem(section, kind, value, where)
    model = models()[section]
    name = str(place[-1])
    spelled = f"{_spell(tree, section, place[:-1])}.{name}"
    if section in TABLES and len(place) == 1:
        return Problem(f"[[{section}]]", show("", value), "accepted is a table of keys and values", where)
    if kind == "missing":
        return Problem(spelled, "", f"is missing: {model.model_fields[name].description}", where)
    if kind == "extra_forbidden":
        return _unknown(spelled, name, section, model, value, where)
    reader = reader_of(model, name)
    accepted = f"accepted is {reader.accepts}" if reader else message
    shown = show("", value)
    return Problem(spelled, shown, f"{message}; {accepted}" if message and reader else accepted, where)


def _section_problem(section: str, kind: str, value: Any, where: str) -> Problem:
    """A whole section is unknown, or not of the right shape."""
    if kind == "extra_forbidden":
        known = list(models())
        return Problem(
            section, show(section, value) if not isinstance(value, dict) else "", _near(section, known), where
        )
    shape = f"[[{section}]] tables" if section in TABLES else f"a table [{section}]"
    return Problem(section, show(section, value), f"accepted is {shape}", where)


def _unknown(spelled: str, name: str, section: str, model: type[Section], value: Any, where: str) -> Problem:
    """An unknown key: a secret that should be in a file of its own, or a slip of the pen."""
    keys = list(model.model_fields)
    near = difflib.get_close_matches(f"{name}_file", [k for k in keys if k.endswith("_file")], n=1, cutoff=0.85)
    if near and name not in keys:
        prefix = "" if section in TABLES else f"{section}."
        hint = f"secrets never stand here; put it into a file and name that file with {prefix}{near[0]}"
        return Problem(spelled, "(not shown)", hint, where)
    return Problem(spelled, show(name, value), _near(name, keys), where)


def _near(name: str, known: Iterable[str]) -> str:
    """`unknown; did you mean …?`, else everything there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"unknown; did you mean {near[0]}?" if near else f"unknown; known here: {', '.join(known)}"


def _spell(tree: Tree, table: str, place: Location) -> str:
    """`cache`, or `upstream[ubuntu]` (by number where it has no name)."""
    if not place:
        return table
    number = int(place[0])
    row = _node(tree, table.split("."))[number]
    name = row.get(_NAMED_BY.get(table, "name")) if isinstance(row, dict) else None
    return f"{table}[{name[:64] if isinstance(name, str) and name.isprintable() else number + 1}]"


def reader_of(model: type[Section], name: str) -> Value | None:
    """The reader of one key."""
    field = model.model_fields.get(name)
    return next((item for item in field.metadata if isinstance(item, Value)), None) if field else None
