import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from tornado_ds.errors import SettingsError
from tornado_ds.settings import (
    Address,
    Settings,
    UnixAddress,
    check_secret,
    flatten,
    load_settings,
    parse_duration,
    variable_of,
    walk_fields,
    webhook_secret,
)

STRONG = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is configured: an empty folder, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("TORNADO_DS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a private configuration file."""

    def write(content: str | bytes, *, name: str = "tornado_ds.yml", mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


def assert_one_line(error: SettingsError) -> None:
    """What an operator gets to read fits on one line."""
    assert str(error)
    assert str(error).isprintable()
    assert "For further information" not in str(error)


def test_load_settings_has_the_defaults_of_the_design_when_nothing_is_configured() -> None:
    """With no configuration at all it starts on localhost."""
    expected = {
        "listen": "127.0.0.1:8000",
        "internal_listen": "127.0.0.1:8001",
        "public_url": "http://localhost:8000",
        "allowed_origins": "http://localhost:8000",
        "data_dir": "var",
        "database_url": "",
        "user_store": "sqlalchemy",
        "webapp_dir": "",
        "deepstream_url": "ws://localhost:6020/deepstream",
        "token.algorithm": "HS256",
        "token.issuer": "tornado_ds",
        "token.audience": "deepstream",
        "session.idle_timeout": str(12 * 3600),
        "session.absolute_timeout": str(14 * 86400),
        "webhook.secret": "",
        "webhook.credentials_login": "false",
        "webhook.stale_for": "300",
        "passwords.bcrypt_cost": "12",
        "passwords.allow_weak_cost": "false",
        "passwords.min_length": "12",
        "trusted_proxies": "",
        "workers": "1",
        "log_format": "console",
        "log_level": "info",
    }

    settings = load_settings()

    assert expected.items() <= flatten(settings).items()
    assert settings.uses_embedded_database
    assert Path("var/tornado_ds.sqlite3") == settings.sqlite_path
    assert Path("var/keys.json") == settings.key_file


def test_walk_fields_describes_every_key() -> None:
    """The table of settings can be made from the code."""
    described = {key: field.description for key, field in walk_fields()}

    assert all(described.values())
    assert described.keys() == flatten(load_settings()).keys()


def test_load_settings_reads_the_file_that_is_named(write: Write) -> None:
    """Every kind of value can be written in YAML."""
    file = write(
        "listen: '[::1]:9000'\n"
        "public_url: HTTPS://App.Example.com:443/\n"
        "allowed_origins: [https://app.example.com, http://localhost:3000]\n"
        "trusted_proxies: [10.0.0.1/8, '::1']\n"
        "session: {idle_timeout: 30m, absolute_timeout: 90d}\n"
        "webhook: {credentials_login: true, stale_for: 45}\n"
        "token: {algorithm: EdDSA, issuer: me}\n"
    )

    settings = load_settings(file)

    assert Address("::1", 9000) == settings.listen
    assert str(settings.listen) == "[::1]:9000"
    assert settings.public_url == "https://app.example.com"
    assert settings.allowed_origins == ("https://app.example.com", "http://localhost:3000")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert (
        settings.session.idle_timeout,
        settings.session.absolute_timeout,
        settings.webhook.stale_for,
    ) == (30 * 60, 90 * 86400, 45)
    assert settings.webhook.credentials_login
    assert settings.token.algorithm == "EdDSA"


def test_load_settings_finds_the_usual_file_when_none_is_named(write: Write) -> None:
    """config/tornado_ds.yml of the current folder is read without being asked for."""
    write("workers: 3\n", name="config/tornado_ds.yml")

    assert load_settings().workers == 3


def test_load_settings_has_the_defaults_when_config_is_a_file(tmp_path: Path) -> None:
    """Whatever else is called like our folder holds no settings of ours."""
    (tmp_path / "config").write_text("workers: 3\n")

    assert load_settings().workers == 1


def test_load_settings_says_so_when_nobody_can_tell_whether_there_is_a_file(tmp_path: Path) -> None:
    """A command that is typed in a folder of somebody else ends in one line that helps."""
    # Root may look into every folder, but cannot follow this link either.
    (tmp_path / "config").symlink_to("x" * 300)

    with pytest.raises(SettingsError, match=r"^config/tornado_ds\.yml cannot be read: .*--config$") as caught:
        load_settings()

    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("workers: 2\nlisten: localhost:1\nworkers: 3\n", "line 3: 'workers' is there twice", id="key"),
        pytest.param(
            f"webhook:\n  secret: {STRONG}\nwebhook:\n  stale_for: 5m\n",
            "line 3: 'webhook' is there twice",
            id="section",
        ),
        pytest.param("session:\n  idle_timeout: 1h\n  idle_timeout: 2h\n", "line 3: 'idle_timeout' is", id="nested"),
    ],
)
def test_load_settings_refuses_what_is_there_twice(write: Write, content: str, expected: str) -> None:
    """YAML would take the last one, and a secret in the first would be another one from then on."""
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings(write(content))

    assert_one_line(caught.value)


