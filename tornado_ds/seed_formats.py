"""What a seed file says: YAML, JSON or CSV in, one row for each user out, with the line it is on."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import yaml

from tornado_ds.errors import SeedError

SeedFormat = Literal["yaml", "json", "csv"]

# What fits into a token is 2 KiB of JSON, so an entry that is good stays below both. The
# size is that of all values and their characters; aliases count for what they stand for,
# which defuses the ones that multiply.
MAX_SIZE = 20_000
MAX_DEPTH = 100

_COLUMNS = ("username", "password", "password_hash", "server_data", "client_data", "roles", "disabled")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

# The C parser is some ten times faster; not every build of PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Row:
    """One user as the file has it, nothing checked yet; *name* is set where the file maps names to entries."""

    line: int
    name: str | None
    fields: object = field(repr=False)


def read_rows(text: str, file_format: SeedFormat) -> Iterator[Row]:
    """
    Yield the rows of *text*.

    Raises:
        SeedError: The text is not of that format; what it says of the reason never quotes the text.
    """
    return _READERS[file_format](text)


def sniff_format(text: str) -> SeedFormat:
    """Return the format that *text* seems to be of."""
    start = text.lstrip()
    if start[:1] in ("[", "{"):
        return "json"
    header = start.partition("\n")[0]
    return "csv" if "," in header and "username" in _split_header(header) else "yaml"


def parse_object(text: str) -> dict[str, Any]:
    """
    Return the JSON object that *text* is.

    Raises:
        SeedError: It is something else, or says a key twice.
    """
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError, SeedError) as exc:
        raise SeedError(_json_reason(exc)) from exc
    if not isinstance(value, dict):
        raise SeedError('write a JSON object, such as {"team": "blue"}')
    return value


def _split_header(header: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(",")]


def _wrong(line: int, reason: str) -> NoReturn:
    raise SeedError(f"line {line}: {reason}")


class _YamlReader:
    """
    Builds values from the events of the parser.

    PyYAML's own composer would let a deeply nested file crash the process, a
    key that is there twice would win unseen, and lines would be lost.
    """

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        self._anchors: dict[str, tuple[object, int]] = {}
        self._size = 0
        self._scalars: dict[str, Callable[[yaml.ScalarNode], object]] = {
            f"{_TAG}null": self._loader.construct_yaml_null,
            f"{_TAG}bool": self._loader.construct_yaml_bool,
            f"{_TAG}int": self._loader.construct_yaml_int,
            f"{_TAG}float": self._loader.construct_yaml_float,
        }

    def rows(self) -> Iterator[Row]:
        self._next()
        start = self._next()
        top = None if isinstance(start, yaml.StreamEndEvent) else self._next()
        if isinstance(top, yaml.SequenceStartEvent):
            yield from self._entries(yaml.SequenceEndEvent)
        elif isinstance(top, yaml.MappingStartEvent):
            yield from self._entries(yaml.MappingEndEvent)
        else:
            _wrong(1, "a seed file is a list of users, or names each with its entry")
        self._next()
        end = self._next()
        if not isinstance(end, yaml.StreamEndEvent):
            _wrong(_line(end), "a seed file is one YAML document, here begins a second one")

    def _entries(self, end: type[yaml.Event]) -> Iterator[Row]:
        while not isinstance(event := self._next(), end):
            self._size = 0
            name = self._key(event) if end is yaml.MappingEndEvent else None
            yield Row(_line(event), name, self._value(event if name is None else self._next()))

    def _next(self) -> yaml.Event:
        event: yaml.Event = self._loader.get_event()
        return event

    def _value(self, event: yaml.Event, depth: int = 0) -> object:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._size
        self._count(1 + len(event.value) if isinstance(event, yaml.ScalarEvent) else 1, event)
        if depth > MAX_DEPTH:
            _wrong(_line(event), "this is nested too deeply")
        value = self._content(event, depth)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = value, self._size - before
        return value

    def _content(self, event: yaml.Event, depth: int) -> object:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.CollectionStartEvent) and event.tag not in (None, "!", f"{_TAG}seq", f"{_TAG}map"):
            _wrong(_line(event), "YAML tags (!) are not used here")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth + 1)
        return self._mapping(depth + 1)

    def _sequence(self, depth: int) -> list[object]:
        values = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._value(event, depth))
        return values

    def _mapping(self, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            if key in values:
                _wrong(_line(event), f"the key {key[:40]!r} is there twice")
            values[key] = self._value(self._next(), depth)
        return values

    def _key(self, event: yaml.Event) -> str:
        key = self._value(event, MAX_DEPTH) if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) else None
        if not isinstance(key, str):
            _wrong(_line(event), "a name or key must be text; put numbers, true, yes and the like in quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        tag = event.tag
        if tag in (None, "!"):
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == f"{_TAG}str":
            return event.value
        if tag not in self._scalars:
            _wrong(_line(event), "text that looks like a date, a tag (!) or << must stand in quotes")
        try:
            return self._scalars[tag](yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError, IndexError):
            _wrong(_line(event), "this number cannot be read; text must stand in quotes")

    def _alias(self, event: yaml.AliasEvent) -> object:
        if event.anchor not in self._anchors:
            _wrong(_line(event), "text that begins with * must stand in quotes")
        value, size = self._anchors[event.anchor]
        self._count(size, event)
        return value

    def _count(self, size: int, event: yaml.Event) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            _wrong(_line(event), "this is more than a user's data may hold")


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1


def _yaml_rows(text: str) -> Iterator[Row]:
    try:
        yield from _YamlReader(text).rows()
    except yaml.reader.ReaderError as exc:
        # The C parser counts bytes.
        before = text.encode()[: exc.position]
        _wrong(before.count(b"\n") + 1, "YAML cannot hold this control character")
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        # The parser may quote what it stumbled over, which may be half of a password.
        problem = re.sub(r"'.*'", "this", exc.problem or "something is wrong", flags=re.DOTALL)
        # Where the text just ends, the parser is a line further already.
        last = text.rstrip().count("\n")
        # libyaml 0.2.6 has a bound of its own, and reads so far ahead that it comes to it before we come to ours.
        reason = "this is nested too deeply" if "nesting depth" in problem else f"this is not YAML: {problem}"
        _wrong((min(mark.line, last) if mark else 0) + 1, reason)


class _JsonReader:
    """Walks the outer list or object itself, so that it knows where each entry begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1

    def rows(self) -> Iterator[Row]:
        closing = {"[": "]", "{": "}"}[self._take("[{", "a seed file is a list of users, or names each with its entry")]
        if self._peek() == closing:
            self._take(closing)
        else:
            yield from self._entries(closing)
        self.finish()

    def value(self) -> object:
        self._peek()
        try:
            value, at = _JSON.raw_decode(self._text, self._at)
        except (ValueError, RecursionError, SeedError) as exc:
            _wrong(exc.lineno if isinstance(exc, json.JSONDecodeError) else self._line, _json_reason(exc))
        self._move(at)
        return value

    def finish(self) -> None:
        if self._peek():
            _wrong(self._line, "this is not JSON: there is more behind the end")

    def _entries(self, closing: str) -> Iterator[Row]:
        separator = ","
        while separator == ",":
            self._peek()
            line = self._line
            name = self._name() if closing == "}" else None
            yield Row(line, name, self.value())
            separator = self._take(f",{closing}", f"this is not JSON: expecting , or {closing}")

    def _name(self) -> str:
        name = self.value()
        if not isinstance(name, str):
            _wrong(self._line, "this is not JSON: a name must be text")
        self._take(":", "this is not JSON: expecting : behind the name")
        return name

    def _take(self, allowed: str, complaint: str = "") -> str:
        character = self._peek()
        if not character or character not in allowed:
            _wrong(self._line, complaint)
        self._move(self._at + 1)
        return character

    def _peek(self) -> str:
        """Return the next character that is not a blank, "" at the end."""
        while self._text[self._at : self._at + 1] in (" ", "\t", "\r", "\n"):
            self._move(self._at + 1)
        return self._text[self._at : self._at + 1]

    def _move(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = at


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"this is not JSON: {error.msg}"
    if isinstance(error, SeedError):
        return str(error)
    return "this is nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise SeedError(f"the key {key[:40]!r} is there twice")
        values[key] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise SeedError(f"this is not JSON: {name} is no number")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _json_rows(text: str) -> Iterator[Row]:
    return _JsonReader(text).rows()


def _csv_rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = _check_header(next(reader, []))
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield Row(line, None, _csv_fields(line, header, cells))
            line = reader.line_num + 1
    except csv.Error as exc:
        _wrong(line, f"this is not CSV: {exc}")


def _check_header(cells: Sequence[str]) -> Sequence[str]:
    header = [cell.strip() for cell in cells]
    # Nothing is quoted here: in a file without a header the first row holds a password.
    for number, name in enumerate(header, 1):
        if name not in _COLUMNS:
            _wrong(1, f"the first row must name the columns, and column {number} is none of {', '.join(_COLUMNS)}")
        if header.count(name) > 1:
            _wrong(1, f"the column {name} is there twice")
    if "username" not in header:
        _wrong(1, "there is no column username")
    return header


def _csv_fields(line: int, header: Sequence[str], cells: Sequence[str]) -> Mapping[str, object]:
    """Return the fields of one row; a cell that is empty says nothing."""
    if len(cells) != len(header):
        _wrong(line, f"this row has {len(cells)} cells, the first row has {len(header)}")
    fields = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            if cell or name == "username":
                fields[name] = _csv_value(name, cell)
        except SeedError as exc:
            _wrong(line, f"{name}: {exc}")
    return fields


def _csv_value(name: str, cell: str) -> object:
    if name in ("server_data", "client_data"):
        return parse_object(cell)
    if name == "roles":
        return [role for role in re.split(r"[\s;]+", cell) if role]
    if name == "disabled":
        return _BOOLEANS.get(cell.strip().lower(), cell)
    return cell


_READERS: dict[SeedFormat, Callable[[str], Iterator[Row]]] = {
    "yaml": _yaml_rows,
    "json": _json_rows,
    "csv": _csv_rows,
}
