"""The reference documentation says what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic.fields import FieldInfo

from holdfast.cli.codes import ExitCode
from holdfast.cli.main import app
from holdfast.settings import Table, load
from holdfast.settings.tables import OTHER_VARIABLES, sections
from holdfast.settings.well_known import WELL_KNOWN
from holdfast.upstreams.registry import KINDS

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
SETTINGS = (REFERENCE / "settings.md").read_text(encoding="utf-8")
CLI = (REFERENCE / "cli.md").read_text(encoding="utf-8")


def part(text: str, heading: str) -> str:
    """What stands under a heading, as far as the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[tuple[str, ...]]:
    """The cells of the lines of a table whose first cell is code."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def default(field: FieldInfo) -> str:
    """A default as the documentation writes it: TOML, `none` or `needed`."""
    if field.is_required():
        return "needed"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def documented(heading: str) -> dict[str, str]:
    return {row[0].strip("`"): row[1] for row in rows(part(SETTINGS, heading))}


@pytest.mark.parametrize(("name", "table"), [*sections()])
def test_every_setting_is_documented_with_its_default(name: str, table: type[Table]) -> None:
    expected = {key: default(field) for key, field in table.model_fields.items()}
    assert documented(f"[{name}]") == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_an_upstream_is_documented_with_its_default(kind: str) -> None:
    fields = KINDS[kind].Settings.model_fields
    expected = {key: default(field) for key, field in fields.items() if key != "kind"}
    assert documented(f'kind = "{kind}"') == expected


def test_every_variable_is_documented() -> None:
    names = [row[0].strip("`") for row in rows(part(SETTINGS, "Variables"))]
    well_known = {variable for known in WELL_KNOWN for variable in known.variables.values()}
    assert sorted(names) == sorted({*OTHER_VARIABLES, *well_known})


def test_the_sample_file_is_valid(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    (tmp_path / "holdfast.toml").write_text(sample, encoding="utf-8")
    settings = load(environ={"LLM_API_KEY": "k"}, folder=tmp_path)
    assert settings.upstreams["gpt"]["api_key"] == "k"


def test_the_sample_variables_are_valid(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```sh\n(.*?)```", SETTINGS, re.DOTALL)
    (tmp_path / ".env").write_text(sample, encoding="utf-8")
    settings = load(environ={}, folder=tmp_path)
    assert settings.server.port == 9000
    assert settings.server.allowed_hosts == ("localhost", "chat.example")


def commands() -> dict[str, Any]:
    group = typer.main.get_command(app)
    found: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    return found


def test_every_command_is_documented() -> None:
    headings = re.findall(r"^## holdfast (\w+)", CLI, re.MULTILINE)
    assert sorted(headings) == sorted(commands())


@pytest.mark.parametrize("name", commands())
def test_every_option_of_a_command_is_documented(name: str) -> None:
    command = commands()[name]
    (heading,) = re.findall(rf"^## (holdfast {name}\b.*)", CLI, re.MULTILINE)
    options = {option for parameter in command.params for option in parameter.opts}
    arguments = [
        parameter.metavar for parameter in command.params if not parameter.opts[0].startswith("-")
    ]
    documented = {row[0].strip("`").split(" ")[0] for row in rows(part(CLI, heading))}
    assert documented == {option for option in options if option.startswith("--")} - {"--help"}
    assert re.findall(r"\[(\w+)\]", heading) == arguments


def test_every_exit_code_is_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", CLI, re.MULTILINE)
    assert codes == [str(code.value) for code in ExitCode]
