"""What the examination found, one line a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of *topic* found, and, unless that is good, what to do."""

    level: Level
    topic: str
    text: str
    advice: str = ""


def ok(topic: str, text: str) -> Finding:
    """All is well."""
    return Finding("ok", topic, text)


def warning(topic: str, text: str, advice: str) -> Finding:
    """It works, and somebody should have a look."""
    return Finding("warning", topic, text, advice)


def wrong(topic: str, text: str, advice: str) -> Finding:
    """It does not work, or it lets in somebody who should stay outside."""
    return Finding("wrong", topic, text, advice)
