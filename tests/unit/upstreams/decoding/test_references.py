from typing import Any

import msgspec
import pytest

from holdfast.events import Reference, References, decode, encode
from holdfast.upstreams.decoding.references import (
    CHUNK,
    EXTRA_BYTES,
    URL_CITATION,
    bounded_extra,
    http_url,
    read_reference,
    shorten,
)


def read(source: dict[str, Any], text_bytes: int = 1000) -> Reference:
    reference = read_reference(source, CHUNK, ordinal=1, text_bytes=text_bytes)
    assert decode(encode(References((reference,)))) == References((reference,))
    return reference


def test_a_chunk_of_today() -> None:
    source = {
        "id": "3f7b",
        "content": "Rated for 16 bar.",
        "document_id": "9d0e",
        "document_name": "manual.pdf",
        "dataset_id": "1c1d",
        "image_id": "",
        "positions": [[4, 72, 523, 118, 166]],
        "url": None,
        "similarity": 0.75,
        "doc_type": "",
    }
    assert read(source) == Reference(
        ordinal=1,
        document_id="9d0e",
        document_name="manual.pdf",
        chunk_id="3f7b",
        text="Rated for 16 bar.",
        score=0.75,
        positions=[[4, 72, 523, 118, 166]],
        extra={"dataset_id": "1c1d"},
    )


def test_a_chunk_with_the_older_names() -> None:
    source = {
        "chunk_id": "3f7b",
        "content_with_weight": "Rated.",
        "doc_id": "9d0e",
        "docnm_kwd": "manual.pdf",
        "position_int": [""],
    }
    assert read(source) == Reference(1, "9d0e", "manual.pdf", "3f7b", "Rated.")


def test_a_url_citation() -> None:
    source = {"url": "https://a.example/x", "title": "A", "start_index": 3, "end_index": 9}
    assert read_reference(source, URL_CITATION, ordinal=2, text_bytes=10) == Reference(
        2, document_name="A", url="https://a.example/x", extra={"start_index": 3, "end_index": 9}
    )


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"id": 5, "content": None, "document_name": ["x"], "similarity": True},
        {"content": {"a": 1}, "similarity": "0.5", "positions": "x", "url": 3},
        {"similarity": 10**400, "positions": {"a": 1}},
    ],
)
def test_values_of_wrong_types_are_left_out(source: dict[str, Any]) -> None:
    reference = read(source)
    assert reference.score is None
    assert reference.text == ""
    assert reference.document_name is None
    assert reference.positions is None
    assert reference.chunk_id == ("5" if "id" in source else None)


def test_long_values_are_bounded() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    reference = read(
        {
            "content": "文" * 1000,
            "document_name": "n" * 10_000,
            "positions": [[n, 2, 3, 4, 5] for n in range(10_000)],
            "big": "x" * 10_000,
            "deep": deep,
            "small": 1,
        },
        text_bytes=100,
    )
    assert reference.text == "文" * 32 + "…"
    assert len(encode(reference)) < 2 * EXTRA_BYTES + 1000
    assert reference.extra == {"small": 1}
    assert reference.positions
    assert reference.positions[0] == [0, 2, 3, 4, 5]


def test_extra_fields_are_kept_as_far_as_they_fit() -> None:
    fields = {f"f{n}": "x" * 500 for n in range(20)}
    kept = bounded_extra(fields)
    assert kept is not None
    assert list(kept) == list(fields)[: len(kept)]
    assert 3000 < len(msgspec.json.encode(kept)) <= EXTRA_BYTES + 100
    assert bounded_extra({"a": None, "b": "", "c": [], "d": {}}) is None
    assert bounded_extra({"a": 0, "b": False}) == {"a": 0, "b": False}


@pytest.mark.parametrize(
    ("text", "size", "shortened"),
    [
        ("short", 5, "short"),
        ("longer", 5, "lo…"),
        ("öööö", 8, "öööö"),
        ("öööö", 7, "öö…"),
        ("x", 0, "…"),
    ],
)
def test_text_is_cut_at_a_character(text: str, size: int, shortened: str) -> None:
    assert shorten(text, size) == shortened


@pytest.mark.parametrize(
    "url", ["https://a.example", "http://a.example:80/ä b?q=1#f", "HTTPS://A.EXAMPLE/"]
)
def test_web_addresses_are_links(url: str) -> None:
    assert http_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "a.example",
        "//a.example",
        "ftp://a.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "java\nscript:alert(1)",
        "https:a.example",
        "http://",
        "http://[::1",
        "https://a.example/\u0000",
        "https://a.example/" + "x" * 2000,
    ],
)
def test_anything_else_is_no_link(url: object) -> None:
    assert http_url(url) is None
