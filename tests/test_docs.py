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
from holdfast.http.dialects import DIALECTS
from holdfast.settings import PresetSettings, Table, load
from holdfast.settings.tables import OTHER_VARIABLES, sections
from holdfast.settings.well_known import WELL_KNOWN
from holdfast.upstreams.registry import KINDS

PROJECT = Path(__file__).parent.parent
REFERENCE = PROJECT / "docs" / "reference"
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


def test_every_key_of_a_preset_is_documented_with_its_default() -> None:
    fields = PresetSettings.model_fields
    assert documented("[presets.NAME]") == {key: default(field) for key, field in fields.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_an_upstream_is_documented_with_its_default(kind: str) -> None:
    fields = KINDS[kind].Settings.model_fields
    expected = {key: default(field) for key, field in fields.items() if key != "kind"}
    assert documented(f'kind = "{kind}"') == expected


def test_every_variable_is_documented() -> None:
    names = [row[0].strip("`") for row in rows(part(SETTINGS, "Variables"))]
    well_known = {variable for known in WELL_KNOWN for variable in known.variables.values()}
    instead = {variable for known in WELL_KNOWN for _, variable in known.instead.values()}
    assert sorted(names) == sorted({*OTHER_VARIABLES, *well_known, *instead})


def test_a_variable_is_said_to_define_the_upstream_that_it_defines() -> None:
    said = {row[0].strip("`"): row[1].strip("`") for row in rows(part(SETTINGS, "Variables"))}
    for known in WELL_KNOWN:
        others = [variable for _, variable in known.instead.values()]
        for variable in (*known.variables.values(), *others):
            assert said[variable] == known.name


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
    """Every command, and the commands below one as `keys create`."""
    found: dict[str, Any] = {}
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        above, group = waiting.pop()
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            found[above + name] = command
            if hasattr(command, "commands"):
                waiting.append((f"{above}{name} ", command))
    return found


def headings() -> list[str]:
    """The headings of commands, with their arguments."""
    return re.findall(r"^#{2,3} holdfast (.*)$", CLI, re.MULTILINE)


def test_every_command_is_documented() -> None:
    names = [heading.partition(" [")[0] for heading in headings()]
    assert sorted(names) == sorted(commands())


@pytest.mark.parametrize("name", commands())
def test_every_option_of_a_command_is_documented(name: str) -> None:
    command = commands()[name]
    (heading,) = [found for found in headings() if found.partition(" [")[0] == name]
    options = {option for parameter in command.params for option in parameter.opts}
    arguments = [
        parameter.metavar for parameter in command.params if not parameter.opts[0].startswith("-")
    ]
    documented = {row[0].strip("`").split(" ")[0] for row in rows(part(CLI, f"holdfast {heading}"))}
    assert documented == {option for option in options if option.startswith("--")} - {"--help"}
    assert re.findall(r"\[(\w+)\]", heading) == arguments


def test_every_exit_code_is_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", CLI, re.MULTILINE)
    assert codes == [str(code.value) for code in ExitCode]


COMPATIBILITY = (REFERENCE.parent / "compatibility.md").read_text(encoding="utf-8")


def test_the_clients_are_said_to_be_of_the_versions_that_are_tested() -> None:
    documented = {
        (name[1], version)
        for _, client, version, _ in table(COMPATIBILITY, "Clients")
        if re.fullmatch(r"\d+\.\d+\.\d+", version) and (name := re.search("`(.*?)`", client))
    }
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    python = dict(line.split("==") for line in lines if "==" in line)
    npm = json.loads((PROJECT / "tests/clients/node/package.json").read_text(encoding="utf-8"))
    pinned = {*python.items(), *npm["dependencies"].items()}
    pinned |= {("ai", version.rpartition("@")[2]) for _, version in {*pinned} if "ai@" in version}
    assert len(documented) >= 6
    assert documented <= pinned


def test_every_version_of_the_ai_sdk_that_is_tested_is_named() -> None:
    npm = json.loads((PROJECT / "tests/clients/node/package.json").read_text(encoding="utf-8"))
    tested = {one.removeprefix("npm:ai@") for one in npm["dependencies"].values() if "ai@" in one}
    rows = table(COMPATIBILITY, "Clients")
    assert tested == {version for dialect, _, version, _ in rows if dialect == "ai-sdk"}


def test_every_dialect_has_clients_and_every_kind_a_row() -> None:
    assert {row[0] for row in table(COMPATIBILITY, "Clients")} >= DIALECTS.keys()
    named = " ".join(row[0].lower() for row in table(COMPATIBILITY, "Upstreams"))
    assert [kind for kind in KINDS if kind not in named] == []
    upstreams = (REFERENCE.parent / "upstreams.md").read_text(encoding="utf-8")
    assert {row[0].strip("`") for row in rows(upstreams)} == {*KINDS, "callable"}


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head, or of the last one there."""
    lines = [line for line in part(text, heading).splitlines() if line.startswith("|")]
    start = max(place for place, line in enumerate(lines) if line.startswith("|---"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 1 :]]
