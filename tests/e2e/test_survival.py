"""Reload, lost networks, killed servers: the page comes back with what it had and goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import Browser, Route, Tab, expect
from tests.e2e.scripts import END, SOURCES, held, text
from tests.support.hostile_proxy import Cut, HostileProxy
from tests.support.server import Deployment
from tests.support.upstream_server import Wire


async def stored_answer(tab: Tab) -> dict[str, Any]:
    return (await tab.messages())[-1]


class TestReload:
    async def test_in_the_middle_shows_what_there_was_and_goes_on(
        self, tab: Tab, site: Deployment, browser: Browser
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        await tab.page.reload()
        await expect(tab.prose).to_have_text("Kelp")
        await expect(tab.sources).to_have_count(2)
        await expect(tab.ending).to_have_text("Writing")
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text((await stored_answer(tab))["content"])
        async with Tab.open(browser, site, f"#{tab.session}") as other:
            await expect(other.ending).to_have_text("Complete")
            assert await other.html() == await tab.html()
            await expect(other.sources).to_have_count(2)

    async def test_shows_the_whole_conversation(self, tab: Tab, site: Deployment) -> None:
        first = site.answers(text("One."), *END)
        second = site.answers(SOURCES, text("Two [ID:0]."), *END)
        for question in (first, second):
            await tab.ask(question)
            await expect(tab.questions.last).to_have_text(question)
            await expect(tab.ending).to_have_text("Complete")
        await tab.page.reload()
        await expect(tab.questions).to_have_text([first, second])
        await expect(tab.find(".answer > .prose")).to_have_text(["One.", "Two [1]."])
        await expect(tab.sources).to_have_count(2)

    async def test_in_another_place_joins_the_live_answer(
        self, tab: Tab, site: Deployment, browser: Browser
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        async with Tab.open(browser, site, f"#{tab.session}") as other:
            await expect(other.prose).to_have_text("Kelp")
            gate.set()
            for one in (tab, other):
                await expect(one.prose).to_have_text("Kelp holds [1].")


class TestLostServer:
    @pytest.fixture
    async def site(self, tmp_path: Path) -> AsyncIterator[Deployment]:
        """A server of the test's own, to be killed."""
        async with Deployment(tmp_path) as site:
            yield site

    async def test_killed_in_the_middle_is_waited_for_and_the_answer_is_kept(
        self, tab: Tab, site: Deployment
    ) -> None:
        tab.forgive_failed_requests()
        sign = tab.find("#sign")
        await tab.ask(site.answers(SOURCES, text("Kelp [ID:0] "), text("holds"), Wire.STALL))
        await expect(tab.prose).to_have_text("Kelp [1] holds")
        await expect(sign).to_be_hidden()
        site.server.process.kill()
        await expect(sign).to_have_text("Reconnecting")
        await expect(tab.prose).to_have_text("Kelp [1] holds")
        await site.restart()
        await expect(sign).to_be_hidden()
        await expect(tab.ending).to_contain_text("Interrupted")
        await expect(tab.ending).to_contain_text("The server stopped in the middle of the answer.")
        await expect(tab.prose).to_have_text("Kelp [1] holds")
        await expect(tab.sources.locator(".name")).to_have_text(["kelp.md", "tides.md"])
        stored = await stored_answer(tab)
        assert (stored["content"], stored["reason"]) == ("Kelp [1] holds", "server_crash")
        before = await tab.html()
        await tab.page.reload()
        await expect(tab.ending).to_contain_text("Interrupted")
        await expect(tab.sources).to_have_count(2)
        assert await tab.html() == before

    async def test_is_asked_once_when_it_is_back(self, tab: Tab, site: Deployment) -> None:
        tab.forgive_failed_requests()
        site.server.process.kill()
        await site.server.process.wait()
        question = site.answers(text("Kelp holds."), *END)
        await tab.ask(question)
        await expect(tab.find("#sign")).to_be_visible()
        await site.restart()
        await expect(tab.prose).to_have_text("Kelp holds.")
        await expect(tab.find("#sign")).to_be_hidden()
        assert len(site.requests_for(question)) == 1

    async def test_a_question_that_cannot_be_sent_is_given_back_by_stop(
        self, tab: Tab, site: Deployment
    ) -> None:
        tab.forgive_failed_requests()
        site.server.process.kill()
        await site.server.process.wait()
        await tab.ask("Is there anybody?")
        await expect(tab.find("#sign")).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await expect(tab.find("#question")).to_have_value("Is there anybody?")
        await expect(tab.questions).to_have_count(0)
        await expect(tab.find("#empty")).to_be_visible()


