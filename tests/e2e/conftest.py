"""The browser, and what tests of the page share."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.server import Deployment

# Imported where they are used: what is missing is then told in one line, by the tests.
if TYPE_CHECKING:
    from tests.e2e.browser import Browser, Tab


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator["Browser"]:
    """One browser for all; each tab has its own profile."""
    from tests.e2e.browser import chromium

    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """A server that lives as long as the module's tests."""
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Deployment]:
    """A server of the test's own, to be killed or with a list that nobody else changes."""
    async with Deployment(tmp_path) as site:
        yield site


@pytest.fixture
async def tab(
    browser: "Browser", site: Deployment, request: pytest.FixtureRequest
) -> AsyncIterator["Tab"]:
    """The empty page; how it looks in the end is kept in artifacts/, for people."""
    from tests.e2e.browser import ARTIFACTS, Tab

    async with Tab.open(browser, site) as tab:
        yield tab
        name = re.sub(r"\W+", "-", request.node.name)
        await tab.page.screenshot(path=ARTIFACTS / f"{name}.png")
