"""JSON Schemas of the documents in `exeunt.clients.contract`.

``python -m exeunt.clients.schemas DIRECTORY`` writes them; the copies in ``docs/contract/`` are compared
by a test.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from .contract import DOCUMENTS, Error, Problem
from .contract_terms import Time

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Each document's JSON Schema, by the document's name."""
    found = {name: _document(name, {"data": type_}) for name, type_ in DOCUMENTS.items()}
    found["exeunt.error/1"] = _document("exeunt.error/1", {"error": Error})
    return found


def file_name(schema: str) -> str:
    """The file that holds a schema: ``exeunt.ps/1`` is in ``ps.1.json``."""
    return f"{schema.removeprefix('exeunt.').replace('/', '.')}.json"


def text(schema: dict[str, Any]) -> str:
    """A schema as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def write(directory: Path) -> None:
    """Write every schema into `directory`, and remove those of documents that are no more."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {file_name(name): text(schema) for name, schema in schemas().items()}
    for path in directory.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (directory / name).write_text(content)


def _document(name: str, members: dict[str, Any]) -> dict[str, Any]:
    types = {"at": Time, **members}
    if "data" in members:
        types["problems"] = list[Problem]
    parts, definitions = msgspec.json.schema_components(types.values(), ref_template="#/$defs/{name}")
    # A line of a stream has no problems beside it, hence they are not required.
    required = ["schema", *(key for key in types if key != "problems")]
    return {
        "$schema": _DIALECT,
        "$id": name,
        "type": "object",
        "required": required,
        "properties": {"schema": {"const": name}, **dict(zip(types, parts, strict=True))},
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]))
