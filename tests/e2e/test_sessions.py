"""The list of conversations at the side."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.browser import TWO_FRAMES, Browser, Route, Tab, expect
from tests.e2e.scripts import END, held, text
from tests.support.server import Deployment


class TestConversations:
    async def test_are_listed_and_opened(self, tab: Tab, site: Deployment) -> None:
        first, second = (site.answers(text(word), *END) for word in ("One.", "Two."))
        for question in (first, second):
            await tab.page.get_by_role("link", name="New conversation").first.click()
            await expect(tab.find("#empty")).to_be_visible()
            await tab.ask(question)
            await expect(tab.ending).to_have_text("Complete")
        await tab.find("#sessions").get_by_text(first).click()
        await expect(tab.prose).to_have_text("One.")
        await expect(tab.page).to_have_title(f"{first} · Holdfast")
        await tab.page.go_back()
        await expect(tab.prose).to_have_text("Two.")

    async def test_one_that_is_left_goes_on_without_a_reader(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(*held(gate))
        await tab.ask(question)
        await expect(tab.prose).to_have_text("Kelp")
        await tab.page.get_by_role("link", name="New conversation").first.click()
        await expect(tab.find("#send")).to_be_visible()
        await expect(tab.find("#messages > *")).to_have_count(0)
        gate.set()
        await tab.find("#sessions").get_by_text(question).click()
        await expect(tab.prose).to_have_text("Kelp holds [1].")

    async def test_a_busy_one_says_so_and_gives_the_question_back(
        self, tab: Tab, site: Deployment, browser: Browser
    ) -> None:
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        async with Tab.open(browser, site, f"#{tab.session}") as other:
            other.forgive_failed_requests()
            await expect(other.ending).to_have_text("Complete")
            gate = asyncio.Event()
            await tab.ask(site.answers(*held(gate)))
            await expect(tab.prose).to_have_text("Kelp")
            await other.ask("And tides?")
            await expect(other.find("#note")).to_have_text("An answer is still being written here.")
            await expect(other.find("#question")).to_have_value("And tides?")
            await expect(other.prose).to_have_text("Kelp")
            gate.set()
            await expect(other.prose).to_have_text("Kelp holds [1].")

    @pytest.mark.parametrize("name", ["no-such-session", "%E0%A4%A", "..%2f..%2fruns", "<b>"])
    async def test_one_that_does_not_exist_is_told_and_a_new_one_can_begin(
        self, name: str, site: Deployment, browser: Browser
    ) -> None:
        async with Tab.open(browser, site, f"#{name}", forgiving=True) as tab:
            await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
            await tab.ask(site.answers(text("Kelp holds."), *END))
            await expect(tab.prose).to_have_text("Kelp holds.")
            assert tab.session != name


class TestRefused:
    """What the server refuses takes nothing from the page."""

    @pytest.mark.parametrize(
        ("status", "code"), [(500, "internal_error"), (429, "too_many_requests")]
    )
    async def test_a_look_leaves_the_conversation(
        self, status: int, code: str, tab: Tab, site: Deployment
    ) -> None:
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        session = tab.session
        tab.forgive_failed_requests()
        refuse = refusal(status, code)
        await tab.page.route("**/api/v1/sessions/**", refuse)
        async with tab.page.expect_response(lambda found: found.status == status):
            await tab.page.evaluate("dispatchEvent(new Event('focus'))")
        await tab.page.evaluate(TWO_FRAMES)
        await expect(tab.prose).to_have_text("One.")
        assert tab.session == session
        await tab.page.unroute("**/api/v1/sessions/**", refuse)
        await site.asked("What else?", session_id=session)
        await tab.page.evaluate("dispatchEvent(new Event('focus'))")
        await expect(tab.questions.last).to_have_text("What else?")

    async def test_the_opening_keeps_the_address_and_mends_itself(
        self, tab: Tab, site: Deployment
    ) -> None:
        asked = await site.asked(site.answers(text("One."), *END))
        session = asked["run"]["session_id"]
        tab.forgive_failed_requests()
        refuse = refusal(500, "internal_error")
        await tab.page.route("**/api/v1/sessions/**", refuse)
        await tab.page.goto(f"{site.server.url}/#{session}")
        await expect(tab.find("#note")).to_have_text("refused")
        assert tab.session == session
        await tab.page.unroute("**/api/v1/sessions/**", refuse)
        await tab.page.evaluate("dispatchEvent(new Event('focus'))")
        await expect(tab.prose).to_have_text("One.")

    async def test_one_that_is_deleted_elsewhere_is_gone_but_the_draft_is_not(
        self, tab: Tab, site: Deployment
    ) -> None:
        await tab.ask(site.answers(text("One."), *END))
        await expect(tab.ending).to_have_text("Complete")
        await tab.page.fill("#question", "Half a quest")
        tab.forgive_failed_requests()
        await site.server.call("DELETE", f"/api/v1/sessions/{tab.session}")
        await tab.page.evaluate("dispatchEvent(new Event('focus'))")
        await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
        await expect(tab.find("#question")).to_have_value("Half a quest")
        assert tab.session == ""

    async def test_one_that_is_deleted_elsewhere_while_it_is_answered_is_told(
        self, tab: Tab, site: Deployment
    ) -> None:
        question = site.answers(*held(asyncio.Event()))
        await tab.ask(question)
        await expect(tab.prose).to_have_text("Kelp")
        tab.forgive_failed_requests()
        await site.server.call("DELETE", f"/api/v1/sessions/{tab.session}")
        await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
        await expect(tab.find("#empty")).to_be_visible()
        await expect(tab.entries.filter(has_text=question)).to_have_count(0)
        assert tab.session == ""


def refusal(status: int, code: str) -> Callable[[Route], Awaitable[None]]:
    """Answers a request with this error."""
    error = {"error": {"code": code, "message": "refused", "request_id": "r1"}}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=status, json=error)

    return refuse


class TestHostileTitles:
    async def test_are_text(self, tab: Tab, site: Deployment) -> None:
        title = "<img src=x onerror=alert(9)><script>alert(1)</script> **b** \u202eevil"
        await tab.ask(title)
        await expect(tab.ending).to_have_text("Complete")
        await tab.page.reload()
        await expect(tab.questions).to_have_text([title])
        await expect(tab.entries).to_contain_text(["<img src=x onerror=alert(9)>"])
        await expect(tab.page).to_have_title(re.compile("^<img src=x onerror=alert"))
        foreign = tab.find("#app").locator("script, iframe, img:not([src='icon.svg']), [onerror]")
        await expect(foreign).to_have_count(0)


async def create(site: Deployment, *titles: str) -> list[str]:
    """Conversations of these names, the last one on top; their ids."""
    replies = [await site.server.post("/api/v1/sessions", {"title": title}) for title in titles]
    return [reply.json["id"] for reply in replies]


async def choose(tab: Tab, title: str, action: str) -> None:
    """Choose from the menu of a conversation in the list."""
    await tab.page.get_by_role("button", name=f"More about “{title}”").click()
    await tab.page.get_by_role("menuitem", name=action).click()


GROUPS = """
async ([now, times]) => {
  const { grouped } = await import("/app/sessions.js");
  const items = times.map((at) => ({ updated_at: new Date(...at).toISOString() }));
  return grouped(items, new Date(...now)).map(([heading, found]) => [heading, found.length]);
}
"""


class TestList:
    async def test_is_grouped_by_days(self, browser: Browser, site: Deployment) -> None:
        """In the reader's own time; the night in which the clock is set back has 25 hours."""
        times = [
            *([2026, 9, 26, 0, 0, 1], [2026, 9, 25, 23, 59, 59], [2026, 9, 25, 0, 0, 1]),
            *([2026, 9, 24, 23, 0], [2026, 9, 19, 0, 0], [2026, 9, 18, 23, 59]),
            *([2026, 8, 26], [2026, 8, 25], [2026, 8, 1], [2025, 8, 30]),
        ]
        async with Tab.open(browser, site, timezone_id="Europe/Berlin") as tab:
            found = await tab.page.evaluate(GROUPS, [[2026, 9, 26, 0, 0, 2], times])
        assert found == [
            *(["Today", 1], ["Yesterday", 2], ["Last 7 days", 2], ["Last 30 days", 2]),
            *(["September 2026", 2], ["September 2025", 1]),
        ]

    async def test_is_read_on_when_its_end_comes_into_view(
        self, browser: Browser, own: Deployment
    ) -> None:
        titles = [f"Number {number}" for number in range(120)]
        await create(own, *titles)
        async with Tab.open(browser, own) as tab:
            await expect(tab.entries).to_have_count(50)
            for count in (100, 120):
                await tab.entries.last.scroll_into_view_if_needed()
                await tab.page.mouse.move(100, 400)
                await tab.page.mouse.wheel(0, 9000)
                await expect(tab.entries).to_have_count(count)
            assert await tab.entries.all_inner_texts() == titles[::-1]

    async def test_is_searched_on_the_server(self, browser: Browser, own: Deployment) -> None:
        await create(own, "Kelp forests", "Tides", "Lighthouses")
        async with Tab.open(browser, own) as tab:
            await tab.page.keyboard.press("Control+k")
            search = tab.page.get_by_role("searchbox")
            await expect(search).to_be_focused()
            await search.fill("kelp")
            await expect(tab.entries).to_have_text(["Kelp forests"])
            await search.fill("nowhere")
            await expect(tab.find("#sessions")).to_contain_text("No conversation has “nowhere”")
            await search.fill("")
            await expect(tab.entries).to_have_count(3)

    async def test_shows_which_answers_are_being_written(self, tab: Tab, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(*held(gate))
        await tab.ask(question)
        entry = tab.entries.filter(has_text=question)
        await expect(entry.get_by_role("img", name="An answer is being written")).to_be_visible()
        await tab.page.get_by_role("link", name="New conversation").first.click()
        await expect(entry.get_by_role("img")).to_be_visible()
        gate.set()
        await expect(entry.get_by_role("img")).to_have_count(0)  # nobody here reads it

    async def test_says_what_will_be_there(self, browser: Browser, own: Deployment) -> None:
        async with Tab.open(browser, own) as tab:
            await expect(tab.find("#sessions")).to_have_text("Your conversations will be here.")


class TestRename:
    async def test_keeps_the_new_name(self, browser: Browser, own: Deployment) -> None:
        (session,) = await create(own, "Kelp")
        async with Tab.open(browser, own, f"#{session}") as tab:
            await choose(tab, "Kelp", "Rename")
            name = tab.page.get_by_label("Name of the conversation")
            await expect(name).to_be_focused()
            await expect(name).to_have_value("Kelp")
            await name.fill("  Kelp <b>and</b> tides ")
            await name.press("Enter")
            await expect(tab.entries).to_have_text(["Kelp <b>and</b> tides"])
            await expect(tab.entries).to_be_focused()
            await expect(tab.page).to_have_title("Kelp <b>and</b> tides · Holdfast")
            await expect(tab.find("h1")).to_have_text("Kelp <b>and</b> tides")
            await tab.page.reload()
            await expect(tab.entries).to_have_text(["Kelp <b>and</b> tides"])

    async def test_is_left_by_escape(self, browser: Browser, own: Deployment) -> None:
        await create(own, "Kelp")
        async with Tab.open(browser, own) as tab:
            await choose(tab, "Kelp", "Rename")
            await tab.page.get_by_label("Name of the conversation").fill("Something else")
            await tab.page.keyboard.press("Escape")
            await expect(tab.entries).to_have_text(["Kelp"])
            await expect(tab.entries).to_be_focused()
            await tab.page.reload()
            await expect(tab.entries).to_have_text(["Kelp"])

    async def test_that_is_refused_leaves_the_name(self, browser: Browser, own: Deployment) -> None:
        (session,) = await create(own, "Kelp")
        async with Tab.open(browser, own, forgiving=True) as tab:
            await expect(tab.entries).to_have_text(["Kelp"])
            await own.server.call("DELETE", f"/api/v1/sessions/{session}")
            await choose(tab, "Kelp", "Rename")
            await tab.page.get_by_label("Name of the conversation").fill("Tides")
            await tab.page.keyboard.press("Enter")
            await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
            await tab.page.get_by_role("button", name="Dismiss").click()
            await expect(tab.find("#note")).to_have_count(0)


class TestDelete:
    async def test_erases_after_it_was_confirmed(self, browser: Browser, own: Deployment) -> None:
        _, session = await create(own, "Kelp", "Tides")
        async with Tab.open(browser, own, f"#{session}") as tab:
            await choose(tab, "Tides", "Delete")
            dialog = tab.page.get_by_role("dialog")
            await expect(dialog).to_contain_text("“Tides” is erased with everything in it.")
            await dialog.get_by_role("button", name="Delete").click()
            await expect(tab.entries).to_have_text(["Kelp"])
            await expect(tab.find("#empty")).to_be_visible()
            assert tab.session == ""
        assert (await own.server.get(f"/api/v1/sessions/{session}")).status == 404

    @pytest.mark.parametrize("how", ["Cancel", "Escape"])
    async def test_that_is_thought_better_of_does_nothing(
        self, how: str, browser: Browser, own: Deployment
    ) -> None:
        (session,) = await create(own, "Kelp")
        async with Tab.open(browser, own) as tab:
            await choose(tab, "Kelp", "Delete")
            await expect(tab.page.get_by_role("dialog")).to_be_visible()
            if how == "Cancel":
                await tab.page.get_by_role("button", name="Cancel").click()
            else:
                await tab.page.keyboard.press("Escape")
            await expect(tab.page.get_by_role("dialog")).to_have_count(0)
            await expect(tab.entries).to_have_text(["Kelp"])
        assert (await own.server.get(f"/api/v1/sessions/{session}")).status == 200
