"""Every setting with its default and its bounds.

Durations are in seconds and end in `_s`; sizes are in bytes unless their name says otherwise.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from holdfast.settings.api_keys import API_KEYS, GivenKey

DEFAULT_FILE = "holdfast.toml"
PREFIX = "HOLDFAST_"
OTHER_VARIABLES = {
    "HOLDFAST_API_KEY": "the key that `holdfast ask`, `show` and `keys` send to the server",
    API_KEYS: "keys that the server takes: `OWNER:KEY` or `OWNER:KEY:SCOPES`, with commas between",
    "HOLDFAST_DATABASE_URL": "a second name for `storage.url`",
    "HOLDFAST_URL": "the server that `holdfast ask`, `show` and `keys` talk to",
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


def _list_patterns(value: object) -> object:
    """Variables hold patterns as a JSON list, or one as it is: commas mean something in them."""
    if not isinstance(value, str):
        return value
    try:
        patterns = json.loads(value)
    except ValueError:
        return [value]
    return patterns if isinstance(patterns, list) else [value]


def _check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"has {pattern!r}, which is no regular expression: {error}") from None
    return patterns


_USERINFO = re.compile(r"\A([\w+.-]+://)?.*@", re.DOTALL)
_PASSWORD = re.compile(r"([?&][^=&#]*(?:password|secret|token|key)[^=&#]*=)[^&#]*", re.IGNORECASE)

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
Patterns = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_list_patterns), AfterValidator(_check_patterns)
]
Seconds = Annotated[float, Field(gt=0)]
Grace = Annotated[float, Field(ge=0)]
Limit = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


AUTO = "auto"
LOCAL_SMALL = "local_small"
CLOUD_LARGE = "cloud_large"
ROUTES = frozenset({AUTO, LOCAL_SMALL, CLOUD_LARGE})
"""What a question may name in place of an upstream."""


def _check_names(tables: dict[str, Any]) -> dict[str, Any]:
    for name in tables:
        if not name or name in ROUTES:
            raise ValueError(f"cannot have the name {name!r}: choose another")
    return tables


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
    read_connections: Count = 8
    """How many connections to PostgreSQL one node may have for reading."""

    @property
    def shown_url(self) -> str:
        """The URL without what must not be shown: whom it is opened as, and every password."""
        if self.url.startswith("sqlite:"):
            return self.url  # a path, which may hold any sign
        return _PASSWORD.sub(r"\1***", _USERINFO.sub(r"\1***@", self.url))


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
    concurrent_runs_per_key: Count = 32
    """How many live runs a key may have that says nothing of its own; 0: as many as it likes."""
    asks_per_minute_per_key: Count = 600
    """How many questions it may ask within a minute; 0: as many as it likes."""


class StreamSettings(Table):
    """How streams are kept open."""

    heartbeat_s: Seconds = 10.0
    send_timeout_s: Seconds = 30.0
    """How long one write to a reader may take before the reader is dropped."""


class RouterSettings(Table):
    """Which upstream answers when the question does not name one."""

    default: str = AUTO
    """An upstream, `local_small`, `cloud_large`, or `auto`: decided for each question."""
    local: str | None = None
    """What `local_small` means here."""
    cloud: str | None = None
    """What `cloud_large` means here."""
    fallbacks: Names = ()
    """Asked in this order if those that were chosen fail before they have said anything."""
    local_patterns: Patterns = ()
    """Regular expressions; a question in which one is found goes to `local`. Case is ignored."""
    cloud_patterns: Patterns = ()
    """The same for `cloud`; those for `local` are tried first."""
    code: Literal["local", "cloud", "ignore"] = "cloud"
    """Where questions with program code in them go."""
    long_question_chars: Limit = 1_500
    """A question of more characters goes to `cloud`."""
    long_history_chars: Limit | None = None
    """A question after a history of more characters goes to `cloud`; none: it does not matter."""
    fall_through: bool = True
    """Whether another upstream may answer when the one that was chosen fails."""
    fall_through_after_s: Seconds = 30.0
    """How long it may be silent before its first text, if there is another one to ask."""
    breaker_failures: Limit = 3
    """After so many failures in a row an upstream counts as down ..."""
    breaker_open_s: Seconds = 30.0
    """... for so long; then one question tries it again."""

    def names(self) -> Iterator[tuple[str, str]]:
        """The upstreams that are named, each with the key that names it."""
        if self.default not in ROUTES:
            yield "router.default", self.default
        for key, name in (("router.local", self.local), ("router.cloud", self.cloud)):
            if name is not None:
                yield key, name
        for place, name in enumerate(self.fallbacks):
            yield f"router.fallbacks[{place}]", name


class DialectSettings(Table):
    """What the dialects do that others leave to the question."""

    stream_ask: str | None = None
    """The upstream that `/stream-ask` asks, or what else a question may name in its place."""


class PresetSettings(Table):
    """A named configuration that sessions are created with; what is not set is left as it is."""

    upstream: str | None = None
    """An upstream, or what else a question may name in its place."""
    model: str | None = None
    system: str | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    max_tokens: Limit | None = None
    history_messages: Count | None = None


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
    dialects: DialectSettings = DialectSettings()
    upstreams: Annotated[dict[str, dict[str, Any]], AfterValidator(_check_names)] = {}
    """Tables by name; `kind` chooses the file in `upstreams/` that checks the rest."""
    presets: Annotated[dict[str, PresetSettings], AfterValidator(_check_names)] = {}
    """Tables by name."""
    _unset_variables: Mapping[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)
    _api_keys: tuple[GivenKey, ...] = PrivateAttr(default=())
    _client_key: SecretStr | None = PrivateAttr(default=None)

    @property
    def unset_variables(self) -> Mapping[str, tuple[str, ...]]:
        """What upstreams lack that people's variables describe only in part, by their names.

        They are not among `upstreams`, unless there is nothing else to ask.
        """
        return self._unset_variables

    def note_unset(self, variables: Mapping[str, tuple[str, ...]]) -> None:
        """Keep what `unset_variables` tells; for `load`, which has seen the variables."""
        self._unset_variables = variables

    @property
    def api_keys(self) -> tuple[GivenKey, ...]:
        """The keys that the variable `HOLDFAST_API_KEYS` gives."""
        return self._api_keys

    @property
    def client_key(self) -> SecretStr | None:
        """The key with which commands ask a server: the variable `HOLDFAST_API_KEY`."""
        return self._client_key

    def note_keys(self, api_keys: tuple[GivenKey, ...], client_key: str | None = None) -> None:
        """Keep what `api_keys` and `client_key` tell; for `load`, which has seen the variables."""
        self._api_keys = api_keys
        self._client_key = SecretStr(client_key) if client_key else None

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
