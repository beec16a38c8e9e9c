"""What the three formats of seed files say, and on which line they go wrong."""

import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tornado_ds import seed_formats
from tornado_ds.errors import SeedError
from tornado_ds.seed_formats import Row, SeedFormat, parse_object, read_rows, sniff_format

CANARY = "hunter2canary"


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML with its C parser, and without, as some builds of it come."""
    monkeypatch.setattr(seed_formats, "_Loader", getattr(yaml, request.param))


def rows_of(text: str, file_format: SeedFormat) -> list[tuple[int, str | None, object]]:
    return [(row.line, row.name, row.fields) for row in read_rows(text, file_format)]


def complaint_about(text: str, file_format: SeedFormat) -> str:
    with pytest.raises(SeedError) as caught:
        list(read_rows(text, file_format))
    return str(caught.value)


@pytest.mark.parametrize(
    ("file_format", "text"),
    [
        pytest.param(
            "yaml",
            "# users\n- username: alice\n  roles: [editor]\n\n- {username: bob, disabled: true}\n",
            id="yaml",
        ),
        pytest.param(
            "json",
            '[\n {"username": "alice",\n  "roles": ["editor"]},\n\n {"username": "bob", "disabled": true}]',
            id="json",
        ),
        pytest.param("csv", 'username,roles,disabled\nalice,editor,\n\n\n"bob",,Yes\n', id="csv"),
    ],
)
def test_rows_of_a_list_know_their_lines(file_format: SeedFormat, text: str) -> None:
    """Each row comes with the line on which it begins."""
    rows = rows_of(text, file_format)

    alice, bob = {"username": "alice", "roles": ["editor"]}, {"username": "bob", "disabled": True}
    assert [(2, None, alice), (5, None, bob)] == rows


@pytest.mark.parametrize(
    ("file_format", "text"),
    [
        pytest.param("yaml", "alice:\n  password: secret\n# and\nbob:\n", id="yaml"),
        pytest.param("json", '{"alice": {"password": "secret"},\n\n\n"bob"\n: null}', id="json"),
    ],
)
def test_rows_of_a_mapping_are_named(file_format: SeedFormat, text: str) -> None:
    """A file can map names to entries, as deepstream's users.yml does."""
    rows = rows_of(text, file_format)

    assert [(1, "alice", {"password": "secret"}), (4, "bob", None)] == rows


@pytest.mark.parametrize(
    ("file_format", "text"),
    [
        pytest.param("yaml", "[]", id="yaml-list"),
        pytest.param("yaml", "--- {}\n...\n", id="yaml-mapping"),
        pytest.param("json", " [ ] \n", id="json-list"),
        pytest.param("json", "{}", id="json-mapping"),
        pytest.param("csv", "username,password\n", id="csv"),
    ],
)
def test_rows_are_none_when_the_file_says_so(file_format: SeedFormat, text: str) -> None:
    """A list of nobody is a list."""
    rows = rows_of(text, file_format)

    assert [] == rows


def test_yaml_values_are_those_of_json() -> None:
    """Text, numbers, booleans, null, lists and mappings are read as YAML means them."""
    text = "a: {t: x, q: '1', i: -7, h: 0x10, f: 1.5, y: yes, n: ~, e: '', l: [1, [2]], m: {k: v}}"

    fields = rows_of(text, "yaml")[0][2]

    assert {
        "t": "x",
        "q": "1",
        "i": -7,
        "h": 16,
        "f": 1.5,
        "y": True,
        "n": None,
        "e": "",
        "l": [1, [2]],
        "m": {"k": "v"},
    } == fields


def test_yaml_aliases_stand_for_what_they_name() -> None:
    """Entries can share what they have in common."""
    text = (
        "alice: &editor {roles: [editor], server_data: &data {team: blue}}\nbob: *editor\nchris: {server_data: *data}"
    )

    rows = rows_of(text, "yaml")

    editor = {"roles": ["editor"], "server_data": {"team": "blue"}}
    assert [(1, "alice", editor), (2, "bob", editor), (3, "chris", {"server_data": {"team": "blue"}})] == rows


