"""The route that gives a cited document: only what the library's index holds, whoever asks."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holdfast.settings import LimitSettings
from holdfast.upstreams.library import Library
from tests.support.keyed import ALICE, WATCH, Caller, keyed
from tests.support.raw_client import Reply
from tests.support.server import Deployment

TIDES = (
    "# Tides\n\nThe tide comes twice a day.\n\n## Springs\n\nSpring tides are the largest ones.\n"
)
SECRET = "Xyzzy"
QUESTION = "When do spring tides come?"


def write_documents(folder: Path) -> Path:
    """A folder with documents, beside things that are none of its documents."""
    docs = folder / "docs"
    (docs / "sub dir").mkdir(parents=True)
    (docs / "tides.md").write_text(TIDES, encoding="utf-8")
    (docs / "sub dir" / "海 & #1?.md").write_text("# 海\n\n海带。\n", encoding="utf-8")
    (docs / "plain.txt").write_bytes(b"\xef\xbb\xbfOne\r\ntwo <script>alert(1)</script>\r\n")
    (docs / ".hidden.md").write_text(SECRET, encoding="utf-8")
    (docs / "notes.json").write_text(f'"{SECRET}"', encoding="utf-8")
    (docs / "latin.md").write_bytes(SECRET.encode() + b" \xe9")
    (docs / "large.md").write_text(SECRET * 1000, encoding="utf-8")
    (folder / "secret.md").write_text(SECRET, encoding="utf-8")
    os.symlink(folder / "secret.md", docs / "link.md")
    os.symlink("/etc", docs / "etc")
    return docs


def settings(docs: Path) -> dict[str, Any]:
    return {"kind": "library", "path": str(docs), "pace": 0, "max_file_bytes": 4_000}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("site")
    docs = write_documents(folder)
    async with keyed(folder, upstreams={"docs": settings(docs)}) as site:
        await Caller(site, ALICE).asked(QUESTION, upstream="docs")  # the index is there now
        yield site


@pytest.fixture
def alice(site: Deployment) -> Caller:
    return Caller(site, ALICE)


async def read(caller: Caller, document_id: str, upstream: str = "docs") -> Reply:
    path = f"/api/v1/upstreams/{quote(upstream, safe='')}/document"
    return await caller.get(f"{path}?id={quote(document_id, safe='')}")


async def test_every_reference_leads_to_its_document(alice: Caller) -> None:
    message = (await alice.asked(QUESTION, upstream="docs"))["message"]
    assert message["references"]
    for reference in message["references"]:
        reply = await read(alice, reference["document_id"], message["upstream"])
        assert reply.status == 200
        document = reply.json
        assert document["id"] == reference["document_id"]
        assert document["title"] == reference["document_name"]
        [[first, last]] = reference["positions"]
        lines = document["text"].split("\n")[first - 1 : last]
        assert reference["text"] in "\n".join(lines)


async def test_gives_the_text_as_it_is(alice: Caller) -> None:
    reply = await read(alice, "tides.md")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {"id": "tides.md", "title": "Tides", "text": TIDES}
    name = "sub dir/海 & #1?.md"
    assert (await read(alice, name)).json == {"id": name, "title": "海", "text": "# 海\n\n海带。\n"}
    plain = (await read(alice, "plain.txt")).json
    assert plain["text"] == "One\r\ntwo <script>alert(1)</script>\r\n"


@pytest.mark.parametrize(
    "document_id",
    [
        *("../secret.md", "./tides.md", "sub dir/../tides.md", "/etc/passwd", "..", ".", "/"),
        *(
            "tides.md/",
            "tides.md\0",
            "tides.md\n",
            "TIDES.MD",
            "tides",
            "*",
            "%",
            "tides.md' OR 1=1",
        ),
        *("..\\secret.md", "%2e%2e/secret.md", "....//secret.md", "file:///etc/passwd", "C:\\x.md"),
        *(".hidden.md", "notes.json", "latin.md", "large.md", "link.md", "etc/passwd", "sub dir"),
        *(
            "docs.library.db",
            "../docs.library.db",
            "../chat.db",
            "../test.toml",
            "\ud7ff",
            "x" * 4096,
        ),
    ],
)
async def test_gives_nothing_else(document_id: str, alice: Caller) -> None:
    reply = await read(alice, document_id)
    assert reply.status == 404
    assert reply.error["code"] == "not_found"
    assert SECRET.encode() not in reply.body


@pytest.mark.parametrize("query", ["", "?id=", "?ID=tides.md", f"?id={'x' * 4097}"])
async def test_wants_an_id(query: str, alice: Caller) -> None:
    reply = await alice.get(f"/api/v1/upstreams/docs/document{query}")
    assert reply.status == 400
    assert reply.error["code"] == "bad_request"


@pytest.mark.parametrize("upstream", ["script", "nope", "..", "Docs", "docs\0"])
async def test_other_upstreams_have_no_documents(upstream: str, alice: Caller) -> None:
    assert (await read(alice, "tides.md", upstream)).status == 404


async def test_needs_a_key_that_may_chat(site: Deployment) -> None:
    assert (await read(Caller(site, None), "tides.md")).status == 401
    assert (await read(Caller(site, "wrong-key-0123456789"), "tides.md")).status == 401
    assert (await read(Caller(site, WATCH), "tides.md")).status == 403


class TestLater:
    """The folder changes after it was indexed."""

    @pytest.fixture
    async def docs(self, tmp_path: Path) -> Path:
        return write_documents(tmp_path)

    @pytest.fixture
    async def library(self, tmp_path: Path, docs: Path) -> AsyncIterator[Library]:
        table = Library.Settings.model_validate({**settings(docs), "index": tmp_path / "index.db"})
        library = Library("docs", table, LimitSettings())
        await library.open()
        await library.check()
        yield library
        await library.close()

    async def test_a_changed_document_is_given_as_it_is_now(
        self, library: Library, docs: Path
    ) -> None:
        (docs / "tides.md").write_text("Other.", encoding="utf-8")
        found = await library.document("tides.md")
        assert found is not None
        assert found.text == "Other."

    async def test_one_that_became_a_link_out_of_the_folder_is_not_given(
        self, library: Library, docs: Path
    ) -> None:
        (docs / "tides.md").unlink()
        os.symlink(docs.parent / "secret.md", docs / "tides.md")
        assert await library.document("tides.md") is None

    async def test_nor_one_whose_folder_became_such_a_link(
        self, library: Library, docs: Path
    ) -> None:
        (docs / "sub dir").rename(docs.parent / "moved")
        os.symlink(docs.parent / "moved", docs / "sub dir")
        assert await library.document("sub dir/海 & #1?.md") is None

    async def test_one_that_is_gone_unreadable_or_grown_too_large_is_not_given(
        self, library: Library, docs: Path
    ) -> None:
        (docs / "tides.md").unlink()
        assert await library.document("tides.md") is None
        os.mkfifo(docs / "tides.md")  # nobody writes to it, and it is not waited for
        found = await library.document("tides.md")
        assert found is None or found.text == ""
        (docs / "plain.txt").write_bytes(b"\xff")
        assert await library.document("plain.txt") is None
        (docs / "plain.txt").write_bytes(b"x" * 4_001)
        assert await library.document("plain.txt") is None
