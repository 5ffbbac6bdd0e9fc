"""What goes wrong for people with bad luck: nothing that they wrote or read goes away."""

import asyncio
from typing import Any

import pytest

from tests.e2e.browser import Browser, Route, Tab, expect
from tests.e2e.scripts import END, held, text
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, stream

ASKING = "**/api/v1/runs"
SESSIONS = "**/api/v1/sessions/**"
FOCUS = "window.dispatchEvent(new Event('focus'))"
REFUSALS = [(500, "internal_error"), (429, "too_many_requests")]


async def opened(tab: Tab, site: Deployment, *texts: str) -> str:
    """A conversation with an answer, open in the tab; its id."""
    told = await site.asked(site.answers(*completion(*(texts or ("Kelp holds.",)))))
    session: str = told["run"]["session_id"]
    await tab.page.goto(f"{site.server.url}/#{session}")
    await expect(tab.ending).to_be_attached()
    return session


class TestALook:
    """The page looks at the server when it is seen again."""

    @pytest.mark.parametrize(("status", "code"), REFUSALS)
    async def test_that_is_refused_leaves_what_is_there(
        self, tab: Tab, site: Deployment, status: int, code: str
    ) -> None:
        tab.forgive_failed_requests()
        session = await opened(tab, site)
        refused = asyncio.Event()

        async def refuse(route: Route) -> None:
            await route.fulfill(status=status, json={"error": {"code": code, "message": "no"}})
            refused.set()

        await tab.page.route(SESSIONS, refuse)
        await tab.page.evaluate(FOCUS)
        await refused.wait()
        await tab.html()
        await expect(tab.prose).to_have_text("Kelp holds.")
        assert tab.session == session

    async def test_that_is_refused_when_it_is_opened_keeps_the_address(
        self, tab: Tab, site: Deployment
    ) -> None:
        tab.forgive_failed_requests()
        told = await site.asked(site.answers(*completion("Kelp holds.")))
        session = told["run"]["session_id"]

        async def refuse(route: Route) -> None:
            await route.fulfill(status=500, json={"error": {"code": "oh", "message": "Oh."}})

        await tab.page.route(SESSIONS, refuse)
        await tab.page.goto(f"{site.server.url}/#{session}")
        await expect(tab.find("#note")).to_have_text("Oh.")
        assert tab.session == session
        await tab.page.unroute(SESSIONS)
        await tab.page.evaluate(FOCUS)
        await expect(tab.prose).to_have_text("Kelp holds.")


class TestAQuestionThatHasNotArrived:
    """It is given back, whatever one does."""

    @pytest.mark.parametrize("leave", ["reload", "new"])
    async def test_is_back_in_its_field(self, tab: Tab, leave: str) -> None:
        asked = asyncio.Event()

        async def hold(route: Route) -> None:
            asked.set()
            await asyncio.Event().wait()

        await tab.page.route(ASKING, hold)
        await tab.ask("Does kelp hold?")
        await asked.wait()
        if leave == "reload":
            await tab.page.reload()
        else:
            await tab.find(".new").click()
        await expect(tab.find("#question")).to_have_value("Does kelp hold?")

    async def test_is_not_when_it_has(self, tab: Tab, site: Deployment) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_contain_text("Kelp")
        await tab.page.reload()
        await expect(tab.prose).to_contain_text("Kelp")
        await expect(tab.find("#question")).to_have_value("")
        await tab.find(".new").click()
        await expect(tab.find("#empty")).to_be_visible()
        await expect(tab.find("#question")).to_have_value("")
        gate.set()


async def test_a_comment_is_kept_while_another_answer_ends(tab: Tab, site: Deployment) -> None:
    await opened(tab, site)
    gate = asyncio.Event()
    await tab.ask(site.answers(text("It "), gate, text("does."), *END))
    await expect(tab.prose).to_contain_text("It")
    await tab.find("[aria-label='Good answer']").first.click()
    await tab.page.fill(".comment input", "As I had hoped")
    gate.set()
    await expect(tab.find("#send")).to_be_visible()
    await expect(tab.find(".comment input")).to_have_value("As I had hoped")


async def test_a_conversation_deleted_in_another_tab_is_told_and_the_draft_kept(
    tab: Tab, site: Deployment
) -> None:
    await opened(tab, site)
    await tab.page.fill("#question", "And then")
    other = await tab.page.context.new_page()
    await other.goto(tab.page.url)
    await other.locator("header.bar [aria-haspopup]").click()
    await other.locator(".menu:popover-open .danger").click()
    await other.locator("dialog .danger").click()
    await expect(tab.find("#note")).to_have_text("This conversation was deleted in another tab.")
    await expect(tab.find("#question")).to_have_value("And then")
    assert tab.session == ""