def test_load_settings_finds_the_file_of_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """TORNADO_DS_CONFIG names a file as --config does."""
    monkeypatch.setenv("TORNADO_DS_CONFIG", str(write("workers: 4\n", name="other.yml")))

    assert load_settings().workers == 4


def test_load_settings_prefers_the_environment_to_secrets_to_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable overrides a file of the secrets folder, and that the YAML file; nested keys are merged one by one."""
    file = write("workers: 2\nlog_format: json\nsession: {idle_timeout: 1h, absolute_timeout: 1d}\n")
    write("7\n", name="secrets/workers")
    write(f"{STRONG}\n", name="secrets/webhook__secret")
    monkeypatch.setenv("TORNADO_DS_SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("TORNADO_DS_SESSION__IDLE_TIMEOUT", "2h")

    settings = load_settings(file)

    assert settings.workers == 7
    assert webhook_secret(settings) == STRONG
    assert settings.log_format == "json"
    assert (settings.session.idle_timeout, settings.session.absolute_timeout) == (7200, 86400)

    monkeypatch.setenv("TORNADO_DS_WORKERS", "8")
    assert load_settings(file).workers == 8


def test_load_settings_reads_every_key_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What flatten shows can be set, key by key, as a variable."""
    (tmp_path / "www").mkdir()
    values = {
        "listen": "0.0.0.0:1",
        "internal_listen": "0.0.0.0:2",
        "public_url": "https://a.example",
        "allowed_origins": "https://a.example, https://b.example",
        "data_dir": "data",
        "database_url": "postgresql://u:p@h/d",
        "user_store": "memory",
        "webapp_dir": "www",
        "deepstream_url": "wss://a.example/deepstream",
        "client_script": "https://cdn.example/ds.min.js",
        "token.algorithm": "ES256",
        "webhook.secret": STRONG,
        "trusted_proxies": "10.0.0.0/8, 127.0.0.1/32",
        "log_format": "json",
        "log_level": "debug",
    }
    for key, value in values.items():
        monkeypatch.setenv(variable_of(key), value)

    shown = flatten(load_settings())

    secrets = {"database_url": "**********", "webhook.secret": "**********"}
    assert shown | values | secrets == shown
    assert STRONG not in repr(load_settings())


def test_load_settings_reads_unix_sockets(write: Write) -> None:
    """Either listener can be a unix socket, and is shown as it was written."""
    settings = load_settings(write("listen: unix:/run/a.sock\ninternal_listen: unix:b.sock\ntrusted_proxies: unix\n"))

    assert UnixAddress(Path("/run/a.sock")) == settings.listen
    assert flatten(settings)["internal_listen"] == "unix:b.sock"
    assert settings.trusted_proxies == ("unix",)


