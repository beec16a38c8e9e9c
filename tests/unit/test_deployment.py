"""The files in config/ that start the server, and what the documents name."""

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.servers import ROOT
from tornado_ds.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, variable_of, walk_fields
from tornado_ds.workers import STOP_SECONDS

CONFIG = ROOT / "config"
KEYS = [key for key, _ in walk_fields()]

Directives = Mapping[str, Mapping[str, Sequence[str]]]

_YES, _SECONDS, _MODE, _NAME = "yes", r"\d+", "0[0-7]{3}", "[a-z][a-z_]*"
_ONLINE = r"network-online\.target"

# What systemd knows (systemd.unit, .service, .exec, .kill and .resource-control) and the unit uses, with the values
# that it may have here. systemd itself starts a service whose unit is misspelt, only without what that line was for.
DIRECTIVES = {
    "Unit": {"Description": r"[ -~]+", "After": _ONLINE, "Wants": _ONLINE, "StartLimitIntervalSec": _SECONDS},
    "Service": {
        "Environment": r"[A-Z_]+=/\S+",
        "ExecStart": r"/\S+( \S+)*",
        "ExecReload": r"/\S+( \S+)*",
        "KillMode": "mixed",
        "TimeoutStopSec": _SECONDS,
        "Restart": "always",
        "RestartSec": _SECONDS,
        "LimitNOFILE": _SECONDS,
        "User": _NAME,
        "StateDirectory": _NAME,
        "StateDirectoryMode": _MODE,
        "RuntimeDirectory": _NAME,
        "RuntimeDirectoryMode": _MODE,
        "UMask": _MODE,
        "NoNewPrivileges": _YES,
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "ProtectSystem": "strict",
        "ProtectHome": _YES,
        "ProtectClock": _YES,
        "ProtectControlGroups": _YES,
        "ProtectHostname": _YES,
        "ProtectKernelLogs": _YES,
        "ProtectKernelModules": _YES,
        "ProtectKernelTunables": _YES,
        "ProtectProc": "invisible",
        "ProcSubset": "pid",
        "PrivateDevices": _YES,
        "PrivateTmp": _YES,
        "PrivateUsers": _YES,
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces": _YES,
        "RestrictRealtime": _YES,
        "RestrictSUIDSGID": _YES,
        "LockPersonality": _YES,
        "MemoryDenyWriteExecute": _YES,
        "RemoveIPC": _YES,
        "SystemCallArchitectures": "native",
        "SystemCallFilter": r"~?@?[a-z-]+( @[a-z-]+)*",
        "SystemCallErrorNumber": "EPERM",
    },
    "Install": {"WantedBy": r"multi-user\.target"},
}

# Of all others the last one would count.
LISTS = {"Environment", "SystemCallFilter"}


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yml").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def unit() -> Directives:
    """The systemd unit: all values of each directive in each section."""
    return read_unit((CONFIG / "tornado_ds.service").read_text(encoding="utf-8"))


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


def test_unit_says_what_systemd_understands(unit: Directives, tmp_path: Path) -> None:
    """Every directive and value is one that was looked up, each is there, and systemd agrees where there is one."""
    wrong = [
        f"{name}={value}"
        for section, directives in unit.items()
        for name, values in directives.items()
        for value in values
        if not re.fullmatch(DIRECTIVES[section][name], value)
    ]
    repeated = {name for directives in unit.values() for name, values in directives.items() if len(values) > 1}

    assert {section: set(known) for section, known in DIRECTIVES.items()} == {key: set(unit[key]) for key in unit}
    assert [] == wrong
    assert LISTS == repeated
    assert [] == complaints_of_systemd(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("PrivateTmpp=yes", "PrivateTmpp", id="unknown-directive"),
        pytest.param("[Sandbox]", "Sandbox", id="unknown-section"),
        pytest.param("PrivateTmp yes", "PrivateTmp yes", id="no-directive"),
        pytest.param("ExecStart=/bin/true \\", "ExecStart", id="goes-on-in-the-next-line"),
    ],
)
def test_unit_is_refused_when_a_line_is_none_of_ours(line: str, expected: str) -> None:
    """What is misspelt is found without systemd too, which only warns of it."""
    with pytest.raises(AssertionError, match=expected):
        read_unit(f"[Service]\n{line}\n")


def test_unit_starts_the_command_that_is_installed(unit: Directives) -> None:
    """As a user of its own, in the folder that systemd makes for it, with settings that are a file's."""
    service = {name: values[-1] for name, values in unit["Service"].items()}
    [script] = re.findall(r'"([a-z-]+)\s*=\s*tornado_ds', (ROOT / "setup.py").read_text(encoding="utf-8"))

    assert f"/opt/tornado_ds/bin/{script} serve" == service["ExecStart"]
    assert "/bin/kill -HUP $MAINPID" == service["ExecReload"]
    assert [
        f"{CONFIG_VARIABLE}=/etc/tornado_ds/tornado_ds.yml",
        f"{variable_of('data_dir')}=/var/lib/{service['StateDirectory']}",
    ] == unit["Service"]["Environment"]
    assert ("tornado_ds", "0700", "0077") == (service["User"], service["StateDirectoryMode"], service["UMask"])


def test_unit_is_tried_until_the_database_is_back_and_has_time_to_stop(unit: Directives) -> None:
    """As docs/operations.md says; workers that hang are killed by their parent, and not by systemd."""
    [limit], [patience] = unit["Unit"]["StartLimitIntervalSec"], unit["Service"]["TimeoutStopSec"]

    assert "0" == limit
    assert int(patience) > STOP_SECONDS


def test_unit_lets_hashing_make_itself_less_important(unit: Directives) -> None:
    """Of the calls that are taken away last, this one is given back after it: the order counts."""
    assert ["@system-service", "~@privileged @resources", "setpriority"] == unit["Service"]["SystemCallFilter"]


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


def read_unit(text: str) -> Directives:
    """Return the sections of a unit with all values of each directive; of lines that are neither there is none."""
    unit: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(.+)\]", line):
            section = header[1]
            assert section in DIRECTIVES, line
            unit[section] = defaultdict(list)
            continue
        name, equals, value = line.partition("=")
        assert equals, line
        assert name in DIRECTIVES[section], line
        assert not value.endswith("\\"), line
        unit[section][name].append(value)
    return unit


def complaints_of_systemd(folder: Path) -> list[str]:
    """Return what systemd says of the unit, as `make verify-unit` does; nothing where it is not installed."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return []
    copy = folder / "tornado_ds.service"
    # The unit's program is not installed here, so another one stands in for it.
    text = (CONFIG / copy.name).read_text(encoding="utf-8")
    copy.write_text(text.replace("/opt/tornado_ds/bin/tornado-ds", "/bin/true"), encoding="utf-8")
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    # It also looks at units of this machine, and most of what it finds is no failure to it.
    return [line for line in done.stderr.splitlines() if copy.name in line]
