"""What `doctor` says of a deepstream config.yml, and that no file makes it fail."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from tornado_ds.doctor.deepstream import DeepstreamConfig, examine_deepstream_config
from tornado_ds.doctor.deepstream_file import MAX_BYTES
from tornado_ds.settings import Settings

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
WEBHOOK = f"http://deepstream:{SECRET}@127.0.0.1:8001/check-token"
LIVE = "user.data !== null && now < user.data.expiresAt"

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def config() -> dict[str, Any]:
    """A config.yml in which all is well."""
    return {
        "httpServer": {"type": "default", "options": {"port": 6020}},
        "connectionEndpoints": [{"type": "ws-binary", "options": {"urlPath": "/deepstream"}}],
        "auth": [
            {
                "type": "http",
                "options": {
                    "endpointUrl": WEBHOOK,
                    "permittedStatusCodes": [200],
                    "requestTimeout": 2000,
                    "retryStatusCodes": [502, 503, 504],
                    "retryAttempts": 5,
                    "retryInterval": 2000,
                },
            }
        ],
        "permission": {"type": "config", "options": {"permissions": "fileLoad(permissions.yml)"}},
        "plugins": {
            "guard": {
                "path": "file(session-guard.js)",
                "options": {"url": "http://127.0.0.1:8001/session-events", "secret": SECRET},
            }
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where config.yml is, with the files that it names."""
    (tmp_path / "session-guard.js").touch()
    (tmp_path / "permissions.yml").write_text(yaml.safe_dump({"record": {"*": {"read": LIVE, "delete": False}}}))
    return tmp_path


def examine(path: Path, settings: Settings, *, secret: str | None = SECRET, **variables: str) -> DeepstreamConfig:
    """What is to be said of the file."""
    return examine_deepstream_config(path, settings, internal="127.0.0.1:8001", secret=secret, environment=variables)


def bad(found: DeepstreamConfig) -> list[str]:
    """Level and text of all that is not well."""
    return [f"{finding.level}: {finding.text}" for finding in found.findings if finding.level != "ok"]


def webhook(config: dict[str, Any]) -> dict[str, Any]:
    """The options of the entry that asks us."""
    options: dict[str, Any] = config["auth"][0]["options"]
    return options


def uws(*headers: str) -> Change:
    """The service that hands over only these headers."""
    return lambda config: config.update(httpServer={"type": "uws", "options": {"headers": list(headers)}})


def option(**values: Any) -> Change:
    """Other options for the entry that asks us."""
    return lambda config: webhook(config).update(values)


def guard(**values: Any) -> Change:
    """Other options for the plugin."""
    return lambda config: config["plugins"]["guard"]["options"].update(values)


def entry(**values: Any) -> Change:
    """One more entry in the list of auth."""
    return lambda config: config["auth"].append(values)


def another(url: str, **values: Any) -> Change:
    """One more entry of type http, which is asked when ours says no."""
    return lambda config: config["auth"].append(
        {"type": "http", "options": {**webhook(config), "endpointUrl": url, **values}}
    )


