"""The end of the conversation is in view while the reader is there, and only then."""

import asyncio

from tests.e2e.browser import Tab, expect
from tests.e2e.scripts import END, text
from tests.support.server import Deployment

AT_END = """() => {
  const { scrollHeight, scrollTop, clientHeight } = document.getElementById("page");
  return scrollTop > 0 && scrollHeight - scrollTop - clientHeight < 2;
}"""
TOP = "node => node.getBoundingClientRect().top"
LONG = "Kelp holds.\n\n" * 60


async def at_end(tab: Tab) -> None:
    """Nothing is below what is seen, and that is not because there is so little."""
    await tab.page.wait_for_function(AT_END)


async def test_follows_an_answer_that_grows(tab: Tab, site: Deployment) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    steps = [step for gate in gates for step in (gate, text(LONG))]
    await tab.ask(site.answers(text("Begun.\n\n"), *steps, *END))
    for count, gate in enumerate(gates, 1):
        gate.set()
        await expect(tab.prose.locator("p")).to_have_count(1 + 60 * count)
        await at_end(tab)


async def test_leaves_a_reader_alone_who_went_up(tab: Tab, site: Deployment) -> None:
    gate, more = asyncio.Event(), asyncio.Event()
    await tab.ask(site.answers(text(LONG), gate, text(LONG), more, text(LONG), *END))
    await expect(tab.prose.locator("p")).to_have_count(60)
    latest = tab.page.get_by_role("button", name="Jump to the latest")
    await expect(latest).to_be_hidden()
    await tab.find("#page").hover()
    await tab.page.mouse.wheel(0, -300)
    await expect(latest).to_be_visible()
    before = await tab.find("#page").evaluate("page => page.scrollTop")
    gate.set()
    await expect(tab.prose.locator("p")).to_have_count(120)
    assert await tab.find("#page").evaluate("page => page.scrollTop") == before
    await latest.click()
    await expect(latest).to_be_hidden()
    more.set()
    await expect(tab.prose.locator("p")).to_have_count(180)
    await expect(tab.ending).to_have_text("Complete")
    await at_end(tab)


async def test_a_conversation_opens_at_its_end(tab: Tab, site: Deployment) -> None:
    await tab.ask(site.answers(text(LONG), *END))
    await expect(tab.ending).to_have_text("Complete")
    await tab.page.reload()
    await expect(tab.prose.locator("p")).to_have_count(60)
    await at_end(tab)


async def test_a_long_conversation_begins_with_its_last_messages(
    tab: Tab, site: Deployment
) -> None:
    asked = await site.asked("Question 1 of many?")
    session = asked["run"]["session_id"]
    for number in range(2, 25):
        await site.asked(f"Question {number} of many?", session_id=session)
    await tab.page.goto(f"{site.server.url}/#{session}")
    await expect(tab.questions).to_have_count(20)
    await expect(tab.questions.last).to_have_text("Question 24 of many?")
    await at_end(tab)
    await tab.find("#page").evaluate("page => page.scrollTop = 0")
    top = await tab.questions.first.evaluate(TOP)
    await tab.page.get_by_role("button", name="Show earlier messages").click()
    await expect(tab.questions).to_have_count(24)
    assert abs(await tab.questions.nth(4).evaluate(TOP) - top) < 2  # what was seen stays there
    await expect(tab.questions.first).to_have_text("Question 1 of many?")
