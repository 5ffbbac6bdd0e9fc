"""Where questions are written: keys, drafts, choices, stopping."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.e2e.scripts import END, SOURCES, held, text
from tests.support.server import Deployment
from tests.support.upstream_server import Wire


async def stored_answer(tab: Tab) -> dict[str, Any]:
    return (await tab.messages())[-1]


class TestStop:
    @pytest.mark.parametrize("how", ["Escape", "#stop"])
    async def test_keeps_what_there_is(self, how: str, tab: Tab, site: Deployment) -> None:
        left = site.upstream.closed_early
        await tab.ask(site.answers(SOURCES, text("Kelp holds"), Wire.STALL))
        await expect(tab.prose).to_have_text("Kelp holds")
        await (tab.page.keyboard.press(how) if how == "Escape" else tab.find(how).click())
        await expect(tab.ending).to_have_text("Stopped by you")
        await expect(tab.prose).to_have_text("Kelp holds")
        await expect(tab.sources).to_have_count(2)
        await site.upstream.client_left(left + 1)
        stored = await stored_answer(tab)
        assert (stored["content"], stored["outcome"]) == ("Kelp holds", "cancelled")
        await expect(tab.find("#send")).to_be_visible()

    async def test_before_anything_came_is_an_ending_too(self, tab: Tab, site: Deployment) -> None:
        await tab.ask(site.answers(Wire.STALL))
        await tab.page.keyboard.press("Escape")
        await expect(tab.ending).to_have_text("Stopped by you")
        assert (await stored_answer(tab))["status"] == "failed"


class TestKeyboard:
    async def test_shift_and_enter_begin_a_new_line(self, tab: Tab, site: Deployment) -> None:
        await expect(tab.find("#question")).to_be_focused()
        await tab.page.keyboard.type("One")
        await tab.page.keyboard.press("Shift+Enter")
        await tab.page.keyboard.type("two")
        await tab.page.keyboard.press("Enter")
        await expect(tab.questions).to_have_text(["One two"])
        assert (await stored_question(tab)) == "One\ntwo"

    async def test_an_empty_question_is_not_sent(self, tab: Tab, site: Deployment) -> None:
        await tab.ask("  \n ")
        await expect(tab.questions).to_have_count(0)
        await expect(tab.find("#empty")).to_be_visible()


async def stored_question(tab: Tab) -> Any:
    await expect(tab.ending).to_have_text("Complete")
    return (await tab.messages())[-2]["content"]


class TestDraft:
    async def test_is_kept_for_each_conversation(self, tab: Tab, site: Deployment) -> None:
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        question = tab.find("#question")
        await question.fill("Half a thought")
        await tab.page.get_by_role("link", name="New conversation").first.click()
        await expect(question).to_have_value("")
        await question.fill("Another one")
        await tab.page.reload()
        await expect(question).to_have_value("Another one")
        await tab.page.go_back()
        await expect(question).to_have_value("Half a thought")
        await tab.page.reload()
        await expect(question).to_have_value("Half a thought")

    async def test_can_be_written_while_an_answer_comes_in(
        self, tab: Tab, site: Deployment
    ) -> None:
        """Enter does not lose it, and the answer's end sends nothing."""
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        await tab.ask("And tides?")
        await expect(tab.find("#question")).to_have_value("And tides?")
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.find("#question")).to_have_value("And tides?")
        await expect(tab.questions).to_have_count(1)
        await tab.page.press("#question", "Enter")
        await expect(tab.questions).to_have_count(2)
        await expect(tab.find("#question")).to_have_value("")

    async def test_grows_with_its_lines_up_to_a_bound(self, tab: Tab) -> None:
        heights = []
        for lines in (1, 3, 200):
            await tab.page.fill("#question", "line\n" * lines)
            box = await tab.find("#question").bounding_box()
            assert box is not None
            heights.append(box["height"])
        assert heights[0] < heights[1] < heights[2] < 400


class TestInputMethod:
    async def test_enter_that_chooses_a_word_does_not_send(
        self, tab: Tab, site: Deployment
    ) -> None:
        await tab.page.fill("#question", "海")
        for flags in ("isComposing: true", "keyCode: 229"):
            await tab.find("#question").evaluate(
                "node => node.dispatchEvent(new KeyboardEvent('keydown', "
                f"{{ key: 'Enter', bubbles: true, {flags} }}))"
            )
        await expect(tab.questions).to_have_count(0)
        await expect(tab.find("#question")).to_have_value("海")


class TestStarters:
    async def test_ask_at_once(self, tab: Tab, site: Deployment) -> None:
        starter = tab.find(".samples button").first
        question = await starter.inner_text()
        await starter.click()
        await expect(tab.questions).to_have_text([question])
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.find("#question")).to_be_focused()
        assert len(site.requests_for(question)) == 1


class TestChoice:
    @pytest.fixture
    async def site(self, tmp_path: Path) -> AsyncIterator[Deployment]:
        """A server with two upstreams, one of which does not answer."""
        away = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m2"}
        sections = {"upstreams": {"away": away}, "router": {"default": "script"}}
        async with Deployment(tmp_path, **sections) as site:
            yield site

    async def test_of_an_upstream_is_what_is_asked(self, tab: Tab, site: Deployment) -> None:
        choice = tab.page.get_by_label("Who answers")
        await expect(choice.locator("option")).to_contain_text(
            ["Automatic", "script", "away (not answering)"]
        )
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        await choice.select_option("away")
        await tab.ask(site.answers(text("Two."), *END))
        await expect(tab.ending).to_contain_text("No answer")
        upstreams = [item["upstream"] for item in await tab.messages()]
        assert upstreams == [None, "script", None, "away"]

    async def test_is_not_there_with_one_upstream(self, browser: Browser, own: Deployment) -> None:
        async with Tab.open(browser, own) as tab:
            await tab.ask(own.answers(text("One."), *END))
            await expect(tab.ending).to_have_text("Complete")
            await expect(tab.page.get_by_label("Who answers")).to_have_count(0)


class TestShortcuts:
    async def test_begin_a_conversation_find_one_and_go_to_the_question(
        self, tab: Tab, site: Deployment
    ) -> None:
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        await tab.page.keyboard.press("Control+k")
        await expect(tab.find("#search")).to_be_focused()
        await tab.page.keyboard.press("Shift+Escape")
        await expect(tab.find("#question")).to_be_focused()
        await tab.page.keyboard.press("Control+Shift+O")
        await expect(tab.find("#empty")).to_be_visible()
        assert tab.session == ""
        await expect(tab.find("#question")).to_be_focused()

    async def test_are_told(self, tab: Tab) -> None:
        await tab.page.keyboard.press("Control+/")
        dialog = tab.page.get_by_role("dialog", name="Keyboard shortcuts")
        await expect(dialog).to_contain_text("Search conversations")
        await tab.page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)

    async def test_escape_closes_what_is_open_before_it_stops_an_answer(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        await tab.page.keyboard.press("Control+/")
        await expect(tab.page.get_by_role("dialog")).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await expect(tab.page.get_by_role("dialog")).to_have_count(0)
        await expect(tab.find("#stop")).to_be_visible()
        await tab.find(".bar").get_by_role("button", name="More").click()
        await expect(tab.page.get_by_role("menu")).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await expect(tab.page.get_by_role("menu")).to_have_count(0)
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
