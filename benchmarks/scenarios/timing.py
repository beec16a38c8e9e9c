"""Refused logins: does the time, or anything else of the answer, tell why?"""

import itertools
import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.machine import MissingError, load_core, on_core
from benchmarks.outcome import Outcome, Target, count, median, milliseconds
from benchmarks.people import PASSWORD, add_users, clear_failures, hash_of_password
from benchmarks.plan import Plan
from benchmarks.programs import COST, REAL_HASHING, OurServer, pinned
from benchmarks.progress import Progress
from benchmarks.traffic import Stage, username_of
from tornado_ds.users import User

LOWEST, HIGHEST = 0.95, 1.05
CHEAP_COST = 10

_WRONG = "wrong-horse-battery-staple"
# Of the answer itself, or of the length of a name that it repeats.
_OWN_HEADERS = {"date", "x-request-id", "content-length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A reason to refuse a login: what is typed, and the hash that is stored for the name, None for nobody."""

    label: str
    name: str
    password: str = _WRONG
    stored: str | None = None
    disabled_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One of the ways to log in."""

    label: str
    content_type: str
    accept: str
    encode: Callable[[Mapping[str, str]], str]
    refusal: bytes


FORMS = (
    Form(
        label="page",
        content_type="application/x-www-form-urlencoded",
        accept="text/html",
        encode=urlencode,
        refusal=b"The username or the password is not right.",
    ),
    Form(
        label="JSON",
        content_type="application/json",
        accept="application/json",
        encode=json.dumps,
        refusal=b"invalid_credentials",
    ),
)

# Status, headers, body.
Answer = tuple[int, tuple[tuple[str, str], ...], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One refused login: how long it took, and all that the answer says."""

    seconds: float
    answer: Answer


# By form, and then by kind.
Samples = Mapping[str, Mapping[str, Sequence[Sample]]]


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Refuse logins of all kinds in turn, in an order that changes."""
    folder = stage.folder / "timing"
    kinds = _kinds()
    add_users(
        folder,
        [User(kind.name, kind.stored, disabled_at=kind.disabled_at) for kind in kinds if kind.stored is not None],
    )
    with pinned(OurServer(stage, folder=folder, env=REAL_HASHING)) as server, on_core(load_core()):
        samples = _take(server, folder, kinds, plan.timing_samples, progress)
    return _outcome(plan, kinds, samples)


def _kinds() -> list[Kind]:
    good, cheap = hash_of_password(COST), hash_of_password(CHEAP_COST)
    names = map(username_of, itertools.count())
    return [
        Kind(label="wrong password", name=next(names), stored=good),
        Kind(label="unknown name", name=next(names)),
        Kind(
            label="disabled user, right password",
            name=next(names),
            password=PASSWORD,
            stored=good,
            disabled_at=1,
        ),
        Kind(
            label=f"disabled user, right password, hash of cost {CHEAP_COST}",
            name=next(names),
            password=PASSWORD,
            stored=cheap,
            disabled_at=1,
        ),
        Kind(label="malformed hash in the store", name=next(names), stored=good[:-1]),
        Kind(label=f"wrong password, hash of cost {CHEAP_COST}", name=next(names), stored=cheap),
        Kind(label="over-long password", name=next(names), password="a" * 2_000, stored=good),
        Kind(label="NUL in the password", name=next(names), password=f"{PASSWORD}\0", stored=good),
        Kind(label="empty name", name=""),
    ]


def _take(server: OurServer, folder: Path, kinds: Sequence[Kind], many: int, progress: Progress) -> Samples:
    samples: dict[str, dict[str, list[Sample]]] = {form.label: {kind.label: [] for kind in kinds} for form in FORMS}
    turns = [(kind, form) for kind in kinds for form in FORMS]
    order = random.Random(1)
    for number in range(many):
        if number % 20 == 0:
            progress.step(f"sample {number + 1} of {many} of each kind")
        order.shuffle(turns)
        for kind, form in turns:
            samples[form.label][kind.label].append(_refused(server, form, kind))
        # Otherwise the next ones would be throttled.
        clear_failures(folder)
    return samples


def _refused(server: OurServer, form: Form, kind: Kind) -> Sample:
    headers = {
        "Host": server.url.removeprefix("http://"),
        "Origin": server.url,
        "Accept": form.accept,
        "Content-Type": form.content_type,
    }
    body = form.encode({"username": kind.name, "password": kind.password, "next": "/"}).encode()
    connection = HTTPConnection(server.public, timeout=30)
    connection.connect()
    try:
        started = time.perf_counter()
        connection.request("POST", "/handle-login", body=body, headers=headers)
        response = connection.getresponse()
        page = response.read()
        seconds = time.perf_counter() - started
    finally:
        connection.close()
    if form.refusal not in page:
        raise MissingError(f"a login was answered with {response.status} {page[:200]!a}")
    said = tuple((key, value) for key, value in response.getheaders() if key.lower() not in _OWN_HEADERS)
    # The page repeats the name that was typed, and waits where something is to be typed next.
    page = page.replace(kind.name.encode(), b"").replace(b"autofocus", b"")
    return Sample(seconds=seconds, answer=(response.status, said, page))


def _outcome(plan: Plan, kinds: Sequence[Kind], samples: Samples) -> Outcome:
    ratios = {form: _ratios(found, kinds[0]) for form, found in samples.items()}
    all_ratios = [ratio for found in ratios.values() for ratio in found.values()]
    answers = {form: {sample.answer for many in found.values() for sample in many} for form, found in samples.items()}
    return Outcome(
        title="Refused logins: same answer, same time",
        columns=["refused for", *(f"{form}, {what}" for form in samples for what in ("median", "ratio"))],
        rows=[[kind.label, *_cells(kind, samples, ratios)] for kind in kinds],
        values={"ratios": ratios, "answers": {form: len(found) for form, found in answers.items()}},
        targets=[
            Target(
                promise=f"refused logins: as slow for every reason, {LOWEST} to {HIGHEST} times a wrong password",
                measured=f"{min(all_ratios):.3f} to {max(all_ratios):.3f}",
                is_met=min(all_ratios) >= LOWEST and max(all_ratios) <= HIGHEST,
            ),
            Target(
                promise="refused logins: one status, one body and the same headers for every reason",
                measured="; ".join(f"{form}: {_said(found)}" for form, found in answers.items()),
                is_met=all(len(found) == 1 for found in answers.values()),
            ),
        ],
        notes=[
            f"Ratios are of medians, to that of a wrong password. {count(plan.timing_samples)} samples of each kind and"
            " form, one after the other in an order that changes, over new connections; failures are forgotten in"
            " between, so that nothing is throttled.",
            f"bcrypt at cost {COST}, one worker, SQLite. The server has one core, the client another.",
            "Headers without `Date`, `X-Request-Id` and `Content-Length`; pages without the name that was typed, which"
            " they repeat, and without `autofocus`, which follows an empty name.",
        ],
    )


def _ratios(found: Mapping[str, Sequence[Sample]], usual: Kind) -> dict[str, float]:
    return {kind: _median(many) / _median(found[usual.label]) for kind, many in found.items()}


def _median(samples: Sequence[Sample]) -> float:
    return median([sample.seconds for sample in samples])


def _cells(kind: Kind, samples: Samples, ratios: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for form, found in samples.items():
        yield milliseconds(_median(found[kind.label]))
        yield f"{ratios[form][kind.label]:.3f}"


def _said(answers: Collection[Answer]) -> str:
    statuses = " or ".join(sorted({str(status) for status, _, _ in answers}))
    return f"{count(len(answers))} answer{'s' if len(answers) > 1 else ''} ({statuses})"
