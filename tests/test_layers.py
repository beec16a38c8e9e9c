"""The house of design.md, section 2: imports point down only, and each library has one home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tornado_ds"
MODULES = sorted(PACKAGE.rglob("*.py"), key=str)

# From the roof to the ground; a module knows its own floor's package and what is below.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"doctor", "seed", "testing"},
    {"seed_entries"},
    {"seed_formats"},
    {"server"},
    {"app", "listeners", "logs", "workers"},
    {"public_server", "sockets", "stores", "tls"},
    {"storage"},
    {"llhttp"},
    {"handlers"},
    {"services"},
    {"gate", "housekeeping", "readiness"},
    {"accounts", "checker", "devices", "feed"},
    {"loader", "sessions"},
    {"audit", "key_follower", "snapshot", "throttle"},
    {"tokens"},
    {"cookies", "key_file", "metrics", "passwords", "recent", "settings"},
    {"addresses", "keys", "users"},
    {"acceptor", "browsers", "clock", "errors", "escape", "limits", "resources", ""},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}

# The floors between are not for storage: it is reached by contracts, and knows what they are about.
STORAGE_KNOWS = {"storage", "audit", "sessions", "snapshot", "throttle", "users", "clock", "errors", "resources"}

HOMES = {
    "alembic": {"storage"},
    "bcrypt": {"passwords"},
    "cryptography": {"keys", "tokens"},
    "jwt": {"keys", "tokens"},
    "pydantic": {"settings"},
    "pydantic_settings": {"settings"},
    "rich": {"cli"},
    "sqlalchemy": {"storage"},
    "prometheus_client": {"metrics"},
    "tornado": {"doctor", "handlers", "llhttp", "public_server", "sockets"},
    "typer": {"cli"},
    "zxcvbn": {"passwords"},
}


def part_of(module: str) -> str:
    """The module, or the package, that stands for *module* in the plan."""
    return module.partition(".")[2].partition(".")[0]


def imports_of(path: Path) -> Iterator[str]:
    """Every module that *path* imports, at the top or later, but for what it does when run as a program."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_libraries_stay_at_home(path: Path) -> None:
    """A module imports what is below it, and no library that lives elsewhere."""
    name = ".".join(("tornado_ds", *path.relative_to(PACKAGE).with_suffix("").parts))
    part = "" if name == "tornado_ds.__init__" else part_of(name)

    for imported in imports_of(path):
        library = imported.partition(".")[0]
        if library == "tornado_ds":
            below = part_of(imported) if part_of(imported) in FLOOR_OF else ""
            assert below == part or FLOOR_OF[part] < FLOOR_OF[below], f"{name} imports {imported}"
            assert part != "storage" or below in STORAGE_KNOWS, f"{name} imports {imported}"
        assert part in HOMES.get(library, {part}), f"{name} imports {library}"
