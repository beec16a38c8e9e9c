"""SQLite locked, read-only, full, damaged, moved away and replaced, under a running server."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.load import client
from benchmarks.outcome import Outcome, Target, count
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tornado_ds.app import prepare_database
from torture.cast import Cast, make_cast
from torture.faults import COLUMNS, Endured, Fault, blocking, endure, fault_targets
from torture.plan import Plan
from torture.probe import Probe, questions

# Room for the database and some copies of it.
DISK = "64m"


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Let everything happen that can happen to a file."""
    data = place.folder / "data"
    data.mkdir(mode=0o700)
    with _small_disk(data) as has_disk:
        settings = settings_of(place.folder)
        asyncio.run(prepare_database(settings))
        cast = make_cast(settings)
        with OurServer(place, env={"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}) as server:
            file = File(settings.sqlite_path, server.pid)
            faults = _faults(file, has_disk=has_disk)
            endured, logins = client.run(_endure(server, place, cast, faults, plan, progress), pinned=False)
        found = file.ask("SELECT count(*) FROM sessions WHERE username LIKE 'person-%'")
    return _outcome(endured, logins, found, has_disk=has_disk)


class File:
    """The database file of the server with the process id *pid*, and what happens to it."""

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = pid
        self._good = path.with_name("good")
        self._undo: Callable[[], object] = lambda: None

    def ask(self, query: str) -> int:
        """Return a number from the database."""
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def end(self) -> None:
        """Take the last fault away."""
        self._undo()

    def lock(self) -> None:
        """Another program writes, and does not come to an end."""
        other = self._open()
        other.execute("BEGIN IMMEDIATE")
        self._undo = other.close

    def fail_writes(self) -> None:
        """Every write to any file fails, as on a broken disk; so does the server's log."""
        limits = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        self._undo = lambda: resource.prlimit(self._pid, resource.RLIMIT_FSIZE, limits)

    def fill_disk(self) -> None:
        """Leave not one octet free on the disk of the database."""
        with closing(self._open()) as other:
            # The log beside the database has room of its own, and gives it back here.
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        filler = self._path.with_name("filler")
        with filler.open("wb", buffering=0) as file:
            size = 1024 * 1024
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2
        self._undo = filler.unlink

    def write_protect(self) -> None:
        """Put a copy in its place that SQLite may not write (file format, section 1.3.3)."""
        self._replace(lambda content: content[:18] + b"\3" + content[19:])

    def damage(self) -> None:
        """Put a copy in its place whose pages are noise, but for the first."""
        self._replace(lambda content: content[:4096] + b"\xa5" * (len(content) - 4096))

    def damage_in_place(self) -> None:
        """Write noise over the file that the server has open, and the old octets back."""
        reader = self._open()
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # Nothing is copied from the log into the file while somebody reads the file as it is.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        good = self._path.read_bytes()[4096:]
        self._overwrite(b"\xa5" * len(good))

        def undo() -> None:
            self._overwrite(good)
            reader.close()

        self._undo = undo

    def move_away(self) -> None:
        """Rename it, so that only those see it who have it open, and back."""
        names = [self._path.name + suffix for suffix in ("", "-wal", "-shm")]
        away = self._path.with_name("away")
        away.mkdir(exist_ok=True)
        for name in names:
            self._path.with_name(name).rename(away / name)

        def undo() -> None:
            for name in reversed(names):
                (away / name).rename(self._path.with_name(name))

        self._undo = undo

    def remove(self) -> None:
        """Remove it, and put a backup in its place in the end."""
        self._replace(None)

    def _replace(self, change: Callable[[bytes], bytes] | None) -> None:
        """Put a changed copy, or nothing, in its place while nobody writes; a good one in the end."""
        with closing(self._open()) as other:
            other.execute("BEGIN IMMEDIATE")
            self._back_up()
            if change is None:
                self._remove_files()
            else:
                bad = self._path.with_name("bad")
                bad.write_bytes(change(self._good.read_bytes()))
                self._put(bad)
        self._undo = self._restore

    def _overwrite(self, content: bytes) -> None:
        """Write *content* behind the first page."""
        with self._path.open("r+b") as file:
            file.seek(4096)
            file.write(content)

    def _back_up(self) -> None:
        with closing(self._open()) as source, closing(sqlite3.connect(self._good)) as target:
            source.backup(target)

    def _restore(self) -> None:
        self._put(self._good)

    def _put(self, file: Path) -> None:
        self._remove_files()
        Path(shutil.copy(file, self._path.with_name("copy"))).replace(self._path)

    def _remove_files(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)


def _faults(file: File, *, has_disk: bool) -> list[Fault]:
    acts = {
        "locked by another program": file.lock,
        "every write fails": file.fail_writes,
        "disk full": file.fill_disk,
        "read-only": file.write_protect,
        "replaced by a damaged copy": file.damage,
        "damaged in place": file.damage_in_place,
        "moved away, and back": file.move_away,
        "removed, a backup put in its place": file.remove,
    }
    if not has_disk:
        del acts["disk full"]
    return [Fault(name=name, begin=blocking(act), end=blocking(file.end)) for name, act in acts.items()]


async def _endure(
    server: OurServer, place: Place, cast: Cast, faults: list[Fault], plan: Plan, progress: Progress
) -> tuple[list[Endured], int]:
    probe = Probe(questions(server, place, cast))
    endured = []
    async with probe.running():
        for fault in faults:
            progress.step(fault.name)
            endured.append(await endure(probe, fault, seconds=plan.fault_seconds))
    return endured, sum(reply.question.name == "login" and reply.status == 200 for reply in probe.replies)


def _outcome(endured: list[Endured], logins: int, found: int, *, has_disk: bool) -> Outcome:
    return Outcome(
        title="SQLite under faults",
        columns=COLUMNS,
        rows=[each.row() for each in endured],
        values={each.name: each.values() for each in endured} | {"logins": logins, "sessions": found},
        targets=[
            *fault_targets("SQLite", endured),
            Target(
                promise="SQLite: every login that was acknowledged is in the database after all faults",
                measured=f"{count(logins)} acknowledged, {count(found)} there",
                is_met=found >= logins > 0,
            ),
        ],
        notes=[
            "One server, one worker. Meanwhile it is asked for tokens of four kinds (a live one, one whose user has"
            " changed, one of an ended session, one of a disabled user), for a page, and for logins with right and"
            " wrong passwords. 503 is our trouble; blamed means 401, 403 or 429 for somebody who must be let in.",
            "Read-only is a file whose write version SQLite does not know; a write that fails is a limit on the size of"
            " files, which hits the server's log as well.",
            f"The full disk is a file system of {DISK} of its own."
            if has_disk
            else "The full disk was left out: a file system of its own needs the right to mount one.",
        ],
    )


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """*folder* has a small file system of its own meanwhile; False if that is not allowed."""
    options = ["-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(folder)]
    has_disk = (
        shutil.which("mount") is not None and not subprocess.run(["mount", *options], capture_output=True).returncode
    )
    try:
        yield has_disk
    finally:
        if has_disk:
            subprocess.run(["umount", str(folder)], check=True)
