"""The admin API as a page, from its OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

_HEAD = """\
# Admin API

<!-- Made from keyserver/admin/api/openapi.json by scripts/reference/interface.py. -->

Everything under `/api/v1` on `admin.listen`, as `GET /api/v1/openapi.json` says it for programs. Tokens, roles, names
and errors: [Operating](../operating.md#admin-api).
"""


def described() -> dict[str, Any]:
    """The OpenAPI document."""
    text = files("keyserver.admin.api").joinpath("openapi.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def render() -> str:
    """The whole page: operations by tag, then what they speak of."""
    document = described()
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                tag = operation["tags"][0]
                parameters = [*methods.get("parameters", []), *operation.get("parameters", [])]
                tags.setdefault(tag, []).extend(_operation(document, method, path, operation, parameters))
    pages = [line for tag, lines in tags.items() for line in (f"## {tag}\n", *lines)]
    return "\n".join([_HEAD, *pages, "## Objects\n", *_objects(document)])


def _operation(
    document: dict[str, Any], method: str, path: str, operation: dict[str, Any], parameters: list[dict[str, Any]]
) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation['summary']}. *Role:* {operation.get('x-role', 'anyone')}.\n"
    if operation.get("description"):
        yield f"{operation['description']}\n"
    rows = [_resolved(document, one) for one in parameters]
    if rows:
        yield "| parameter | in | type | meaning |\n| --- | --- | --- | --- |"
        for one in rows:
            name = f"`{one['name']}`" + (", required" if one.get("required") and one["in"] != "path" else "")
            yield f"| {name} | {one['in']} | {_type(one.get('schema', {}))} | {_cell(one.get('description', ''))} |"
        yield ""
    answers = {code: _resolved(document, one) for code, one in operation["responses"].items()}
    yield "| answer | |\n| --- | --- |"
    for code, one in answers.items():
        kinds = " or ".join(
            dict.fromkeys(_type(content.get("schema", {})) for content in one.get("content", {}).values())
        )
        yield f"| {code} | {_cell(one.get('description', ''))}{': ' if kinds else ''}{kinds} |"
    yield ""


def _objects(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{schema['description']}\n"
        if "properties" in schema:
            yield "| member | type | meaning |\n| --- | --- | --- |"
            for member, one in schema["properties"].items():
                yield f"| `{member}` | {_type(one)} | {_cell(one.get('description', ''))} |"
        else:
            yield _type(schema)
        yield ""


def _resolved(document: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to; anything else as it is."""
    while "$ref" in one:
        found: Any = document
        for step in one["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        one = found
    return one


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        _, _, _, name, *inside = schema["$ref"].split("/")
        return f"[{name}](#{name.lower()})" + "".join(f" `{step}`" for step in inside if step != "properties")
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "")
    words = kind if isinstance(kind, str) else " or ".join(kind)
    if words == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return words


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
