"""Which handler answers for which path, and what no request may exceed."""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from contextvars import copy_context
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import Application, HTTPError, RequestHandler, url

from tornado_ds.addresses import TrustedProxies
from tornado_ds.gate import MAX_BODY_BYTES, Verdict
from tornado_ds.handlers import access, account, health, keys, login, session_events, webapp, webhook
from tornado_ds.handlers.base import BaseHandler, NotFoundHandler
from tornado_ds.handlers.framing import check_framing
from tornado_ds.resources import resource
from tornado_ds.services import Services

# A larger body than allowed is read and dropped up to here, because a client
# that is still writing takes an early answer for a broken connection.
DRAIN_BYTES = 4 * 1024 * 1024

# Scheme and authority before the path, which every server has to take (RFC 9112, section 3.2.2).
_ABSOLUTE_FORM = re.compile(r"\Ahttps?://[^/?#]*/?", re.IGNORECASE)

Route = tuple[str, type[RequestHandler]] | tuple[str, type[RequestHandler], dict[str, Any]]


class WebApplication(Application):
    """
    Tornado's application, with `/check-token` carried straight to the gate and every body bounded.

    *extra_handlers* come before *routes*, and only they get multipart bodies.
    """

    def __init__(
        self,
        services: Services,
        routes: Sequence[Route],
        extra_handlers: Sequence[Route] = (),
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.services = services
        self.max_body_bytes = max_body_bytes
        self.in_flight = InFlight()
        # Of this application alone: they are filled in anew for each answer.
        self.webhook_headers = webhook.AnswerHeaders(is_https=services.cookie.is_secure)
        self._take_no_files = {NotFoundHandler, *(route[1] for route in routes)}
        super().__init__(
            [_with_services(route, services) for route in [*extra_handlers, *routes]],
            default_handler_class=NotFoundHandler,
            default_handler_args={"services": services},
            template_path=str(resource("templates")),
            cross_origin_protection=True,
            log_function=self._log_and_forget,
            settings=services.settings,
            is_https=services.cookie.is_secure,
            trusted_proxies=TrustedProxies(services.settings.trusted_proxies),
        )

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _BoundedRequest(self, super().start_request(server_conn, request_conn), request_conn)

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: type[RequestHandler], *arguments: Any, **more: Any
    ) -> Any:
        kind = request.headers.get("Content-Type", "")
        if target_class in self._take_no_files and kind[:10].lower() == "multipart/":
            # By this header Tornado decides to parse the body, before any handler is asked.
            del request.headers["Content-Type"]
            return super().get_handler_delegate(request, NoFilesHandler, {"services": self.services})
        return super().get_handler_delegate(request, target_class, *arguments, **more)

    def note_verdict(self, verdict: Verdict) -> None:
        """Count and log an answer of the webhook."""
        self.services.metrics.count_check(verdict.code)
        webhook.log_verdict(verdict)

    def _log_and_forget(self, handler: RequestHandler) -> None:
        if handler.request.connection is not None:
            self.in_flight.remove(handler.request.connection)
        self.services.metrics.count_request(handler.get_status())
        access.log_request(handler)


def make_app(
    services: Services, extra_handlers: Sequence[Route] = (), *, max_body_bytes: int = MAX_BODY_BYTES
) -> WebApplication:
    """
    Return the public application, for any Tornado HTTPServer.

    *extra_handlers* come before ours, as `(pattern, class)` or `(pattern, class,
    arguments)`; those that derive from `BaseHandler` or `ProtectedHandler`
    receive the services. Only they can take files: our own handlers refuse
    multipart bodies unread.
    """
    static = str(resource("templates") / "static")
    folder = webapp.folder_of(services.settings)
    app: list[Route] = (
        [(r"/", webapp.DemoHandler), (r"/.*", webapp.NoSuchPageHandler)]
        if folder is None
        else [(r"/(.*)", webapp.WebappFileHandler, {"path": str(folder), "default_filename": "index.html"})]
    )
    routes: list[Route] = [
        (r"/login", login.LoginHandler),
        (r"/handle-login", login.HandleLoginHandler),
        (r"/logout", login.LogoutHandler),
        (r"/session", account.SessionHandler),
        (r"/session/renew", account.RenewHandler),
        (r"/account", account.AccountHandler),
        (r"/account/end-session", account.EndSessionHandler),
        (r"/account/end-others", account.EndOthersHandler),
        (r"/account/password", account.PasswordHandler),
        (r"/auth/verify", account.VerifyHandler),
        (r"/\.well-known/jwks\.json", keys.JWKSHandler),
        (r"/static/deepstream-client\.js", webapp.ClientScriptHandler),
        (r"/static/(.*)", webapp.OurFileHandler, {"path": static}),
        *app,
    ]
    return WebApplication(services, routes, extra_handlers, max_body_bytes=max_body_bytes)