def rules(permissions: Any) -> Change:
    """Rules that stand in the file itself."""
    return lambda config: config.update(permission={"type": "config", "options": {"permissions": permissions}})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda config: None, id="as-it-is"),
        pytest.param(uws("cookie", "origin", "user-agent", "x-forwarded-for"), id="uws"),
        pytest.param(option(retryStatusCodes=[500, 502, 503, 504]), id="more-retries"),
        pytest.param(option(promoteToHeader=[]), id="nothing-promoted"),
        pytest.param(another(WEBHOOK.replace("127.0.0.1", "auth-2")), id="two-nodes"),
        pytest.param(guard(url=["http://127.0.0.1:8001/session-events"] * 2), id="two-feeds"),
        pytest.param(guard(url="http://a:8001/session-events, http://b:8001/session-events"), id="feeds-in-a-line"),
        pytest.param(rules({"rpc": {"*": {"request": f"user.id === 'x' && {LIVE}"}}}), id="own-rules"),
    ],
)
def test_nothing_is_found_when_all_is_well(
    folder: Path, settings: Settings, config: dict[str, Any], change: Change
) -> None:
    """There is one line, and it is good."""
    change(config)
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    found = examine(path, settings)

    assert ["ok"] == [finding.level for finding in found.findings]
    assert found.webhook is not None
    assert "http://127.0.0.1:8001/check-token" == found.webhook.url


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda config: webhook(config).pop("retryStatusCodes"),
            "wrong: the http entry has no (good) retryStatusCodes",
            id="no-retries",
        ),
        pytest.param(option(retryStatusCodes=[503]), "warning: retryStatusCodes lacks 502, 504", id="few-retries"),
        pytest.param(option(retryStatusCodes=[]), "warning: retryStatusCodes lacks 502, 503, 504", id="empty-retries"),
        pytest.param(
            option(retryStatusCodes=[403, 502, 503, 504]),
            "wrong: retryStatusCodes has answers that are final",
            id="refusals-retried",
        ),
        pytest.param(
            option(retryStatusCodes=[404, 502, 503, 504]), "warning: retryStatusCodes has 404", id="404-retried"
        ),
        pytest.param(option(promoteToHeader=["token"]), "wrong: promoteToHeader is set", id="promote-to-header"),
        pytest.param(option(permittedStatusCodes=[200, 201]), "wrong: permittedStatusCodes is not [200]", id="201"),
        pytest.param(option(permittedStatusCodes="200"), "wrong: the http entry has no (good) permitted", id="no-list"),
        pytest.param(option(requestTimeout=20), "warning: requestTimeout is 20 ms", id="short-timeout"),
        pytest.param(option(requestTimeout="soon"), "wrong: the http entry has no (good) requestTimeout", id="no-time"),
        pytest.param(option(endpointUrl=None), "wrong: endpointUrl is missing or no URL", id="no-endpoint"),
        pytest.param(option(endpointUrl="http://["), "wrong: endpointUrl is missing or no URL", id="no-url"),
        pytest.param(
            option(endpointUrl=f"{WEBHOOK[:-12]}/"), "wrong: endpointUrl has the path '/'", id="endpoint-without-path"
        ),
        pytest.param(
            option(endpointUrl="http://127.0.0.1:8001/check-token"), "wrong: endpointUrl has no secret", id="no-secret"
        ),
        pytest.param(
            option(endpointUrl="http://deepstream:other@127.0.0.1:8001/check-token"),
            "wrong: endpointUrl has another secret",
            id="other-secret",
        ),
        pytest.param(
            option(endpointUrl=WEBHOOK.replace("8001", "8002")), "warning: endpointUrl asks port 8002", id="other-port"
        ),
        pytest.param(
            option(endpointUrl=WEBHOOK.replace("127.0.0.1", "auth.example.com")),
            "warning: endpointUrl sends the secret and everybody's cookies to auth.example.com",
            id="far-without-tls",
        ),
        pytest.param(
            option(endpointUrl=WEBHOOK.replace("127.0.0.1", "1.1.1.1")),
            "warning: endpointUrl sends the secret",
            id="far-address-without-tls",
        ),
        pytest.param(lambda config: config.pop("auth"), "wrong: auth is missing", id="no-auth"),
        pytest.param(
            lambda config: config.update(auth=config["auth"][0]),
            "wrong: auth is no list: deepstream overlooks it, and lets everybody in",
            id="old-auth",
        ),
        pytest.param(
            lambda config: config.update(auth=None), "wrong: auth is no list, so deepstream does not start", id="null"
        ),
        pytest.param(lambda config: config.update(auth=[]), "wrong: auth has no entry of type http", id="empty-auth"),
        pytest.param(
            lambda config: config.update(config.pop("auth")[0]), "wrong: type and options stand at the top", id="at-top"
        ),
        pytest.param(entry(type="none"), "wrong: auth has an entry of type none", id="none-in-the-list"),
        pytest.param(entry(type="file"), "warning: auth has an entry of type file", id="file-too"),
        pytest.param(
            entry(type="storage", options={"createUser": True}), "wrong: auth has createUser", id="create-user"
        ),
        pytest.param(entry(type="oauth"), "wrong: auth has an entry of type 'oauth'", id="unknown-type"),
        pytest.param(entry(name="mine"), "warning: auth has a plugin", id="auth-plugin"),
        pytest.param(
            another("http://auth.example.com:8001/check-token"),
            "warning: auth has another entry of type http, which asks http://auth.example.com:8001",
            id="foreign-entry",
        ),
        pytest.param(
            another("http://deepstream:other@127.0.0.1:9000/check-token"),
            "warning: auth has another entry of type http, which asks http://127.0.0.1:9000",
            id="foreign-entry-on-this-machine",
        ),
        pytest.param(another("nowhere"), "wrong: endpointUrl is missing or no URL", id="second-entry-without-url"),
        pytest.param(
            another(f"{WEBHOOK[:-12]}/"), "wrong: endpointUrl has the path '/'", id="second-entry-without-path"
        ),
        pytest.param(
            another(WEBHOOK, promoteToHeader=["token"]), "wrong: promoteToHeader is set", id="second-entry-promotes"
        ),
        pytest.param(uws(), "wrong: the uws service does not hand over cookie and origin", id="uws-without-headers"),
        pytest.param(
            uws("Cookie", "origin"), "wrong: the uws service does not hand over cookie (", id="uws-with-capitals"
        ),
        pytest.param(
            uws("cookie", "origin"), "warning: the uws service does not hand over user-agent", id="uws-few-headers"
        ),
        pytest.param(
            lambda config: config["connectionEndpoints"][0]["options"].update(urlPath="/realtime"),
            "warning: deepstream_url is ws://localhost:6020/deepstream, and no WebSocket endpoint has the urlPath /dee",
            id="other-path",
        ),
        pytest.param(
            lambda config: config.update(connectionEndpoints=[{"type": "http"}]),
            "warning: deepstream_url is ws://localhost:6020/deepstream, and no WebSocket endpoint",
            id="no-socket",
        ),
        pytest.param(
            lambda config: config["httpServer"]["options"].update(port=7000),
            "warning: deepstream_url is ws://localhost:6020/deepstream, and deepstream listens on port '7000'",
            id="other-port",
        ),
        pytest.param(
            lambda config: config.pop("connectionEndpoints"), "warning: connectionEndpoints is missing", id="endpoints"
        ),
        pytest.param(
            lambda config: config["connectionEndpoints"][0]["options"].update(logInvalidAuthData=True),
            "warning: logInvalidAuthData is on",
            id="passwords-logged",
        ),
        pytest.param(lambda config: config.pop("plugins"), "wrong: the plugin session-guard is missing", id="no-guard"),
        pytest.param(
            lambda config: config["plugins"]["guard"].update(path="file(gone/session-guard.js)"),
            "wrong: there is no '",
            id="guard-not-there",
        ),
        pytest.param(
            lambda config: config["plugins"]["guard"].update(path="./session-guard.js"),
            "warning: the path of session-guard, './session-guard.js', depends",
            id="guard-relative",
        ),
        pytest.param(guard(url=""), "wrong: session-guard has no options.url", id="guard-without-url"),
        pytest.param(guard(url=WEBHOOK), "wrong: options.url of session-guard is no URL of", id="guard-other-url"),
        pytest.param(guard(url="nowhere"), "wrong: options.url of session-guard is no URL of", id="guard-no-url"),
        pytest.param(guard(secret=""), "wrong: session-guard has no secret", id="guard-without-secret"),
        pytest.param(guard(secret="other"), "wrong: session-guard has another secret", id="guard-other-secret"),
        pytest.param(
            lambda config: config.pop("permission"), "wrong: permission is missing or none", id="no-permission"
        ),
        pytest.param(
            lambda config: config.update(permission={"type": "none"}),
            "wrong: permission is missing or none",
            id="permission-none",
        ),
        pytest.param(
            rules({"event": {"*": {"publish": True}}}),
            "warning: 1 permission rules do not look at the end of the session, such as event '*' publish",
            id="unguarded-rule",
        ),
        pytest.param(rules("fileLoad(gone.yml)"), "wrong: fileLoad: there is no file", id="permissions-gone"),
        pytest.param(
            rules(f"fileLoad({'x' * 300}.yml)"), "wrong: fileLoad: there is no file", id="permissions-impossible"
        ),
    ],
)
def test_mistake_is_found_once_and_says_what_to_do(
    folder: Path, settings: Settings, config: dict[str, Any], change: Change, expected: str
) -> None:
    """And nothing quotes the secret."""
    change(config)
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    found = examine(path, settings)

    assert [expected] == [text[: len(expected)] for text in bad(found)]
    assert all(finding.advice for finding in found.findings if finding.level != "ok")
    assert SECRET not in str(found.findings)


