"""Reads deepstream's config.yml as deepstream itself does, within bounds."""

import contextlib
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tornado_ds.doctor.findings import Finding, warning, wrong
from tornado_ds.doctor.yaml_loader import BoundedLoader
from tornado_ds.errors import ProbeError

TOPIC = "deepstream config"

# deepstream's own sample takes 8 KiB.
MAX_BYTES = 128 * 1024
_MAX_FILES = 20

_VARIABLE = re.compile(r"\$\{([^}]{1,256})\}")
_FILE = re.compile(r"file\((.{0,1024})\)")
_FILE_LOAD = re.compile(r"fileLoad\((.{0,1024})\)")


@dataclass(frozen=True, slots=True)
class DeepstreamFile:
    """
    What the file says, all scalars as text, and what is wrong with how it says it.

    In the place of each `fileLoad(...)` stands a key of *loaded*; *variables* are those that it names.
    """

    content: Mapping[str, Any]
    loaded: Mapping[str, Any]
    variables: Set[str]
    findings: Sequence[Finding]


def read_deepstream_file(path: Path, variables: Mapping[str, str]) -> DeepstreamFile:
    """
    Return what deepstream would make of the file *path*, with *variables* as its environment.

    Raises:
        ProbeError: It cannot be read, or deepstream would not start with it.
    """
    if path.suffix not in (".yml", ".yaml", ".json"):
        raise ProbeError(f"{path} is read only as .yml, .yaml or .json")
    text = _read(path)
    reader = _Reader(path.parent, variables)
    cuts = _cut_values(text)
    try:
        content = _parse(path, reader.substitute(re.sub("#.*", "", text)))
    except ProbeError as exc:
        # A quote that was cut off is the likelier reason.
        raise ProbeError(f"{path}, {cuts[0].text}" if cuts else str(exc)) from exc
    if not isinstance(content, dict):
        raise ProbeError(f"{path} holds no settings of deepstream")
    return DeepstreamFile(content, reader.loaded, reader.names, [*cuts, *reader.findings])


def mapping(value: object) -> Mapping[str, Any]:
    """Return *value* if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> Sequence[Any]:
    """Return *value* if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return *value* if it is text, else nothing; a list that refers to itself over and over is never written out."""
    return value if isinstance(value, str) else ""


def is_file(path: Path) -> bool:
    """True if *path* is a file that can be seen."""
    try:
        return path.is_file()
    except OSError:
        return False


class _Reader:
    """Puts variables and files in their places, in deepstream's order."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._variables = variables
        self.loaded: dict[str, Any] = {}
        self.names: set[str] = set()
        self.findings: list[Finding] = []

    def substitute(self, text: str) -> str:
        text = _FILE.sub(lambda match: str(self._folder.absolute() / match[1]), text)
        text = _FILE_LOAD.sub(self._load, text)
        return self._with_variables(text)

    def _with_variables(self, text: str) -> str:
        self.names = {match[1] for match in _VARIABLE.finditer(text)}
        for name in sorted(self.names - self._variables.keys())[:_MAX_FILES]:
            self.findings.append(
                warning(
                    TOPIC,
                    f"{name!a:.80} is not set here; deepstream puts nothing in the place of an unset variable",
                    "Make sure that it is set where deepstream starts, and run this command there.",
                )
            )
        return _VARIABLE.sub(self._value, text)

    def _load(self, match: re.Match[str]) -> str:
        path = self._folder / match[1]
        key = f"fileLoad-{len(self.loaded)}"
        self.loaded[key] = None
        if len(self.loaded) > _MAX_FILES:
            return key
        try:
            if path.suffix in (".yml", ".yaml", ".json"):
                self.loaded[key] = _parse(path, _VARIABLE.sub(self._value, _read(path)))
            elif not is_file(path):
                raise ProbeError(f"there is no file {path}")
        except ProbeError as exc:
            self.findings.append(wrong(TOPIC, f"fileLoad: {exc}", "deepstream does not start without this file."))
        return key

    def _value(self, match: re.Match[str]) -> str:
        return self._variables.get(match[1], "")


def _read(path: Path) -> str:
    if not is_file(path):
        raise ProbeError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ProbeError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(octets) > MAX_BYTES:
        raise ProbeError(f"{path} has more than {MAX_BYTES // 1024} KiB, which no configuration needs")
    return octets.decode("utf-8", "replace")


def _parse(path: Path, text: str) -> Any:
    if len(text) > MAX_BYTES * 2:
        raise ProbeError(f"{path} grows too large with its variables")
    try:
        return BoundedLoader(text).get_single_data()
    except yaml.MarkedYAMLError as exc:
        line = "" if exc.problem_mark is None else f", line {exc.problem_mark.line + 1}"
        # Not the text itself, which may hold the secret.
        raise ProbeError(f"{path}{line}: this is no YAML that deepstream could read") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ProbeError(f"{path} is no YAML that deepstream could read") from exc


def _cut_values(text: str) -> list[Finding]:
    """Find values with a hash: deepstream takes it for the beginning of a comment, even inside quotes."""
    lines: set[int] = set()
    # It may be YAML only without what deepstream cuts off.
    with contextlib.suppress(yaml.YAMLError, ValueError):
        loader = BoundedLoader(text)
        lines = loader.hashes
        loader.get_single_node()
    return [
        wrong(
            TOPIC,
            f"line {line}: the value has a #, and deepstream cuts every line there",
            'Write it as "\\x23" in double quotes, in a URL as %23.',
        )
        for line in sorted(lines)[:_MAX_FILES]
    ]
