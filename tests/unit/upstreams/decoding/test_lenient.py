from typing import Any

import msgspec
import pytest

from holdfast.upstreams.decoding.lenient import decode_any, repair


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{"a":"x\xffy"}', {"a": "x\ufffdy"}),
        (b'{"a":"\xe4\xb8"}', {"a": "\ufffd"}),
        (rb'{"a":"x\ud83d"}', {"a": "x\ufffd"}),
        (rb'{"a":"\ude00y"}', {"a": "\ufffdy"}),
        (rb'{"a":"\ud83d\ude00"}', {"a": "😀"}),
        (b'{"a":"x\ny"}', {"a": "x\ny"}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    ],
)
def test_readable_json_is_repaired(data: bytes, value: Any) -> None:
    repaired = repair(data)
    assert repaired is not None
    assert msgspec.json.decode(repaired) == value
    assert decode_any(data) == value


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[DONE]", b"[" * 100_000, b"<html>", b'{"a":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_stays_none(data: bytes) -> None:
    assert repair(data) is None
    assert decode_any(data) == {}


def test_numbers_that_json_does_not_have_are_no_value() -> None:
    assert decode_any(b'{"a":NaN,"b":[-Infinity,1e999],"c":0.5}') == {
        "a": None,
        "b": [None, None],
        "c": 0.5,
    }
