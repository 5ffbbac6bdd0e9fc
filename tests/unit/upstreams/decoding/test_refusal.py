import html
import json
from typing import Any

import pytest

from holdfast.upstreams.decoding.refusal import (
    BODY_BYTES,
    CUT,
    ERROR_CHARS,
    KEPT_BYTES,
    body_text,
    clean,
    error_text,
    kept_text,
    without,
)


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


KEY = 'sk-"a"/b&c-very-secret'


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", ""),
        (b"<p>busy</p>", "<p>busy</p>"),
        ("忙 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16").encode(), "忙 😀"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (f"bad {KEY}!".encode(), "bad ***!"),
        (json.dumps({"error": f"bad {KEY}!"}).encode(), '{"error": "bad ***!"}'),
        (json.dumps({KEY: KEY}).replace("/", "\\/").encode(), '{"***": "***"}'),
        (f"<p>{html.escape(KEY)}</p>".encode(), "<p>***</p>"),
        (f"broke off in {KEY[:9]}".encode(), "broke off in ***"),
        (b"x" * KEPT_BYTES, "x" * KEPT_BYTES),
        (b"x" * (KEPT_BYTES + 1), "x" * (KEPT_BYTES - 3) + CUT),
        ("好".encode() * KEPT_BYTES, "好" * 1364 + CUT),
    ],
)
def test_the_beginning_of_a_body_is_kept_without_secrets(body: bytes, kept: str) -> None:
    assert kept_text([KEY], body) == kept


@pytest.mark.parametrize("at", [KEPT_BYTES, BODY_BYTES])
@pytest.mark.parametrize("before", range(1, 24, 3))
def test_a_secret_where_a_body_is_cut_is_not_kept(at: int, before: int) -> None:
    body = b"x" * (at - before) + KEY.encode() + b"x" * BODY_BYTES
    assert KEY[:4] not in kept_text([KEY], body)
    assert KEY[:4] not in kept_text([KEY], body[:at])


def test_a_body_of_nothing_but_secrets_keeps_no_beginning_of_one() -> None:
    assert KEY[:4] not in kept_text([KEY], KEY.encode() * BODY_BYTES)
