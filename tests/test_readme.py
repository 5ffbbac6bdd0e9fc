"""What README and the guides show is run, as it stands there."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI

from holdfast.settings import load
from holdfast.upstreams.registry import make_upstreams

PROJECT = Path(__file__).parent.parent
README = PROJECT / "README.md"
CHINESE = PROJECT / "README.zh-CN.md"
EMBED = PROJECT / "docs" / "howto" / "embed.md"
DOCUMENTS = sorted(
    [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("bench/*.md")]
)


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A document's Python, all of it, as a module that works in a folder of its own."""
    document: Path = request.param
    monkeypatch.chdir(tmp_path)
    module = ModuleType(document.stem)
    # FastAPI looks annotations up in the module that a route is defined in.
    monkeypatch.setitem(sys.modules, document.stem, module)
    parts = [
        block for block in blocks(document, "python") if "FastAPI" in block or document == EMBED
    ]
    source = "\n".join(parts)
    exec(compile(source, str(document), "exec"), module.__dict__)
    return module


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application on a real port, served as people serve theirs."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = "http://{}:{}".format(*listener.getsockname())
        try:
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


def events(body: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line[6:]) for line in body.splitlines() if line[:6] == "data: "]


def last_id(body: str) -> str:
    ids: list[str] = re.findall(r"^id: (.*)$", body, re.MULTILINE)
    return ids[-1]


@pytest.mark.parametrize("program", [README], indirect=True, ids=["README"])
async def test_the_library_example_keeps_and_resumes_an_answer(program: Any) -> None:
    async with served(program.app) as client:
        asked = await client.post("/chat", params={"session": "mine", "message": "why?"})
        run, session = (asked.headers[f"x-holdfast-{name}"] for name in ("run", "session"))
        rest = await client.get(f"/api/v1/runs/{run}/events", params={"after": 3})
        history = await client.get(f"/api/v1/sessions/{session}/messages")

    told = events(asked.text)
    assert [event["type"] for event in told] == ["run-start", *["text-delta"] * 3, "run-end"]
    assert "".join(event.get("text", "") for event in told) == "You asked: why?"
    assert events(rest.text) == told[3:]
    assert last_id(rest.text) == last_id(asked.text) == f"{run}.5"
    contents = [(item["role"], item["content"]) for item in history.json()["items"]]
    assert contents == [("user", "why?"), ("assistant", "You asked: why?")]


def test_the_library_example_has_fifteen_lines() -> None:
    (example,) = [block for block in blocks(README, "python") if "FastAPI" in block]
    assert len(example.splitlines()) == 15


@pytest.mark.parametrize("program", [EMBED], indirect=True, ids=["embed"])
async def test_the_embedding_guide_gives_each_owner_his_own(program: Any) -> None:
    async with served(program.app) as client:
        question = {"session": "mine", "message": "kelp"}
        asked = await client.post("/chat", params=question, headers={"x-user": "ann"})
        message = f"/api/v1/messages/{asked.headers['x-holdfast-message']}"
        own = await client.get(message, headers={"x-user": "ann"})
        foreign = await client.get(message, headers={"x-user": "bob"})
        empty = await client.post(
            "/chat", params={**question, "message": " "}, headers={"x-user": "ann"}
        )

    content = own.json()["content"]
    assert content == "About kelp: it grips the rock [1]."
    ((start, end, ordinal),) = own.json()["marks"]
    assert (content[start:end], ordinal) == ("[1]", 1)
    assert [reference["document_name"] for reference in own.json()["references"]] == ["Kelp"]
    assert foreign.status_code == 404
    assert (empty.status_code, empty.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("document", "sample"),
    [
        (document, sample)
        for document in DOCUMENTS
        for sample in blocks(document, "toml")
        if document.parent.name != "reference"
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_configuration_that_is_shown_is_valid(
    document: Path, sample: str, tmp_path: Path
) -> None:
    (tmp_path / "holdfast.toml").write_text(sample, encoding="utf-8")
    keys = dict.fromkeys(re.findall(r"\$\{(\w+)\}", sample), "a-key")
    settings = load(environ=keys, folder=tmp_path)
    assert make_upstreams(settings).keys() == settings.upstreams.keys()


def test_the_chinese_readme_has_the_same_parts() -> None:
    def outline(document: Path) -> list[str]:
        lines = document.read_text(encoding="utf-8").splitlines()
        return [line.split(" ")[0] for line in lines if line.startswith(("#", "```"))]

    def links(document: Path) -> set[str]:
        return set(re.findall(r"\]\(([^)]*)\)", document.read_text(encoding="utf-8")))

    assert outline(CHINESE) == outline(README)
    assert blocks(CHINESE, "python") == blocks(README, "python")
    own = {"README.md", "README.zh-CN.md"}
    assert links(CHINESE) - own == links(README) - own


def anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower()
    return kept.replace(" ", "-")


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: str(document.relative_to(PROJECT))
)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]*)\)", document.read_text(encoding="utf-8")):
        if re.match(r"https?:", link):
            continue
        path, _, part = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        if part:
            text = target.read_text(encoding="utf-8")
            assert part in {anchor(h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}, link


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z]+)", document.read_text(encoding="utf-8"), re.M)
        assert targets >= set(named), document


def test_the_code_map_has_every_file_and_nothing_else() -> None:
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    code_map = text.partition("## Code map")[2].partition("## Architecture invariants")[0]
    source = PROJECT / "src" / "holdfast"
    rows = [line for line in code_map.splitlines() if line.startswith("|")]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", "\n".join(rows))
    assert [name for name in named if not (source / name).exists()] == []
    files = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    folders = tuple(name for name in named if name.endswith("/"))
    left = {file for file in files - {*named} if not file.startswith(folders)}
    assert {file for file in left if not file.endswith("__init__.py")} == set()