async def test_one_deleted_elsewhere_while_it_is_answered_is_told(
    tab: Tab, site: Deployment
) -> None:
    tab.forgive_failed_requests()
    gate = asyncio.Event()
    await tab.ask(site.answers(*held(gate)))
    await expect(tab.prose).to_contain_text("Kelp")
    reply = await site.server.call("DELETE", f"/api/v1/sessions/{tab.session}")
    assert reply.status == 204
    await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
    gate.set()


async def test_the_version_that_counts_is_shown_when_one_asks_on(
    tab: Tab, site: Deployment
) -> None:
    question = site.question(stream(*completion("First.")), stream(*completion("Second.")))
    await tab.ask(question)
    await tab.find("[aria-label='Ask again']").click()
    await expect(tab.find(".versions")).to_have_text("2/2")
    await tab.find("[aria-label='Earlier version']").click()
    await expect(tab.prose).to_have_text("First.")
    following = site.answers(*completion("Third."))
    await tab.ask(following)
    await expect(tab.prose).to_have_text("Third.")
    await expect(tab.find(".answer .prose").first).to_have_text("Second.")
    (request,) = site.requests_for(following)
    assert request.json["messages"][1]["content"] == "Second."


async def test_ask_again_asks_whom_one_has_chosen(browser: Browser, tmp_path: Any) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "kelp.md").write_text("# Kelp\n\nKelp grips the rock.\n")
    docs = {"docs": {"kind": "library", "path": str(documents)}}
    async with (
        Deployment(tmp_path, upstreams=docs, router={"default": "script"}) as site,
        Tab.open(browser, site) as tab,
    ):
        await tab.ask(site.answers(Wire.CLOSE))
        await expect(tab.find(".again")).to_be_visible()
        await tab.find("#upstream").select_option("docs")
        await tab.find(".again").click()
        await expect(tab.find(".about summary")).to_contain_text("docs")


async def test_after_a_name_was_typed_the_focus_is_in_the_list(tab: Tab, site: Deployment) -> None:
    session = await opened(tab, site)
    await tab.find("header.bar [aria-haspopup]").press("Enter")
    await tab.find(".menu:popover-open").get_by_text("Rename").press("Enter")
    await expect(tab.find(".rename")).to_be_focused()
    await tab.page.keyboard.type("Kelp")
    await tab.page.keyboard.press("Enter")
    await expect(tab.find("header.bar .title")).to_have_text("Kelp")
    await expect(tab.find(f"a[href='#{session}']")).to_be_focused()


async def test_one_that_is_not_in_the_list_can_be_renamed_too(tab: Tab, site: Deployment) -> None:
    await opened(tab, site)
    await tab.page.fill("#search", "nothing like it")
    await expect(tab.entries).to_have_count(0)
    await tab.find("header.bar [aria-haspopup]").click()
    await tab.find(".menu:popover-open").get_by_text("Rename").click()
    await expect(tab.find(".rename")).to_be_focused()
    await tab.page.keyboard.type("Kelp")
    await tab.page.keyboard.press("Enter")
    await expect(tab.find("header.bar .title")).to_have_text("Kelp")
    await expect(tab.find("#question")).to_be_focused()


async def test_the_place_stays_when_earlier_messages_are_shown(tab: Tab, site: Deployment) -> None:
    session = await opened(tab, site)
    for number in range(25):
        await site.asked(site.answers(*completion(f"Answer {number}.")), session_id=session)
    await tab.page.reload()
    await expect(tab.find(".earlier")).to_be_attached()
    first = tab.find(".question").filter(has_text=await tab.questions.first.inner_text())
    await tab.find(".earlier").scroll_into_view_if_needed()
    before = await first.bounding_box()
    await tab.find(".earlier").click()
    await expect(tab.questions).to_have_count(26)
    await tab.html()
    after = await first.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 80  # the button itself may have gone


async def test_why_it_was_chosen_is_told_in_chinese_and_no_button_stands_alone(
    browser: Browser, site: Deployment
) -> None:
    told = await site.asked(site.answers(text("Kelp"), Wire.CLOSE))
    look: dict[str, Any] = {"locale": "zh-CN", "viewport": {"width": 320, "height": 640}}
    async with Tab.open(browser, site, f"#{told['run']['session_id']}", **look) as tab:
        await tab.find(".about summary").click()
        await expect(tab.find(".about dl")).to_contain_text("唯一的服务")
        good = await tab.find("[aria-label='回答得好']").bounding_box()
        bad = await tab.find("[aria-label='回答得不好']").bounding_box()
        again = await tab.find(".again").bounding_box()
        assert good is not None
        assert bad is not None
        assert again is not None
        assert good["y"] == bad["y"] > again["y"]
