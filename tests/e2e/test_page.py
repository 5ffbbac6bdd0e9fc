"""The page at `/` as its reader has it: ask, stream, sources, stop, reload, come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from tests.e2e.browser import Browser, Route, Tab, expect
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Step, Wire, completion_chunk, event, whole

KELP: dict[str, Any] = {
    "id": "c1",
    "content": "Kelp grips the **rock** with its holdfast.",
    "document_id": "d1",
    "document_name": "kelp.md",
}
TIDES: dict[str, Any] = {
    "id": "c2",
    "content": "The tide turns twice a day.",
    "document_id": "d2",
    "document_name": "tides.md",
    "url": "https://sea.example/tides",
}
DOCUMENTS = Path(holdfast.__file__).parent / "demo_documents"
SOURCES = completion_chunk(reference=[KELP, TIDES])
END = (completion_chunk("stop"), event("[DONE]"))


def text(content: str) -> bytes:
    return completion_chunk(content=content)


def held(gate: asyncio.Event) -> tuple[Step, ...]:
    """An answer that stops in the middle until the gate opens."""
    return (SOURCES, text("Kelp "), gate, text("holds [ID:0]."), *END)


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

    async def test_a_mark_opens_its_source(self, tab: Tab, site: Deployment) -> None:
        await tab.ask(site.answers(SOURCES, text("Twice a day [ID:1]."), *END))
        passage = tab.sources.nth(1).locator(".prose")
        await expect(passage).not_to_be_visible()
        await tab.find(".mark").click()
        await expect(passage).to_have_text("The tide turns twice a day.")
        await expect(passage).to_be_in_viewport()
        link = tab.sources.nth(1).get_by_role("link")
        await expect(link).to_have_attribute("href", "https://sea.example/tides")

    async def test_marks_count_code_points_and_a_literal_is_no_mark(
        self, tab: Tab, site: Deployment
    ) -> None:
        answer = text("🌊🌊 **海带** [1] holds[ID:0] 👩‍🚀 [ID:1]!")
        await tab.ask(site.answers(SOURCES, answer, *END))
        await expect(tab.prose).to_have_text("🌊🌊 海带 [1] holds[1] 👩‍🚀 [2]!")
        await expect(tab.find(".mark")).to_have_text(["[1]", "[2]"])
        await expect(tab.find(".mark").first).to_have_attribute("title", "kelp.md")
        before = await tab.prose.evaluate(
            "node => node.querySelector('.mark').previousSibling.data"
        )
        assert before == " [1] holds"

    async def test_a_mark_becomes_a_link_when_its_source_comes(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        answer = text("Holds [ID:0], not [ID:9].")
        await tab.ask(site.answers(answer, gate, completion_chunk(reference=[KELP]), *END))
        await expect(tab.prose).to_have_text("Holds [1], not [10].")
        await expect(tab.find(".mark[href]")).to_have_count(0)
        gate.set()
        await expect(tab.find(".mark[href]")).to_have_text(["[1]"])

    async def test_that_is_rewritten_at_the_end_is_shown_as_it_is_then(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        rewrite = completion_chunk("stop", reference=[KELP], final_content="It holds [ID:0]. Yes.")
        await tab.ask(site.answers(text("It held.\n\nNo."), gate, rewrite, event("[DONE]")))
        await expect(tab.prose).to_have_text("It held.No.")
        gate.set()
        await expect(tab.prose).to_have_text("It holds [1]. Yes.")

    async def test_shows_reasoning_apart(self, tab: Tab, site: Deployment) -> None:
        thought = completion_chunk(reasoning_content="A root? ")
        more = completion_chunk(reasoning_content="No root.")
        await tab.ask(site.answers(thought, more, text("No."), *END))
        await expect(tab.prose).to_have_text("No.")
        await tab.find(".answer summary").click()
        await expect(tab.find(".answer > details p")).to_have_text("A root? No root.")

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

    async def test_one_that_does_not_exist_is_told_and_a_new_one_can_begin(
        self, site: Deployment, browser: Browser
    ) -> None:
        async with Tab.open(browser, site, "#no-such-session") as tab:
            tab.forgive_failed_requests()
            await expect(tab.find("#note")).to_have_text("This conversation does not exist.")
            await tab.ask(site.answers(text("Kelp holds."), *END))
            await expect(tab.prose).to_have_text("Kelp holds.")
            assert tab.session != "no-such-session"


HOSTILE = """<script>document.title = "broken in"</script><img src=x onerror=alert(1)>

# <svg onload=alert(2)>

[click](javascript:alert(3)) [data](data:text/html,x) **<b onclick=alert(4)>bold</b>**

> <iframe src="javascript:alert(5)"></iframe>

