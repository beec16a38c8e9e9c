"""The log: one line an event, and nothing in it that a terminal obeys or a stranger should not read."""

import json
import logging
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_ds.logs import MAX_VALUE, configure_logging


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged as JSON, line by line."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_log_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger and event are under the same names for us and for libraries."""
    configure_logging("json")

    structlog.get_logger("ours").info("hello", number=1)
    logging.getLogger("theirs").warning("hello %s", "again")

    ours, theirs = lines_of(capsys)
    assert ours.pop("timestamp") <= theirs.pop("timestamp")
    assert ours == {"event": "hello", "level": "info", "logger": "ours", "number": 1}
    assert theirs == {"event": "hello again", "level": "warning", "logger": "theirs"}


def test_log_says_nothing_below_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    """`log_level` holds for libraries too."""
    configure_logging("json", level="error")

    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        log.warning("not worth it")
        log.error("worth it")

    assert ["worth it"] * 2 == [line["event"] for line in lines_of(capsys)]


@pytest.mark.parametrize("log_format", ["console", "json"])
@given(text=st.text(st.characters(codec=None)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_log_is_one_line_whatever_somebody_calls_themselves(
    capsys: pytest.CaptureFixture[str], log_format: Any, text: str
) -> None:
    """No name, address or browser gets a control character into the log, nor text that turns around."""
    configure_logging(log_format)

    structlog.get_logger("ours").info("hello", username=text)

    line = capsys.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_log_escapes_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str], log_format: Any) -> None:
    """What strangers send cannot pose as a line of ours, nor change colours, nor turn text around."""
    configure_logging(log_format)
    hostile = "\x1b[2J\r\n2026-01-01 [info] all is well\u202e\x7f\x9b\ud800"

    structlog.get_logger("ours").info("hello", value=hostile)
    logging.getLogger("theirs").warning(hostile)
    try:
        raise RuntimeError(hostile)
    except RuntimeError:
        structlog.get_logger("ours").exception("failed")

    output = capsys.readouterr().err.replace("\n", "")
    assert output.isprintable()
    assert "all is well" in output


def test_console_log_keeps_a_value_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A new line begins a new event, whatever came over the wire."""
    configure_logging("console")

    structlog.get_logger("ours").info("hello", value="one\ntwo")
    logging.getLogger("theirs").warning("one\ntwo")

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_log_cuts_what_is_long(capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger cannot fill the disk with one request."""
    configure_logging("json")

    structlog.get_logger("ours").info("hello", value="x" * 100_000)

    [line] = lines_of(capsys)
    assert line["value"] == "x" * MAX_VALUE + "..."


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_log_of_an_error_shows_no_local_variable(capsys: pytest.CaptureFixture[str], log_format: Any) -> None:
    """A traceback says where, not with which password."""
    configure_logging(log_format)

    def fail(password: str) -> None:
        raise RuntimeError(f"{len(password)} is wrong")

    try:
        fail("canary-" + "password")
    except RuntimeError:
        structlog.get_logger("ours").exception("failed")
        logging.getLogger("theirs").exception("failed")

    output = capsys.readouterr().err
    assert output.count("RuntimeError: 15 is wrong") == 2
    assert "canary-password" not in output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            ("Malformed HTTP message from %s: %s", "192.0.2.1", "Invalid header value 'a=canary\\x00'"),
            "Malformed HTTP message from 192.0.2.1: Invalid header",
            id="header",
        ),
        pytest.param(
            ("Malformed HTTP message from %s: %s", "2001:db8::1", ValueError('Invalid header value b"it\'s canary"')),
            "Malformed HTTP message from 2001:db8::1: Invalid header",
            id="error",
        ),
        pytest.param(
            ("Malformed HTTP message from %s: %s", "192.0.2.1", "Unsupported Transfer-Encoding canary"),
            "Malformed HTTP message from 192.0.2.1: Unsupported Transfer-Encoding",
            id="no-quotes",
        ),
        pytest.param(("Uncaught exception %s", "GET /?t=canary (192.0.2.1)"), "Uncaught exception GET /", id="query"),
        pytest.param(("Write error on %s", 17), "Write error on 17", id="number"),
        pytest.param(("Reached maximum read buffer size",), "Reached maximum read buffer size", id="no-values"),
    ],
)
def test_log_leaves_out_what_tornado_quotes_of_a_request(
    capsys: pytest.CaptureFixture[str], line: tuple[Any, ...], expected: str
) -> None:
    """A header that is no proper one can still be somebody's cookie."""
    configure_logging("json")

    logging.getLogger("tornado.general").warning(*line)

    assert [expected] == [each["event"] for each in lines_of(capsys)]


def test_log_never_tells_statements_and_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Those who debug us need not see every row of the database."""
    configure_logging("json", level="debug")

    for name in ("sqlalchemy.engine.Engine", "aiosqlite", "alembic.runtime.migration", "asyncio"):
        logging.getLogger(name).info("canary")

    assert capsys.readouterr().err == ""
