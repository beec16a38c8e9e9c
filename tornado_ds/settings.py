"""Settings: the only reader of configuration files and of the environment."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as SourceError

from tornado_ds.addresses import UNIX
from tornado_ds.errors import SettingsError
from tornado_ds.escape import visible
from tornado_ds.keys import Algorithm

DEFAULT_FILE = Path("config/tornado_ds.yml")
PREFIX = "TORNADO_DS_"

# Read beside the settings: where the file is, and a folder of secrets (one file a key, as
# Docker and systemd hand them over).
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
SECRETS_VARIABLE = f"{PREFIX}SECRETS_DIR"

# Ten years, in seconds; beyond some thousand, dates no longer exist.
MAX_DURATION = 3650 * 86400

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TELLTALE = re.compile(r"change.?me|example|secret|password|abrakadabra", re.IGNORECASE)
# In place of pydantic's own.
_MESSAGES = {
    "extra_forbidden": "there is no such key",
    "model_type": "write its keys below it, indented, or leave it out",
}
# Names and addresses, IPv6 among them, as `urlsplit` hands them out.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_UNIX_PREFIX = "unix:"
# What the kernel has room for, with a zero at the end.
_MAX_UNIX_PATH = 107
_SECRET = re.compile(r"[A-Za-z0-9._~-]{24,}")


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """Where to listen on a unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"{_UNIX_PREFIX}{self.path}"


def parse_duration(value: object) -> object:
    """Turn `90d`, `12h`, `5m` or `30s` into seconds; anything else comes back as it is."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", value) if isinstance(value, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else value


def _check_duration(value: object) -> object:
    seconds = parse_duration(value)
    if isinstance(seconds, str):
        raise ValueError("write a duration such as 30s, 5m, 12h or 90d")
    return seconds


def _parse_address(value: object) -> object:
    if isinstance(value, Address | UnixAddress):
        return value
    if isinstance(value, str) and value.startswith(_UNIX_PREFIX):
        return _parse_unix_address(value.removeprefix(_UNIX_PREFIX))
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8000, or unix: and the path of a socket")
    return Address(host.strip("[]"), int(port))


def _parse_unix_address(path: str) -> UnixAddress:
    if not path or "\0" in path or len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise ValueError(f"write a path of at most {_MAX_UNIX_PATH} bytes, such as unix:/run/tornado_ds/public.sock")
    return UnixAddress(Path(path))


def _split_at_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _check_origin(value: str) -> str:
    """Return an http origin as browsers write it (RFC 6454, section 6.2): lower case, no default port, no path."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("write an origin such as https://app.example.com")
    if not value.isascii():
        raise ValueError("write the host as browsers send it, in ASCII (xn--...)")
    if not _HOST.fullmatch(parts.hostname):
        raise ValueError("write one host as browsers send it, without blanks or wildcards")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("write scheme, host and port only, such as https://app.example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    standard = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, standard) else f":{parts.port}")


def _check_websocket_url(value: str) -> str:
    parts = urlsplit(value)
    # To ask for the port raises ValueError unless it is one.
    is_good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    if not is_good or re.search(r"[\s;,'\"]", value):
        raise ValueError("write a WebSocket URL such as wss://app.example.com/deepstream")
    return value


def _check_script(value: str) -> str:
    if not re.fullmatch(r"(https?://[^\s;,'\"/]+)?/[^\s;,'\"]*", value):
        raise ValueError("write a path or a URL of a script, such as https://cdn.example.com/ds.min.js")
    return value


def _check_network(value: str) -> str:
    return value if value == UNIX else str(ip_network(value, strict=False))


def _refuse_empty(value: object) -> object:
    # An unset variable of a shell or a compose file: as a path it would mean the current folder.
    if value == "":
        raise ValueError("is empty; leave it out for the default")
    return value


def _refuse_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no path can hold a NUL")
    return path


Duration = Annotated[int, BeforeValidator(_check_duration), Field(gt=0, le=MAX_DURATION, strict=True)]
PathText = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_refuse_nul)]
Listen = Annotated[Address | UnixAddress, NoDecode, BeforeValidator(_parse_address)]
Origin = Annotated[str, AfterValidator(_check_origin)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TokenSettings(_Section):
    algorithm: Annotated[
        Algorithm,
        Field(description="how tokens are signed: HS256, EdDSA, ES256 or RS256; a change makes everybody log in again"),
    ] = "HS256"
    issuer: Annotated[str, Field(min_length=1, max_length=128, description="`iss` of every token")] = "tornado_ds"
    audience: Annotated[str, Field(min_length=1, max_length=128, description="`aud` of every token")] = "deepstream"


class SessionSettings(_Section):
    idle_timeout: Annotated[Duration, Field(description="a session that is not renewed ends after this time")] = (
        12 * 3600
    )
    absolute_timeout: Annotated[Duration, Field(description="every session ends this long after its login")] = (
        14 * 86400
    )
    keep_ended: Annotated[Duration, Field(description="how long a session that is over stays listed")] = 90 * 86400
    max_per_user: Annotated[
        int | None, Field(ge=1, description="a login beyond so many live sessions ends the oldest")
    ] = None


class WebhookSettings(_Section):
    secret: Annotated[
        SecretStr | None,
        Field(description="password of deepstream at the webhook; made at the first start in `data_dir`"),
    ] = None
    credentials_login: Annotated[
        bool, Field(description="let clients log in to deepstream with a username and password")
    ] = False
    stale_for: Annotated[
        Duration, Field(description="how long connections are checked from memory while the database is away")
    ] = 300

    @field_validator("secret")
    @classmethod
    def _is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value


class AuditSettings(_Section):
    keep: Annotated[Duration, Field(description="how long the audit trail is kept")] = 90 * 86400


class PasswordSettings(_Section):
    bcrypt_cost: Annotated[int, Field(ge=4, le=16, description="bcrypt's cost, 10 to 16")] = 12
    allow_weak_cost: Annotated[bool, Field(description="accept a cost below 10; for tests only")] = False
    min_length: Annotated[int, Field(ge=8, le=72, description="the shortest password that can be set")] = 12

    @model_validator(mode="after")
    def _is_dear_enough(self) -> "PasswordSettings":
        if self.bcrypt_cost < 10 and not self.allow_weak_cost:
            raise ValueError("bcrypt_cost below 10 is too weak (allow_weak_cost is for tests)")
        return self


class TLSSettings(_Section):
    certificate: Annotated[
        PathText | None, Field(description="PEM file: certificate of `listen`, then those that lead to its root")
    ] = None
    key: Annotated[PathText | None, Field(description="PEM file: its key, not for others to read")] = None

    @model_validator(mode="after")
    def _is_whole(self) -> "TLSSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are only of use together")
        return self


