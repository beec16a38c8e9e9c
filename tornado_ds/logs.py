"""Logging: structlog for us, and the same lines for libraries that use the standard library."""

import logging
import sys
from typing import Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from tornado_ds.escape import first_words, visible

Level = Literal["debug", "info", "warning", "error"]

# Some of what is logged was typed by strangers, who could fill a disk with it.
MAX_VALUE = 500

# These log statements, values, and what they run.
_TALKATIVE = ("sqlalchemy", "aiosqlite", "alembic", "asyncio")

# What anybody can cause as often as they like with broken TLS; `tornado_ds.public_server` says how often, in one line.
_COUNTED = ("SSL Error on", "error on read")


def configure_logging(log_format: Literal["console", "json"], *, level: Level = "info") -> None:
    """Write one line an event to stderr, for people or as JSON (RFC 8259), from *level* on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Here, and not by the renderer: one that knows `rich` prints the values of local variables.
        structlog.processors.format_exc_info,
        _make_harmless,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_not_counted)
    handler.addFilter(_quote_no_request)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _leave_out_what_is_not_written()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _leave_out_what_is_not_written() -> None:
    """
    Spare each line the search for what no line of ours says: where in the code, which thread and process.

    That was a good third of what a line costs, and in a flood of logins lines are much of what refusals cost
    (logging HOWTO, "Optimization").
    """
    logging._srcfile = None  # the switch that the HOWTO names; it has no other name
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _make_harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut what is long, and escape what a terminal would obey, or take for another line; a traceback keeps its own."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(map(visible, value.split("\n")))
        elif isinstance(value, str):
            event[name] = visible(value if len(value) <= MAX_VALUE else value[:MAX_VALUE] + "...")
    return event


def _is_not_counted(record: logging.LogRecord) -> bool:
    return record.name != "tornado.general" or not str(record.msg).startswith(_COUNTED)


def _quote_no_request(record: logging.LogRecord) -> bool:
    """Leave out of Tornado's lines what they quote of a request."""
    if record.name.startswith("tornado") and isinstance(record.args, tuple):
        record.args = tuple(arg if isinstance(arg, int) else first_words(str(arg)) for arg in record.args)
    return True
