"""Two tabs of one browser: what happens in one is seen in the other."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.e2e.browser import Tab, expect
from tests.e2e.scripts import END, held, text
from tests.support.server import Deployment


@asynccontextmanager
async def beside(tab: Tab) -> AsyncIterator[Tab]:
    """Another tab of the same browser, at the same conversation."""
    other = Tab(tab.site, await tab.page.context.new_page())
    await other.page.goto(f"{tab.site.server.url}/#{tab.session}")
    yield other
    await other.page.close()
    assert other.complaints == []


async def begun(tab: Tab, site: Deployment) -> None:
    """The tab has a conversation with one answer."""
    await tab.ask(site.answers(text("One."), *END))
    await expect(tab.ending).to_have_text("Complete")


async def test_an_answer_that_is_asked_for_in_one_runs_in_both(tab: Tab, site: Deployment) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        gate = asyncio.Event()
        question = site.answers(*held(gate))
        await tab.ask(question)
        await expect(other.questions.last).to_have_text(question)
        await expect(other.prose).to_have_text("Kelp")
        await expect(other.ending).to_have_text("Writing")
        gate.set()
        for one in (tab, other):
            await expect(one.prose).to_have_text("Kelp holds [1].")
            await expect(one.ending).to_have_text("Complete")
        assert await tab.html() == await other.html()
        assert len(site.requests_for(question)) == 1


async def test_one_stops_what_the_other_asked(tab: Tab, site: Deployment) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        await tab.ask(site.answers(*held(asyncio.Event())))
        await expect(other.prose).to_have_text("Kelp")
        await other.page.keyboard.press("Escape")
        for one in (tab, other):
            await expect(one.ending).to_have_text("Stopped by you")


async def test_a_question_that_is_edited_in_one_is_edited_in_both(
    tab: Tab, site: Deployment
) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        await tab.questions.hover()
        await tab.page.get_by_role("button", name="Edit the question").click()
        words = site.answers(text("Two."), *END)
        await tab.page.get_by_role("textbox", name="Edit the question").fill(words)
        await tab.page.keyboard.press("Enter")
        for one in (tab, other):
            await expect(one.questions).to_have_text([words])
            await expect(one.prose).to_have_text("Two.")


async def test_a_name_and_a_deletion_are_seen_in_both(tab: Tab, site: Deployment) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        mine = tab.find("#sessions li:has([aria-current])")
        await mine.hover()
        await mine.get_by_role("button").click()
        await tab.page.get_by_role("menuitem", name="Rename").click()
        await tab.page.get_by_label("Name of the conversation").fill("Another name")
        await tab.page.keyboard.press("Enter")
        await expect(other.page).to_have_title("Another name · Holdfast")
        await mine.hover()
        await mine.get_by_role("button").click()
        await tab.page.get_by_role("menuitem", name="Delete").click()
        await tab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        for one in (tab, other):
            await expect(one.find("#empty")).to_be_visible()
            await expect(one.entries.filter(has_text="Another name")).to_have_count(0)


async def test_one_that_another_tab_deleted_is_told_and_the_draft_is_kept(
    tab: Tab, site: Deployment
) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        await other.page.fill("#question", "Half a quest")
        await tab.find(".bar").get_by_role("button", name="More").click()
        await tab.page.get_by_role("menuitem", name="Delete").click()
        await tab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(other.find("#note")).to_have_text(
            "This conversation was deleted in another tab."
        )
        await expect(other.find("#empty")).to_be_visible()
        assert other.session == ""
        await expect(other.find("#question")).to_be_focused()
        await expect(other.find("#question")).to_have_value("Half a quest")
        await other.page.reload()
        await expect(other.find("#question")).to_have_value("Half a quest")


async def test_an_editor_is_told_that_another_tab_asks(tab: Tab, site: Deployment) -> None:
    await begun(tab, site)
    async with beside(tab) as other:
        await expect(other.prose).to_have_text("One.")
        await other.questions.hover()
        await other.page.get_by_role("button", name="Edit the question").click()
        field = other.page.get_by_role("textbox", name="Edit the question")
        await field.fill(site.answers(text("Two."), *END))
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(other.prose).to_have_text("Kelp")
        await field.press("Enter")
        await expect(other.find("#note")).to_have_text("An answer is still being written here.")
        gate.set()
        await expect(other.prose).to_have_text("Kelp holds [1].")
        await field.press("Enter")
        await expect(other.prose).to_have_text("Two.")
        await expect(other.find("#note")).to_have_count(0)


async def test_what_happened_elsewhere_is_seen_when_the_tab_is(tab: Tab, site: Deployment) -> None:
    """On another machine: no channel tells of it, a look at the server does."""
    await begun(tab, site)
    question = site.answers(text("From elsewhere."), *END)
    await site.asked(question, session_id=tab.session)
    await tab.page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(tab.questions.last).to_have_text(question)
    await expect(tab.prose).to_have_text("From elsewhere.")


async def test_no_tab_keeps_a_connection_when_nothing_is_written(
    tab: Tab, site: Deployment
) -> None:
    open_now: set[str] = set()
    async with beside(tab) as other:
        for one in (tab, other):
            one.page.on("request", lambda request: open_now.add(request.url))
            one.page.on("requestfinished", lambda request: open_now.discard(request.url))
            one.page.on("requestfailed", lambda request: open_now.discard(request.url))
        await begun(tab, site)
        await other.page.goto(f"{site.server.url}/#{tab.session}")
        await expect(other.prose).to_have_text("One.")
        await other.page.wait_for_load_state("networkidle")
        await tab.page.wait_for_load_state("networkidle")
        assert not [url for url in open_now if re.search(r"/api/", url)]
