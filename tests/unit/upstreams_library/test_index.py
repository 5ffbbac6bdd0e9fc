import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.library import database, index, passages
from holdfast.upstreams.library.folder import Folder, Skipped
from holdfast.upstreams.library.index import RESCAN_S, Index
from holdfast.upstreams.library.query import parse_query

OLD = 1_600_000_000


class Shelf:
    """A folder of documents and its index, with a clock that is set by hand."""

    def __init__(self, home: Path) -> None:
        self.root = home / "documents"
        self.root.mkdir()
        self.path = home / "library.db"
        self.now = 0.0
        self.index = self.reopened()

    def reopened(self) -> Index:
        return Index(self.path, Folder(self.root, 1_000))

    def write(self, name: str, text: str, *, age: int = 0) -> None:
        (self.root / name).write_text(text, "utf-8")
        os.utime(self.root / name, (OLD - age, OLD - age))

    def find(self, question: str) -> list[str]:
        """The documents that have something, after the folder was looked at once more."""
        self.now += RESCAN_S
        found = self.index.search(parse_query(question), self.now)
        return sorted({candidate.document for candidate in found.candidates})


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.index.close()


@pytest.mark.parametrize(
    "question",
    [
        "潮汐",
        "潮",
        "汐",
        "高潮",
        "lighthouse",
        "LIGHTHOUSES",
        "ｌｉｇｈｔ house",
        "logging",
        "データ",
        "ー",
    ],
)
def test_words_of_every_script_find(shelf: Shelf, question: str) -> None:
    shelf.write("a.md", "潮汐每天有两次高潮。The light house. Two lighthouses logged. データ")
    assert shelf.find(question) == ["a.md"]


@pytest.mark.parametrize(
    "question", ["汐潮", "水", "zebra", "lighthousekeeper", "データベース理論学"]
)
def test_words_that_are_not_there_do_not_find(shelf: Shelf, question: str) -> None:
    shelf.write("a.md", "潮汐每天有两次高潮。Two lighthouses logged.")
    assert shelf.find(question) == []


def test_title_and_section_find_too(shelf: Shelf) -> None:
    shelf.write("a.md", "# Kelp\n\n## 固着器\n\nIt grips.")
    assert shelf.find("kelp") == shelf.find("固着器") == ["a.md"]


