"""
Every `except` block of tornado_ds was entered by some test: `python -m tests.coverage_gate`, after `coverage combine`.

Coverage in percent lets a few of them through, and what is written for the day when something
breaks is what should have run before.
"""

import ast
import sys
from collections.abc import Container, Iterator
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]


def main() -> None:
    """End with the file and line of each block that was not entered, if there is one."""
    coverage = Coverage()
    coverage.load()
    missed = []
    for path in sorted((ROOT / "tornado_ds").rglob("*.py")):
        _, _, _, missing, _ = coverage.analysis2(str(path))
        source = path.read_text(encoding="utf-8")
        missed += [f"{path.relative_to(ROOT)}:{line}" for line in blocks_not_entered(source, missing)]
    if missed:
        sys.exit("\n".join(["no test enters these `except` blocks:", *missed]))


def blocks_not_entered(source: str, missing: Container[int]) -> Iterator[int]:
    """Return the line of each `except` whose first statement is on one of the *missing* lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.body[0].lineno in missing:
            yield node.lineno


if __name__ == "__main__":
    main()
