"""The text fields of a form, as browsers and HTTP libraries send them.

Both of the encodings that HTML knows: `application/x-www-form-urlencoded` and
`multipart/form-data` (RFC 7578). Files are passed over. Text is UTF-8.
"""

from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final
from urllib.parse import parse_qsl

from holdfast.errors import BadRequest

URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"

MAX_FIELDS: Final = 100
PART_HEAD_BYTES: Final = 4_000


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields by name; of several with one name the first.

    Args:
        content_type: The header, one of the two media types with its parameters.
        body: The whole body.

    Raises:
        BadRequest: It is no such form.
    """
    head = Message()
    head["content-type"] = content_type
    try:
        if head.get_content_type() == MULTIPART:
            return _multipart(head.get_boundary(""), body)
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise BadRequest("the form is not UTF-8") from None
    except ValueError as error:
        raise BadRequest(f"the form cannot be read: {error}") from None
    return dict(reversed(pairs))


def _multipart(boundary: str, body: bytes) -> dict[str, str]:
    if not boundary:
        raise ValueError("no boundary is named")
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    _, *parts = (b"\r\n" + body).split(delimiter, MAX_FIELDS + 2)
    fields: dict[str, str] = {}
    for part in parts:
        if part.startswith(b"--"):
            return fields
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator or len(head) > PART_HEAD_BYTES:
            raise ValueError("a part has no proper headers")
        name = _field_name(head)
        if name is not None:
            fields.setdefault(name, content.decode())
    raise ValueError("its end is missing")


def _field_name(head: bytes) -> str | None:
    """The name of a part that is a text field; None of a file."""
    headers = BytesHeaderParser().parsebytes(head.lstrip() + b"\r\n\r\n")
    name = headers.get_param("name", header="content-disposition")
    is_file = headers.get_filename() is not None
    return name if isinstance(name, str) and not is_file else None
