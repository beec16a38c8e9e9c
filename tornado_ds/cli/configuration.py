"""`config`: is the configuration good, and what does it say."""

import typer

from tornado_ds.cli.common import JsonOption, current_settings, print_rows
from tornado_ds.settings import flatten, variable_of, walk_fields

app = typer.Typer(no_args_is_help=True, help="Check and show the configuration.")


@app.command()
def check() -> None:
    """
    Check the configuration without starting anything.

    Example: python -m tornado_ds --config config/tornado_ds.yml config check
    """
    current_settings()
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
