"""The Chromium that npm's @sparticuz/chromium carries, unpacked once for each version."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.live.servers import NODE, ROOT

PACKAGE = ROOT / "node_modules" / "@sparticuz" / "chromium"

# It runs as root in containers, and there the sandbox cannot start.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")

_UNPACK = "process.stdin.pipe(require('zlib').createBrotliDecompress()).pipe(process.stdout)"

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{folder}/fonts-cache</cachedir>
</fontconfig>
"""


def unpack() -> Path:
    """Return the executable; beside it are the libraries and fonts that a small system does not have."""
    version = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))["version"]
    folder = ROOT / "node_modules" / ".cache" / f"chromium-{version}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        # Whole or not at all, also when two test runs start at once or one is cut short.
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "chromium"
            _unpack_to(unpacked, final=folder)
            try:
                unpacked.rename(folder)
            except OSError:
                shutil.rmtree(unpacked)
    return folder / "chromium"


def environment(executable: Path) -> dict[str, str | float | bool]:
    """Return the environment in which it finds its libraries and fonts."""
    folder = executable.parent
    libraries = [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "FONTCONFIG_FILE": str(folder / "fonts.conf"),
    }


def _unpack_to(folder: Path, *, final: Path) -> None:
    folder.mkdir()
    for name in ("al2023.tar", "fonts.tar"):
        archive = _decompress(PACKAGE / "bin" / f"{name}.br", folder / name)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
    _decompress(PACKAGE / "bin" / "chromium.br", folder / "chromium").chmod(0o755)
    (folder / "fonts.conf").write_text(_FONTS.format(folder=final), encoding="utf-8")


def _decompress(source: Path, target: Path) -> Path:
    with source.open("rb") as packed, target.open("wb") as unpacked:
        subprocess.run([NODE, "-e", _UNPACK], stdin=packed, stdout=unpacked, check=True)
    return target
