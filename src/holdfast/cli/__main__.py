"""`python -m holdfast.cli` is the command `holdfast`."""

from holdfast.cli.main import app

app(prog_name="holdfast")
