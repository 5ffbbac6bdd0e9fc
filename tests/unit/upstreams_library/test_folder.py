import os
from pathlib import Path

import pytest

from holdfast.upstreams.library.folder import Folder, Skipped, Unreadable

LIMIT = 1_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    return folder


def test_documents_of_all_kinds_are_found_in_subfolders_too(root: Path) -> None:
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("a.md", "b.TXT", "sub/c.rst", "sub/deep/d.markdown", "picture.png", "e.html"):
        (root / name).write_text("text")
    assert sorted(Folder(root, LIMIT).list().files) == [
        "a.md",
        "b.TXT",
        "sub/c.rst",
        "sub/deep/d.markdown",
    ]


def test_hidden_files_and_folders_are_left_alone(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git" / "a.md").write_text("text")
    (root / ".b.md").write_text("text")
    listing = Folder(root, LIMIT).list()
    assert (listing.files, listing.skipped) == ({}, [])


def test_a_file_that_is_too_large_is_skipped_and_named(root: Path) -> None:
    (root / "large.md").write_bytes(b"x" * (LIMIT + 1))
    (root / "fits.md").write_bytes(b"x" * LIMIT)
    listing = Folder(root, LIMIT).list()
    assert list(listing.files) == ["fits.md"]
    assert listing.skipped == [Skipped("large.md", "larger than 1,000 bytes")]


def test_links_that_lead_out_of_the_folder_are_skipped_and_named(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.md").write_text("secret")
    (tmp_path / "documents-too").mkdir()
    (root / "file.md").symlink_to(tmp_path / "secret.md")
    (root / "relative.md").symlink_to("../secret.md")
    (root / "folder").symlink_to(tmp_path / "private")
    (root / "sibling").symlink_to(tmp_path / "documents-too")
    listing = Folder(root, LIMIT).list()
    assert listing.files == {}
    assert listing.skipped == [
        Skipped(name, "leads out of the folder")
        for name in ("file.md", "folder", "relative.md", "sibling")
    ]


def test_links_within_the_folder_do_not_give_a_document_twice(root: Path) -> None:
    (root / "a.md").write_text("text")
    (root / "b.md").symlink_to("a.md")
    (root / "loop").symlink_to(root)
    listing = Folder(root, LIMIT).list()
    assert list(listing.files) == ["a.md"]
    assert listing.skipped == []


def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (root / "a.md").write_text("text")
    (tmp_path / "link").symlink_to(root)
    folder = Folder(tmp_path / "link", LIMIT)
    assert list(folder.list().files) == ["a.md"]
    assert folder.read("a.md") == "text"


def test_a_name_that_is_not_utf8_is_skipped_and_named(root: Path) -> None:
    with open(os.path.join(os.fsencode(root), b"\xff.md"), "wb") as file:
        file.write(b"text")
    listing = Folder(root, LIMIT).list()
    assert listing.files == {}
    assert listing.skipped == [Skipped("\ufffd.md", "its name is not UTF-8")]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_cannot_be_read_is_skipped_and_named(root: Path) -> None:
    (root / "locked").mkdir(mode=0)
    assert Folder(root, LIMIT).list().skipped == [Skipped("locked", "permission denied")]


def test_a_pipe_is_no_document(root: Path) -> None:
    os.mkfifo(root / "pipe.md")
    assert Folder(root, LIMIT).list().files == {}


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "nowhere", LIMIT).list()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        Folder(tmp_path / "file", LIMIT).list()


def test_a_byte_order_mark_is_no_text(root: Path) -> None:
    (root / "a.md").write_bytes("\ufeff# 潮汐".encode())
    assert Folder(root, LIMIT).read("a.md") == "# 潮汐"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("潮汐".encode("gb18030"), "not UTF-8"),
        ("text".encode("utf-16"), "not UTF-8"),
        (b"a\0b", "not a text"),
        (b"x" * (LIMIT + 1), "larger than 1,000 bytes"),
    ],
)
def test_what_is_no_text_cannot_be_read(root: Path, content: bytes, reason: str) -> None:
    (root / "a.md").write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        Folder(root, LIMIT).read("a.md")


@pytest.mark.parametrize("name", ["../secret.md", "link.md", "sub/secret.md"])
def test_a_file_that_leads_out_only_when_it_is_read_is_not_read(
    root: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (root / "link.md").symlink_to(tmp_path / "secret.md")
    (root / "sub").symlink_to(tmp_path)
    with pytest.raises(Unreadable, match="leads out"):
        Folder(root, LIMIT).read(name)


def test_a_file_that_became_a_link_within_the_folder_is_not_read(root: Path) -> None:
    (root / "a.md").write_text("text")
    (root / "b.md").symlink_to("a.md")
    with pytest.raises(Unreadable):
        Folder(root, LIMIT).read("b.md")


def test_a_file_that_has_gone_cannot_be_read(root: Path) -> None:
    with pytest.raises(Unreadable, match="no such file"):
        Folder(root, LIMIT).read("gone.md")
