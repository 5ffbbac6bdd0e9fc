"""The page in a real browser: Chromium, driven by playwright."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Deployment

try:
    from playwright.async_api import (
        Browser,
        Locator,
        Page,
        Response,
        Route,
        async_playwright,
        expect,
    )
except ImportError:
    pytest.fail("the page is tested with playwright: pip install playwright", pytrace=False)

__all__ = ["ARTIFACTS", "Browser", "Response", "Route", "Tab", "chromium", "expect"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
GIVE_UP_MS = 20_000
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window, with a profile of its own."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("the page is tested with Chromium: apt-get install chromium", pytrace=False)
    expect.set_options(timeout=GIVE_UP_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        yield browser
        await browser.close()


class Tab:
    """A browser's tab with the page of a site, and what went wrong in it.

    Attributes:
        page: The tab as playwright has it.
        complaints: Errors, and violations of the content security policy.
    """

    def __init__(self, site: Deployment, page: Page) -> None:
        self.site = site
        self.page = page
        self.complaints: list[str] = []
        self._forgiven = r"(?!)"
        page.set_default_timeout(GIVE_UP_MS)
        page.on("console", lambda told: self._note(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error)))

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        browser: Browser,
        site: Deployment,
        at: str = "",
        *,
        forgiving: bool = False,
        through: str | None = None,
        **options: Any,
    ) -> AsyncIterator["Tab"]:
        """A tab at the page's address and `at`; it must have nothing to complain about.

        One that is `forgiving` expects requests to fail from the beginning; one that goes
        `through` a proxy has the page from there.
        """
        context = await browser.new_context(**{"locale": "en-GB", **options})
        await context.add_init_script("window.alert = (text) => console.error(`alert: ${text}`)")
        tab = cls(site, await context.new_page())
        if forgiving:
            tab.forgive_failed_requests()
        await tab.page.goto(f"{through or site.server.url}/{at}")
        yield tab
        await context.close()
        assert tab.complaints == []

    def _note(self, complaint: str) -> None:
        if not re.match(self._forgiven, complaint):
            self.complaints.append(complaint)

    def forgive_failed_requests(self) -> None:
        """Every browser reports them; in this test they are meant."""
        self._forgiven = "Failed to load resource: "

    # ------------------------------------------------------------------ doing

    async def ask(self, question: str) -> None:
        """Type a question and send it."""
        await self.page.fill("#question", question)
        await self.page.press("#question", "Enter")

    # ------------------------------------------------------------------ looking

    def find(self, selector: str) -> Locator:
        """What the selector finds."""
        return self.page.locator(selector)

    @property
    def questions(self) -> Locator:
        """All questions."""
        return self.find(".question")

    @property
    def entries(self) -> Locator:
        """The conversations in the list."""
        return self.find("#sessions a")

    @property
    def prose(self) -> Locator:
        """The text of the last answer."""
        return self.find(".answer .prose").last

    @property
    def sources(self) -> Locator:
        """The sources of all answers."""
        return self.find(".sources .source")

    @property
    def ending(self) -> Locator:
        """What is said under the last answer."""
        return self.find(".answer .state").last

    async def html(self) -> str:
        """The last answer's text as it is rendered, once it has come to rest."""
        before, now = None, await self.prose.inner_html()
        while now != before:
            await self.page.evaluate(TWO_FRAMES)
            before, now = now, await self.prose.inner_html()
        return now

    @property
    def session(self) -> str:
        """The conversation that the address names."""
        return self.page.url.partition("#")[2]

    async def messages(self) -> list[dict[str, Any]]:
        """What the server has of the conversation."""
        reply = await self.site.server.get(f"/api/v1/sessions/{self.session}/messages")
        assert reply.status == 200, reply
        items: list[dict[str, Any]] = reply.json["items"]
        return items
