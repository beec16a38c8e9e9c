"""docs/operations.md, the alert rules and the dashboard speak of what is there, and leave no figure out."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.unit.test_docs import ROOT
from tornado_ds.metrics import Metrics

DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
RULES = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]

# What Grafana puts in before it asks.
VARIABLES = {"$__rate_interval": "5m", "$job": "tornado_ds"}


def kinds() -> dict[str, str]:
    """The kind of every metric, by its name."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().expose().decode(), re.MULTILINE))


def series() -> set[str]:
    """The name of everything that can be asked for."""
    names = {"up"}
    for name, kind in kinds().items():
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def names_in(expression: str) -> set[str]:
    """The names that *expression*, which has to be PromQL, asks for."""
    found: set[str] = set()

    def note(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(str(node.name))
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    return found


def table(heading: str) -> Iterator[list[str]]:
    """The rows of the table whose head begins with *heading*."""
    rows = OPERATIONS.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    yield from ([cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|"))


def logged_in(path: Path) -> Iterator[str]:
    """The event of every line that the module *path* logs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def test_operations_lists_every_metric_with_its_kind() -> None:
    """Nothing is left to be guessed, and nothing is promised that is not there."""
    documented = {row[0].strip("`"): row[1].partition(",")[0] for row in table("metric")}

    assert documented == kinds()


def test_operations_explains_log_lines_that_are_written() -> None:
    """What the table says can be found in the log."""
    written = {text for path in (ROOT / "tornado_ds").rglob("*.py") for text in logged_in(path)}

    explained = {name for row in table("line") for name in re.findall(r"`([^`]+)`", row[0])}

    assert explained - written == set()


def test_operations_explains_every_alert() -> None:
    """Whoever is woken up finds out what to do."""
    explained = [name for row in table("alert") for name in re.findall(r"`(\w+)`", row[0])]

    assert sorted(explained) == sorted(rule["alert"] for rule in RULES)


def test_links_within_operations_lead_somewhere() -> None:
    """Headings are renamed more easily than links."""
    headings = {line.strip("# ").lower().replace(" ", "-") for line in OPERATIONS.splitlines() if line.startswith("#")}

    assert set(re.findall(r"\]\(#([^)]+)\)", OPERATIONS)) - headings == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_asks_for_what_is_there(rule: dict[str, Any]) -> None:
    """A rule with a misspelt name would never fire, and nobody would notice."""
    asked = names_in(rule["expr"])

    assert asked
    assert asked - series() == set()
    assert {"severity"} == set(rule["labels"])
    assert rule["annotations"]["summary"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_asks_for_what_is_there(panel: dict[str, Any]) -> None:
    """A panel with a misspelt name would stay empty."""
    for target in panel["targets"]:
        expression = target["expr"]
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)

        assert names_in(expression) - series() == set()
        assert names_in(expression)
