"""Text of strangers, made fit for logs, tables and terminals."""

import re

# Two words say what Tornado finds wrong. What follows may have come over the wire, quoted or not: it can be a cookie.
_TWO_WORDS = re.compile(r"(?:[^\s'\"?]+ ?){0,2}")


def visible(text: str) -> str:
    """
    Return *text* with nothing in it but what can be seen.

    What ends a line, moves a cursor or turns the direction of writing stands
    there as Python would write it, such as `\\x1b` or `\\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escaped(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text*, all of them visible."""
    return visible(text[:limit])[:limit]


def first_words(text: str) -> str:
    """Return what *text*, a complaint of Tornado's, begins with, and nothing that it quotes of a request."""
    match = _TWO_WORDS.match(text)
    assert match is not None
    return match[0].rstrip()