```html
<script>alert(6)</script>
```
"""


class TestHostileContent:
    async def test_is_text_wherever_it_comes_from(self, tab: Tab, site: Deployment) -> None:
        source = {
            **KELP,
            "document_name": "<img src=x onerror=alert(7)>.md",
            "content": HOSTILE,
            "url": "javascript:alert(8)",
        }
        title = "<img src=x onerror=alert(9)>"
        await tab.ask(title)
        await expect(tab.ending).to_have_text("Complete")
        reference = completion_chunk(reference=[source])
        await tab.ask(site.answers(reference, text(HOSTILE + "[ID:0]"), *END))
        await expect(tab.find(".state.completed")).to_have_count(2)
        await tab.page.reload()
        await expect(tab.find(".state.completed")).to_have_count(2)
        await tab.find(".mark").click()
        await expect(tab.find("#sessions a").first).to_have_text(title)
        await expect(tab.page).to_have_title(f"{title} · Holdfast")
        foreign = "script, img, svg, iframe, b, [onclick], [onerror], [onload]"
        await expect(tab.find("#messages, #sessions").locator(foreign)).to_have_count(0)
        links = await tab.find("#messages a").evaluate_all("all => all.map(one => one.protocol)")
        assert set(links) == {"http:"}
        await expect(tab.sources.locator(".name")).to_have_text([source["document_name"]])
        for part in (
            "<script>alert(6)</script>",
            "[click](javascript:alert(3))",
            "onerror=alert(1)",
        ):
            await expect(tab.prose).to_contain_text(part)

    async def test_only_web_addresses_become_links(self, tab: Tab, site: Deployment) -> None:
        """The server drops others already; the page does not rely on that."""

        async def replace(route: Route) -> None:
            answer = await (await route.fetch()).text()
            await route.fulfill(json=json.loads(answer.replace("https://sea", "javascript://sea")))

        await tab.ask(site.answers(SOURCES, text("Kelp [ID:0]."), *END))
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.sources.get_by_role("link", include_hidden=True)).to_have_count(1)
        await tab.page.route("**/messages?*", replace)
        await tab.page.reload()
        await expect(tab.sources).to_have_count(2)
        await expect(tab.sources.get_by_role("link", include_hidden=True)).to_have_count(0)


class TestLibrary:
    async def test_a_real_answer_is_shown_whole(self, browser: Browser, tmp_path: Path) -> None:
        docs = {"kind": "library", "path": str(DOCUMENTS), "pace": 10_000}
        async with (
            Deployment(tmp_path, upstreams={"docs": docs}, router={"default": "docs"}) as site,
            Tab.open(browser, site) as tab,
        ):
            for number, sample in enumerate(await tab.find(".samples button").all_inner_texts(), 1):
                await tab.page.get_by_role("link", name="New conversation").first.click()
                await tab.find(".samples").get_by_text(sample).click()
                await expect(tab.ending).to_have_text("Complete")
                await expect(tab.find("#sessions li")).to_have_count(number)
                stored = await stored_answer(tab)
                assert _letters(await tab.prose.inner_text()) == _letters(stored["content"])
                await expect(tab.find(".mark[href]")).to_have_count(len(stored["marks"]))
                await expect(tab.sources).to_have_count(len(stored["references"]))
                assert len(stored["marks"]) >= len(stored["references"]) > 1
                live = await tab.html()
                await tab.page.reload()
                await expect(tab.ending).to_have_text("Complete")
                assert await tab.html() == live


def _letters(text: str) -> str:
    """The text without what Markdown takes away."""
    return "".join(filter(str.isalnum, text))


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


class TestLook:
    async def test_speaks_chinese_to_who_reads_it(self, site: Deployment, browser: Browser) -> None:
        async with Tab.open(browser, site, locale="zh-CN") as tab:
            await expect(tab.find("html")).to_have_attribute("lang", "zh")
            await expect(tab.find("h1")).to_have_text("放心提问，回答不会丢")
            await tab.ask(site.answers(text("海带。"), *END))
            await expect(tab.ending).to_have_text("回答完毕")

    async def test_on_a_narrow_screen_the_list_is_behind_a_button(
        self, site: Deployment, browser: Browser
    ) -> None:
        async with Tab.open(browser, site, viewport={"width": 360, "height": 640}) as tab:
            question = site.answers(text("Kelp " * 300), *END)
            await tab.ask(question)
            await expect(tab.ending).to_have_text("Complete")
            entry = tab.find("#sessions").get_by_text(question)
            await expect(entry).to_be_hidden()
            await tab.page.get_by_role("button", name="Conversations").click()
            await expect(entry).to_be_visible()
            await tab.page.keyboard.press("Escape")
            await expect(entry).to_be_hidden()
            assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 360

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_follows_the_colour_scheme(
        self, scheme: str, site: Deployment, browser: Browser
    ) -> None:
        async with Tab.open(browser, site, color_scheme=scheme) as tab:
            colour = await tab.find("body").evaluate(
                "body => getComputedStyle(body).backgroundColor"
            )
            brightness = sum(int(part) for part in colour[4:-1].split(","))
            assert (brightness > 600) == (scheme == "light")