class Settings(BaseSettings):
    """All settings, from the YAML file and, above it, from `TORNADO_DS_...` variables and a folder of secrets."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        secrets_prefix="",
        secrets_dir_missing="error",
    )

    listen: Annotated[Listen, Field(description="where pages, and `/check-token`, are served")] = Address(
        "127.0.0.1", 8000
    )
    internal_listen: Annotated[Listen, Field(description="where deepstream and monitoring ask; never public")] = (
        Address("127.0.0.1", 8001)
    )
    public_url: Annotated[Origin, Field(description="how browsers reach `listen`")] = "http://localhost:8000"
    allowed_origins: Annotated[
        tuple[Origin, ...],
        NoDecode,
        BeforeValidator(_split_at_commas),
        BeforeValidator(lambda value: () if value is None else value),
        Field(
            description="origins whose pages may connect with the cookie; default: that of `public_url`",
            validate_default=True,
        ),
    ] = ()
    data_dir: Annotated[PathText, Field(description="folder of keys, secret and the embedded database")] = Path("var")
    database_url: Annotated[
        SecretStr | None,
        BeforeValidator(_refuse_empty),
        Field(description="SQLAlchemy URL of the database; default: SQLite in `data_dir`"),
    ] = None
    user_store: Annotated[
        str, Field(min_length=1, description="`sqlalchemy`, `memory` (for tests), an entry point, or a dotted path")
    ] = "sqlalchemy"
    webapp_dir: Annotated[
        PathText | None, Field(description="folder served at `/` behind the login; default: a demo page")
    ] = None
    deepstream_url: Annotated[
        str, AfterValidator(_check_websocket_url), Field(description="where browsers reach deepstream")
    ] = "ws://localhost:6020/deepstream"
    client_script: Annotated[
        Annotated[str, AfterValidator(_check_script)] | None,
        Field(
            description="URL of deepstream's client script for the demo page; default: the npm package's, in a checkout"
        ),
    ] = None
    token: TokenSettings = TokenSettings()
    session: SessionSettings = SessionSettings()
    webhook: WebhookSettings = WebhookSettings()
    audit: AuditSettings = AuditSettings()
    passwords: PasswordSettings = PasswordSettings()
    tls: TLSSettings = TLSSettings()
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_check_network)], ...],
        NoDecode,
        BeforeValidator(_split_at_commas),
        Field(description="addresses or networks whose X-Forwarded-For is believed; `unix` for a unix socket"),
    ] = ()
    workers: Annotated[int, Field(ge=1, le=64, description="how many processes share the ports")] = 1
    log_format: Annotated[Literal["console", "json"], Field(description="how the log is written")] = "console"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="the least that is worth a line in the log")
    ] = "info"

    @field_validator("allowed_origins")
    @classmethod
    def _has_public_url(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        # Where public_url is wrong, it is not there, and that is what is to be said.
        return value or ((info.data["public_url"],) if "public_url" in info.data else ())

    @field_validator("webapp_dir")
    @classmethod
    def _is_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError(f"there is no folder {value}")
        return value

    @model_validator(mode="after")
    def _keeps_listeners_apart(self) -> "Settings":
        # Port 0 is a free port, another one each time.
        has_port = isinstance(self.listen, UnixAddress) or self.listen.port != 0
        if self.listen == self.internal_listen and has_port:
            raise ValueError(f"listen and internal_listen are both {self.listen}: pages and webhook need one each")
        return self

    @model_validator(mode="after")
    def _keeps_keys_out_of_webapp(self) -> "Settings":
        if self.webapp_dir is not None and self.data_dir.resolve().is_relative_to(self.webapp_dir.resolve()):
            raise ValueError("data_dir is inside webapp_dir: everybody who logs in could read the keys")
        return self

    @model_validator(mode="after")
    def _is_secure_in_public_too(self) -> "Settings":
        if self.tls.certificate is not None and not self.public_url.startswith("https:"):
            raise ValueError("public_url has to begin with https: when `listen` has a certificate")
        return self

    @property
    def uses_embedded_database(self) -> bool:
        """True for the SQLite file that we look after ourselves."""
        return self.database_url is None

    @property
    def sqlite_path(self) -> Path:
        """Where the embedded database is."""
        return self.data_dir / "tornado_ds.sqlite3"

    @property
    def key_file(self) -> Path:
        """Where the signing keys are."""
        return self.data_dir / "keys.json"

    @property
    def secret_file(self) -> Path:
        """Where the webhook's secret is, unless it is set."""
        return self.data_dir / "webhook.secret"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = NestedSecretsSettingsSource(file_secret_settings)
        return init_settings, env_settings, folder, YamlConfigSettingsSource(settings_cls)


