"""The command `holdfast`."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import holdfast
from holdfast.cli import ask, codes, demo, doctor, keys, migrate, serve, show
from holdfast.cli.terminal import Terminal
from holdfast.client import ServerUnreachable
from holdfast.errors import HoldfastError, RunActive, Unauthorized


class _Commands(TyperGroup):
    """Ends a command that raised an expected error with one line and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            Terminal().say(f"holdfast: {error.message}{_advice(error)}", style=None)
            raise typer.Exit(codes.of_error(error)) from None


def _advice(error: HoldfastError) -> str:
    """What to do next, where the message does not say it."""
    match error:
        case ServerUnreachable():
            return "; start it with: holdfast serve"
        case Unauthorized():
            return "; HOLDFAST_API_KEY is sent"
        case RunActive(extra={"run_id": run_id}):
            return f"; see it with: holdfast ask --resume {run_id}"
        case _:
            return ""


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("serve", help=serve.HELP)(serve.serve)
app.command("demo", help=demo.HELP)(demo.demo)
app.command("ask", help=ask.HELP)(ask.ask)
app.command("show", help=show.HELP)(show.show)
app.add_typer(keys.app, name="keys", help=keys.HELP)
app.command("migrate", help=migrate.HELP)(migrate.migrate)
app.command("doctor", help=doctor.HELP)(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {holdfast.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Keeps AI answers: what a reader saw is on disk, and a stream goes on where it stopped.

    Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 3 the answer ended early,
    4 no server, 130 Ctrl-C.
    """
