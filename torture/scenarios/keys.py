"""Keys that are rotated and retired under logins and checks, on nodes that share the key file."""

from contextlib import ExitStack

from benchmarks.outcome import Outcome, Target, count
from benchmarks.people import PASSWORD
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tests.live.rotation import Traffic, rotate_under
from tests.postgresql import run_now
from tornado_ds.app import prepare_database
from torture.cast import make_cast
from torture.plan import Plan

THREADS = 4
WORKERS = 2


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Rotate and retire again and again, while every new token is checked everywhere at once."""
    settings = settings_of(place.folder)
    run_now(lambda: prepare_database(settings))
    people = make_cast(settings).people
    first = OurServer(place, env={"TORNADO_DS_WORKERS": str(WORKERS)})
    traffic = Traffic([first, first.sibling({})], people[0], PASSWORD)
    with ExitStack() as stack:
        for node in traffic.nodes:
            stack.enter_context(node)
        stack.enter_context(traffic.running(threads=THREADS))
        for number in range(plan.rotations):
            progress.step(f"rotation {number + 1} of {plan.rotations}")
            rotate_under(traffic, after="3s")
    seen = f"{plan.rotations} rotations, {count(traffic.logins)} logins, {count(traffic.checks)} checks"
    return Outcome(
        title="Rotation of keys",
        columns=["rotations", "logins", "logins turned away with 503", "checks", "checks that failed"],
        rows=[
            [
                str(plan.rotations),
                count(traffic.logins),
                count(traffic.turned_away),
                count(traffic.checks),
                str(len(traffic.wrong)),
            ]
        ],
        values={
            "logins": traffic.logins,
            "turned_away": traffic.turned_away,
            "checks": traffic.checks,
            "wrong": traffic.wrong,
        },
        targets=[
            Target(
                promise="keys are rotated and retired under load: 0 checks failed",
                measured=f"{seen}, {len(traffic.wrong)} failed",
                is_met=not traffic.wrong,
            )
        ],
        notes=[
            f"Two nodes, one of them with {WORKERS} workers, and {THREADS} people who log in all the time. Each new"
            " token is checked at both nodes at once, and older ones beside it, until their key is retired. `keys"
            " rotate --after 3s` leaves less time than the default.",
        ],
    )
