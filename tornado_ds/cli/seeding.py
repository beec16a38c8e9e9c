"""`seed`: users from a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from tornado_ds.cli.common import JsonOption, current_settings, fail, print_json, print_rows, with_users
from tornado_ds.seed import Progress, SeedReport
from tornado_ds.seed import seed as seed_users
from tornado_ds.seed_entries import DeepstreamHash, Entry, check_rows
from tornado_ds.seed_formats import SeedFormat, read_rows, sniff_format

_ENDINGS: dict[str, SeedFormat] = {".yml": "yaml", ".yaml": "yaml", ".json": "json", ".csv": "csv"}

# A million users with their data. What is read takes many times its size while it is parsed, and
# a device or a pipe may have no end.
MAX_SEED_BYTES = 256 * 2**20

# So many names of each kind are printed for people; --json has them all.
_SHOWN = 5


def seed(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A YAML, JSON or CSV file of users; - reads standard input.")
    ],
    file_format: Annotated[
        SeedFormat | None, typer.Option("--format", help="What the file is, if its name does not say so.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change the data of users that exist: server_data, client_data, disabled.")
    ] = False,
    update_passwords: Annotated[
        bool, typer.Option("--update-passwords", help="The same, and set their passwords; that ends their sessions.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and report only.")] = False,
    deepstream_hash: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The file is deepstream's users.yml: `hash` in its config.yml, such as md5; or false."
        ),
    ] = None,
    deepstream_iterations: Annotated[
        int | None, typer.Option(metavar="N", help="`iterations` in deepstream's config.yml, such as 100.")
    ] = None,
    deepstream_key_length: Annotated[
        int | None, typer.Option(metavar="N", help="`keyLength` in deepstream's config.yml, such as 32.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Add users from a file; the whole file is checked first, and users that exist are left alone.

    Running it again adds only who is new. config/users.example.yml shows what a file can say.

    Example: python -m tornado_ds seed users.yml --dry-run
    """
    hash_options = _deepstream_hash(deepstream_hash, deepstream_iterations, deepstream_key_length)
    entries = _read_entries(file, file_format, hash_options)
    with _progress_bar() as progress:
        report = with_users(
            lambda services: seed_users(
                services,
                entries,
                update=update,
                update_passwords=update_passwords,
                dry_run=dry_run,
                progress=progress,
            ),
            may_create=True,
        )
    _print_report(report, dry_run=dry_run, as_json=as_json)


def _deepstream_hash(algorithm: str | None, iterations: int | None, key_length: int | None) -> DeepstreamHash | None:
    if algorithm is None or algorithm == "false":
        if iterations is not None or key_length is not None:
            fail("--deepstream-iterations and --deepstream-key-length go with --deepstream-hash NAME")
        return None
    if iterations is None or key_length is None:
        fail(
            "--deepstream-hash needs --deepstream-iterations and --deepstream-key-length, as in deepstream's config.yml"
        )
    return DeepstreamHash(algorithm=algorithm, iterations=iterations, key_length=key_length)


def _read_entries(file: str, file_format: SeedFormat | None, deepstream_hash: DeepstreamHash | None) -> list[Entry]:
    min_length = current_settings().passwords.min_length
    text = _read_text(file)
    if file_format is None:
        file_format = sniff_format(text) if file == "-" else _format_of(file)
    rows = read_rows(text, file_format)
    return check_rows(rows, min_password_length=min_length, deepstream_hash=deepstream_hash)


def _read_text(file: str) -> str:
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
            raw = stream.read(MAX_SEED_BYTES + 1)
    except OSError as exc:
        fail(f"{file} cannot be read: {exc.strerror}")
    if len(raw) > MAX_SEED_BYTES:
        fail(f"{file} is larger than {MAX_SEED_BYTES // 2**20} MiB: seed it in parts")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        fail(f"line {line}: this is not UTF-8; save the file with that encoding")


def _format_of(file: str) -> SeedFormat:
    ending = Path(file).suffix.lower()
    if ending not in _ENDINGS:
        fail(f"{file} ends in none of {', '.join(_ENDINGS)}: say --format yaml, json or csv")
    return _ENDINGS[ending]


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """A bar on stderr, if somebody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress_bar:
        task = progress_bar.add_task("", visible=False)

        def show(doing: str, done: int, total: int) -> None:
            progress_bar.update(task, description=doing, completed=done, total=total, visible=True)

        yield show


def _print_report(report: SeedReport, *, dry_run: bool, as_json: bool) -> None:
    results = asdict(report)
    if as_json:
        print_json({**results, "dry_run": dry_run})
        return
    rows = [
        {"result": result.replace("_", " "), "users": len(names), "names": _some(names)}
        for result, names in results.items()
    ]
    print_rows(rows, ["result", "users", "names"], as_json=False)
    if report.left_alone:
        typer.echo("\n--update changes the data of users that exist, --update-passwords their passwords too.")
    if dry_run:
        typer.echo("\nNothing was written (--dry-run).")


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
