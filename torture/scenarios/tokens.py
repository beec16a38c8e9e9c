"""Tokens that nobody issued, in every family that is known, shown to a real server in three ways."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from benchmarks.load import client
from benchmarks.load.client import Connection
from benchmarks.outcome import Outcome, Target, count
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import ORIGIN, Place, settings_of
from tests.forgeries import forgeries
from tornado_ds.app import prepare_database
from tornado_ds.key_file import open_key_ring
from tornado_ds.keys import Algorithm
from tornado_ds.settings import TokenSettings
from torture.cast import make_cast
from torture.plan import Plan
from torture.requests import check_request, get_request

ALGORITHMS: Sequence[Algorithm] = ("HS256", "EdDSA", "ES256", "RS256")
CONNECTIONS = 8

# A longer head gets no answer, but is hung up on.
MAX_HEADER = 12_000


@dataclass(frozen=True, slots=True)
class Shown:
    """What a token of a family was answered with, wherever it was shown."""

    family: str
    statuses: tuple[int, ...]


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Forge tokens for each algorithm, and show them to both listeners."""
    many = plan.forged_tokens // len(ALGORITHMS)
    shown: list[Shown] = []
    for algorithm in ALGORITHMS:
        progress.step(f"{many} tokens against {algorithm}")
        shown += _attack(place, algorithm, many)
    statuses = [status for each in shown for status in each.statuses]
    accepted, errors = (
        sum(status in (200, 204) for status in statuses),
        sum(not 0 < status < 500 for status in statuses),
    )
    by_family = Counter(each.family for each in shown)
    return Outcome(
        title="Forged and damaged tokens",
        columns=["family", "tokens", "answers"],
        rows=[[family, count(number), _answers(shown, family)] for family, number in by_family.items()],
        values={"tokens": len(shown), "answers": dict(Counter(statuses)), "accepted": accepted, "errors": errors},
        targets=[
            Target(
                promise="4 000 forged or damaged tokens: 0 accepted, 0 errors 5xx",
                measured=f"{count(len(shown))} tokens, {accepted} accepted, {errors} errors",
                is_met=accepted == errors == 0,
            )
        ],
        notes=[
            f"As many for each of {', '.join(ALGORITHMS)}. Each token is shown to the webhook, as cookie and as"
            " `authData`, and to `/auth/verify` as cookie if it can stand in a header. The honest token that all are"
            " made from is accepted by all three, before and after.",
        ],
    )


def _attack(place: Place, algorithm: Algorithm, many: int) -> list[Shown]:
    folder = place.folder / algorithm
    folder.mkdir()
    settings = settings_of(folder).model_copy(update={"token": TokenSettings(algorithm=algorithm)})
    asyncio.run(prepare_database(settings))
    honest = make_cast(settings).hot
    key = open_key_ring(settings.key_file, algorithm, now=0).oldest_key
    forged = list(islice(forgeries(honest, key), many))
    with OurServer(place, folder=folder, env={"TORNADO_DS_TOKEN__ALGORITHM": algorithm}) as server:
        show = _Window(place, server)
        assert client.run(show.all(["honest"], [honest]), pinned=False) == [Shown("honest", (200, 200, 204))]
        shown = client.run(show.all([each.family for each in forged], [each.token for each in forged]), pinned=False)
        assert client.run(show.all(["honest"], [honest]), pinned=False) == [Shown("honest", (200, 200, 204))]
    return shown


class _Window:
    """Shows tokens to one server."""

    def __init__(self, place: Place, server: OurServer) -> None:
        self._place = place
        self._server = server

    async def all(self, families: Sequence[str], tokens: Sequence[str]) -> list[Shown]:
        """Return what each of *tokens* was answered with."""
        shares = [self._share(families[first::CONNECTIONS], tokens[first::CONNECTIONS]) for first in range(CONNECTIONS)]
        return [shown for share in await asyncio.gather(*shares) for shown in share]

    async def _share(self, families: Sequence[str], tokens: Sequence[str]) -> list[Shown]:
        shown = []
        for family, token in zip(families, tokens, strict=True):
            requests = [(self._server.internal, self._check(token)), (self._server.internal, self._check_cookie(token))]
            if len(token) < MAX_HEADER and all(" " <= letter <= "\xff" and letter != "\x7f" for letter in token):
                requests.append((self._server.public, get_request("/auth/verify", f"access_token={token}")))
            shown.append(Shown(family, tuple([await _ask(*request) for request in requests])))
        return shown

    def _check(self, token: str) -> bytes:
        return check_request({"connectionData": {}, "authData": {"token": token}}, self._place)

    def _check_cookie(self, token: str) -> bytes:
        headers = {"cookie": f"access_token={token}", "origin": ORIGIN}
        return check_request({"connectionData": {"headers": headers}, "authData": {}}, self._place)


async def _ask(address: str, request: bytes) -> int:
    connection = await Connection.open(address)
    try:
        async with asyncio.timeout(10):
            return (await connection.ask(request)).status
    except TimeoutError:
        return 0
    finally:
        connection.close()


def _answers(shown: Sequence[Shown], family: str) -> str:
    statuses = Counter(status for each in shown if each.family == family for status in each.statuses)
    return ", ".join(f"{count(number)} times {status}" for status, number in sorted(statuses.items()))
