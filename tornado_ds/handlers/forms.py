"""Form fields exactly as they were typed."""

from tornado.httputil import HTTPServerRequest

# Stands for a field that cannot be read. No password and no name can be it, so
# what it is used for fails like any wrong value, after the same time.
UNREADABLE = "\0"

MAX_FIELD_BYTES = 1024


def form_field(request: HTTPServerRequest, name: str, *, limit: int = MAX_FIELD_BYTES) -> str:
    """
    Return the field *name*, or `UNREADABLE` unless it is there once, in UTF-8 and at most *limit* bytes.

    Tornado's get_body_argument trims blanks and rewrites control characters,
    which would change a password, and logs what is not UTF-8.
    """
    values = request.body_arguments.get(name, [])
    if len(values) != 1 or len(values[0]) > limit:
        return UNREADABLE
    try:
        return values[0].decode()
    except UnicodeDecodeError:
        return UNREADABLE
