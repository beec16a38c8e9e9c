"""A YAML loader that no file can keep busy."""

from typing import Any

import yaml

# Of what deepstream reads, nothing goes half as deep; PyYAML's scanner takes for ever where it goes very deep.
MAX_DEPTH = 50


class BoundedLoader(yaml.BaseLoader):
    """
    Takes every scalar as text, knows no merge keys, which can be made to multiply, and does not go deep.

    *hashes* are the lines of the values with a # in them.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.hashes: set[int] = set()
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if "#" in node.value:
            self.hashes.add(node.start_mark.line + 1)
        return node