def load_settings(file: Path | None = None) -> Settings:
    """
    Return the settings from *file*, else from `config/tornado_ds.yml` if there is one, and from the environment.

    Raises:
        SettingsError: One line that names the key and what to do.
    """
    file = file or _default_file()
    _refuse_unknown_variables()
    content = {} if file is None else _read_yaml(file)
    folder = os.environ.get(SECRETS_VARIABLE)
    _refuse_unreadable_secrets(folder)
    try:
        config = SettingsConfigDict(yaml_file=file, secrets_dir=folder)
        settings = type("LoadedSettings", (Settings,), {"model_config": config, "__module__": __name__})()
    except ValidationError as exc:
        raise SettingsError(_in_one_line(exc)) from exc
    except (SourceError, OSError, ValueError) as exc:
        raise SettingsError(f"the configuration cannot be read: {' '.join(str(exc).split())}") from exc
    assert isinstance(settings, Settings)
    if file is not None:
        _refuse_open_file(file, content)
    return settings


def check_secret(secret: str) -> str:
    """Return *secret* if it can stand in deepstream's URL and nobody guesses it; ValueError otherwise."""
    if not _SECRET.fullmatch(secret):
        raise ValueError("a secret has at least 24 characters of A-Z a-z 0-9 . _ ~ -")
    if _TELLTALE.search(secret) or len(set(secret)) < 10:
        raise ValueError("this secret is an example or easy to guess; make one with `openssl rand -hex 32`")
    return secret


