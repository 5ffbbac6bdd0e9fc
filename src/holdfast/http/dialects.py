"""The dialects by name."""

from collections.abc import Callable, Mapping
from typing import Final

from holdfast.dialects.ai_sdk import AiSdkEncoder
from holdfast.dialects.base import About, Encoder
from holdfast.dialects.messages import MessagesEncoder
from holdfast.dialects.native import NativeEncoder
from holdfast.dialects.openai import OpenAIEncoder
from holdfast.dialects.plain import PlainEncoder
from holdfast.dialects.stream_ask import StreamAskEncoder
from holdfast.dialects.v1 import V1Encoder
from holdfast.store.port import RunRecord

DIALECTS: Final[Mapping[str, Callable[[About], Encoder]]] = {
    "ai-sdk": AiSdkEncoder,
    "messages": MessagesEncoder,
    "native": NativeEncoder,
    "openai": OpenAIEncoder,
    "plain": PlainEncoder,
    "stream-ask": StreamAskEncoder,
    "v1": V1Encoder,
}
"""How an encoder for a run is made."""


def about(run: RunRecord, session: str | None = None) -> About:
    """What an encoder is told of `run`.

    Args:
        run: The run.
        session: The caller's own name for its session, if he has one.
    """
    return About(run.id, session or run.session_id, run.created_at)
