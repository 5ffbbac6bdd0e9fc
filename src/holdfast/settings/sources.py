"""Reading the settings: file, `.env`, environment."""

import io
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from holdfast.errors import ConfigError
from holdfast.settings.api_keys import API_KEYS, GivenKey, parse_api_keys
from holdfast.settings.messages import Location, Unset, describe, nearest, refuse_unset, suggest
from holdfast.settings.tables import (
    DEFAULT_FILE,
    OTHER_VARIABLES,
    PREFIX,
    Settings,
    setting_names,
)
from holdfast.settings.well_known import unset_variables, well_known_upstreams


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Read the settings.

    Args:
        path: The configuration file; None looks for `holdfast.toml` in `folder`.
        environ: The environment (default: this process's).
        folder: The working folder (default: the current one).

    Raises:
        ConfigError: A file that is not there or not TOML, an unknown key or variable (the message
            names the nearest known one), or a value that cannot be.
    """
    folder = folder or Path()
    sources = _Sources(
        file=_find_file(path, folder),
        dotenv=_read_dotenv(folder / ".env"),
        environ=_present(os.environ if environ is None else environ),
    )
    values = sources.merged()
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems = [
            describe(detail, Settings, source=sources.label(detail["loc"]))
            for detail in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None
    settings.note_unset(unset_variables(settings.upstreams, sources.variables))
    settings.note_keys(sources.api_keys(), sources.variables.get("HOLDFAST_API_KEY"))
    return settings


@dataclass(frozen=True)
class _Sources:
    file: Path | None
    dotenv: Mapping[str, str]
    environ: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        return {**self.dotenv, **self.environ}

    def merged(self) -> dict[str, Any]:
        """All values, the stronger source's in place of the weaker's."""
        self._refuse_unknown_variables()
        written = _substitute(_read_toml(self.file) if self.file else {}, self.variables)
        values = _merge(written, self._from_variables(written))
        upstreams = values.pop("upstreams", {})
        refuse_unset(values, source=f"{self.file}: ")
        if isinstance(upstreams, dict):
            upstreams = _merge(well_known_upstreams(upstreams, self.variables), upstreams)
        return {**values, "upstreams": upstreams}

    def api_keys(self) -> tuple[GivenKey, ...]:
        """The keys that a server takes from its variables."""
        text = self.variables.get(API_KEYS)
        return parse_api_keys(text, self._kind(API_KEYS)) if text else ()

    def label(self, location: Location) -> str:
        """The variable or file that a value came from, to stand in front of a message."""
        for end in range(len(location), 0, -1):
            name = _variable(*location[:end])
            if name in self.variables:
                return f"{name} ({self._kind(name)}): "
        return f"{self.file}: " if self.file else ""

    def _kind(self, name: str) -> str:
        return "environment" if name in self.environ else ".env"

    def _from_variables(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """The values that variables set; tables have the names that the file spells."""
        source = EnvSettingsSource(Settings)
        source.env_vars = {name.lower(): value for name, value in self.variables.items()}
        try:
            values = source()
        except SettingsError as error:
            # Its cause is left out: that quotes the value, which may be a secret.
            raise ConfigError(
                f"a variable that sets a whole section is not JSON: {error}"
            ) from None
        for section in ("upstreams", "presets"):
            tables, given = written.get(section), values.get(section)
            if isinstance(tables, dict) and isinstance(given, dict):
                spelled = {_variable(name): name for name in tables}
                values[section] = {
                    spelled.get(_variable(name), name): table for name, table in given.items()
                }
        return values

    def _refuse_unknown_variables(self) -> None:
        for name in self.variables:
            section = name.removeprefix(PREFIX).partition("__")[0].lower()
            # An unknown key of a known section is found together with the file's.
            if not name.startswith(PREFIX) or section in Settings.model_fields:
                continue
            if name not in OTHER_VARIABLES:
                known = [_variable(*key.split(".")) for key in setting_names()]
                near = nearest(name, [*OTHER_VARIABLES, *known])
                raise ConfigError(f"{name} ({self._kind(name)}): unknown variable{suggest(near)}")


def _variable(*location: str | int) -> str:
    """The variable that sets what stands at `location`."""
    return PREFIX + "__".join(map(str, location)).upper().replace("-", "_")


def _find_file(path: Path | None, folder: Path) -> Path | None:
    if path is None:
        default = folder / DEFAULT_FILE
        return default if default.is_file() else None
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    for key in table:
        if key.startswith("_"):  # pydantic-settings would take it for an option of its own
            raise ConfigError(f"{path}: unknown key {key}")
    return table


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return _present(dotenv_values(stream=io.StringIO(_read_text(path))))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None


def _present(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that say something; an empty one counts as not set."""
    present = {name: value for name, value in variables.items() if value}
    if "HOLDFAST_DATABASE_URL" in present:
        present.setdefault("HOLDFAST_STORAGE__URL", present["HOLDFAST_DATABASE_URL"])
    return present


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _merge(below, value)
        merged[key] = value
    return merged


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _substitute(value: Any, variables: Mapping[str, str]) -> Any:
    """Put variables in the place of `${NAME}`, `Unset` where one is missing."""
    if isinstance(value, dict):
        return {key: _substitute(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in variables:
            return Unset(name)
    return _REFERENCE.sub(lambda match: variables[match[1]], value)