def test_allowed_origins_follow_public_url_when_they_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one origin that surely needs access has it."""
    monkeypatch.setenv("TORNADO_DS_PUBLIC_URL", "https://app.example.com")

    assert load_settings().allowed_origins == ("https://app.example.com",)


@pytest.mark.parametrize("nothing", ["", "[]", "''"], ids=["commented-out", "list", "text"])
def test_allowed_origins_follow_public_url_when_nothing_stands_behind_them(write: Write, nothing: str) -> None:
    """As where somebody has commented out the list below them."""
    file = write(f"public_url: https://app.example.com\nallowed_origins: {nothing}\n")

    assert load_settings(file).allowed_origins == ("https://app.example.com",)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        pytest.param("listn", "listn: 127.0.0.1:8000", id="unknown-key"),
        pytest.param("session.idle", "session: {idle: 1h}", id="unknown-nested-key"),
        pytest.param("session", "session: 1", id="section-not-an-object"),
        pytest.param("webhook", "webhook:", id="empty-section"),
        pytest.param("listen", "listen: 8000", id="port-only"),
        pytest.param("listen", "listen: ':8000'", id="no-host"),
        pytest.param("listen", "listen: localhost", id="no-port"),
        pytest.param("listen", "listen: localhost:http", id="named-port"),
        pytest.param("listen", "listen: localhost:65536", id="port-too-high"),
        pytest.param("listen", "listen: [127.0.0.1, 8000]", id="address-array"),
        pytest.param("listen", "listen: 'unix:'", id="unix-without-path"),
        pytest.param("listen", f"listen: unix:/{'a' * 107}", id="unix-path-too-long"),
        pytest.param("tls", "tls: {certificate: a.crt}", id="certificate-without-key"),
        pytest.param("public_url", "tls: {certificate: a.crt, key: a.key}", id="certificate-and-http"),
        pytest.param("public_url", "public_url: app.example.com", id="url-without-scheme"),
        pytest.param("public_url", "public_url: ftp://app.example.com", id="url-of-another-scheme"),
        pytest.param("public_url", "public_url: https://app.example.com/auth", id="url-with-path"),
        pytest.param("public_url", "public_url: https://me@app.example.com", id="url-with-user"),
        pytest.param("public_url", "public_url: 'http://['", id="url-that-nobody-parses"),
        pytest.param("public_url", "public_url: https://app.example.com:99999", id="url-with-impossible-port"),
        pytest.param("public_url", "public_url: https://bücher.example", id="url-not-ascii"),
        pytest.param("public_url", "public_url: ''", id="url-empty"),
        pytest.param("public_url", "public_url: 'https://app.example.com '", id="url-with-blank"),
        pytest.param("allowed_origins", "allowed_origins: '*'", id="any-origin"),
        pytest.param("allowed_origins", "allowed_origins: ['null']", id="null-origin"),
        pytest.param("allowed_origins", "allowed_origins: ['*.example.com']", id="wildcard"),
        pytest.param("allowed_origins", "allowed_origins: ['https://*.example.com']", id="wildcard-with-scheme"),
        pytest.param("allowed_origins", "allowed_origins: 5", id="origins-number"),
        pytest.param("data_dir", "data_dir: ''", id="data-dir-empty"),
        pytest.param("data_dir", 'data_dir: "a\\0b"', id="data-dir-with-nul"),
        pytest.param("webapp_dir", "webapp_dir: ''", id="webapp-dir-empty"),
        pytest.param("session", "session:", id="section-without-keys"),
        pytest.param("webapp_dir", "webapp_dir: nowhere", id="webapp-dir-missing"),
        pytest.param("webapp_dir", "webapp_dir: .", id="webapp-dir-around-data-dir"),
        pytest.param("database_url", "database_url: ''", id="database-empty"),
        pytest.param("database_url", "database_url: 5", id="database-number"),
        pytest.param("user_store", "user_store: ''", id="store-empty"),
        pytest.param("deepstream_url", "deepstream_url: http://localhost:6020", id="no-websocket"),
        pytest.param("deepstream_url", "deepstream_url: 'ws://a; script-src *'", id="policy-injection"),
        pytest.param("deepstream_url", "deepstream_url: ws://localhost:602O", id="websocket-port"),
        pytest.param("client_script", "client_script: \"https://a/'x'\"", id="script-injection"),
        pytest.param("token.algorithm", "token: {algorithm: none}", id="no-algorithm"),
        pytest.param("token.algorithm", "token: {algorithm: HS512}", id="other-algorithm"),
        pytest.param("token.issuer", "token: {issuer: ''}", id="issuer-empty"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: 0}", id="no-time"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: -5m}", id="negative-time"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: 1w}", id="unknown-unit"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: 1.5h}", id="fraction-of-a-unit"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: true}", id="time-true"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: 1.0}", id="time-float"),
        pytest.param("session.idle_timeout", "session: {idle_timeout: 999999999d}", id="time-beyond-dates"),
        pytest.param("session.absolute_timeout", "session: {absolute_timeout: 99999999999999}", id="time-without-end"),
        pytest.param("webhook.stale_for", "webhook: {stale_for: ''}", id="time-empty"),
        pytest.param("webhook.secret", "webhook: {secret: ''}", id="secret-empty"),
        pytest.param("webhook.secret", f"webhook: {{secret: {STRONG[:23]}}}", id="secret-short"),
        pytest.param("webhook.secret", f"webhook: {{secret: '{STRONG}:x'}}", id="secret-with-colon"),
        pytest.param("webhook.secret", f"webhook: {{secret: '{STRONG} '}}", id="secret-with-blank"),
        pytest.param("webhook.secret", f"webhook: {{secret: '{STRONG}/@'}}", id="secret-not-for-urls"),
        pytest.param("webhook.secret", "webhook: {secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}", id="secret-one-letter"),
        pytest.param("webhook.secret", "webhook: {secret: change-me-0123456789abcdef}", id="secret-change-me"),
        pytest.param("webhook.secret", "webhook: {secret: my-Example-0123456789abcdef}", id="secret-example"),
        pytest.param("webhook.secret", "webhook: {secret: abrakadabra-0123456789abcdef}", id="secret-of-the-tutorial"),
        pytest.param("webhook.secret", "webhook: {secret: 12345678901234567890123456789012}", id="secret-number"),
        pytest.param("bcrypt_cost", "passwords: {bcrypt_cost: 9}", id="cost-weak"),
        pytest.param("bcrypt_cost", "passwords: {bcrypt_cost: 21}", id="cost-of-minutes"),
        pytest.param("bcrypt_cost", "passwords: {bcrypt_cost: 3, allow_weak_cost: true}", id="cost-impossible"),
        pytest.param("passwords.min_length", "passwords: {min_length: 7}", id="passwords-too-short"),
        pytest.param("passwords.min_length", "passwords: {min_length: 73}", id="passwords-too-long"),
        pytest.param("trusted_proxies", "trusted_proxies: 10.0.0.0/33", id="impossible-network"),
        pytest.param("trusted_proxies", "trusted_proxies: [proxy.local]", id="proxy-name"),
        pytest.param("workers", "workers: 0", id="no-workers"),
        pytest.param("workers", "workers: many", id="workers-word"),
        pytest.param("log_format", "log_format: xml", id="log-format"),
        pytest.param("log_level", "log_level: chatty", id="log-level"),
    ],
)
def test_load_settings_names_the_key_in_one_line_when_its_value_is_bad(write: Write, key: str, content: str) -> None:
    """A start with a wrong setting ends with one line that says where to look, and repeats no secret."""
    file = write(content)

    with pytest.raises(SettingsError) as caught:
        load_settings(file)

    assert_one_line(caught.value)
    assert key in str(caught.value)
    assert STRONG not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("- listen", id="list"),
        pytest.param("listen", id="text"),
        pytest.param("1", id="number"),
        pytest.param("1: 2", id="number-as-key"),
        pytest.param("? [a]\n: b", id="list-as-key"),
        pytest.param("[]", id="empty-list"),
        pytest.param("false", id="false"),
        pytest.param("[", id="unclosed"),
        pytest.param("a: b: c", id="two-colons"),
        pytest.param("a: *unknown", id="unknown-alias"),
        pytest.param(b"\xff\xfe\0", id="binary"),
        pytest.param(b"a: \0", id="nul"),
        pytest.param("!!python/object/apply:os.getcwd []", id="python-object"),
        pytest.param("[" * 500, id="deep"),
    ],
)
def test_load_settings_names_the_file_in_one_line_when_it_is_not_yaml_of_ours(
    write: Write, content: str | bytes
) -> None:
    """A damaged file is no traceback."""
    file = write(content)

    with pytest.raises(SettingsError, match=r"tornado_ds\.yml") as caught:
        load_settings(file)

    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        pytest.param("is not YAML: line 2: found a tab", "session:\n\tidle_timeout: 1h", id="tab"),
        pytest.param("is not UTF-8 text", b"public_url: \xff", id="latin-1"),
        pytest.param("public_url: write an origin such as https://app.example.com", "public_url: a.example", id="host"),
        pytest.param("listen and internal_listen are both 127.0.0.1:8001", "listen: 127.0.0.1:8001", id="same"),
    ],
)
def test_load_settings_says_what_is_wrong_and_no_more(write: Write, expected: str, content: str | bytes) -> None:
    """Neither what follows from it, nor what only somebody who knows Python reads."""
    file = write(content)

    with pytest.raises(SettingsError) as caught:
        load_settings(file)

    assert expected in str(caught.value)
    assert "more)" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "---\n", "{}\n"])
def test_load_settings_takes_an_empty_file_for_the_defaults(write: Write, content: str) -> None:
    """Somebody who comments everything out gets what stands in the comments."""
    assert flatten(load_settings()) == flatten(load_settings(write(content)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yml", "No such file or directory"), (".", "Is a directory")],
    ids=["missing", "folder"],
)
def test_load_settings_says_so_when_the_file_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    """A file that was asked for must be there."""
    file = tmp_path / name

    with pytest.raises(SettingsError) as caught:
        load_settings(file)

    assert str(caught.value) == f"{file} cannot be read: {reason}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("TORNADO_DS_LISTN", "127.0.0.1:8000", id="unknown"),
        pytest.param("tornado_ds_listn", "127.0.0.1:8000", id="unknown-in-lower-case"),
        pytest.param("TORNADO_DS_SESSION__IDLE", "1h", id="unknown-nested"),
        pytest.param("TORNADO_DS_SESSION", "{}", id="whole-section"),
        pytest.param("TORNADO_DS_SESSION_IDLE_TIMEOUT", "1h", id="one-underscore"),
        pytest.param("TORNADO_DS_WEBAPP_DIR", "", id="webapp_dir"),
        pytest.param("TORNADO_DS_DATA_DIR", "", id="data_dir"),
        pytest.param("TORNADO_DS_DATABASE_URL", "", id="database_url"),
        pytest.param("TORNADO_DS_WEBHOOK__SECRET", "", id="webhook.secret"),
        pytest.param("TORNADO_DS_WORKERS", "two", id="workers"),
        pytest.param("TORNADO_DS_ALLOWED_ORIGINS", "https://a.example,*", id="allowed_origins"),
        pytest.param("TORNADO_DS_SECRETS_DIR", "nowhere", id="nowhere"),
        pytest.param("TORNADO_DS_CONFIG", "nowhere.yml", id="nowhere.yml"),
    ],
)
def test_load_settings_names_the_variable_or_key_when_the_environment_is_wrong(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, variable: str, value: str
) -> None:
    """A slip in the environment stops the start, and an unset variable that came as an empty text too."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert_one_line(caught.value)
    assert variable in str(caught.value) or request.node.callspec.id in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"webhook: {{secret: {STRONG}}}", id="webhook-secret"),
        pytest.param("database_url: postgresql://me:hidden@localhost/db", id="database-password"),
        pytest.param("database_url: postgresql://db/x?user=u&password=hidden", id="database-password-in-query"),
        pytest.param("database_url: postgresql://db/x?user=u&%70assword=hidden", id="database-password-in-disguise"),
    ],
)
def test_load_settings_refuses_a_file_when_others_can_read_its_secret(write: Write, content: str, mode: int) -> None:
    """Secrets are in private files; the same content is good once the file is private."""
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        load_settings(write(content, mode=mode))

    assert_one_line(caught.value)
    assert load_settings(write(content, mode=0o600))


