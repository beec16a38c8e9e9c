"""The access log: one line a request, and the id that ties the other lines of the request to it."""

import logging
import re
import secrets
from contextvars import Context, copy_context

import structlog
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest
from tornado.web import RequestHandler

from tornado_ds.addresses import UNIX, TrustedProxies

log = structlog.get_logger("access")

ID_HEADER = "X-Request-Id"

# What proxies make: UUIDs, or hexadecimal digits. Anything else could be there to confuse those who read the log.
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


def identify(headers: HTTPHeaders, *, peer: str, proxies: TrustedProxies) -> Context:
    """
    Return a context in which every line of the log carries the id of the request with *headers*.

    The id is the one that a trusted proxy sent, else a new one; *headers* hold it from now on.
    """
    given = headers.get(ID_HEADER, "")
    is_believed = proxies.trusts(peer) and _ID.fullmatch(given) is not None
    headers[ID_HEADER] = given if is_believed else new_id()
    # Not the context that is there: it belongs to the connection, which will bring other requests.
    context = copy_context()
    context.run(structlog.contextvars.bind_contextvars, request_id=headers[ID_HEADER])
    return context


def new_id() -> str:
    """Return an id for a request that came without one."""
    return secrets.token_hex(8)


def peer_of(connection: HTTPConnection) -> str:
    """Return the address at the other end of *connection*."""
    address = str(connection.context.remote_ip)  # type: ignore[attr-defined]
    # What Tornado says of peers on a unix socket; no real peer has that address.
    return UNIX if address == "0.0.0.0" else address  # noqa: S104


def client_address(request: HTTPServerRequest, proxies: TrustedProxies) -> str:
    """Return the address that *request* came from, behind the *proxies* that we trust."""
    assert request.connection is not None
    return proxies.client_address(peer_of(request.connection), request.headers.get("X-Forwarded-For"))


def log_request(handler: RequestHandler) -> None:
    """Write the line about a request that is answered; about probes that went well only for those who debug."""
    request, status = handler.request, handler.get_status()
    is_routine = getattr(handler, "is_probe", False) and status == 200
    log.log(
        logging.DEBUG if is_routine else logging.INFO,
        "request",
        method=request.method,
        # Without the query: people and programs put secrets there.
        path=request.path,
        status=status,
        milliseconds=round(1000 * request.request_time(), 1),
        address=client_address(request, handler.application.settings["trusted_proxies"]),
    )
