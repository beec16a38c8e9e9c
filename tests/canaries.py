"""What no log and no message may hold: the secrets that tests make up, and all that looks like one of ours."""

import re
from base64 import b64encode
from collections.abc import Iterable

PASSWORD = "correct horse battery staple"
WEBHOOK_SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

# Whatever else a test makes up for this holds the word.
MARK = "canary"

_LIKE_OURS = {
    "a token": re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a bcrypt hash": re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"),
    "a private key": re.compile(r"PRIVATE KEY|\"(?:d|k)\": *\""),
    "a canary": re.compile(MARK, re.IGNORECASE),
}


def leaks(text: str, *, secrets: Iterable[str] = ()) -> list[str]:
    """Return what *text* gives away, *secrets* included, each in a few words with what is around it."""
    found = [(name, match.start()) for name, pattern in _LIKE_OURS.items() for match in pattern.finditer(text)]
    for secret in {PASSWORD, WEBHOOK_SECRET, *secrets}:
        for form in (secret, b64encode(f"deepstream:{secret}".encode()).decode()):
            if form in text:
                found.append(("a secret", text.index(form)))
    return [f"{name} in ...{text[max(0, start - 80) : start + 40]!r}..." for name, start in found]