def webhook_secret(settings: Settings) -> str:
    """
    Return the webhook's secret: the one that is set, else the one in `data_dir`, made at the first call.

    Raises:
        SettingsError: The file cannot be used.
    """
    if settings.webhook.secret is not None:
        return settings.webhook.secret.get_secret_value()
    path = settings.secret_file
    try:
        make_data_dir(settings)
        if not path.exists():
            _make_secret(path)
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} can be read by other users: chmod 600 it")
        return check_secret(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as exc:
        raise SettingsError(f"webhook.secret: {path} cannot be used: {exc}") from exc


def _make_secret(path: Path) -> None:
    # Linked into its place when it is whole: of servers that start at the same moment
    # one makes the secret, and the others read it.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def make_data_dir(settings: Settings) -> None:
    """
    Make `data_dir`, for its owner alone, if it is not there.

    Raises:
        SettingsError: It cannot be made.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"data_dir: {settings.data_dir} cannot be made: {exc.strerror}") from exc


def flatten(settings: Settings) -> dict[str, str]:
    """Return every key with its value as text, secrets as asterisks."""
    return {key: _as_text(_value_of(settings, key)) for key, _ in walk_fields()}


def walk_fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key, dotted, with pydantic's description of it."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from walk_fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def default_text(field: Any) -> str:
    """Return the default of one of `walk_fields` as text, empty if there is none."""
    return _as_text(field.default)


def variable_of(key: str) -> str:
    """Return the environment variable of a key."""
    return PREFIX + key.replace(".", "__").upper()


def _default_file() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    try:
        DEFAULT_FILE.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        # Somebody else's folder, for instance: that of the administrator who has typed this for the server's user.
        raise SettingsError(f"{DEFAULT_FILE} cannot be read: {exc.strerror}; name another file with --config") from exc
    return DEFAULT_FILE


def _refuse_unknown_variables() -> None:
    known = {variable_of(key) for key, _ in walk_fields()} | {CONFIG_VARIABLE, SECRETS_VARIABLE}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(f"{name} in the environment is no setting; `config show` lists them all")


def _refuse_unreadable_secrets(folder: str | None) -> None:
    """Refuse files of secrets that could only be passed over, or said to be wrong without their name."""
    for key, _ in walk_fields() if folder else ():
        file = Path(str(folder), key.replace(".", "__"))
        if file.is_dir():
            # What Docker makes of a mount whose source is not there.
            raise SettingsError(f"{file} is a folder: is what was to be mounted there missing?")
        with _reading(file), suppress(FileNotFoundError):
            file.read_text(encoding="utf-8")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What fails while *file* is read is an error that names it."""
    try:
        yield
    except yaml.YAMLError as exc:
        raise SettingsError(f"{file} is not YAML: {_yaml_problem(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{file} is not UTF-8 text") from exc
    except OSError as exc:
        raise SettingsError(f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise SettingsError(f"{file} cannot be read: {' '.join(str(exc).split())}") from exc


def _read_yaml(file: Path) -> dict[str, Any]:
    with _reading(file):
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    if content is None:
        # Empty, or comments only.
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{file} holds no settings: write lines such as `listen: 127.0.0.1:8000`")
    _refuse_repetitions(file, text)
    return content


def _refuse_repetitions(file: Path, text: str) -> None:
    """Refuse a section or key that is there twice: of those the last one counts in YAML, and the others are lost."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(top, yaml.MappingNode):
        return
    for section in (top, *(value for _, value in top.value if isinstance(value, yaml.MappingNode))):
        seen: set[str] = set()
        for key, _ in section.value:
            if key.value in seen:
                raise SettingsError(f"{file}, line {key.start_mark.line + 1}: {key.value!a:.40} is there twice")
            seen.add(key.value)


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Say what is wrong and where; the parser's own text quotes the line, which may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it holds characters that YAML does not know"
    problem = (error.problem or "something is wrong").replace(r"found character '\t'", "found a tab")
    problem = re.sub(r"'.*'", "this", problem, flags=re.DOTALL)
    return f"line {error.problem_mark.line + 1}: {problem}"


def _refuse_open_file(file: Path, content: dict[str, Any]) -> None:
    """Refuse a file that holds secrets and is open to other users."""
    is_open = bool(file.stat().st_mode & 0o077)
    # A section without keys is None; that is good when variables fill it.
    webhook = content.get("webhook") or {}
    if is_open and (webhook.get("secret") or _may_hold_password(content.get("database_url"))):
        raise SettingsError(f"{file} holds a secret and can be read by other users: chmod 600 it")


def _may_hold_password(database_url: object) -> bool:
    """Tell by the kind of database alone: a password can be in more places of a URL than are worth looking at."""
    return bool(database_url) and not re.match(r"sqlite(\+\w+)?:///", str(database_url))


def _in_one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_input=False)
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    message = _MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return visible(f"{key}: {message}" + (f" (and {len(others)} more)" if others else ""))


def _value_of(settings: Settings, key: str) -> object:
    value: object = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _as_text(value: object) -> str:
    if isinstance(value, Address | UnixAddress):
        return str(value)
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
