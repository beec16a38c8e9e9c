"""Do two clocks agree."""

from tornado_ds.doctor.findings import Finding, ok, warning, wrong

TOPIC = "clock"

# Dates in HTTP have whole seconds, and an answer takes a while.
TOLERANCE_SECONDS = 5
LIMIT_SECONDS = 60


def compare_clocks(whose: str, theirs: float, ours: float) -> Finding:
    """Say how far the clock of *whose* is from the one of this machine (both seconds since the epoch)."""
    difference = round(theirs - ours)
    if abs(difference) <= TOLERANCE_SECONDS:
        return ok(TOPIC, f"{whose} and this machine agree")
    text = f"{whose} is {abs(difference)} s {'ahead of' if difference > 0 else 'behind'} this machine"
    advice = "Sessions end at times that all machines must agree on: let NTP set their clocks."
    return (wrong if abs(difference) > LIMIT_SECONDS else warning)(TOPIC, text, advice)
