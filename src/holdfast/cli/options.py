"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from holdfast.errors import ConfigError
from holdfast.settings import Settings

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Configuration file (default: holdfast.toml, if there)."
    ),
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", envvar="HOLDFAST_URL", metavar="URL", help="The server to talk to."),
]

NO_UPSTREAM = """\
there is no upstream, so nobody could answer. Do one of these:
  holdfast demo                      to look around, with documents that come with Holdfast
  OPENAI_API_KEY and OPENAI_MODEL    for OpenAI; OPENAI_BASE_URL for others that speak its API
  OLLAMA_HOST and OLLAMA_MODEL       for Ollama
  [upstreams.NAME] in holdfast.toml  for everything else"""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def require_upstreams(settings: Settings) -> None:
    """Raise a ConfigError that says what to do if nobody could answer."""
    if not settings.upstreams:
        raise ConfigError(NO_UPSTREAM)


def server_url(settings: Settings) -> str:
    """Where the server with these settings is reached from this machine."""
    host = _EVERYWHERE.get(settings.server.host, settings.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def api_key(settings: Settings) -> str | None:
    """The key to send to the server."""
    return settings.client_key.get_secret_value() if settings.client_key else None


def with_server(settings: Settings, **given: object) -> Settings:
    """The settings with other values in `[server]`; None leaves one as it is."""
    update = {key: value for key, value in given.items() if value is not None}
    return settings.model_copy(update={"server": settings.server.model_copy(update=update)})


def database_exists(settings: Settings) -> bool:
    """Whether opening the database does not make a new one."""
    url = settings.storage.url
    path = url.removeprefix("sqlite:///")
    return path == url or Path(path).exists()
