"""Write config/REFERENCE.md: every key of the settings, from their types, and what the sample files say of them.

    python scripts/reference.py [FILE]

A key without a comment in `config/site.toml` or `stations/st01.toml` is an error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import NODEFAULT, inspect, to_builtins

from ifpp.settings import Site, Station

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = (("config/site.toml", Site), ("stations/st01.toml", Station))
HEAD = """# Every setting

Written by `make reference` from the settings' types and the sample files; `ifpp check` says what is wrong with yours.
An unknown key is refused, wherever it stands. No setting holds a secret: keys and PINs are named, never written here.
"""
_TABLE = re.compile(r"\[+([^\]]+)\]+")
_KEY = re.compile(r"([a-z_]+) *= *(.*?)(?: +# (.*))?")


class StaleError(Exception):
    """The sample files and the types do not say the same."""


@dataclass(frozen=True)
class Said:
    """What a sample file says of a key."""

    example: str
    comment: str


@dataclass(frozen=True)
class Table:
    """One table of a file: where it stands, `*` for a name of one's own, and its type."""

    path: tuple[str, ...]
    type: inspect.StructType

    @property
    def title(self) -> str:
        """As it is written."""
        return f"[{'.'.join(self.path)}]" if self.path else "(top)"


def reference() -> str:
    """Return the document; raises StaleError."""
    said_of_type: dict[tuple[type, str], Said] = {}
    parts = [HEAD]
    for name, kind in SAMPLES:
        tables = list(tables_of(kind))
        said = _sample(ROOT / name, tables)
        for (path, key), one in said.items():
            struct = next(table.type.cls for table in tables if table.path == path)
            if one.comment:
                said_of_type.setdefault((struct, key), one)
        parts.append(f"\n## {name}\n")
        parts += [_section(table, said, said_of_type) for table in tables]
    return "".join(parts)


# ---- the types ------------------------------------------------------------------------------------------------


def tables_of(kind: type) -> Iterator[Table]:
    """Give every table of a settings file, the file's own first."""
    for struct, _ in _below(inspect.type_info(kind)):
        yield from _tables(struct, ())


def _tables(struct: inspect.StructType, path: tuple[str, ...]) -> Iterator[Table]:
    yield Table(path, struct)
    for field in struct.fields:
        for below, steps in _below(field.type):
            yield from _tables(below, (*path, field.encode_name, *steps))


def _below(found: inspect.Type) -> list[tuple[inspect.StructType, tuple[str, ...]]]:
    """The table a field is, with `*` where it is a table of tables."""
    if isinstance(found, inspect.UnionType):
        return [one for each in found.types for one in _below(each)]
    if isinstance(found, inspect.DictType):
        return [(struct, ("*",)) for struct, _ in _below(found.value_type)]
    if isinstance(found, inspect.VarTupleType):
        return _below(found.item_type)
    return [(found, ())] if isinstance(found, inspect.StructType) else []


def _kind(found: inspect.Type) -> str:
    """A type in words, with its bounds."""
    match found:
        case inspect.LiteralType():
            words = " or ".join(f'"{value}"' for value in found.values)
        case inspect.BoolType():
            words = "true or false"
        case inspect.IntType():
            words = "integer" + _bounds(found)
        case inspect.FloatType():
            words = "number" + _bounds(found)
        case inspect.StrType():
            words = f"text like `{found.pattern}`".replace("|", "\\|") if found.pattern else "text"
        case inspect.VarTupleType():
            words = f"list of {_kind(found.item_type)}"
        case inspect.TupleType():
            words = f"[{', '.join(map(_kind, found.item_types))}]"
        case inspect.DictType():
            words = f"table of {_kind(found.value_type)} by name"
        case _:
            raise StaleError(f"no words for {found}")
    return words


def _bounds(found: inspect.IntType | inspect.FloatType) -> str:
    signs = (("≥", found.ge), (">", found.gt), ("≤", found.le), ("<", found.lt))
    return "".join(f" {sign} {bound:g}" for sign, bound in signs if bound is not None)


# ---- the sample files -------------------------------------------------------------------------------------------


def _sample(file: Path, tables: list[Table]) -> dict[tuple[tuple[str, ...], str], Said]:
    """Read what stands beside each key, whether it is commented out or not; a comment of its first place counts."""
    found: dict[tuple[tuple[str, ...], str], Said] = {}
    known = {table.path: {field.encode_name for field in table.type.fields} for table in tables}
    path: tuple[str, ...] = ()
    for number, row in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        bare = row.removeprefix("# ")
        if bare.startswith("["):
            path = _path(bare, known, f"{file.name}:{number}")
        elif match := _KEY.fullmatch(bare):
            key, example, comment = match.groups()
            if key not in known[path]:
                raise StaleError(f"{file.name}:{number}: there is no key {key} in [{'.'.join(path)}]")
            found.setdefault((path, key), Said(example, comment or ""))
    return found


def _path(row: str, known: dict[tuple[str, ...], set[str]], where: str) -> tuple[str, ...]:
    match = _TABLE.match(row)
    steps = re.findall(r'"[^"]*"|[^."]+', match.group(1)) if match else []
    for path in known:
        if len(path) == len(steps) and all(a in (b, "*") for a, b in zip(path, steps, strict=True)):
            return path
    raise StaleError(f"{where}: there is no table {row}")


# ---- the document -----------------------------------------------------------------------------------------------


def _section(table: Table, said: dict[tuple[tuple[str, ...], str], Said], of_type: dict[tuple[type, str], Said]) -> str:
    about = " ".join((table.type.cls.__doc__ or "").split())
    rows = [
        _row(table, field, said.get((table.path, field.encode_name)), of_type.get((table.type.cls, field.encode_name)))
        for field in table.type.fields
        if not _below(field.type)
    ]
    keys = "| key | value | default | example | what it is |\n|---|---|---|---|---|\n" + "".join(rows) if rows else ""
    return f"\n### `{table.title}`\n\n{about}\n\n{keys}"


def _row(table: Table, field: inspect.Field, here: Said | None, elsewhere: Said | None) -> str:
    best = here if here is not None and here.comment else elsewhere
    if best is None:
        raise StaleError(f"{table.title} {field.encode_name}: no sample file says what it is")
    example = (here or best).example
    cells = (f"`{field.encode_name}`", _kind(field.type), _default(field), f"`{example}`", best.comment.rstrip(",:"))
    return f"| {' | '.join(cells)} |\n"


def _default(field: inspect.Field) -> str:
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:
        return "**needed**"
    value: Any = field.default if field.default is not NODEFAULT else field.default_factory()
    return f"`{json.dumps(to_builtins(value), ensure_ascii=False)}`"


def main() -> None:
    """Write the document."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "config" / "REFERENCE.md"
    try:
        text = reference()
    except StaleError as stale:
        sys.exit(f"error: {stale}")
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
