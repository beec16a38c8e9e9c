"""Requests as octets."""

import json

from benchmarks.traffic import Place


def check_request(body: object, place: Place) -> bytes:
    """Return a request to the webhook; *body* goes out as JSON unless it is octets already."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post_request("/check-token", data, "application/json", f"Authorization: {place.authorization}")


def get_request(path: str, cookie: str) -> bytes:
    """Return a request for a page with *cookie*."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode("latin-1")


def post_request(path: str, body: bytes, content_type: str, *headers: str, host: str = "localhost") -> bytes:
    """Return a request with a body."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