def test_webhook_is_ours_when_another_entry_stands_before_it(
    folder: Path, settings: Settings, config: dict[str, Any]
) -> None:
    """The stranger is named, and not taken for the server that is examined."""
    another("https://login.example.com/")(config)
    config["auth"].reverse()
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    found = examine(path, settings)

    [text] = bad(found)
    assert "which asks https://login.example.com: " in text
    assert found.webhook is not None
    assert "http://127.0.0.1:8001/check-token" == found.webhook.url


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("config.yml", b"", "config.yml holds no settings of deepstream", id="empty"),
        pytest.param("config.yml", b"[1]", "config.yml holds no settings of deepstream", id="list"),
        pytest.param("config.yml", b"a: [1\nb: 2", "config.yml, line 2: this is no YAML", id="no-yaml"),
        pytest.param("config.yml", b"\xff\xfe\x00", "config.yml is no YAML", id="no-text"),
        pytest.param("config.yml", b"[" * 5000, "config.yml is no YAML", id="deep"),
        pytest.param("config.yml", b"a: " + b"x" * MAX_BYTES, "config.yml has more than 128 KiB", id="large"),
        pytest.param("config.js", b"", "config.js is read only as .yml, .yaml or .json", id="javascript"),
        pytest.param("gone.yml", None, "there is no file ", id="gone"),
    ],
)
def test_file_that_deepstream_could_not_read_is_one_finding(
    tmp_path: Path, settings: Settings, name: str, content: bytes | None, expected: str
) -> None:
    """Nothing else can be said then."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    [text] = bad(examine(path, settings))

    assert text.startswith("wrong: ")
    assert expected in text


def test_file_that_cannot_be_read_is_one_finding(tmp_path: Path, settings: Settings) -> None:
    """It is there, and a disk that fails says no more than this."""
    path = tmp_path / "config.yml"
    path.symlink_to("/proc/self/mem")

    [text] = bad(examine(path, settings))

    assert f"wrong: {path} cannot be read: Input/output error" == text


def test_variables_are_put_in_their_places(folder: Path, settings: Settings, config: dict[str, Any]) -> None:
    """As deepstream does it, with its own environment."""
    webhook(config)["endpointUrl"] = "http://deepstream:${SECRET}@${WHERE}/check-token"
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    found = examine(path, settings, SECRET=SECRET, WHERE="127.0.0.1:8001")
    unset = examine(path, settings, WHERE="127.0.0.1:8001")

    assert [] == bad(found)
    assert ["warning: 'SECRET' is not set here", "wrong: endpointUrl has no secret: tornado_ds refuses deepstream"] == [
        text.partition(";")[0] for text in bad(unset)
    ]


def test_hash_in_a_value_is_found(folder: Path, settings: Settings, config: dict[str, Any]) -> None:
    """deepstream cuts the line there, quotes or not."""
    path = folder / "config.yml"
    path.write_text(f"{yaml.safe_dump(config)}# a comment\nserverName: a#b # and another\n")
    line = path.read_text().count("\n")

    found = examine(path, settings)

    assert [f"wrong: line {line}: the value has a #, and deepstream cuts every line there"] == bad(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            'serverName: "a#b"', "config.yml, line 1: the value has a #, and deepstream", id="quotes-cut-open"
        ),
        pytest.param("x: |\n  a # b", "line 1: the value has a #, and deepstream", id="block"),
    ],
)
def test_hash_is_found_when_what_is_left_is_another_file(
    folder: Path, settings: Settings, config: dict[str, Any], line: str, expected: str
) -> None:
    """Without the closing quote it is no YAML any more, which is not what to mend."""
    path = folder / "config.yml"
    path.write_text(f"{line}\n{yaml.safe_dump(config)}")

    [text] = bad(examine(path, settings))

    assert expected in text


def test_variables_of_our_own_config_are_known_without_being_set(
    folder: Path, settings: Settings, config: dict[str, Any]
) -> None:
    """The line says that deepstream does not know them by itself."""
    webhook(config)["endpointUrl"] = "http://deepstream:${TORNADO_DS_WEBHOOK__SECRET}@127.0.0.1:8001/check-token"
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    [unset] = examine(path, settings).findings
    [known] = examine(path, settings, TORNADO_DS_WEBHOOK__SECRET=SECRET).findings

    assert ("ok", True) == (
        unset.level,
        unset.text.endswith("with TORNADO_DS_WEBHOOK__SECRET in its environment"),
    )
    assert ("ok", True) == (known.level, known.text.endswith("nothing dangerous"))


def test_secret_is_not_compared_when_it_is_not_known(folder: Path, settings: Settings, config: dict[str, Any]) -> None:
    """On deepstream's machine it may be only in this file."""
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))

    assert [] == bad(examine(path, settings, secret=None))


