"""What stands in and around one answer on the page, and what its reader can do with it."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from tests.e2e.browser import ARTIFACTS, Browser, Tab, expect
from tests.e2e.scripts import END, SOURCES, held, text
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion_chunk, event, whole

DOCUMENTS = Path(holdfast.__file__).parent / "demo_documents"
NARROW: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}
QUESTION = "What is a holdfast, and how does it hold on to the rock?"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("site")
    library = {"kind": "library", "path": str(DOCUMENTS), "pace": 0}
    upstreams = {"docs": library, "written": {**library, "writer": "script"}}
    async with Deployment(folder, upstreams=upstreams, router={"default": "script"}) as site:
        yield site


async def asked(tab: Tab, question: str, ending: str = "Complete") -> None:
    """Ask, and wait for this end."""
    await tab.ask(question)
    await expect(tab.ending).to_contain_text(ending)


async def opened(tab: Tab, site: Deployment, question: str, upstream: str) -> Any:
    """Show an answer that another client has asked for; the answer as the server has it."""
    found = await site.asked(question, upstream=upstream)
    await tab.page.goto(f"{site.server.url}/#{found['run']['session_id']}")
    await expect(tab.ending).to_have_text("Complete")
    return found["message"]


async def look(tab: Tab, name: str) -> None:
    """Keep how it looks, for people."""
    await tab.page.screenshot(path=ARTIFACTS / f"answer-{name}.png")


class TestCitation:
    async def test_hovering_shows_its_passage_and_leaving_hides_it(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(SOURCES, text("It grips [ID:0], it turns [ID:1]."), *END))
        card = tab.find(".card")
        await tab.find(".mark").nth(1).hover()
        await expect(card).to_be_visible()
        await expect(card.locator(".name")).to_have_text("tides.md")
        await expect(card.locator(".passage")).to_have_text("The tide turns twice a day.")
        link = card.get_by_role("link", name="Open the page")
        await expect(link).to_have_attribute("href", "https://sea.example/tides")
        await look(tab, "card")
        await card.hover()
        await tab.page.mouse.move(2, 2)
        await expect(card).to_be_hidden()

    async def test_by_keyboard_it_opens_stays_and_gives_the_focus_back(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(SOURCES, text("It grips [ID:0]."), *END))
        card, mark = tab.find(".card"), tab.find(".mark")
        await mark.focus()
        await tab.page.keyboard.press("Shift+Tab")
        await tab.page.keyboard.press("Tab")
        await expect(card).to_be_visible()  # the focus shows it
        await expect(mark).to_have_attribute("aria-expanded", "true")
        await tab.page.keyboard.press("Escape")
        await expect(card).to_be_hidden()
        await expect(mark).to_be_focused()
        await tab.page.keyboard.press("Enter")
        await expect(card.locator(".passage")).to_be_focused()
        await tab.page.mouse.move(2, 2)
        await expect(card).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await expect(card).to_be_hidden()
        await expect(mark).to_be_focused()
        await expect(mark).to_have_accessible_name("Source 1")

    async def test_a_click_elsewhere_closes_it(self, tab: Tab, site: Deployment) -> None:
        await asked(tab, site.answers(SOURCES, text("It grips [ID:0]."), *END))
        await tab.find(".mark").click()
        await expect(tab.find(".card")).to_be_visible()
        await tab.find(".question").click()
        await expect(tab.find(".card")).to_be_hidden()

    async def test_escape_closes_the_card_and_does_not_stop_the_answer(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(SOURCES, text("It grips [ID:0]. "), gate, text("Yes."), *END))
        await tab.find(".mark").click()
        await expect(tab.find(".card")).to_be_visible()
        await tab.page.keyboard.press("Escape")
        await expect(tab.find(".card")).to_be_hidden()
        gate.set()
        await expect(tab.ending).to_have_text("Complete")

    async def test_on_a_narrow_screen_it_is_a_sheet(
        self, browser: Browser, site: Deployment
    ) -> None:
        async with Tab.open(browser, site, **NARROW, reduced_motion="reduce") as tab:
            await asked(tab, site.answers(SOURCES, text("It grips [ID:0]."), *END))
            await tab.find(".mark").tap()
            await expect(tab.find(".card .passage")).to_contain_text("Kelp grips the rock")
            box = await tab.find(".card").bounding_box()
            assert box is not None
            assert (box["x"], box["width"]) == (0, 390)
            assert box["y"] + box["height"] == pytest.approx(844, abs=1)
            await look(tab, "sheet")
            await tab.find(".card").get_by_role("button", name="Close").tap()
            await expect(tab.find(".card")).to_be_hidden()

    async def test_is_there_after_a_reload_in_a_partial_answer_too(
        self, tab: Tab, site: Deployment
    ) -> None:
        question = site.answers(SOURCES, text("🌊 It grips [ID:0], `[1]`, [9]"), Wire.CLOSE)
        await asked(tab, question, "Interrupted")
        for _ in range(2):
            await expect(tab.find(".mark")).to_have_text(["[1]"])
            await expect(tab.find(".prose code")).to_have_text("[1]")
            await tab.find(".mark").click()
            await expect(tab.find(".card .name")).to_have_text("kelp.md")
            await tab.page.reload()


class TestSources:
    async def test_cited_ones_come_first_and_the_others_are_folded(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(SOURCES, text("It turns [ID:1]."), *END))
        await expect(tab.sources.locator(".name")).to_have_text(["tides.md", "kelp.md"])
        await expect(tab.sources.nth(0)).to_be_visible()
        await expect(tab.sources.nth(1)).to_be_hidden()
        await tab.find(".folded > summary").click()
        await expect(tab.sources.nth(1)).to_be_visible()
        await tab.sources.nth(1).locator("summary").click()
        await expect(tab.sources.nth(1).locator(".passage strong")).to_have_text("rock")

    async def test_are_counted_while_the_answer_is_written(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.find(".sources > .folded > summary")).to_have_text("Found 2 sources")
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.find(".sources h2")).to_have_text("Sources")


class TestDocument:
    async def test_opens_at_the_passage(self, tab: Tab, site: Deployment) -> None:
        message = await opened(tab, site, QUESTION, "docs")
        await tab.find(".mark").first.click()
        button = tab.find(".card").get_by_role("button", name="Read it in the document")
        await button.click()
        dialog = tab.find("dialog.document")
        reference = message["references"][0]
        await expect(dialog.get_by_role("heading", level=2).first).to_have_text(
            reference["document_name"]
        )
        await expect(dialog.locator(".here").first).to_be_in_viewport()
        await expect(dialog.locator(".note")).to_have_count(0)
        await look(tab, "document")
        shown = "".join(await dialog.locator(".here").all_inner_texts())
        letters = re.compile(r"\W+")
        wanted = letters.sub("", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", reference["text"]))
        assert wanted[:60] in letters.sub("", shown)
        await tab.page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)

    async def test_says_that_the_passage_is_gone_or_the_document(
        self, browser: Browser, tmp_path: Path
    ) -> None:
        docs = tmp_path / "docs"
        docs.mkdir()
        path = docs / "kelp.md"
        path.write_text("# Kelp\n\nKelp has a holdfast, which is no root at all.\n", "utf-8")
        library = {"kind": "library", "path": str(docs), "pace": 0}
        async with (
            Deployment(tmp_path, upstreams={"docs": library}, router={"default": "docs"}) as site,
            Tab.open(browser, site) as tab,
        ):
            tab.forgive_failed_requests()
            await asked(tab, "What does kelp have?")
            await tab.sources.locator("summary").first.click()
            button = tab.sources.first.get_by_role("button", name="Read it in the document")
            path.write_text("# Kelp\n\n" + "More.\n\n" * 200 + path.read_text("utf-8"), "utf-8")
            await button.click()
            await expect(tab.find(".pages .here")).to_have_text(re.compile("^Kelp has a holdfast"))
            await expect(tab.find(".pages .here")).to_be_in_viewport()
            await tab.find("dialog").get_by_role("button", name="Close").click()
            await expect(button).to_be_focused()
            path.write_text("# Kelp\n\nSomething else.\n", "utf-8")
            await button.click()
            await expect(tab.find("dialog .note")).to_contain_text("The document has changed")
            await expect(tab.find(".pages")).to_contain_text("Something else.")
            await tab.page.keyboard.press("Escape")
            path.unlink()
            await button.click()
            await expect(tab.find("dialog .note")).to_contain_text("cannot be shown")

    async def test_other_sources_have_none(self, tab: Tab, site: Deployment) -> None:
        await asked(tab, site.answers(SOURCES, text("It turns [ID:1]."), *END))
        await tab.find(".mark").click()
        await expect(tab.find(".card")).to_be_visible()
        await expect(tab.find(".open-document")).to_have_count(0)


class TestBeforeTheText:
    async def test_reasoning_is_open_while_it_is_all_there_is(
        self, tab: Tab, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        thought = completion_chunk(reasoning_content="It has **no** root.")
        await tab.ask(site.answers(thought, gate, text("Kelp."), *END))
        reasoning = tab.find(".reasoning")
        await expect(reasoning.locator(".thoughts")).to_have_text("It has no root.")
        await expect(reasoning.locator("summary")).to_contain_text("Thinking")
        await look(tab, "thinking")
        gate.set()
        await expect(reasoning.locator(".thoughts")).to_be_hidden()
        await expect(reasoning.locator("summary")).to_contain_text("Thought for")
        await tab.page.reload()
        await expect(reasoning.locator("summary")).to_have_text("Reasoning")
        await expect(reasoning.locator(".thoughts")).to_be_hidden()
        await reasoning.locator("summary").click()
        await expect(reasoning.locator(".thoughts")).to_have_text("It has no root.")

    async def test_steps_are_told_while_the_upstream_is_silent(
        self, browser: Browser, tmp_path: Path
    ) -> None:
        gate = asyncio.Event()
        library = {"kind": "library", "path": str(DOCUMENTS), "writer": "script"}
        async with Deployment(
            tmp_path, upstreams={"docs": library}, router={"default": "docs"}
        ) as site:
            site.choose = lambda question: script_of(gate, text("Kelp [1]."), *END)
            async with Tab.open(browser, site) as tab:
                await tab.ask(QUESTION)
                await expect(tab.find(".state.step")).to_contain_text("Writing the answer: script")
                await expect(tab.find(".steps li")).to_contain_text("Searching")
                await look(tab, "steps")
                gate.set()
                await expect(tab.ending).to_have_text("Complete")
                await expect(tab.prose).to_have_text("Kelp [1].")
                await expect(tab.find(".steps")).to_have_count(0)

    async def test_a_notice_says_who_answers_instead(
        self, browser: Browser, tmp_path: Path
    ) -> None:
        library = {"kind": "library", "path": str(DOCUMENTS), "writer": "script", "pace": 0}
        async with Deployment(
            tmp_path, upstreams={"docs": library}, router={"default": "docs"}
        ) as site:
            site.choose = lambda question: whole({"error": {"message": "down"}}, 503)
            async with Tab.open(browser, site) as tab:
                await asked(tab, QUESTION)
                await expect(tab.find(".notice")).to_contain_text("the passages are quoted")

    async def test_tool_calls_are_small(self, tab: Tab, site: Deployment) -> None:
        call = {"index": 0, "id": "t1", "function": {"name": "tide", "arguments": '{"at":"noon"}'}}
        await asked(tab, site.answers(completion_chunk(tool_calls=[call]), text("High."), *END))
        await expect(tab.find(".answer .tools summary")).to_have_text("tide")
        await tab.find(".answer .tools summary").click()
        await expect(tab.find(".answer .tools pre")).to_have_text('{ "at": "noon" }')


class TestEnding:
    async def test_complete_has_its_time_its_tokens_and_why(
        self, tab: Tab, site: Deployment
    ) -> None:
        usage = event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        await asked(tab, site.answers(text("Kelp."), completion_chunk("stop"), usage, END[1]))
        about = tab.find(".about")
        await expect(about.locator("summary")).to_contain_text("script")
        await expect(about.locator("summary")).to_contain_text("7 tokens")
        for _ in range(2):
            await about.locator("summary").click()
            await expect(about).to_contain_text("11 in, 7 out")
            await expect(about).to_contain_text("script · m1")
            await expect(about).to_contain_text("Chosen because")
            await tab.page.reload()
            await expect(about).to_be_visible()

    async def test_at_a_length_limit_it_says_so(self, tab: Tab, site: Deployment) -> None:
        await asked(tab, site.answers(text("Kelp"), completion_chunk("length"), END[1]))
        await expect(tab.ending).to_contain_text("length limit")

    async def test_an_interrupted_one_can_be_asked_again_gone_on_from_or_copied(
        self, tab: Tab, site: Deployment
    ) -> None:
        await tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        broken = script_of(text("Kelp holds"), Wire.CLOSE)
        await asked(tab, site.question(broken, script_of(text("Kelp."), *END)), "Interrupted")
        await look(tab, "interrupted")
        await tab.page.get_by_role("button", name="Copy", exact=True).click()
        assert await tab.page.evaluate("navigator.clipboard.readText()") == "Kelp holds"
        await tab.page.get_by_role("button", name="Go on asking").click()
        await expect(tab.find("#question")).to_be_focused()
        await expect(tab.find("#question")).not_to_have_value("")
        await tab.page.fill("#question", "")
        await tab.page.get_by_role("button", name="Ask again").click()
        await expect(tab.ending).to_have_text("Complete")
        await expect(tab.prose).to_have_text("Kelp.")

    async def test_only_the_last_answer_can_be_asked_again(
        self, tab: Tab, site: Deployment
    ) -> None:
        for _ in range(2):
            await asked(tab, site.answers(text("Kelp."), *END))
            await expect(tab.page.get_by_role("button", name="Ask again")).to_have_count(1)
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.page.get_by_role("button", name="Ask again")).to_have_count(0)
        gate.set()
        await expect(tab.page.get_by_role("button", name="Ask again")).to_have_count(1)

    async def test_earlier_versions_are_there(self, tab: Tab, site: Deployment) -> None:
        first, second = script_of(text("One."), *END), script_of(text("Two."), *END)
        await asked(tab, site.question(first, second))
        await tab.page.get_by_role("button", name="Ask again").click()
        await expect(tab.prose).to_have_text("Two.")
        versions = tab.find(".versions")
        await expect(versions).to_have_text("2/2")
        await versions.get_by_role("button", name="Earlier version").press("Enter")
        await expect(tab.prose).to_have_text("One.")
        await expect(versions).to_have_text("1/2")
        await expect(versions.get_by_role("button", name="Later version")).to_be_focused()
        await tab.page.keyboard.press("Enter")
        await expect(tab.prose).to_have_text("Two.")
        await look(tab, "versions")


class TestFeedback:
    async def test_a_thumb_and_a_comment_are_kept_and_taken_back(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(text("Kelp."), *END))
        bad = tab.page.get_by_role("button", name="Bad answer")
        good = tab.page.get_by_role("button", name="Good answer")
        await bad.click()
        await expect(bad).to_have_attribute("aria-pressed", "true")
        await expect(tab.find(".comment input")).to_be_focused()
        await tab.page.keyboard.type("Too <b>short</b>")
        await tab.page.keyboard.press("Enter")
        await expect(tab.find(".comment")).to_have_count(0)
        feedback = (await tab.messages())[-1]["feedback"]
        assert (feedback["rating"], feedback["comment"]) == ("down", "Too <b>short</b>")
        await tab.page.reload()
        await expect(bad).to_have_attribute("aria-pressed", "true")
        await good.click()
        await expect(good).to_have_attribute("aria-pressed", "true")
        await expect(bad).to_have_attribute("aria-pressed", "false")
        await tab.page.keyboard.press("Escape")
        await expect(tab.find(".comment")).to_have_count(0)
        await good.click()
        await expect(good).to_have_attribute("aria-pressed", "false")
        assert (await tab.messages())[-1]["feedback"] is None

    async def test_a_comment_that_is_being_written_stays_when_another_answer_ends(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(text("Kelp."), *END))
        gate = asyncio.Event()
        await tab.ask(site.answers(*held(gate)))
        await expect(tab.prose).to_have_text("Kelp")
        await tab.page.get_by_role("button", name="Good answer").click()
        field = tab.find(".comment input")
        await expect(field).to_be_focused()
        await tab.page.keyboard.type("Half a thou")
        gate.set()
        await expect(tab.ending).to_have_text("Complete")
        await expect(field).to_have_value("Half a thou")
        await expect(field).to_be_focused()


DURATIONS = """
async (times) => {
  const { duration } = await import("/app/answer/words.js");
  return times.map(duration);
}
"""


async def test_a_duration_is_rounded_before_it_is_split(tab: Tab) -> None:
    times = [0, 49, 50, 9_940, 9_970, 59_400, 59_700, 119_600, 120_000]
    assert await tab.page.evaluate(DURATIONS, times) == [
        *("< 0.1 s", "< 0.1 s", "0.1 s", "9.9 s", "10 s"),
        *("59 s", "1 min 0 s", "2 min 0 s", "2 min 0 s"),
    ]


class TestCopying:
    @pytest.fixture
    async def tab(self, tab: Tab) -> Tab:
        await tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        return tab

    async def test_the_answer_is_copied_as_markdown_with_its_sources(
        self, tab: Tab, site: Deployment
    ) -> None:
        await asked(tab, site.answers(SOURCES, text("It **turns** [ID:1]."), *END))
        await tab.page.get_by_role("button", name="Copy", exact=True).click()
        await expect(tab.find("#live")).to_have_text("Copied")
        assert await tab.page.evaluate("navigator.clipboard.readText()") == (
            "It **turns** [2].\n\nSources:\n\n[2] tides.md <https://sea.example/tides>\n"
        )

    async def test_code_is_coloured_when_it_is_whole_and_copied_as_it_is(
        self, tab: Tab, site: Deployment
    ) -> None:
        code = "".join(f'if a < {n} && "&lt;":\n    pass  # [1]\n' for n in range(100))
        gate = asyncio.Event()
        await tab.ask(site.answers(text(f"```python\n{code}"), gate, text("```\nDone."), *END))
        await expect(tab.find(".code code")).to_contain_text("if a < 99")
        await expect(tab.find(".code .hljs-keyword")).to_have_count(0)
        gate.set()
        await expect(tab.find(".code .hljs-keyword")).to_have_count(200)
        await expect(tab.find(".code .language")).to_have_text("python")
        assert await tab.find(".code code").evaluate("node => node.textContent") == code
        await tab.find(".copy-code").click()
        await expect(tab.find(".copy-code")).to_have_text("Copied")
        assert await tab.page.evaluate("navigator.clipboard.readText()") == code.removesuffix("\n")
        await look(tab, "code")

    async def test_selected_code_has_its_lines(self, tab: Tab, site: Deployment) -> None:
        code = "".join(f"line {number}\n" for number in range(100))
        await asked(tab, site.answers(text(f"```\n{code}```"), *END))
        selected = await tab.page.evaluate(
            """() => {
              getSelection().selectAllChildren(document.querySelector(".code code"));
              return getSelection().toString();
            }"""
        )
        assert selected.rstrip("\n") == code.rstrip("\n")


async def test_wide_tables_and_code_scroll_by_themselves(
    browser: Browser, site: Deployment
) -> None:
    row = "|" + " a long cell |" * 20
    wide = f"{row}\n|{'---|' * 20}\n{row}\n\n```\n{'x' * 500}\n```\n"
    async with Tab.open(browser, site, **NARROW) as tab:
        await asked(tab, site.answers(text(wide), *END))
        for one in (".table", ".code pre"):
            hidden = await tab.find(one).evaluate("node => node.scrollWidth - node.clientWidth")
            assert hidden > 100
        article = tab.find("article.answer")
        assert await article.evaluate("node => node.scrollWidth - node.clientWidth") <= 0


async def test_speaks_chinese(browser: Browser, site: Deployment) -> None:
    async with Tab.open(browser, site, locale="zh-CN") as tab:
        await asked(tab, site.answers(SOURCES, text("海带 [ID:0]"), Wire.CLOSE), "回答中断")
        await expect(tab.ending).to_contain_text("服务在中途断开了。")
        await expect(tab.find(".sources h2")).to_have_text("参考来源")
        await expect(tab.page.get_by_role("button", name="重新回答")).to_be_visible()
        await look(tab, "chinese")


async def test_dark(browser: Browser, site: Deployment) -> None:
    sample = text(
        "# Kelp\n\nIt **grips** [ID:0].\n\n```python\ndef hold(): ...\n```\n\n|a|b|\n|-|-|\n|1|2|"
    )
    async with Tab.open(browser, site, color_scheme="dark") as tab:
        await asked(tab, site.answers(SOURCES, sample, *END))
        await tab.find(".mark").hover()
        await expect(tab.find(".card")).to_be_visible()
        await look(tab, "dark")
