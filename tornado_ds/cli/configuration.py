"""`config`: is the configuration good, and what does it say."""

import stat

import typer

from tornado_ds.cli.common import JsonOption, current_settings, fail, print_rows
from tornado_ds.doctor.files import has_data
from tornado_ds.key_file import read_keys
from tornado_ds.settings import Settings, flatten, variable_of, walk_fields, webhook_secret
from tornado_ds.storage.database import parse_url
from tornado_ds.stores import find_user_store
from tornado_ds.tls import open_tls

app = typer.Typer(no_args_is_help=True, help="Check and show the configuration.")


@app.command()
def check() -> None:
    """
    Check the configuration, and what it names, without starting or opening anything.

    Example: python -m tornado_ds --config config/tornado_ds.yml config check
    """
    settings = current_settings()
    open_tls(settings.tls)
    _check_data(settings)
    if settings.database_url is not None:
        parse_url(settings.database_url.get_secret_value())
    find_user_store(settings.user_store)
    typer.echo("The configuration is good.")


@app.command()
def show(as_json: JsonOption = False) -> None:
    """
    Show every setting as it is in force; secrets are hidden.

    Example: python -m tornado_ds config show
    """
    values = flatten(current_settings())
    rows = [
        {"key": key, "value": values[key], "variable": variable_of(key), "meaning": field.description}
        for key, field in walk_fields()
    ]
    print_rows(rows, ["key", "value", "meaning"], as_json=as_json)


def _check_data(settings: Settings) -> None:
    """Check what a start would read in data_dir, as far as it is there and we may enter; nothing is made."""
    try:
        is_folder = stat.S_ISDIR(settings.data_dir.stat().st_mode)
    except OSError:
        return
    if not is_folder:
        fail(f"data_dir: {settings.data_dir} is no folder")
    if has_data(settings):
        read_keys(settings.key_file)
        if settings.secret_file.exists():
            webhook_secret(settings)