@pytest.mark.parametrize("content", ["", "database_url:", "database_url: sqlite:////var/lib/tornado_ds/users.sqlite3"])
def test_load_settings_takes_a_readable_file_when_it_holds_no_secret(write: Write, content: str) -> None:
    """Most configuration is nobody's secret."""
    assert load_settings(write(f"workers: 2\n{content}", mode=0o644)).workers == 2


def test_load_settings_takes_an_empty_section_when_variables_fill_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comments out all keys of a section can leave its name there."""
    monkeypatch.setenv("TORNADO_DS_WEBHOOK__SECRET", STRONG)

    settings = load_settings(write("webhook:\n", mode=0o644))

    assert STRONG == webhook_secret(settings)


# Plausible and implausible values of all kinds; a NUL, line breaks and escapes among them.
VALUES = st.sampled_from(
    [None, True, 0, -1, 1, 10**30, 0.5, float("nan"), "", "5m", "127.0.0.1:1", "unix:/a", "a:\u0663", "http://[", "::1"]
) | st.text(st.characters(codec=None), max_size=8)
NAMES = st.sampled_from([part for key, _ in walk_fields() for part in key.split(".")]) | st.text(max_size=4)
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=10
)


def as_yaml(tree: object) -> bytes:
    """Return *tree* as a file of settings; JSON is YAML, and can hold any text."""
    return json.dumps(tree).encode()


@given(
    content=st.dictionaries(NAMES, TREES, max_size=4).map(as_yaml)
    | st.text("aw:\n -[]{}&*!|'\"\\#,?%@\t", max_size=30).map(str.encode)
    | st.binary(max_size=30)
)
@example(content=b"session: &a {idle_timeout: *a}")
@example(content=b'"a\\nb": 1')
@example(content=b'data_dir: "\\0"')
@example(content=b'webapp_dir: "\\0"')
@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_load_settings_takes_any_file_or_says_why_not(write: Write, content: bytes) -> None:
    """Nothing that a file can hold makes the start fail in any other way than with one line."""
    file = write(content, mode=0o644)

    try:
        settings = load_settings(file)
    except SettingsError as exc:
        assert_one_line(exc)
    else:
        assert flatten(settings)


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        pytest.param("is a folder: is what was to be mounted", lambda file: file.mkdir(parents=True), id="folder"),
        pytest.param("is not UTF-8 text", lambda file: _write_bytes(file, b"\xff"), id="binary"),
        pytest.param("cannot be read: Too many levels", lambda file: _link_to_itself(file), id="unreadable"),
    ],
)
def test_load_settings_names_a_secret_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str, make: Callable[[Path], object]
) -> None:
    """It would be passed over, and the default taken."""
    file = tmp_path / "secrets" / "webhook__secret"
    make(file)
    monkeypatch.setenv("TORNADO_DS_SECRETS_DIR", str(file.parent))

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert_one_line(caught.value)
    assert str(caught.value).startswith(f"{file} {reason}")


def test_load_settings_refuses_a_weak_secret_when_it_is_in_the_secrets_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weak secret is refused wherever it comes from."""
    write("short", name="secrets/webhook__secret")
    monkeypatch.setenv("TORNADO_DS_SECRETS_DIR", str(tmp_path / "secrets"))

    with pytest.raises(SettingsError, match=r"webhook\.secret"):
        load_settings()


