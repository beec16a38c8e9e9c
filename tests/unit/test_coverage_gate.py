"""The check that every `except` block was entered."""

import pytest

from tests.coverage_gate import blocks_not_entered

SOURCE = """\
try:
    act()
except OSError:
    # Said in so many words.
    raise
except (TypeError, ValueError) as exc:
    answer = find(
        exc,
    )
else:
    go_on()
"""


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        pytest.param([], [], id="all-entered"),
        pytest.param([5], [3], id="comment-first"),
        pytest.param([7], [6], id="several-lines"),
        pytest.param([5, 7], [3, 6], id="both"),
        pytest.param([2, 11], [], id="other-lines"),
    ],
)
def test_blocks_not_entered_names_the_lines_of_except_whose_bodies_were_missed(
    missing: list[int], expected: list[int]
) -> None:
    """A block counts as entered once its first statement ran, wherever that stands."""
    assert expected == list(blocks_not_entered(SOURCE, missing))