def test_csv_cells_are_read_by_their_column() -> None:
    """Data are JSON, roles are words, a password is left as it is, and an empty cell says nothing."""
    text = (
        "username,password,roles,server_data,client_data,disabled\r\n"
        'alice," two\nlines, ","a b;c ; d","{""team"": ""blue""}",{},0\r\n'
        "bob,,,,,maybe\r\n"
    )

    rows = rows_of(text, "csv")

    alice = {
        "username": "alice",
        "password": " two\nlines, ",
        "roles": ["a", "b", "c", "d"],
        "server_data": {"team": "blue"},
        "client_data": {},
        "disabled": False,
    }
    assert [(2, None, alice), (4, None, {"username": "bob", "disabled": "maybe"})] == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "line 1: a seed file is a list", id="empty"),
        pytest.param("# nothing\n", "line 1: a seed file is a list", id="comment"),
        pytest.param("alice", "line 1: a seed file is a list", id="scalar"),
        pytest.param("- a: 1\n- a: 1\n  b: 2\n  a: 3\n", "line 4: the key 'a' is there twice", id="key-twice"),
        pytest.param("a: {b: {c: 1, c: 2}}", "line 1: the key 'c' is there twice", id="deep-key-twice"),
        pytest.param("\n7: {}", "line 2: a name or key must be text", id="number-as-name"),
        pytest.param("no: {}", "line 1: a name or key must be text", id="boolean-as-name"),
        pytest.param("a:\n  ? [x]\n  : y", "line 2: a name or key must be text", id="list-as-key"),
        pytest.param("a: {}\n---\nb: {}", "line 2: a seed file is one YAML document", id="two-documents"),
        pytest.param("a:\n  since: 2024-01-31", "line 2: text that looks like a date", id="date"),
        pytest.param("a: {<<: {b: 1}}", "line 1: text that looks like a date", id="merge"),
        pytest.param("a: !!python/object/apply:os.system [x]", "line 1: YAML tags", id="python-tag"),
        pytest.param("a: !!set {b}", "line 1: YAML tags", id="set"),
        pytest.param("a: !!binary aGk=", "line 1: text that looks like a date", id="binary"),
        pytest.param("a: !!int b", "line 1: this number cannot be read", id="not-an-integer"),
        pytest.param("a: &x [*x]", "line 1: text that begins with *", id="alias-of-itself"),
        pytest.param("a: *x", "line 1: text that begins with *", id="alias-of-nothing"),
        pytest.param("a: {}\n\tb: {}", "line 2: this is not YAML", id="tab"),
        pytest.param("a: 'x", "line 1: this is not YAML", id="open-quote"),
        pytest.param("a: {}\nb: [\n\n", "line 2: this is not YAML", id="open-list"),
        pytest.param("ä: x\nb: \x07", "line 2: YAML cannot hold this control character", id="control-character"),
        pytest.param("- " * 5000 + "a", "line 1: this is nested too deeply", id="deep-block"),
        pytest.param("[" * 100_000, "line 1: this is nested too deeply", id="deep-lists"),
        pytest.param("{a: " * 100_000, "line 1: this is nested too deeply", id="deep-mappings"),
        pytest.param("a: [" + "x," * 50_000 + "]", "line 1: this is more than", id="wide"),
    ],
)
def test_yaml_is_refused_with_its_line(text: str, expected: str) -> None:
    """What is not a seed file in YAML is refused, and the line is named."""
    complaint = complaint_about(text, "yaml")

    assert complaint.startswith(expected)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("[x, x, x, x, x, x, x, x, x, x]", id="many-values"),
        pytest.param("[" + "x" * 2000 + "]", id="long-text"),
    ],
)
def test_yaml_is_refused_when_aliases_multiply(first: str) -> None:
    """A short file cannot stand for gigabytes."""
    bomb = f"a: &a {first}\n"
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"

    complaint = complaint_about(bomb, "yaml")

    assert complaint.endswith("this is more than a user's data may hold")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "line 1: a seed file is a list", id="empty"),
        pytest.param('"alice"', "line 1: a seed file is a list", id="text"),
        pytest.param("[1,\n]", "line 2: this is not JSON", id="comma-at-the-end"),
        pytest.param("[1\n 2]", "line 2: this is not JSON: expecting , or ]", id="no-comma"),
        pytest.param('{"a":\n 1', "line 2: this is not JSON: expecting , or }", id="open-end"),
        pytest.param('{"a"\n 1}', "line 2: this is not JSON: expecting : behind the name", id="no-colon"),
        pytest.param("{1: {}}", "line 1: this is not JSON: a name must be text", id="number-as-name"),
        pytest.param("{}\n{}", "line 2: this is not JSON: there is more behind the end", id="more-behind"),
        pytest.param('[{},\n\n{"a": {"b": 1, "b": 2}}]', "line 3: the key 'b' is there twice", id="key-twice"),
        pytest.param('[\n{"a": NaN}]', "line 2: this is not JSON: NaN is no number", id="nan"),
        pytest.param('[{"a": -Infinity}]', "line 1: this is not JSON: -Infinity is no number", id="infinity"),
        pytest.param(f"[{'9' * 5000}]", "line 1: a number is too long", id="long-number"),
        pytest.param("[" * 100_000, "line 1: this is nested too deeply", id="deep-lists"),
        pytest.param('{"a":' * 100_000, "line 1: this is nested too deeply", id="deep-mappings"),
    ],
)
def test_json_is_refused_with_its_line(text: str, expected: str) -> None:
    """What is not a seed file in JSON is refused, and the line is named."""
    complaint = complaint_about(text, "json")

    assert complaint.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "line 1: there is no column username", id="empty"),
        pytest.param("password,roles\n", "line 1: there is no column username", id="no-username"),
        pytest.param(
            "username,role\n", "line 1: the first row must name the columns, and column 2", id="unknown-column"
        ),
        pytest.param("username,roles,roles\n", "line 1: the column roles is there twice", id="column-twice"),
        pytest.param("username,roles\na,b\nc\n", "line 3: this row has 1 cells, the first row has 2", id="few-cells"),
        pytest.param("username\n\na,b\n", "line 3: this row has 2 cells, the first row has 1", id="many-cells"),
        pytest.param('username\na\n"b\n', "line 3: this is not CSV", id="open-quote"),
        pytest.param('username\n"a"b\n', "line 2: this is not CSV", id="text-behind-quote"),
        pytest.param("username\n" + "x" * 200_000, "line 2: this is not CSV", id="huge-cell"),
        pytest.param("username,server_data\na,{\n", "line 2: server_data: this is not JSON", id="broken-data"),
        pytest.param("username,client_data\na,[]\n", "line 2: client_data: write a JSON object", id="list-as-data"),
    ],
)
def test_csv_is_refused_with_its_line(text: str, expected: str) -> None:
    """What is not a seed file in CSV is refused, and the line is named."""
    complaint = complaint_about(text, "csv")

    assert complaint.startswith(expected)


