"""Libraries whose older versions have holes that would be ours: what setup.py asks for, and what is installed."""

from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

# The first version without the hole that stands behind it.
MENDED = [
    ("tornado", "6.6.1"),  # requests and headers that proxies read in another way
    ("pyjwt", "2.15.1"),  # algorithms and keys that a token chooses itself
    ("bcrypt", "5.0.0"),  # what is behind 72 bytes did not count
    ("cryptography", "44.0.1"),  # the OpenSSL in its wheels, CVE-2024-12797
    ("orjson", "3.9.15"),  # deep nesting ended the process, CVE-2024-27454
    ("pyyaml", "5.4"),  # a document could run code, CVE-2020-14343
    ("pydantic", "2.4.0"),  # slow regular expression, CVE-2024-3772
]


@pytest.fixture(scope="module")
def requirements() -> dict[str, Requirement]:
    """What pip installs along with us, by name."""
    parsed = [Requirement(line) for line in requires("tornado_ds") or []]
    return {each.name.lower(): each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})}


@pytest.mark.parametrize(("name", "mended"), MENDED, ids=[name for name, _ in MENDED])
def test_version_with_a_known_hole_is_neither_allowed_nor_installed(
    requirements: dict[str, Requirement], name: str, mended: str
) -> None:
    """The lower bound in setup.py is above the hole, and so is what runs here."""
    bounds = [Version(each.version) for each in requirements[name].specifier if each.operator == ">="]

    assert min(bounds) >= Version(mended)
    assert Version(version(name)) >= Version(mended)


def test_version_has_a_lower_bound_whatever_the_library(requirements: dict[str, Requirement]) -> None:
    """Nothing is installed in a version that nobody has run."""
    loose = [name for name, each in requirements.items() if not any(one.operator == ">=" for one in each.specifier)]

    assert loose == []
    assert {"tornado", "sqlalchemy", "typer"} <= requirements.keys()