def test_webhook_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    """The first start makes a private secret, the next ones find it."""
    settings = Settings(data_dir=tmp_path / "var")

    secret = webhook_secret(settings)

    file = tmp_path / "var" / "webhook.secret"
    assert secret == webhook_secret(settings)
    assert secret == check_secret(secret)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_webhook_secret_is_one_when_several_start_at_once(tmp_path: Path) -> None:
    """Nodes whose first start is at the same moment agree on it, and leave nothing else behind."""
    settings = Settings(data_dir=tmp_path / "var")

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: webhook_secret(settings), range(8)))

    assert len(set(made)) == 1
    assert ["webhook.secret"] == [file.name for file in settings.data_dir.iterdir()]


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        pytest.param(STRONG, 0o644, id="readable-by-others"),
        pytest.param("", 0o600, id="empty"),
        pytest.param("short", 0o600, id="short"),
        pytest.param("\u00e4" * 40, 0o600, id="not-ascii"),
        pytest.param("change-me-0123456789abcdef", 0o600, id="example"),
    ],
)
def test_webhook_secret_refuses_its_file_when_it_is_weak_or_open(tmp_path: Path, content: str, mode: int) -> None:
    """The file in data_dir obeys the rules of the setting."""
    file = tmp_path / "webhook.secret"
    file.write_text(content, encoding="utf-8")
    file.chmod(mode)

    with pytest.raises(SettingsError, match=r"webhook\.secret") as caught:
        webhook_secret(Settings(data_dir=tmp_path))

    assert_one_line(caught.value)


def test_webhook_secret_says_so_when_data_dir_cannot_be_made(tmp_path: Path) -> None:
    """A data_dir that is a file stops the start in one line."""
    (tmp_path / "var").write_text("")

    with pytest.raises(SettingsError, match="data_dir") as caught:
        webhook_secret(Settings(data_dir=tmp_path / "var"))

    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("expected", "text"),
    [(45, "45"), (45, "45s"), (300, "5m"), (43200, "12h"), (7_776_000, "90d"), (300, "5 m"), (7, 7), (None, None)],
)
def test_parse_duration_reads_units(expected: object, text: object) -> None:
    """Seconds, minutes, hours and days, with or without a blank."""
    assert expected == parse_duration(text)


@given(text=st.text(max_size=12))
def test_parse_duration_gives_seconds_or_the_text_back(text: str) -> None:
    """Whatever is no duration is left to whoever asked."""
    seconds = parse_duration(text)

    assert seconds == text or isinstance(seconds, int)


def _write_bytes(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)


def _link_to_itself(file: Path) -> None:
    file.parent.mkdir()
    file.symlink_to(file)
