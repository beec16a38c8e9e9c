"""Where templates, migrations and example configuration are: in a checkout beside the package, in a wheel inside it."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Return the folder *name* (`templates`, `migrations` or `config`) of this installation."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def client_bundle() -> Path | None:
    """Return deepstream's browser script from the npm package of a checkout, None if it is not installed."""
    return _npm("@deepstream/client/dist/bundle/ds.min.js")


def deepstream_server() -> Path | None:
    """Return deepstream's program from the npm package of a checkout, None if it is not installed."""
    return _npm("@deepstream/server/dist/bin/deepstream")


def _npm(file: str) -> Path | None:
    path = _PACKAGE.parent / "node_modules" / file
    return path if path.is_file() else None
