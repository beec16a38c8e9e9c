"""The promises, and what was seen of each: docs/reliability.md."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.report import Report, again, table
from tests.live.servers import ROOT

ORDER = ("tokens", "bodies", "slow", "sqlite", "postgresql", "crash", "stop", "clock", "keys", "soak")

KEPT = "kept"

# These are measured by `make bench`.
QUOTED = {
    "flood": "login flood at 10 times capacity, 60 s: checks within 50 ms, 0 errors; excess logins 503 within 50 ms",
    "restart": "deepstream restarts under its live clients: all back, 0 lost",
    "timing": "refused logins: one answer, and one time (medians at 0.95 to 1.05), for every reason",
}

_PERFORMANCE = ROOT / "docs" / "performance.json"

_INTRODUCTION = """\
# Reliability

What the server promises when something goes wrong, and what was seen. Written by `make torture`
(`make torture ARGS=--quick` for a look, `make torture ARGS=--help` for all options), which starts real servers and does
to them what is said here. Short versions of what it does run in `make test`; a full disk needs a file system of its
own, so there only writes fail, and SQLite says that it is full.
"""

_LIMITS = """
## What is not promised

- A database whose answers take longer than some 80 ms for each question is too far away: logins end with 503 after
  1.3 s.
- While the database is away, a session that is ended elsewhere stays accepted, for `webhook.stale_for` at most. An end
  that a server knows of stays one, whatever happens to the database.
- A backup that is restored has forgotten the sessions that were opened after it was made. Their tokens are accepted
  until they expire, and cannot be ended one by one: retire the signing key (`keys rotate`, then `keys retire`).
- The same goes for `db upgrade` where the embedded database is lost, as it makes an empty one. Nothing else makes one
  beside keys: servers and commands refuse to start without it.
- If the clock is ahead during a login and set back later, that session lasts longer by as much. Sessions that seem to
  be over because the clock is ahead are not ended by a log-out or a new password at that time; disabling the user ends
  them. A server that is started while the date is far ahead forgets the ends of sessions that seem to be over: once the
  date is set back, their tokens are accepted until they expire.
- When a process dies between counting a login and opening its session, the attempt stays counted as failed, though the
  password was right. Five such attempts are free.
- Power cuts were not tried. SQLite writes with `synchronous=FULL`, which is made for them.
- A full disk under PostgreSQL was not tried; to the server it is one more error of the database.
"""


class Scoreboard(Report):
    """What held: reliability.json and reliability.md."""

    name = "reliability"

    def page(self) -> Iterator[str]:
        yield _INTRODUCTION
        rows = list(self._rows())
        yield f"## Promises: {sum(row[2] == KEPT for row in rows)} of {len(rows)} kept\n"
        yield from table(["promise", "seen", "", "command", "date"], rows)
        yield "\n## Machine and versions\n"
        yield from table(["what", "value"], [[name, value] for name, value in self.machine.items()])
        yield _LIMITS.rstrip()
        for name in ORDER:
            if name in self.scenarios:
                yield from _section(name, self.scenarios[name])

    def _rows(self) -> Iterator[list[str]]:
        for name in ORDER:
            found = self.scenarios.get(name, {"targets": []})
            for target in found["targets"]:
                yield _row(target, _command(name, found), found["date"])
        yield from _quoted()


def _quoted() -> Iterator[list[str]]:
    """Yield the promises that the benchmarks look after."""
    measured = json.loads(_PERFORMANCE.read_text(encoding="utf-8"))["scenarios"] if _PERFORMANCE.exists() else {}
    for name, promise in QUOTED.items():
        found = measured.get(name, {"targets": []})
        if not found["targets"]:
            yield [promise, "not measured yet", "", f"`make bench ARGS='--only {name}'`", ""]
        for target in found["targets"]:
            # There, promises have numbers.
            plain = {**target, "promise": target["promise"].partition(". ")[2] or target["promise"]}
            yield _row(plain, f"make bench ARGS='--only {name}'", found["date"])


def _row(target: dict[str, Any], command: str, date: str) -> list[str]:
    kept = KEPT if target["is_met"] else "**not kept**"
    return [target["promise"], target["measured"], kept, f"`{command}`", date.partition(" ")[0]]


def _command(name: str, found: dict[str, Any]) -> str:
    return f"make torture ARGS='{'--quick ' if found['is_quick'] else ''}--only {name}'"


def _section(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {found['title']}\n"
    yield from table(found["columns"], found["rows"])
    yield ""
    for note in found["notes"]:
        yield f"- {note}"
    yield f"- {again(found, _command(name, found))} It took {found['seconds']} s."