KEYS = st.sampled_from(
    [
        "auth",
        "type",
        "options",
        "endpointUrl",
        "requestTimeout",
        "retryStatusCodes",
        "httpServer",
        "headers",
        "connectionEndpoints",
        "plugins",
        "guard",
        "path",
        "url",
        "secret",
        "permission",
        "permissions",
        "record",
    ]
)
SCALARS: Sequence[Any] = ["http", "uws", "none", "config", "http://[", "fileLoad(x.yml)", "${A}", "9" * 400, 1, None]
TREES = st.recursive(
    st.sampled_from(SCALARS) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@hypothesis(
    max_examples=hypothesis().max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.dictionaries(KEYS, TREES, max_size=6).map(yaml.safe_dump) | st.text(max_size=200))
def test_any_file_gets_findings(tmp_path: Path, settings: Settings, content: str) -> None:
    """Whatever stands where something else is expected."""
    path = tmp_path / "config.yml"
    path.write_bytes(content.encode("utf-8", "replace"))

    found = examine(path, settings)

    assert found.findings


BOMB = "\n".join(["x0: &x0 [a, a]", *(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 60))])


@pytest.mark.parametrize(
    "part",
    [
        "auth: *x59",
        "auth: [{type: *x59}]",
        "auth: [{type: http, options: {endpointUrl: *x59, permittedStatusCodes: *x59, retryStatusCodes: *x59}}]",
        "auth: [{type: http, options: {requestTimeout: *x59, promoteToHeader: *x59}}]",
        "httpServer: {type: uws, options: {headers: *x59}}",
        "connectionEndpoints: *x59",
        "plugins: {guard: {path: *x59, options: {url: *x59, secret: *x59}}}",
        "plugins: {guard: {path: /session-guard.js, options: {url: [*x59], secret: *x59}}}",
        "permission: {type: config, options: {permissions: {record: *x59, rpc: {a: *x59, b: {request: *x59}}}}}",
    ],
)
def test_aliases_that_multiply_are_never_written_out(folder: Path, settings: Settings, part: str) -> None:
    """Sixty lines stand for a text that no disk could hold."""
    path = folder / "config.yml"
    path.write_text(f"{BOMB}\n{part}\n")

    assert bad(examine(path, settings))
