from typing import Any

import pytest

from holdfast.upstreams.refusal import ERROR_CHARS, body_text, clean, error_text, without


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": {"message": "Rate limit", "code": "rate_limit"}}, "Rate limit (rate_limit)"),
        (
            {"error": {"message": "rate_limit: slow down", "code": "rate_limit"}},
            "rate_limit: slow down",
        ),
        (
            {"error": {"message": "down", "type": "server_error", "code": None}},
            "down (server_error)",
        ),
        ({"error": "no model"}, "no model"),
        ({"error": {"code": "rate_limit"}}, "rate_limit"),
        ({"error": {"error": {"message": "deep"}}}, "deep"),
        ({"message": "busy"}, "busy"),
        ({"code": 102, "message": "Session not found!"}, "Session not found! (102)"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"code": 500}, "500"),
        ("plain", "plain"),
        ({"error": None, "message": None}, ""),
        ({"error": [1]}, ""),
        ([], ""),
        (None, ""),
        (7, ""),
    ],
)
def test_the_words_of_every_form_of_error(value: Any, text: str) -> None:
    assert error_text(value) == text


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b'{"error":{"message":"no"}}', "no"),
        ("text/plain", b'{"error":"no"}', "no"),
        ("text/plain", b"Bad\n Request", "Bad Request"),
        ("text/html", b"<html>secret page</html>", ""),
        ("", b"  <!doctype html>", ""),
        ("application/json", b"\xff\xfe", "\ufffd\ufffd"),
        ("application/json", b"[" * 100_000, "[" * (ERROR_CHARS - 1) + "…"),
        ("application/json", b"", ""),
        ("application/json", b"null", ""),
    ],
)
def test_the_words_in_a_body(content_type: str, body: bytes, text: str) -> None:
    assert body_text(content_type, body) == text


def test_an_error_is_one_short_line() -> None:
    assert clean(" a\r\n\tb ") == "a b"
    assert len(clean("x" * 10_000)) == ERROR_CHARS


def test_secrets_are_blacked_out() -> None:
    assert without(["k1", "", "k2"], "key k1 or k2, k1!") == "key *** or ***, ***!"