class TestLostNetwork:
    """A proxy between the page and the server that does what networks do."""

    @pytest.fixture
    async def proxy(self, site: Deployment) -> AsyncIterator[HostileProxy]:
        async with HostileProxy(site.server.port) as proxy:
            yield proxy

    @pytest.fixture
    async def tab(
        self, browser: Browser, site: Deployment, proxy: HostileProxy
    ) -> AsyncIterator[Tab]:
        """A page that came through the proxy."""
        async with Tab.open(browser, site, through=proxy.url, forgiving=True) as tab:
            await expect(tab.find("#empty")).to_be_visible()
            yield tab

    async def test_cut_again_and_again_gives_the_answer_whole_and_once(
        self, tab: Tab, site: Deployment, proxy: HostileProxy
    ) -> None:
        words = [f"word{number} " for number in range(120)]
        question = site.answers(SOURCES, *map(text, words), text("[ID:0]"), *END)
        proxy.cut_after(1500)
        await tab.ask(question)
        await expect(tab.prose).to_have_text("".join(words) + "[1]", timeout=60_000)
        proxy.calm()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.find("#sign")).to_have_count(0)
        assert proxy.cuts > 3
        assert len(site.requests_for(question)) == 1
        assert len(await tab.messages()) == 2

    async def test_a_question_whose_upload_was_cut_is_asked_once(
        self, tab: Tab, site: Deployment, proxy: HostileProxy
    ) -> None:
        question = site.answers(text("Kelp holds."), *END)
        proxy.cut_uploads(2, Cut.RST)
        await tab.ask(question)
        await expect(tab.prose).to_have_text("Kelp holds.")
        await expect(tab.ending).to_have_text("Complete")
        assert len(site.requests_for(question)) == 1

    async def test_that_answers_502_for_a_while_is_waited_for(
        self, tab: Tab, site: Deployment, proxy: HostileProxy
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        proxy.refuse()
        proxy.cut_now(Cut.RST)
        await expect(tab.find("#sign")).to_have_text("Reconnecting")
        await expect(tab.prose).to_have_text("Kelp")
        await expect(tab.page.get_by_role("dialog")).to_have_count(0)
        gate.set()
        proxy.calm()
        await expect(tab.prose).to_have_text("Kelp holds [1].")
        await expect(tab.find("#sign")).to_have_count(0)

    async def test_that_is_back_is_used_at_once(
        self, tab: Tab, site: Deployment, proxy: HostileProxy
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        await tab.page.context.set_offline(True)
        proxy.cut_now()
        await expect(tab.find("#sign")).to_have_text("Reconnecting")
        gate.set()
        await tab.page.context.set_offline(False)
        await expect(tab.prose).to_have_text("Kelp holds [1].")
        await expect(tab.find("#sign")).to_have_count(0)


class TestClosedTab:
    async def test_is_opened_again_with_the_answer_that_went_on(
        self, browser: Browser, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(*held(gate))
        async with Tab.open(browser, site) as tab:
            await tab.ask(question)
            await expect(tab.prose).to_have_text("Kelp")
        gate.set()
        async with Tab.open(browser, site) as tab:
            await tab.entries.filter(has_text=question).click()
            await expect(tab.prose).to_have_text("Kelp holds [1].")
            await expect(tab.ending).to_have_text("Complete")


class TestLostAnswer:
    async def test_to_the_post_is_asked_for_with_the_same_key(
        self, tab: Tab, site: Deployment
    ) -> None:
        tab.forgive_failed_requests()
        keys: list[str] = []

        async def lose_the_first(route: Route) -> None:
            keys.append(await route.request.header_value("idempotency-key") or "")
            if len(keys) == 1:
                await route.fetch()  # the server takes the question; the page never learns
                await route.abort()
            else:
                await route.continue_()

        await tab.page.route("**/api/v1/runs", lose_the_first)
        question = site.answers(text("Kelp holds."), *END)
        await tab.ask(question)
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text("Kelp holds.")
        assert len(keys) == 2
        assert keys[0] == keys[1] != ""
        assert len(site.requests_for(question)) == 1
        assert len(await tab.messages()) == 2

    async def test_that_breaks_off_is_gone_on_with_from_the_last_event(
        self, tab: Tab, site: Deployment
    ) -> None:
        cursors: list[str | None] = []

        async def cut(route: Route) -> None:
            frames = (await (await route.fetch()).text()).partition(" [2]")[0]
            whole = frames.rpartition("id: ")[0]
            cursors.append(whole.rpartition("id: ")[2].partition("\n")[0])
            await route.fulfill(body=frames, content_type="text/event-stream")

        async def note(route: Route) -> None:
            cursors.append(await route.request.header_value("last-event-id"))
            await route.continue_()

        await tab.page.route("**/api/v1/runs", cut)
        await tab.page.route("**/events", note)
        await tab.ask(site.answers(SOURCES, text("🌊 [ID:0]\n\n"), text("> b [ID:1]"), *END))
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text("🌊 [1]b [2]")
        assert cursors[0] is not None
        assert cursors[0].rpartition(".")[2].isdecimal()
        assert cursors == [cursors[0], cursors[0]]

    async def test_each_question_has_a_key_of_its_own(self, tab: Tab, site: Deployment) -> None:
        question = site.answers(text("Kelp holds."), *END)
        for count in (1, 2):
            await tab.ask(question)
            await expect(tab.questions).to_have_count(count)
            await expect(tab.find(".state.completed")).to_have_count(count)
        assert len(site.requests_for(question)) == 2
