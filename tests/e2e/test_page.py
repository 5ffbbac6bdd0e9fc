"""The page at `/` as its reader has it: ask, and watch the answer being written."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import holdfast
from tests.e2e.browser import Browser, Tab, expect
from tests.e2e.scripts import END, KELP, SOURCES, held, text
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion_chunk, event, whole

DOCUMENTS = Path(holdfast.__file__).parent / "demo_documents"


async def stored_answer(tab: Tab) -> dict[str, Any]:
    return (await tab.messages())[-1]


class TestAnswer:
    async def test_streams_in_with_its_sources(self, tab: Tab, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(*held(gate))
        await tab.ask(question)
        await expect(tab.prose).to_have_text("Kelp")
        await expect(tab.questions).to_have_text([question])
        await expect(tab.ending).to_have_text("Writing")
        await expect(tab.sources.locator(".name")).to_have_text(["kelp.md", "tides.md"])
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text("Kelp holds [1].")
        stored = await tab.messages()
        assert [message["content"] for message in stored] == [question, "Kelp holds [1]."]

    async def test_a_mark_tells_its_source(self, tab: Tab, site: Deployment) -> None:
        await tab.ask(site.answers(SOURCES, text("🌊 [1] Twice a day [ID:1]."), *END))
        await expect(tab.prose).to_have_text("🌊 [1] Twice a day [2].")
        await expect(tab.find(".mark")).to_have_count(1)
        await tab.find(".mark").click()
        card = tab.find(".card")
        await expect(card).to_contain_text("The tide turns twice a day.")
        await expect(card.get_by_role("link")).to_have_attribute(
            "href", "https://sea.example/tides"
        )

    async def test_that_is_rewritten_at_the_end_is_shown_as_it_is_then(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        rewrite = completion_chunk("stop", reference=[KELP], final_content="It holds [ID:0]. Yes.")
        await tab.ask(site.answers(text("It held.\n\nNo."), gate, rewrite, event("[DONE]")))
        await expect(tab.prose).to_have_text("It held.No.")
        gate.set()
        await expect(tab.prose).to_have_text("It holds [1]. Yes.")

    async def test_is_announced_without_every_word(self, tab: Tab, site: Deployment) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        live = tab.find("[aria-live]")
        await expect(live).to_have_text("Writing")
        gate.set()
        await expect(live).to_have_text("Complete")

    async def test_that_the_upstream_breaks_off_is_told_as_it_is(
        self, tab: Tab, site: Deployment
    ) -> None:
        await tab.ask(site.answers(SOURCES, text("Kelp holds"), Wire.CLOSE))
        await expect(tab.ending).to_contain_text("Interrupted")
        await expect(tab.ending).to_contain_text("The service broke off in the middle.")
        await expect(tab.prose).to_have_text("Kelp holds")
        stored = await stored_answer(tab)
        assert (stored["status"], stored["reason"]) == ("partial", "upstream_truncated")
        await expect(tab.ending.locator(".error")).to_have_text(stored["error"])

    async def test_that_never_came_is_told_and_asked_for_again(
        self, tab: Tab, site: Deployment
    ) -> None:
        refused = whole({"error": {"message": "no <b>such</b> model"}}, 404)
        await tab.ask(site.question(refused, script_of(text("Kelp holds."), *END)))
        await expect(tab.ending).to_contain_text("No answer")
        await expect(tab.ending).to_contain_text("no <b>such</b> model")
        await tab.page.get_by_role("button", name="Ask again").click()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text("Kelp holds.")
        await expect(tab.questions).to_have_count(1)
        assert len((await stored_answer(tab))["versions"]) == 2


class TestLibrary:
    @pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
    async def test_a_real_answer_is_shown_whole(
        self, locale: str, browser: Browser, tmp_path: Path
    ) -> None:
        docs = {"kind": "library", "path": str(DOCUMENTS), "pace": 10_000}
        async with (
            Deployment(tmp_path, upstreams={"docs": docs}, router={"default": "docs"}) as site,
            Tab.open(browser, site, locale=locale) as tab,
        ):
            for number, sample in enumerate(await tab.find(".samples button").all_inner_texts(), 1):
                await tab.page.keyboard.press("Control+Shift+O")
                await tab.find(".samples").get_by_text(sample).click()
                await expect(tab.ending).to_have_text(re.compile("^(Complete|回答完毕)$"))
                await expect(tab.entries).to_have_count(number)
                stored = await stored_answer(tab)
                assert _letters(await tab.prose.inner_text()) == _letters(stored["content"])
                await expect(tab.find("button.mark")).to_have_count(len(stored["marks"]))
                await expect(tab.sources).to_have_count(len(stored["references"]))
                assert len(stored["marks"]) >= len(stored["references"]) > 1
                live = await tab.html()
                await tab.page.reload()
                await expect(tab.find(".state.completed")).to_have_count(1)
                assert await tab.html() == live


def _letters(text: str) -> str:
    """The text without what Markdown takes away."""
    return "".join(filter(str.isalnum, text))
