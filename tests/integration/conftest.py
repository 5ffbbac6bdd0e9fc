"""What tests of upstreams share."""

from collections.abc import AsyncIterator

import pytest

from holdfast.upstreams.wire.transport import Transport


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    await transport.open()
    yield transport
    await transport.close()
