"""Shows results on the terminal, keeps them in JSON, and writes the page from that."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table

from benchmarks.outcome import Outcome
from benchmarks.plot import bars

ORDER = ("throughput", "storm", "flood", "restart", "live", "size", "timing")

_INTRODUCTION = """\
# Performance

Written by `make bench` (`make bench ARGS=--quick` for a look, `make bench ARGS=--help` for all options), which starts
every program, checks that it answers rightly, and then measures. The peers are in `benchmarks/peers`, each as its own
documentation recommends. The figures are of one machine: compare lines of a table, not tables of two machines.
"""


class Report(ABC):
    """The results in one folder; those of scenarios that are not run again stay as they were."""

    # Of the files, without suffix.
    name: ClassVar[str]

    def __init__(self, folder: Path, *, machine: Mapping[str, str]) -> None:
        self.folder = folder.resolve()
        self.machine = dict(machine)
        self.scenarios: dict[str, Any] = {}
        self._json = self.folder / f"{self.name}.json"
        if self._json.exists():
            self.scenarios = json.loads(self._json.read_text(encoding="utf-8"))["scenarios"]

    def add(self, name: str, outcome: Outcome, *, is_quick: bool, seconds: float) -> None:
        """Keep what a scenario found, which took so long."""
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        found = {**asdict(outcome), "date": date, "is_quick": is_quick, "seconds": round(seconds)}
        # Through JSON, so that old and new results have one form.
        self.scenarios[name] = json.loads(json.dumps(found))

    def print(self, console: Console, name: str) -> None:
        """Show one result."""
        found = self.scenarios[name]
        table = Table(title=found["title"], title_justify="left", header_style="bold")
        for column in found["columns"]:
            table.add_column(column, overflow="fold")
        for row in found["rows"]:
            table.add_row(*row)
        console.print(table)
        for target in found["targets"]:
            colour, word = ("green", "met") if target["is_met"] else ("red", "NOT MET")
            console.print(f"  [{colour}]{word:7}[/] {target['promise']}: {target['measured']}", highlight=False)

    def write(self) -> None:
        """Write the results as JSON, and the page that is made of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"machine": self.machine, "scenarios": self.scenarios}
        self._json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (self.folder / f"{self.name}.md").write_text("\n".join(self.page()) + "\n", encoding="utf-8")

    @abstractmethod
    def page(self) -> Iterator[str]:
        """Yield the parts of the page."""


class Performance(Report):
    """How fast it is: performance.json, performance.md and performance.svg."""

    name = "performance"

    def write(self) -> None:
        super().write()
        if "throughput" in self.scenarios:
            svg = self.folder / "performance.svg"
            svg.write_text(_plot(self.scenarios["throughput"]["values"]), encoding="utf-8")

    def page(self) -> Iterator[str]:
        yield _INTRODUCTION
        yield from self._targets()
        yield "\n## Machine\n"
        yield from table(["what", "value"], [[name, value] for name, value in self.machine.items()])
        for name in ORDER:
            if name in self.scenarios:
                yield from _section(name, self.scenarios[name])

    def _targets(self) -> Iterator[str]:
        targets = [target for name in ORDER for target in self.scenarios.get(name, {"targets": []})["targets"]]
        met = sum(target["is_met"] for target in targets)
        yield f"## Targets: {met} of {len(targets)} met\n"
        rows = [[t["promise"], t["measured"], "met" if t["is_met"] else "**not met**"] for t in targets]
        yield from table(["target", "measured", ""], rows)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def again(found: Mapping[str, Any], command: str) -> str:
    """Return when a result is of, and how to get it again."""
    provisional = ", a quick run: only to see that it works" if found["is_quick"] else ""
    return f"Measured {found['date']}{provisional}; again with `{command}`."


def _section(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {found['title']}\n"
    if name == "throughput":
        yield "![Bars: checks a second of each program](performance.svg)\n"
    yield from table(found["columns"], found["rows"])
    yield ""
    for note in found["notes"]:
        yield f"- {note}"
    quoted = f"'{'--quick ' if found['is_quick'] else ''}--only {name}'"
    yield f"- {again(found, f'make bench ARGS={quoted}')}"


def _plot(values: Mapping[str, Any]) -> str:
    rates = values["rates"]
    groups = [(label, [rates[key]["hot"], rates[key]["fresh"]]) for key, label in values["labels"].items()]
    return bars("Checks a second on one core", groups, series=["each token seen before", "each token new"])
