"""What `doctor` says of settings and files without asking anybody."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import make_secrets
from tornado_ds.doctor.clocks import compare_clocks
from tornado_ds.doctor.configuration import examine_settings
from tornado_ds.doctor.files import examine_files, find_secret
from tornado_ds.settings import Address, PasswordSettings, Settings, TLSSettings, make_data_dir

HTTPS = {"public_url": "https://app.example.com", "deepstream_url": "wss://app.example.com/deepstream"}
TRUST = {"trusted_proxies": ["127.0.0.1"]}


def lines(settings: Settings) -> list[str]:
    """Level and topic of all that is not well with the settings."""
    return [f"{finding.level} {finding.topic}" for finding in examine_settings(settings) if finding.level != "ok"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="defaults"),
        pytest.param({**HTTPS, **TRUST}, id="https"),
        pytest.param({"listen": "unix:public.sock", "trusted_proxies": ["unix"]}, id="unix"),
        pytest.param({**HTTPS, **TRUST, "internal_listen": "[::1]:8001"}, id="ipv6"),
        pytest.param({"public_url": "http://app.localhost:8000", "deepstream_url": "ws://app.localhost"}, id="local"),
    ],
)
def test_settings_are_well_when_nothing_is_known_against_them(values: dict[str, Any]) -> None:
    """The defaults are."""
    assert [] == lines(Settings(**values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {**TRUST, "public_url": "http://app.example.com", "deepstream_url": "ws://app.example.com"},
            "wrong public_url",
            id="passwords-without-tls",
        ),
        pytest.param(
            {**TRUST, **HTTPS, "deepstream_url": "wss://ds.example.com"}, "wrong deepstream_url", id="two-host-names"
        ),
        pytest.param(
            {**TRUST, **HTTPS, "deepstream_url": "ws://app.example.com"}, "wrong deepstream_url", id="ws-from-https"
        ),
        pytest.param({"allowed_origins": ["http://localhost:9000"]}, "wrong allowed_origins", id="own-origin-missing"),
        pytest.param(
            {**TRUST, **HTTPS, "allowed_origins": ["https://app.example.com", "http://b.example.com"]},
            "warning allowed_origins",
            id="origin-without-tls",
        ),
        pytest.param({"trusted_proxies": ["0.0.0.0/0"]}, "wrong trusted_proxies", id="everybody-trusted"),
        pytest.param(HTTPS, "warning trusted_proxies", id="nobody-trusted"),
        pytest.param({"listen": "unix:public.sock"}, "warning trusted_proxies", id="nobody-trusted-on-a-unix-socket"),
        pytest.param({"internal_listen": Address("0.0.0.0", 8001)}, "warning internal_listen", id="internal-is-open"),
        pytest.param(
            {"passwords": PasswordSettings(bcrypt_cost=4, allow_weak_cost=True)}, "wrong passwords", id="cheap-bcrypt"
        ),
        pytest.param({"passwords": PasswordSettings(allow_weak_cost=True)}, "warning passwords", id="may-be-cheap"),
    ],
)
def test_setting_is_named_when_it_is_a_mistake(values: dict[str, Any], expected: str) -> None:
    """Each alone, and with what to do."""
    assert [expected] == lines(Settings(**values))
    assert all(finding.advice for finding in examine_settings(Settings(**values)) if finding.level != "ok")


@pytest.mark.parametrize(
    ("seconds", "level", "text"),
    [
        (0, "ok", "it and this machine agree"),
        (-5, "ok", "it and this machine agree"),
        (30, "warning", "it is 30 s ahead of this machine"),
        (-86400, "wrong", "it is 86400 s behind this machine"),
    ],
)
def test_clock_is_wrong_when_it_is_far_off(seconds: int, level: str, text: str) -> None:
    """A few seconds are what an answer may take."""
    finding = compare_clocks("it", 1_800_000_000 + seconds, 1_800_000_000)

    assert (level, text) == (finding.level, finding.text)


@pytest.fixture
def folder(settings: Settings) -> Path:
    """The data folder as a first start makes it."""
    make_data_dir(settings)
    make_secrets(settings, now=1_800_000_000)
    settings.sqlite_path.write_bytes(b"users and their sessions")
    return settings.data_dir


def test_files_are_well_when_a_start_has_made_them(settings: Settings, folder: Path) -> None:
    """One line for all of them."""
    assert ["ok"] == [finding.level for finding in examine_files(settings)]
    assert find_secret(settings) == settings.secret_file.read_text().strip()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda folder: folder.chmod(0o755), "is open to other users (mode 755)", id="folder-open"),
        pytest.param(
            lambda folder: (folder / "keys.json").chmod(0o644), "keys.json can be read by other users", id="keys-open"
        ),
        pytest.param(
            lambda folder: (folder / "keys.json").write_text("{"), "is no key file of ours", id="keys-damaged"
        ),
        pytest.param(lambda folder: (folder / "keys.json").unlink(), "keys.json", id="keys-lost"),
        pytest.param(lambda folder: (folder / "webhook.secret").unlink(), "webhook.secret", id="secret-lost"),
        pytest.param(lambda folder: (folder / "webhook.secret").chmod(0o640), "webhook.secret", id="secret-open"),
        pytest.param(lambda folder: (folder / "webhook.secret").write_text(""), "webhook.secret", id="secret-empty"),
    ],
)
def test_file_is_wrong_when_others_may_read_it_or_nobody_can(
    settings: Settings, folder: Path, change: Callable[[Path], object], expected: str
) -> None:
    """The line says which one."""
    change(folder)

    [finding] = examine_files(settings)

    assert "wrong" == finding.level
    assert expected in finding.text
    assert finding.advice


def test_secret_is_not_known_when_its_file_cannot_be_used(settings: Settings, folder: Path) -> None:
    """What is wrong with it is said where files are looked at."""
    (folder / "webhook.secret").write_text("")

    assert find_secret(settings) is None


def test_certificate_is_wrong_when_the_server_could_not_use_it(settings: Settings, folder: Path) -> None:
    """Before a restart finds out."""
    for name in ("certificate", "key"):
        (folder / name).touch(mode=0o600)
    tls = TLSSettings(certificate=folder / "certificate", key=folder / "key")

    [finding] = examine_files(settings.model_copy(update={"tls": tls}))

    assert ("wrong", True) == (finding.level, finding.text.startswith("tls: "))


def test_folder_is_wrong_when_nobody_can_tell_whether_it_is_there(settings: Settings) -> None:
    """Whoever may not enter the folder around it is told to be somebody else."""
    # Root may enter every folder, but cannot follow this link either.
    settings.data_dir.symlink_to("x" * 300)

    [finding] = examine_files(settings)

    assert (finding.level, finding.text) == ("wrong", f"{settings.data_dir} cannot be read")


def test_nothing_is_made_when_there_is_no_folder(settings: Settings) -> None:
    """Whoever examines another machine's server has none."""
    [finding] = examine_files(settings)

    assert "warning" == finding.level
    assert find_secret(settings) is None
    assert not settings.data_dir.exists()