@pytest.mark.parametrize(
    ("file_format", "text"),
    [
        pytest.param("yaml", f"a: {{password: *{CANARY}}}", id="yaml-alias"),
        pytest.param("yaml", f"a: {{password: !{CANARY} x}}", id="yaml-tag"),
        pytest.param("yaml", f"a: {{password: !{CANARY}!x y}}", id="yaml-tag-handle"),
        pytest.param("yaml", f"a: {{password: !!int {CANARY}}}", id="yaml-number"),
        pytest.param("yaml", f"a:\n  password: {CANARY}: x", id="yaml-colon"),
        pytest.param("yaml", f"a:\n  password: '{CANARY}", id="yaml-quote"),
        pytest.param("yaml", f"a:\n  password: @{CANARY}", id="yaml-at"),
        pytest.param("yaml", f'a:\n  password: "\\{CANARY}"', id="yaml-escape"),
        pytest.param("json", f'[{{"password": {CANARY}}}]', id="json-word"),
        pytest.param("json", f'[{{"password": "{CANARY}\n"}}]', id="json-line-break"),
        pytest.param("csv", f"{CANARY},alice\n", id="csv-without-header"),
        pytest.param("csv", f'username,password\na,"{CANARY}"x\n', id="csv-quote"),
    ],
)
def test_complaints_hold_nothing_of_a_password(file_format: SeedFormat, text: str) -> None:
    """The reason never quotes what stands where a password stands."""
    complaint = complaint_about(text, file_format)

    assert CANARY not in complaint


@given(text=st.text(alphabet=st.sampled_from("ab1é\0\n\t \"'-:?,{}[]&*!|>%@#\\."), max_size=40))
@pytest.mark.parametrize("file_format", ["yaml", "json", "csv"])
def test_any_text_is_read_or_refused(file_format: SeedFormat, text: str) -> None:
    """Nothing that a file can hold makes the reader fail in any other way."""
    with suppress(SeedError):
        rows = list(read_rows(text, file_format))
        assert all(isinstance(row, Row) for row in rows)


def test_repr_of_a_row_hides_its_fields() -> None:
    """A row that ends up in a log shows no password."""
    row = Row(1, "alice", {"password": CANARY})

    assert repr(row) == "Row(line=1, name='alice')"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(' [{"username": "a"}]', "json", id="json-list"),
        pytest.param('\n{"a": {}}', "json", id="json-mapping"),
        pytest.param('password,"Username"\n', "csv", id="csv"),
        pytest.param("username: {password: a, roles: []}", "yaml", id="yaml-mapping"),
        pytest.param("- username: a", "yaml", id="yaml-list"),
        pytest.param("", "yaml", id="empty"),
    ],
)
def test_sniff_format_tells_formats_apart(text: str, expected: str) -> None:
    """The beginning of a text says what it is."""
    file_format = sniff_format(text)

    assert expected == file_format


def test_parse_object_returns_the_object_when_it_is_json() -> None:
    """An object is what data are made of."""
    data = {"roles": ["editor"], "deep": {"er": [1, None, True]}}

    parsed = parse_object(json.dumps(data))

    assert data == parsed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{", id="open"),
        pytest.param("{} {}", id="two"),
        pytest.param("{'a': 1}", id="python"),
        pytest.param('{"a": 1, "a": 2}', id="key-twice"),
        pytest.param('{"a": NaN}', id="nan"),
        pytest.param('{"a":' * 100_000, id="deep"),
        pytest.param(f'{{"a": {"9" * 5000}}}', id="long-number"),
    ],
)
def test_parse_object_raises_when_it_is_no_object(text: str) -> None:
    """Anything but one JSON object with each key once is refused."""
    with pytest.raises(SeedError):
        parse_object(text)
