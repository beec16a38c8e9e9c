"""The files in config/ that start the server, and what the documents name."""

import ast
import re
from typing import Any

import pytest
import yaml

from tests.live.servers import ROOT
from tornado_ds.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, variable_of, walk_fields

CONFIG = ROOT / "config"
KEYS = [key for key, _ in walk_fields()]


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yml").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yml", "tornado_ds.service", "deepstream/config.yml"])
def test_variables_are_settings(name: str) -> None:
    """No file sets what nobody reads."""
    text = (CONFIG / name).read_text(encoding="utf-8")

    used = set(re.findall(r"TORNADO_DS_[A-Z_]+", text))

    assert used <= {CONFIG_VARIABLE, SECRETS_VARIABLE, *(variable_of(key) for key in KEYS)}
    assert used


def test_secrets_of_the_auth_server_are_settings(compose: dict[str, Any]) -> None:
    """Each file in its folder of secrets sets something, and is one that the compose file has."""
    names = compose["services"]["auth"]["secrets"]

    assert set(names) <= {key.replace(".", "__") for key in KEYS}
    assert set(names) <= set(compose["secrets"])


def test_images_are_in_the_dockerfile(compose: dict[str, Any]) -> None:
    """What compose builds is there to be built."""
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", (CONFIG / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))

    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}

    assert targets == {"tornado_ds", "deepstream"}
    assert targets <= stages


def test_database_and_internal_listener_are_not_published(compose: dict[str, Any]) -> None:
    """Only pages and WebSockets have a port outside, and that on this machine alone."""
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}

    assert ports == {"auth": ["127.0.0.1:8000:8000"], "deepstream": ["127.0.0.1:6020:6020"], "postgres": []}


def test_dockerfile_copies_what_is_not_ignored() -> None:
    """What the build needs reaches it, and secrets do not."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}

    assert lines[0] == "*"
    assert all((ROOT / name).exists() for name in sent)
    assert {"tornado_ds", "templates", "migrations", "config", "setup.py", "README.md"} <= sent
    assert "config/secrets" in lines


def test_source_archive_has_what_goes_into_the_wheel() -> None:
    """Who builds a wheel from the archive, as `python -m build` does, finds the same folders there."""
    [resources] = re.findall(r"^RESOURCES = (.+)$", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")

    assert list(ast.literal_eval(resources)) == re.findall(r"^graft (\w+)$", manifest, re.MULTILINE)
    assert {"exclude config/tornado_ds.yml", "prune config/secrets"} <= set(manifest.splitlines())


def test_tests_that_the_threat_model_names_are_there() -> None:
    """A promise that names its test has one."""
    named = set(re.findall(r"\btest_[a-z_]+\.py", (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")))

    assert [name for name in sorted(named) if not list((ROOT / "tests").glob(f"*/{name}"))] == []
    assert named
