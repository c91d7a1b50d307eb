"""Settings as people read them: effective values as TOML, and a table of all keys.

The rules this module keeps:
 * What it writes is TOML again: ``parse_settings(render_effective(s, {})) == s``.
 * Every value says where it comes from, the file or the default, and its unit.
 * Meanings come from the docstrings of the settings, word for word.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
from msgspec import Struct, inspect
from msgspec.structs import fields

from agent.settings import Settings

UNITS = {
    "_ms": "milliseconds",
    "_s": "seconds",
    "_mb": "megabytes",
    "_c": "degrees Celsius",
    "rate": "per second",
    "width": "pixels",
    "height": "pixels",
    "stride": "bytes",
}
_ATTRIBUTE = re.compile(
    r"^ {4}(?: {4})?(\w+): (.+(?:\n {8,}(?! *\w+: ).+)*)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key of agent.toml: where it stands, what it takes, and what it means."""

    key: str
    accepts: str
    default: str
    text: str


def render_effective(
    settings: Settings, tree: Mapping[str, object], resolved: Mapping[str, str]
) -> str:
    """Return the settings as TOML with a comment on each value.

    Args:
        settings: What is in effect.
        tree: The file as parsed TOML: what stands there is not a default.
        resolved: Key -> what an empty value stands for on this board.
    """
    return "\n".join(_table(settings, tree, "", resolved)).strip() + "\n"


def describe_keys() -> list[KeyRow]:
    """Return a row for each key that agent.toml may have."""
    return list(_rows(Settings, ""))


def attribute_texts(kind: type) -> dict[str, str]:
    """Return what a class's docstring says about its attributes, on one line each."""
    _, _, section = (kind.__doc__ or "").partition("Attributes:\n")
    return {
        name: re.sub(r"\s+", " ", text).strip()
        for name, text in _ATTRIBUTE.findall(section)
    }


def _table(
    value: Struct, raw: Mapping[str, object], path: str, resolved: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of one table: its own keys, then the tables below it."""
    below: list[tuple[str, str, Struct, object]] = []
    if value.__struct_config__.tag:
        yield f"kind = {_toml(value.__struct_config__.tag)}"
    for name in value.__struct_fields__:
        part, given = getattr(value, name), raw.get(name)
        where = f"{path}{name}"
        if isinstance(part, Struct):
            below.append((f"[{where}]", where, part, given))
        elif isinstance(part, tuple) and part and isinstance(part[0], Struct):
            given_rows = given if isinstance(given, list) else [None] * len(part)
            for row, given_row in zip(part, given_rows, strict=True):
                below.append((f"[[{where}]]", where, row, given_row))
        elif part is None:
            yield f"# {name}: not given"
        else:
            yield f"{name} = {_toml(part)}{_remark(name, where, raw, resolved)}"
    for header, where, part, given in below:
        tree = given if isinstance(given, dict) else {}
        yield ""
        yield header if isinstance(given, dict) else f"{header}  # default"
        yield from _table(part, tree, f"{where}.", resolved)


def _remark(
    name: str, where: str, raw: Mapping[str, object], resolved: Mapping[str, str]
) -> str:
    """Return the comment on a value: its origin, unit, and what it stands for."""
    words = ["file" if name in raw else "default"]
    words += [unit for ending, unit in UNITS.items() if name.endswith(ending)][:1]
    if where in resolved:
        here = resolved[where]
        words.append(f"here {here if here.isprintable() else _toml(here)}")
    return f"  # {', '.join(words)}"


def _toml(value: object) -> str:
    """Spell one value in TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = [f"{_toml(key)} = {_toml(item)}" for key, item in value.items()]
        return f"{{{', '.join(pairs)}}}"
    return repr(value)


def _rows(kind: type[Struct], path: str) -> Iterator[KeyRow]:
    """Yield the rows of one table's keys, then those of the tables below it."""
    texts = attribute_texts(kind)
    below: list[tuple[str, type[Struct]]] = []
    for field in fields(kind):
        info = inspect.type_info(field.type)
        tables = list(_tables(info))
        dots = "[]." if isinstance(info, inspect.VarTupleType) else "."
        below += [(f"{path}{field.name}{dots}", table) for table in tables]
        if not tables:
            default = _default(field)
            yield KeyRow(
                f"{path}{field.name}", _accepts(info), default, texts[field.name]
            )
    for where, table in below:
        tag = table.__struct_config__.tag
        if tag:
            summary = (table.__doc__ or "").partition("\n")[0]
            yield KeyRow(f"{where}kind", f'"{tag}"', "", summary)
        for row in _rows(table, where):
            yield replace(row, text=f"{tag}: {row.text}") if tag else row


def _tables(info: inspect.Type) -> Iterator[type[Struct]]:
    """Yield the tables that a key may hold."""
    if isinstance(info, inspect.StructType):
        yield info.cls
    elif isinstance(info, inspect.VarTupleType):
        yield from _tables(info.item_type)
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            yield from _tables(part)
    elif isinstance(info, inspect.Metadata):
        yield from _tables(info.type)


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Spell a default; a key without one has to be given."""
    if field.default is not msgspec.NODEFAULT:
        return _toml(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return _toml(field.default_factory())
    return ""


def _accepts(info: inspect.Type) -> str:
    """Say what a key takes."""
    if isinstance(info, inspect.LiteralType | inspect.EnumType):
        words = info.cls if isinstance(info, inspect.EnumType) else info.values
        return ", ".join(_toml(value) for value in words)
    if isinstance(info, inspect.VarTupleType):
        return f"list of {_accepts(info.item_type)}"
    if isinstance(info, inspect.IntType | inspect.FloatType):
        word = "whole number" if isinstance(info, inspect.IntType) else "number"
        return f"{word}{_range(info)}"
    if isinstance(info, inspect.StrType):
        return "word" if info.pattern else "text"
    if isinstance(info, inspect.UnionType):  # a key that takes words of two types, say
        return ", ".join(dict.fromkeys(map(_accepts, info.types)))
    return "table of texts" if isinstance(info, inspect.DictType) else "true, false"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    """Say which numbers are allowed."""
    low = f"{_number(info.ge)} to " if info.ge is not None else ""
    if info.gt is not None:
        low = f"above {_number(info.gt)}, to "
    return f" {low}{_number(info.le)}" if info.le is not None else ""


def _number(value: float) -> str:
    """Spell a bound: nothing is rounded, and whole ones have no fraction.

    >>> _number(0.5), _number(65536.0)
    ('0.5', '65,536')
    """
    return f"{value:,.0f}" if value == int(value) else f"{value:,}"
