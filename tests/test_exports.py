"""What goes out: the names that other programs may use, the version, no trace of where we build."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import holdfast
from holdfast import Holdfast

PROJECT = Path(__file__).parent.parent

PUBLIC = {
    "holdfast": {"Holdfast", "__version__"},
    "holdfast.client": {
        *("Answer", "AnswerOptions", "AnswerStream", "AsyncAnswerStream", "AsyncClient"),
        *("Client", "DEFAULT_URL", "ServerUnreachable"),
    },
    "holdfast.settings": {"Settings", "load"},
    "holdfast.errors": {"HoldfastError", "RequestError", "Unavailable", "UpstreamError"},
    "holdfast.events": {
        "Entry",
        "Notice",
        "Outcome",
        "Reason",
        "ReasoningDelta",
        "Reference",
        "References",
        "RunEnd",
        "RunStart",
        "Step",
        "TextDelta",
        "TextReplace",
        "ToolCall",
        "Usage",
    },
    "holdfast.upstreams.base": {"Ask", "GeneratorUpstream", "Sink", "Upstream"},
    "holdfast.http.endpoint": {"OWNER"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there(module: str) -> None:
    found = importlib.import_module(module)
    assert {name for name in PUBLIC[module] if not hasattr(found, name)} == set()


def test_the_package_says_which_names_are_public() -> None:
    assert set(holdfast.__all__) == PUBLIC["holdfast"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Holdfasst"):
        _ = holdfast.Holdfasst


def test_the_library_has_these_members() -> None:
    members = {name for name, _ in inspect.getmembers(Holdfast) if not name.startswith("_")}
    router = {"router"}  # made by the constructor
    assert members | router == {
        "ask",
        "cancel",
        "lifespan",
        "message",
        "messages",
        "read",
        "respond",
        "router",
    }


def test_importing_the_package_does_not_import_the_engine() -> None:
    code = "import sys, holdfast; print({'fastapi', 'sqlalchemy', 'aiohttp'} & sys.modules.keys())"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert found.stdout.strip() == "set()"


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0]
    assert holdfast.__version__ == project["version"] == newest


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "Makefile"])
def test_nothing_says_where_packages_come_from(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|file:/|/(?:root|home|tmp)/", text)
