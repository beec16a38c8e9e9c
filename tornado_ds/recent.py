"""A dictionary that forgets its oldest entries."""

from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """
    The newest *limit* values by text.

    Values are put in only after a signature held, so a flood of bad tokens
    neither grows it nor pushes good ones out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[str, _Value] = {}
        # Bound once: this is asked for every connection.
        self.get = self._values.get

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: str, value: _Value) -> None:
        """Remember *value*, and forget the oldest one if there are too many."""
        self._values[key] = value
        if len(self._values) > self._limit:
            del self._values[next(iter(self._values))]
