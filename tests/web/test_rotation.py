"""Two nodes that share a key file, one of them with two workers, under load while keys change."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bcrypt import gensalt, hashpw

from tests.live.rotation import Traffic, rotate_under
from tests.live.servers import AuthServer
from tests.postgresql import run_now
from tornado_ds.app import open_services, prepare_database
from tornado_ds.key_file import read_keys
from tornado_ds.settings import Settings
from tornado_ds.users import User

PASSWORD = "correct horse battery staple"
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AuthServer]]:
    """The nodes, with one user: alice."""
    first = AuthServer(
        tmp_path_factory.mktemp("node"), secret=SECRET, deepstream_port=1, env={"TORNADO_DS_WORKERS": "2"}
    )
    run_now(lambda: add_alice(Settings(data_dir=Path(first.settings["TORNADO_DS_DATA_DIR"]))))
    nodes = [first, first.sibling({})]
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(node)
        yield nodes


async def add_alice(settings: Settings) -> None:
    """Make the database, with a user in it."""
    await prepare_database(settings)
    async with open_services(settings) as services:
        await services.users.add([User("alice", hashpw(PASSWORD.encode(), gensalt(4)).decode())])


@pytest.mark.untraced
def test_no_check_fails_when_keys_are_rotated_under_load(nodes: list[AuthServer]) -> None:
    """Whatever any process signs is good at all others at once; tokens end with their key, and with nothing else."""
    traffic = Traffic(nodes, "alice", PASSWORD)

    with traffic.running(threads=3):
        rotate_under(traffic, after="3s")

    old, new = read_keys(Path(nodes[0].settings["TORNADO_DS_DATA_DIR"]) / "keys.json")
    assert [] == traffic.wrong
    assert {old.kid, new.kid} == traffic.kids
    assert (False, True) == (old.retired_at is None, new.retired_at is None)
    assert traffic.checks > traffic.logins > 0
