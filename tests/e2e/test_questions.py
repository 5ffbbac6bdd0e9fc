"""A question in the conversation: copied, asked in other words."""

import asyncio

from tests.e2e.browser import Browser, Route, Tab, expect
from tests.e2e.scripts import END, held, text
from tests.support.server import Deployment


async def edit_first(tab: Tab, words: str, how: str = "Enter") -> None:
    """Ask the first question in other words."""
    await tab.questions.first.hover()
    await tab.page.get_by_role("button", name="Edit the question").first.click()
    field = tab.page.get_by_role("textbox", name="Edit the question")
    await expect(field).to_be_focused()
    await field.fill(words)
    if how == "Enter":
        await field.press("Enter")
    else:
        await tab.find(".editor").get_by_role("button", name=how).click()


async def converse(tab: Tab, site: Deployment, *answers: str) -> list[str]:
    """Ask a question for each of these answers."""
    asked = [site.answers(text(answer), *END) for answer in answers]
    for count, question in enumerate(asked, 1):
        await tab.ask(question)
        await expect(tab.find(".state.completed")).to_have_count(count)
    return asked


async def test_a_starter_that_has_not_arrived_is_given_back(tab: Tab) -> None:
    asked = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await asyncio.Event().wait()

    await tab.page.route("**/api/v1/runs", hold)
    starter = tab.find("#empty").get_by_role("button").first
    question = await starter.inner_text()
    await starter.click()
    await asked.wait()
    await expect(tab.find("#question")).to_have_value("")
    await tab.page.reload()
    await expect(tab.find("#question")).to_have_value(question.strip())


class TestEdit:
    async def test_takes_the_place_of_the_question_and_all_after_it(
        self, tab: Tab, site: Deployment
    ) -> None:
        await converse(tab, site, "One.", "Two.")
        gate = asyncio.Event()
        other = site.answers(*held(gate))
        await edit_first(tab, other)
        await expect(tab.questions).to_have_text([other])
        await expect(tab.find(".answer .prose")).to_have_text(["Kelp"])
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await tab.page.reload()
        await expect(tab.questions).to_have_text([other])
        await expect(tab.find(".answer .prose")).to_have_text(["Kelp holds [1]."])
        assert [item["content"] for item in await tab.messages()] == [other, "Kelp holds [1]."]
        await expect(tab.entries.filter(has_text="Question")).not_to_have_count(0)

    async def test_is_sent_by_its_button_too_and_can_be_done_again(
        self, tab: Tab, site: Deployment
    ) -> None:
        await converse(tab, site, "One.")
        for answer in ("Two.", "Three."):
            other = site.answers(text(answer), *END)
            await edit_first(tab, other, "Send")
            await expect(tab.questions).to_have_text([other])
            await expect(tab.prose).to_have_text(answer)
            await expect(tab.ending).to_have_text("Complete")

    async def test_that_is_cancelled_changes_nothing(self, tab: Tab, site: Deployment) -> None:
        asked = await converse(tab, site, "One.")
        await edit_first(tab, "Never sent", "Cancel")
        await expect(tab.questions).to_have_text(asked)
        await tab.questions.first.hover()
        await tab.page.get_by_role("button", name="Edit the question").click()
        field = tab.page.get_by_role("textbox", name="Edit the question")
        await expect(field).to_be_focused()
        await tab.page.keyboard.press("Escape")
        await expect(tab.questions).to_have_text(asked)
        assert len(await tab.messages()) == 2

    async def test_that_the_server_refuses_gives_the_conversation_back(
        self, tab: Tab, site: Deployment
    ) -> None:
        asked = await converse(tab, site, "One.", "Two.")
        tab.forgive_failed_requests()

        await tab.page.route("**/edit", lambda route: route.fulfill(status=413, json=TOO_LARGE))
        await edit_first(tab, "Too long, says the server")
        await expect(tab.find("#note")).to_have_text("This is too long to be sent.")
        await expect(tab.questions).to_have_text(asked)
        await expect(tab.find("#question")).to_have_value("Too long, says the server")

    async def test_is_not_offered_while_an_answer_is_written(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        button = tab.page.get_by_role("button", name="Edit the question")
        await expect(button).to_have_count(0)
        gate.set()
        await expect(button).to_have_count(1)

    async def test_begins_with_the_arrow_up_in_an_empty_field(
        self, tab: Tab, site: Deployment
    ) -> None:
        (asked,) = await converse(tab, site, "One.")
        await tab.page.focus("#question")
        await tab.page.keyboard.press("ArrowUp")
        field = tab.page.get_by_role("textbox", name="Edit the question")
        await expect(field).to_be_focused()
        await expect(field).to_have_value(asked)


TOO_LARGE = {"error": {"code": "too_large", "message": "too large", "request_id": "r1"}}


async def test_a_question_is_copied_as_it_was_asked(browser: Browser, site: Deployment) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with Tab.open(browser, site, permissions=permissions) as tab:
        await tab.page.fill("#question", "One\n  **two**")
        await tab.page.press("#question", "Enter")
        await expect(tab.ending).to_have_text("Complete")
        await tab.questions.hover()
        await tab.page.get_by_role("button", name="Copy the question").click()
        await expect(tab.find("#live")).to_have_text("Copied")
        assert await tab.page.evaluate("navigator.clipboard.readText()") == "One\n  **two**"
