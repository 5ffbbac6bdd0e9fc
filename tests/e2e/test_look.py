"""Languages, colours and sizes of screens. The pictures in artifacts/ are for people to look at."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.http.app import CONSOLE
from tests.e2e.browser import ARTIFACTS, Browser, Tab, expect
from tests.e2e.scripts import END, SOURCES, held, text
from tests.support.hostile_proxy import HostileProxy
from tests.support.server import Deployment
from tests.support.upstream_server import Wire

ANSWER = """Kelp has no roots [ID:0]. Its **holdfast** grips the rock [ID:1]:

| part | does |
|---|---|
| holdfast | holds |
| blade | makes sugar from light |

```python
def hold(rock):
    return rock is not None
```
"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
    "narrow-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
    "chinese": {"locale": "zh-CN"},
    "chinese-narrow": {"locale": "zh-CN", "viewport": {"width": 360, "height": 740}},
    "large-text": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
async def session(site: Deployment) -> str:
    """A conversation with a whole answer and one that broke off."""
    whole = site.answers(SOURCES, text(ANSWER), *END)
    told = await site.asked(whole)
    session: str = told["run"]["session_id"]
    partial = site.answers(SOURCES, text("The tide turns [ID:1] twice"), Wire.CLOSE)
    await site.asked(partial, session_id=session)
    return session


@pytest.fixture(params=LOOKS)
async def look(
    request: pytest.FixtureRequest, browser: Browser, site: Deployment
) -> AsyncIterator[tuple[str, Tab]]:
    """A page on one kind of screen, and its name."""
    async with Tab.open(browser, site, **LOOKS[request.param]) as tab:
        yield request.param, tab


async def keep(tab: Tab, name: str) -> None:
    """Keep a picture; nothing may stick out at the side."""
    if await tab.prose.count():
        await tab.html()
    await tab.page.screenshot(path=ARTIFACTS / f"look-{name}.png")
    assert await tab.page.evaluate(OVERFLOW) <= 0


async def test_empty(look: tuple[str, Tab]) -> None:
    name, tab = look
    await expect(tab.find("#empty")).to_be_visible()
    await keep(tab, f"{name}-empty")


async def test_a_conversation(look: tuple[str, Tab], session: str) -> None:
    name, tab = look
    await tab.page.goto(f"{tab.site.server.url}/#{session}")
    await expect(tab.find(".state.interrupted")).to_be_visible()
    await keep(tab, f"{name}-partial")
    await tab.find("#page").evaluate("page => page.scrollTo(0, 0)")
    await keep(tab, f"{name}-whole")


async def test_the_list_on_a_narrow_screen(
    browser: Browser, site: Deployment, session: str
) -> None:
    async with Tab.open(browser, site, f"#{session}", **LOOKS["narrow"]) as tab:
        entry = tab.find("#sessions [aria-current]")
        button = tab.page.get_by_role("button", name="Conversations", exact=True)
        await expect(tab.find(".state.interrupted")).to_be_visible()
        await expect(entry).to_be_hidden()
        await button.click()
        await expect(entry).to_be_visible()
        await expect(tab.page.get_by_role("button", name="Close the list")).to_be_focused()
        await keep(tab, "narrow-list")
        await tab.page.keyboard.press("Escape")
        await expect(entry).to_be_hidden()
        await expect(button).to_be_focused()
        await button.click()
        await expect(entry).to_be_visible()
        await tab.find(".veil").click(position={"x": 340, "y": 300})
        await expect(entry).to_be_hidden()
        await button.click()
        await tab.find("#side .new").click()
        await expect(tab.find("#empty")).to_be_visible()
        await expect(entry).to_have_count(0)


async def test_reconnecting(browser: Browser, site: Deployment) -> None:
    gate = asyncio.Event()
    async with (
        HostileProxy(site.server.port) as proxy,
        Tab.open(browser, site, through=proxy.url, forgiving=True) as tab,
    ):
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        proxy.refuse()
        proxy.cut_now()
        await expect(tab.find("#sign")).to_be_visible()
        await keep(tab, "reconnecting")
        gate.set()


async def test_speaks_chinese_to_who_reads_it(site: Deployment, browser: Browser) -> None:
    async with Tab.open(browser, site, locale="zh-CN") as tab:
        await expect(tab.find("html")).to_have_attribute("lang", "zh")
        await expect(tab.find("h1")).to_have_text("放心提问，回答不会丢")
        await expect(tab.find(".samples button").first).to_be_visible()
        await tab.ask(site.answers(text("海带。"), *END))
        await expect(tab.ending).to_have_text("回答完毕")


@pytest.mark.parametrize("path", ["words.js", "answer/words.js"])
async def test_every_word_is_there_in_both_languages(path: str, tab: Tab) -> None:
    source = (CONSOLE / "app" / path).read_text(encoding="utf-8")
    table = re.search(r"speak\((\{.*?\n\})\)", source, re.DOTALL)
    assert table is not None
    words = await tab.page.evaluate(f"({table[1]})")
    assert len(words) > 20
    for key, (english, chinese) in words.items():
        assert english.strip(), key
        assert re.search("[\u4e00-\u9fff]", chinese), key
        assert english.count("{}") == chinese.count("{}"), key


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_follows_the_colour_scheme(scheme: str, site: Deployment, browser: Browser) -> None:
    async with Tab.open(browser, site, color_scheme=scheme) as tab:
        colour = await tab.find("body").evaluate("body => getComputedStyle(body).backgroundColor")
        brightness = sum(int(part) for part in colour[4:-1].split(","))
        assert (brightness > 600) == (scheme == "light")
