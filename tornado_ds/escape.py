"""Text of strangers, made fit for logs, tables and terminals."""


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
