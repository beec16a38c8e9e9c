import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.servers import Server, fetch, free_port

ROOT = Path(__file__).parents[2]
SOURCES = ["tornado_ds", "templates", "migrations", "config", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
PASSWORD = "correct horse battery staple"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package as pip installs it from a wheel, without its dependencies, which are there already."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    pip("wheel", str(checkout), "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheels"))
    [wheel] = (tmp_path / "wheels").glob("tornado_ds-*.whl")
    pip("install", str(wheel), "--target", str(tmp_path / "installed"), "--no-compile")
    return tmp_path / "installed"


def pip(command: str, *arguments: str) -> None:
    """Run pip, which needs no network for this."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", command, *quiet, *arguments], check=True)


@pytest.mark.untraced
def test_wheel_serves_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """Templates, migrations and static files are in the wheel; login works, and SIGTERM ends it with exit code 0."""
    folder = tmp_path / "empty"
    folder.mkdir()
    port, internal_port = free_port(), free_port()
    url = f"http://localhost:{port}"
    env = {
        "PYTHONPATH": str(installed),
        "TORNADO_DS_LISTEN": f"127.0.0.1:{port}",
        "TORNADO_DS_INTERNAL_LISTEN": f"127.0.0.1:{internal_port}",
        "TORNADO_DS_PUBLIC_URL": url,
        "TORNADO_DS_PASSWORDS__BCRYPT_COST": "4",
        "TORNADO_DS_PASSWORDS__ALLOW_WEAK_COST": "true",
    }
    run = [sys.executable, "-m", "tornado_ds"]
    where = [sys.executable, "-c", "import tornado_ds; print(tornado_ds.__file__)"]
    server = Server(
        ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *run],
        env=env,
        log=tmp_path / "server.log",
        ready=f"http://127.0.0.1:{internal_port}/readyz",
    )

    origin = subprocess.run(where, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=True).stdout
    with server:
        add = [*run, "users", "add", "alice", "--password-stdin"]
        subprocess.run(
            add, cwd=folder, env=os.environ | env, input=PASSWORD, text=True, check=True, capture_output=True
        )
        style, page = fetch(f"{url}/static/style.css"), fetch(f"{url}/login", headers={"Accept": "text/html"})
        login = fetch(f"{url}/handle-login", method="POST", body={"username": "alice", "password": PASSWORD})
        home = fetch(f"{url}/", headers={"Accept": "text/html", "Cookie": "; ".join(login.cookies)})

    assert origin.startswith(str(installed))
    assert (style.status, page.status) == (200, 200)
    assert b"<form" in page.body
    assert login.status == 303
    assert home.status == 200
    assert b"alice" in home.body
    assert {"keys.json", "tornado_ds.sqlite3", "webhook.secret"} <= {path.name for path in (folder / "var").iterdir()}
    assert [folder / "var"] == list(folder.iterdir())
