"""`serve`: the auth server itself."""

from tornado_ds.cli.common import current_settings
from tornado_ds.logs import configure_logging
from tornado_ds.server import run


def serve() -> None:
    """
    Start the auth server (the default).

    With no configuration at all it listens on localhost, with a database and keys in ./var.

    Example: python -m tornado_ds --config config/tornado_ds.yml serve
    """
    settings = current_settings()
    configure_logging(settings.log_format, level=settings.log_level)
    run(settings)