def make_internal_app(services: Services) -> WebApplication:
    """Return what deepstream and monitoring ask; nothing in it redirects."""
    return WebApplication(
        services,
        [
            (r"/session-events", session_events.SessionEventsHandler),
            (r"/\.well-known/jwks\.json", keys.JWKSHandler),
            (r"/metrics", health.MetricsHandler),
            (r"/healthz", health.HealthHandler),
            (r"/readyz", health.ReadyHandler),
        ],
    )


class InFlight:
    """The connections whose request is not answered yet."""

    def __init__(self) -> None:
        self._connections: set[object] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: object) -> None:
        """Note a request."""
        self._connections.add(connection)

    def remove(self, connection: object) -> None:
        """Note that it is answered, or that nobody waits for the answer any more."""
        self._connections.discard(connection)
        self._changed.set()

    async def wait_until_quiet(self, seconds: float) -> None:
        """Return once every request is answered, and none has been for *seconds*."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                if not self._connections:
                    return


class TooLargeHandler(BaseHandler):
    """Answers in place of the handler whose request was too large."""

    async def prepare(self) -> None:
        self.set_header("Connection", "close")
        raise HTTPError(413)


class NoFilesHandler(BaseHandler):
    """Answers in place of a handler of ours that was sent a multipart body."""

    async def prepare(self) -> None:
        raise HTTPError(415)


class _BoundedRequest(HTTPMessageDelegate):
    """Hands one request on to the handler of its path, or to `TooLargeHandler`."""

    def __init__(self, app: WebApplication, inner: HTTPMessageDelegate, connection: HTTPConnection) -> None:
        self._app = app
        self._inner = inner
        self._connection = connection
        self._context = copy_context()
        self._size = 0
        self._is_answered = False

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        if not start_line.path.startswith("/"):
            start_line = start_line._replace(path=_ABSOLUTE_FORM.sub("/", start_line.path))
        check_framing(start_line, headers)
        self._start_line, self._headers = start_line, headers
        self._app.in_flight.add(self._connection)
        if start_line.path.partition("?")[0] == webhook.PATH:
            services = self._app.services
            self._inner = webhook.WebhookDelegate(
                self._connection, services.gate, headers=self._app.webhook_headers, answered=self._note
            )
        else:
            proxies = self._app.settings["trusted_proxies"]
            self._context = access.identify(headers, peer=access.peer_of(self._connection), proxies=proxies)
        if "Origin" in headers:
            _tame_origin(headers)
        answer = self._context.run(self._inner.headers_received, start_line, headers)
        if int(headers.get("Content-Length", 0)) > max(DRAIN_BYTES, self._app.max_body_bytes):
            self._refuse()
        return answer

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._size += len(chunk)
        if not self._is_too_large:
            return self._inner.data_received(chunk)
        if self._size > DRAIN_BYTES:
            self._refuse()
        return None

    def finish(self) -> None:
        if self._is_too_large:
            self._refuse()
        elif not self._is_answered:
            self._context.run(self._inner.finish)

    def on_connection_close(self) -> None:
        self._app.in_flight.remove(self._connection)
        self._inner.on_connection_close()

    def _note(self, verdict: Verdict) -> None:
        self._app.in_flight.remove(self._connection)
        self._app.note_verdict(verdict)

    @property
    def _is_too_large(self) -> bool:
        return self._size > self._app.max_body_bytes

    def _refuse(self) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        if isinstance(self._inner, webhook.WebhookDelegate):
            self._inner.refuse_body()
            return
        # What was dropped cannot be parsed.
        self._headers.pop("Content-Type", None)
        request = HTTPServerRequest(connection=self._connection, headers=self._headers, start_line=self._start_line)
        arguments = {"services": self._app.services}
        self._context.run(self._app.get_handler_delegate(request, TooLargeHandler, arguments).finish)


def _with_services(route: Route, services: Services) -> Any:
    pattern, handler, arguments = route if len(route) == 3 else (*route, {})
    if issubclass(handler, BaseHandler):
        arguments = {**arguments, "services": services}
    return url(pattern, handler, arguments)


def _tame_origin(headers: HTTPHeaders) -> None:
    """Turn an Origin that no parser takes, such as `http://[`, into `null`: Tornado's check would fail on it."""
    try:
        urlsplit(headers["Origin"])
    except ValueError:
        headers["Origin"] = "null"
