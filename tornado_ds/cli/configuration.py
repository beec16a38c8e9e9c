"""`config`: is the configuration good, and what does it say."""

import typer

from tornado_ds.cli.common import JsonOption, current_settings, print_rows
from tornado_ds.settings import flatten, variable_of, walk_fields
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
