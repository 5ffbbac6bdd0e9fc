"""Clients of a Holdfast server: `Client`, and `AsyncClient` for programs with an event loop.

    with Client() as client:
        for event in client.ask("What is a holdfast?"):
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)

An answer comes whole and once, however often the connection breaks: both resume from the last
event that they have, and a question has a key, so that asking again is not asking twice.

What goes wrong is raised as one of `holdfast.errors`, by what the server answered:

HoldfastError               anything else, such as a server that is none of Holdfast
  +-- ServerUnreachable         nobody answers, or not any more
  +-- RequestError              what was asked for cannot be; trying again does not help
  |     +-- BadRequest, Unauthorized, Forbidden, NotFound, Conflict, RunActive, CursorAhead,
  |         TooLarge, IdempotencyMismatch, TooManyRequests ...
  +-- Unavailable               the server takes no questions now; trying later helps
  |     +-- StoreUnavailable, Draining, Fenced
  +-- ConfigError               not the address of a server, or no key

An answer that ends early is no error: its `status` and its `reason` say so.
"""

from holdfast.client._client import DEFAULT_URL as DEFAULT_URL
from holdfast.client._client import AnswerOptions as AnswerOptions
from holdfast.client._client import AsyncClient as AsyncClient
from holdfast.client._errors import ServerUnreachable as ServerUnreachable
from holdfast.client._stream import Answer as Answer
from holdfast.client._stream import AsyncAnswerStream as AsyncAnswerStream
from holdfast.client._sync import AnswerStream as AnswerStream
from holdfast.client._sync import Client as Client