def test_new_changed_and_deleted_documents_are_followed(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    assert shelf.find("kelp") == ["a.md"]
    shelf.write("b.md", "kelp forest")
    assert shelf.find("kelp") == ["a.md", "b.md"]
    shelf.write("a.md", "tides", age=1)
    assert (shelf.find("kelp"), shelf.find("tides")) == (["b.md"], ["a.md"])
    (shelf.root / "b.md").unlink()
    assert shelf.find("kelp") == []
    assert shelf.index.contents.documents == 1


def test_the_folder_is_not_looked_at_again_within_some_seconds(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    assert shelf.index.refresh(100.0).documents == 1
    shelf.write("b.md", "kelp")
    assert shelf.index.refresh(100.0 + RESCAN_S - 0.1).documents == 1
    assert shelf.index.refresh(100.0 + RESCAN_S).documents == 2


def test_unchanged_documents_are_not_read_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write("a.md", "kelp")
    shelf.write("b.md", "not\0text")
    assert shelf.find("kelp") == ["a.md"]
    read: list[str] = []

    def note(folder: Folder, name: str) -> str:
        read.append(name)
        return "tides"

    monkeypatch.setattr(Folder, "read", note)
    assert shelf.find("kelp") == ["a.md"]
    assert read == []


def test_a_document_written_a_moment_ago_is_compared_by_its_content(shelf: Shelf) -> None:
    document = shelf.root / "a.md"
    document.write_text("kelp one")
    shelf.find("kelp")
    before = document.stat()
    document.write_text("tide one")
    os.utime(document, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shelf.find("tide") == ["a.md"]


def test_a_document_that_was_only_touched_is_not_cut_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.write("a.md", "kelp", age=5)
    monkeypatch.setattr(index, "split_document", lambda text, suffix: pytest.fail("cut again"))
    assert shelf.find("kelp") == ["a.md"]


def test_the_index_outlives_the_process(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.index.close()
    monkeypatch.setattr(index, "split_document", lambda text, suffix: pytest.fail("cut again"))
    shelf.index = shelf.reopened()
    assert shelf.find("kelp") == ["a.md"]


def test_files_that_cannot_be_searched_are_named_once_in_the_log(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.write("large.md", "x" * 1_001)
    (shelf.root / "latin.md").write_bytes(b"caf\xe9")
    with caplog.at_level(logging.WARNING):
        shelf.find("kelp")
        shelf.find("kelp")
    assert shelf.index.contents.skipped == (
        Skipped("large.md", "larger than 1,000 bytes"),
        Skipped("latin.md", "not UTF-8"),
    )
    assert [record.getMessage() for record in caplog.records] == [
        "not searched: large.md (larger than 1,000 bytes)",
        "not searched: latin.md (not UTF-8)",
    ]


def test_a_document_that_becomes_unreadable_is_no_longer_found(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    assert shelf.find("kelp") == ["a.md"]
    shelf.write("a.md", "kelp\0", age=1)
    assert shelf.find("kelp") == []
    shelf.write("a.md", "kelp again", age=2)
    assert shelf.find("kelp") == ["a.md"]
    assert shelf.index.contents.skipped == ()


def test_terms_that_no_document_holds_are_told(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp forest")
    found = shelf.index.search(parse_query("zebras in a kelp forest"), 0.0)
    assert found.unknown == {"zebra"}


def test_a_term_beyond_the_best_candidates_is_not_called_unknown(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CANDIDATES", 1)
    shelf.write("a.md", "kelp kelp kelp")
    shelf.write("b.md", "a forest " + "and more and more " * 20)
    found = shelf.index.search(parse_query("kelp forest"), 0.0)
    assert len(found.candidates) == 1
    assert found.unknown == set()


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 100, b"SQLite format 3\0" * 99]
)
def test_a_damaged_index_is_moved_aside_and_built_anew(shelf: Shelf, content: bytes) -> None:
    shelf.write("a.md", "kelp")
    shelf.path.write_bytes(content)
    assert shelf.find("kelp") == ["a.md"]
    assert shelf.path.with_name("library.db.broken").read_bytes() == content


def test_an_index_with_damaged_pages_is_built_anew(shelf: Shelf) -> None:
    for number in range(50):
        shelf.write(f"{number}.md", f"kelp number{number} " * 20)
    shelf.find("kelp")
    shelf.index.close()
    size = shelf.path.stat().st_size
    with shelf.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert len(shelf.find("kelp")) == 50


def test_an_index_of_another_format_is_built_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.index.close()
    monkeypatch.setattr(database, "_FORMAT", 2)
    monkeypatch.setattr(database, "_SCHEMA", database._SCHEMA.replace("version = 1", "version = 2"))
    cut: list[str] = []

    def note(text: str, suffix: str) -> passages.Document:
        cut.append(text)
        return passages.split_document(text, suffix)

    monkeypatch.setattr(index, "split_document", note)
    shelf.index = shelf.reopened()
    assert shelf.find("kelp") == ["a.md"]
    assert cut == ["kelp"]
    assert not shelf.path.with_name("library.db.broken").exists()


def test_an_index_of_another_folder_is_built_anew(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.index.close()
    shelf.root = tmp_path / "elsewhere"
    shelf.root.mkdir()
    shelf.write("a.md", "tide")
    shelf.index = shelf.reopened()
    assert (shelf.find("kelp"), shelf.find("tide")) == ([], ["a.md"])


def test_a_database_of_somebody_else_is_never_touched(shelf: Shelf) -> None:
    other = sqlite3.connect(shelf.path)
    other.execute("CREATE TABLE conversations (text)")
    other.commit()
    other.close()
    before = shelf.path.read_bytes()
    with pytest.raises(UpstreamError, match=r"library\.db is no index of a library"):
        shelf.find("kelp")
    assert shelf.path.read_bytes() == before
    assert sorted(path.name for path in shelf.path.parent.iterdir()) == ["documents", "library.db"]


def test_a_missing_folder_is_told_and_forgets_nothing(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.root.rename(shelf.root.with_name("away"))
    with pytest.raises(UpstreamError, match="cannot be read: No such file") as caught:
        shelf.find("kelp")
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    shelf.root.with_name("away").rename(shelf.root)
    assert shelf.find("kelp") == ["a.md"]


def test_an_index_that_cannot_be_written_is_told(shelf: Shelf) -> None:
    shelf.path = shelf.root / "a.md" / "library.db"
    shelf.write("a.md", "kelp")
    shelf.index = shelf.reopened()
    with pytest.raises(UpstreamError, match="the index of the library cannot be used") as caught:
        shelf.find("kelp")
    assert caught.value.reason is Reason.UPSTREAM_ERROR


def test_an_index_that_another_process_holds_is_told_and_kept(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0)
    shelf.write("a.md", "kelp")
    shelf.find("kelp")
    shelf.write("b.md", "kelp")
    other = sqlite3.connect(shelf.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UpstreamError, match="database is locked"):
        shelf.find("kelp")
    other.close()
    assert shelf.find("kelp") == ["a.md", "b.md"]
    assert not shelf.path.with_name("library.db.broken").exists()


def test_documents_that_could_not_be_written_are_taken_in_the_next_time(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write("a.md", "kelp")
    shelf.write("b.md", "kelp")
    add, tried = database.Database.add, []

    def full(*arguments: Any) -> None:
        tried.append(arguments)
        add(*arguments)
        if len(tried) == 2:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database.Database, "add", full)
    with pytest.raises(UpstreamError, match="disk is full"):
        shelf.find("kelp")
    assert shelf.find("kelp") == ["a.md", "b.md"]
    assert len(tried) == 4


def test_the_folder_of_the_index_is_made(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("a.md", "kelp")
    shelf.path = tmp_path / "new" / "folder" / "library.db"
    shelf.index = shelf.reopened()
    assert shelf.find("kelp") == ["a.md"]
    assert shelf.path.exists()


def test_a_read_only_folder_of_documents_stays_as_it_is(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    shelf.root.chmod(0o500)
    assert shelf.find("kelp") == ["a.md"]
    assert [path.name for path in shelf.root.iterdir()] == ["a.md"]
    shelf.root.chmod(0o700)


def test_a_scan_that_is_stopped_ends_early(shelf: Shelf) -> None:
    shelf.write("a.md", "kelp")
    shelf.index.stop()
    assert shelf.find("kelp") == []


def test_many_documents_are_taken_in_over_several_transactions(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "COMMIT_EVERY", 3)
    for number in range(10):
        shelf.write(f"{number}.md", "kelp")
    assert len(shelf.find("kelp")) == 10
