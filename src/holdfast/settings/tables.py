"""Every setting with its default and its bounds.

Durations are in seconds and end in `_s`; sizes are in bytes unless their name says otherwise.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

DEFAULT_FILE = "holdfast.toml"
PREFIX = "HOLDFAST_"
OTHER_VARIABLES = {
    "HOLDFAST_DATABASE_URL": "a second name for `storage.url`",
    "HOLDFAST_URL": "the server that `holdfast ask` and `holdfast show` talk to",
}
"""Variables with our prefix that do not follow from a section's key."""


def _split_list(value: object) -> object:
    """Variables hold lists as JSON or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError("must be a JSON list or texts separated by commas") from error
    return [part.strip() for part in value.split(",") if part.strip()]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
Seconds = Annotated[float, Field(gt=0)]
Grace = Annotated[float, Field(ge=0)]
Limit = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


ROUTES = frozenset({"auto", "local_small", "cloud_large"})
"""What a question may name in place of an upstream."""


def _check_names(upstreams: dict[str, Any]) -> dict[str, Any]:
    for name in upstreams:
        if not name or name in ROUTES:
            raise ValueError(f"cannot have the name {name!r}: choose another")
    return upstreams


class Table(BaseModel):
    """A table of the configuration file. Unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class ServerSettings(Table):
    """Where the server listens and whom it talks to."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8484
    allowed_hosts: Names = ("localhost", "127.0.0.1")
    """Names accepted in the Host header, without port; `*` accepts all."""
    cors_origins: Names = ()
    shutdown_grace_s: Grace = 20.0
    """How long live runs may go on after SIGTERM."""


class StorageSettings(Table):
    """Where conversations are kept."""

    url: str = "sqlite:///holdfast.db"
    synchronous: Literal["full", "normal"] = "full"
    """`full` survives the loss of power, `normal` survives kill -9 (SQLite)."""
    store_patience_s: Seconds = 30.0
    """How long commits are retried before live runs are given up."""


class NodeSettings(Table):
    """How nodes on one PostgreSQL watch each other."""

    heartbeat_s: Seconds = 2.0
    lease_s: Seconds = 8.0

    @model_validator(mode="after")
    def _lease_outlives_a_lost_heartbeat(self) -> "NodeSettings":
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError("needs a lease_s of at least twice its heartbeat_s")
        return self


class RunSettings(Table):
    """How a run behaves unless its question says otherwise."""

    on_disconnect: Literal["continue", "cancel"] = "continue"
    disconnect_grace_s: Grace = 30.0
    """How long a run whose policy is `cancel` waits for a reader to come back."""
    on_busy: Literal["reject", "cancel"] = "reject"
    first_byte_timeout_s: Seconds = 180.0
    idle_timeout_s: Seconds = 120.0
    total_timeout_s: Seconds = 1800.0
    history_messages: Count = 20
    history_chars: Count = 40_000


class LimitSettings(Table):
    """Upper bounds, in bytes where nothing else is said."""

    body_bytes: Limit = 1_000_000
    question_bytes: Limit = 200_000
    answer_bytes: Limit = 2_000_000
    event_bytes: Limit = 1_000_000
    reference_bytes: Limit = 20_000
    references: Limit = 100
    """How many references one answer keeps."""
    unsaved_bytes: Limit = 1_000_000
    """How much of one run may wait for its commit before its upstream is not read any more."""
    tail_bytes: Limit = 256_000
    """How much of a live run is kept in memory for its readers; slower ones read the store."""


class StreamSettings(Table):
    """How streams are kept open."""

    heartbeat_s: Seconds = 10.0
    send_timeout_s: Seconds = 30.0
    """How long one write to a reader may take before the reader is dropped."""


class RouterSettings(Table):
    """Which upstream answers when the question does not name one."""

    default: str = "auto"
    local: str | None = None
    """What `local_small` means here."""
    cloud: str | None = None
    """What `cloud_large` means here."""


class Settings(BaseSettings):
    """All settings. `load` builds them; the constructor reads no file and no environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    node: NodeSettings = NodeSettings()
    runs: RunSettings = RunSettings()
    limits: LimitSettings = LimitSettings()
    stream: StreamSettings = StreamSettings()
    router: RouterSettings = RouterSettings()
    upstreams: Annotated[dict[str, dict[str, Any]], AfterValidator(_check_names)] = {}
    """Tables by name; `kind` chooses the file in `upstreams/` that checks the rest."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` has merged every source already."""
        return (init_settings,)


def sections() -> Iterator[tuple[str, type[Table]]]:
    """The sections whose keys are fixed, by name."""
    for name, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Table):
            yield name, info.annotation


def setting_names() -> list[str]:
    """Every fixed setting as `section.key`."""
    return [f"{name}.{key}" for name, table in sections() for key in table.model_fields]
