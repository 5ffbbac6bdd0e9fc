"""What the tests of AnythingLLM's upstream share."""

from collections.abc import Callable
from functools import partial

import pytest

from holdfast.upstreams.anythingllm.upstream import AnythingLLM
from holdfast.upstreams.wire.transport import Transport
from tests.support.anythingllm import make_anythingllm


@pytest.fixture
def make(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AnythingLLM]:
    """Makes upstreams over one open transport, who look into the history without pausing."""
    monkeypatch.setattr("holdfast.upstreams.anythingllm.upstream.HISTORY_PAUSES_S", (0.0, 0.0, 0.0))
    return partial(make_anythingllm, transport)
