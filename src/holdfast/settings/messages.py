"""What is said about settings that cannot work: in plain words, and without secrets."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from holdfast.errors import ConfigError
from holdfast.settings.tables import Settings, Table, setting_names

Location: TypeAlias = tuple[str | int, ...]
"""Where a value stands: section, key and, in a list, its index."""

TableType = TypeVar("TableType", bound=Table)


@dataclass(frozen=True)
class Unset:
    """Stands in a table for a value whose variable is not set; an error once the table is used."""

    variable: str


def check_table(model: type[TableType], values: Mapping[str, Any], place: str) -> TableType:
    """Check a table that `Settings` keeps as it was given.

    Args:
        model: What the table must be.
        values: The table.
        place: The table's full name for messages, such as `upstreams.gpt`.

    Raises:
        ConfigError: An unknown key (the message names the nearest known one), a value that
            cannot be, or a `${NAME}` whose variable is not set.
    """
    refuse_unset(values, (place,))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(
            "\n".join(describe(detail, model, parent=place) for detail in error.errors())
        ) from None


def refuse_unset(values: Any, location: Location = (), source: str = "") -> None:
    """Raise a ConfigError that names every `Unset` in `values`, if there is one."""
    problems = [
        f"{source}{key} needs the variable {name}, which is not set (environment or .env)"
        for key, name in _unset(values, location)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _unset(value: Any, location: Location) -> Iterator[tuple[str, str]]:
    if isinstance(value, Unset):
        yield _dotted(location), value.variable
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unset(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unset(item, (*location, index))


def describe(
    detail: ErrorDetails, model: type[BaseModel], *, source: str = "", parent: str = ""
) -> str:
    """One of pydantic's errors in plain words.

    Args:
        detail: The error.
        model: The model that raised it.
        source: The file or variable that the value came from, ready to stand in front.
        parent: The full name of the table that was checked.
    """
    location = detail["loc"]
    key = _dotted((parent, *location) if parent else location)
    match detail["type"]:
        case "extra_forbidden":
            near = _nearest_key(location, model)
            full = f"{parent}.{near}" if parent and near else near
            return f"{source}unknown key {key}{suggest(full)}"
        case "missing":
            return f"{source}{key} is missing"
    # A text in the place of a table may be a secret out of it.
    hidden = detail["type"] in _TABLES and isinstance(detail["input"], str)
    shown = "" if hidden else _shown(location, detail["input"])
    return f"{source}{key} {shown and f'is {shown}, but '}{_requirement(detail)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was probably meant to be."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def suggest(near: str | None) -> str:
    """The end of a message about an unknown word."""
    return f"; did you mean {near}?" if near else ""


def _nearest_key(location: Location, model: type[BaseModel]) -> str | None:
    *parents, last = (str(part) for part in location)
    table = model
    names = iter(parents)
    for name in names:
        annotation = table.model_fields[name].annotation
        if get_origin(annotation) is dict:  # tables by name
            annotation = get_args(annotation)[1]
            next(names, None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        table = annotation
    near = nearest(last, table.model_fields)
    if near:
        return ".".join([*parents, near])
    if model is not Settings:
        return None
    return next((name for name in setting_names() if name.endswith(f".{last}")), None)


def _dotted(location: Location) -> str:
    text = ".".join(part if isinstance(part, str) else f"[{part}]" for part in location)
    return text.replace(".[", "[")


_TABLES = frozenset({"dict_type", "model_type"})
_SECRET = re.compile(r"key|token|secret|password|auth|cookie|headers", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")
_SHOWN_LENGTH = 60


def _shown(location: Location, value: object) -> str:
    """The value as a message may show it: no secret, nothing long."""
    if isinstance(value, Mapping | list | tuple) or value is None:
        return ""
    if any(_SECRET.search(str(part)) for part in location):
        return "***"
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = _USERINFO.sub("***@", shown)
    return shown if len(shown) <= _SHOWN_LENGTH else shown[:_SHOWN_LENGTH] + "…"


_REQUIREMENTS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be a path",
    "tuple": "must be a list",
    "list": "must be a list",
    "dict": "must be a table",
    "model": "must be a table",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def _requirement(detail: ErrorDetails) -> str:
    kind = detail["type"]
    text = _REQUIREMENTS.get(kind) or _REQUIREMENTS.get(kind.partition("_")[0])
    if text is None:
        return f"cannot be: {detail['msg']}"
    bounds = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in detail.get("ctx", {}).items()
    }
    return text.format(**bounds)
