"""Forms: what browsers and HTTP libraries send, and what nobody should."""

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import BadRequest
from holdfast.http.forms import MAX_FIELDS, MULTIPART, PART_HEAD_BYTES, URLENCODED, parse_form

VALUES = {"question": "What is 海带? a+b&c=d%20\r\n--x", "session_id": ""}
BOUNDARY = f"{MULTIPART}; boundary=xyz"


def sent(**options: Any) -> tuple[str, bytes]:
    """What requests sends for a form."""
    request = requests.Request("POST", "http://x/", **options).prepare()
    body: Any = request.body
    return str(request.headers["content-type"]), body if isinstance(body, bytes) else body.encode()


def part(name: str, content: bytes = b"kelp", head: bytes = b"") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'.encode()
    return b"--xyz\r\n" + disposition + head + b"\r\n\r\n" + content + b"\r\n"


def test_an_urlencoded_form_as_requests_sends_it() -> None:
    content_type, body = sent(data=VALUES)
    assert content_type == URLENCODED
    assert parse_form(content_type, body) == VALUES


def test_a_multipart_form_as_requests_sends_it() -> None:
    files = {"file": ("kelp.txt", b"\xff\x00"), **{n: (None, v) for n, v in VALUES.items()}}
    content_type, body = sent(files=files)
    assert content_type.startswith(MULTIPART)
    assert parse_form(content_type, body) == VALUES


def test_a_multipart_form_as_browsers_send_it() -> None:
    body = (
        "------WebKitFormBoundaryAbC\r\n"
        'Content-Disposition: form-data; name="question"\r\n\r\n'
        "海带\r\nsecond line\r\n"
        "------WebKitFormBoundaryAbC\r\n"
        'Content-Disposition: form-data; name="file"; filename=""\r\n'
        "Content-Type: application/octet-stream\r\n\r\n\r\n"
        "------WebKitFormBoundaryAbC--\r\n"
    )
    content_type = "Multipart/Form-Data; boundary=----WebKitFormBoundaryAbC"
    assert parse_form(content_type, body.encode()) == {"question": "海带\r\nsecond line"}


def test_a_multipart_form_as_curl_sends_it() -> None:
    body = b"preamble\r\n" + part("question", b"kelp") + b"--xyz--\r\nepilogue"
    assert parse_form(f'{MULTIPART}; boundary="xyz"', body) == {"question": "kelp"}


def test_an_urlencoded_form_may_name_its_charset() -> None:
    assert parse_form(f"{URLENCODED}; charset=UTF-8", b"question=%E6%B5%B7") == {"question": "海"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, b"question=a&question=b"),
        (BOUNDARY, part("question", b"a") + part("question", b"b") + b"--xyz--"),
    ],
)
def test_of_fields_with_one_name_the_first_counts(content_type: str, body: bytes) -> None:
    assert parse_form(content_type, body) == {"question": "a"}


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        (URLENCODED, b"question=%FF", "UTF-8"),
        (URLENCODED, b"question=\xff", "UTF-8"),
        (URLENCODED, b"&".join([b"a=b"] * (MAX_FIELDS + 1)), "cannot be read"),
        (MULTIPART, part("question") + b"--xyz--", "no boundary"),
        (f"{MULTIPART}; boundary=", b"", "no boundary"),
        (BOUNDARY, b"", "its end is missing"),
        (BOUNDARY, part("question"), "its end is missing"),
        (BOUNDARY, b"--xyz\r\nquestion\r\n--xyz--", "no proper headers"),
        (BOUNDARY, part("a", head=b" " * PART_HEAD_BYTES) + b"--xyz--", "no proper headers"),
        (BOUNDARY, part("a", b"\xff") + b"--xyz--", "UTF-8"),
        (BOUNDARY, part("a") * 1_000 + b"--xyz--", "no proper headers|end is missing"),
    ],
)
def test_what_is_no_form_is_a_bad_request(content_type: str, body: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        parse_form(content_type, body)


_pieces = st.sampled_from(
    [b"--xyz", b"--", b"\r\n", b"\r\n\r\n", b'Content-Disposition: form-data; name="a"', b";", b"="]
)
_heads = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)


@given(
    st.sampled_from([URLENCODED, BOUNDARY, MULTIPART]),
    _heads,
    st.lists(_pieces | st.binary(max_size=8), max_size=12).map(b"".join),
)
def test_nothing_else_is_ever_raised(media: str, more: str, body: bytes) -> None:
    try:
        fields = parse_form(f"{media}; {more}", body)
    except BadRequest:
        return
    assert all(isinstance(text, str) for text in fields.values())
