"""`users`: add, show and change users."""

import typer

app = typer.Typer(no_args_is_help=True, help="Add, show and change users.")
