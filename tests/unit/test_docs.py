"""The documentation says what the code does."""

from pathlib import Path

from tornado_ds.audit import EVENTS
from tornado_ds.settings import default_text, walk_fields

ROOT = Path(__file__).parents[2]


def test_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    """The table of settings in the README is the one that settings.py describes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- settings:")[2].partition("<!-- /settings -->")[0].splitlines()[3:]

    rows = [f"| `{key}` | {_code(default_text(field))} | {field.description} |" for key, field in walk_fields()]

    assert rows == table


def test_audit_page_explains_every_event() -> None:
    """Whoever finds an event in the audit trail finds out what it means."""
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")

    assert [event for event in EVENTS if f"`{event}`" not in page] == []


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
