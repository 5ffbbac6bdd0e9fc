"""The page of a server that wants a key."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.support.keyed import ALICE, BOB, OPS, Caller, keyed
from tests.support.server import Deployment
from tests.support.upstream_server import completion, completion_chunk

QUESTION = "Does kelp hold?"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with keyed(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
async def tab(browser: Browser, site: Deployment) -> AsyncIterator[Tab]:
    """The empty page, before anybody has entered a key."""
    async with Tab.open(browser, site, forgiving=True) as tab:
        yield tab


async def enter(tab: Tab, key: str) -> None:
    await expect(tab.find("#door")).to_be_visible()
    await tab.page.fill("#key", key)
    await tab.page.press("#key", "Enter")


async def test_asks_for_it_and_shows_what_is_its_owners(tab: Tab, site: Deployment) -> None:
    await Caller(site, BOB).asked("Bob's question?")
    await Caller(site, ALICE).asked("Alice's question?")
    await expect(tab.find("#door")).to_contain_text("This server wants a key.")
    await expect(tab.find("#composer")).to_be_hidden()
    await expect(tab.find("#sign")).to_be_hidden()
    await expect(tab.find("#key")).to_be_focused()
    await enter(tab, f"  {ALICE} ")
    await expect(tab.find("#door")).to_be_hidden()
    await expect(tab.entries).to_have_text(["Alice's question?"])
    await tab.ask(QUESTION)
    await expect(tab.prose).to_have_text("Kelp holds fast.")
    messages = await Caller(site, ALICE).get(f"/api/v1/sessions/{tab.session}/messages")
    assert [item["content"] for item in messages.json["items"]] == [QUESTION, "Kelp holds fast."]
    assert (await Caller(site, BOB).get(f"/api/v1/sessions/{tab.session}")).status == 404


async def test_says_that_a_key_is_wrong_and_asks_again(tab: Tab) -> None:
    await expect(tab.find("#wrong")).to_be_hidden()
    for wrong in ("wrong-key-0123456789", "clé", "two words", "海"):
        await enter(tab, wrong)
        await expect(tab.find("#wrong")).to_have_text("This key is not valid.")
    await enter(tab, BOB)
    await expect(tab.find("#composer")).to_be_visible()
    await expect(tab.find("#wrong")).to_be_hidden()


async def test_a_reload_does_not_ask_again_but_another_tab_does(
    tab: Tab, browser: Browser, site: Deployment
) -> None:
    await enter(tab, ALICE)
    await tab.ask(QUESTION)
    await expect(tab.prose).to_have_text("Kelp holds fast.")
    await tab.page.reload()
    await expect(tab.prose).to_have_text("Kelp holds fast.")
    await expect(tab.find("#door")).to_be_hidden()
    async with Tab.open(browser, site, f"#{tab.session}", forgiving=True) as other:
        await expect(other.find("#door")).to_be_visible()
        await enter(other, BOB)
        await expect(other.find("#note")).to_have_text("This conversation does not exist.")


async def test_what_was_being_done_goes_on_once_there_is_a_key(tab: Tab, site: Deployment) -> None:
    """Nothing is lost, and nothing is asked twice."""
    ops = Caller(site, OPS)
    made = (await ops.post("/api/v1/keys", {"owner": "dora"})).json
    await enter(tab, made["key"])
    await expect(tab.find("#composer")).to_be_visible()
    await ops.call("DELETE", f"/api/v1/keys/{made['id']}")
    question = site.answers(*completion("Once."))
    await tab.ask(question)
    await expect(tab.find("#wrong")).to_have_text("This key is not valid.")
    await expect(tab.questions).to_have_text([question])
    assert site.requests_for(question) == []
    again = (await ops.post("/api/v1/keys", {"owner": "dora"})).json
    await enter(tab, again["key"])
    await expect(tab.prose).to_have_text("Once.")
    await expect(tab.ending).to_have_text("Complete")
    assert len(site.requests_for(question)) == 1


async def test_a_live_answer_goes_on_with_a_new_key(tab: Tab, site: Deployment) -> None:
    ops, gate = Caller(site, OPS), asyncio.Event()
    made = (await ops.post("/api/v1/keys", {"owner": "eve"})).json
    await enter(tab, made["key"])
    question = site.answers(completion_chunk(content="Kelp "), gate, *completion("holds."))
    await tab.ask(question)
    await expect(tab.prose).to_have_text("Kelp")
    await ops.call("DELETE", f"/api/v1/keys/{made['id']}")
    again = (await ops.post("/api/v1/keys", {"owner": "eve"})).json
    await tab.page.reload()
    await enter(tab, again["key"])
    await expect(tab.prose).to_have_text("Kelp")
    gate.set()
    await expect(tab.prose).to_have_text("Kelp holds.")
    assert len(site.requests_for(question)) == 1


async def test_escape_takes_a_question_back_that_waits_for_a_key(tab: Tab) -> None:
    await expect(tab.find("#door")).to_be_visible()
    await tab.find(".samples button").first.click()
    await expect(tab.questions).to_have_count(1)
    await tab.page.keyboard.press("Escape")
    await expect(tab.questions).to_have_count(0)
    await enter(tab, ALICE)
    await expect(tab.find("#composer")).to_be_visible()
    await expect(tab.questions).to_have_count(0)


async def test_the_key_is_kept_for_the_tab_only_and_sent_in_the_header_only(
    tab: Tab, site: Deployment
) -> None:
    urls: list[str] = []
    tab.page.on("request", lambda request: urls.append(request.url))
    await enter(tab, ALICE)
    await tab.ask(QUESTION)
    await expect(tab.ending).to_have_text("Complete")
    assert urls
    assert not [url for url in urls if ALICE in url]
    assert ALICE not in tab.page.url
    assert ALICE not in await tab.page.content()
    await expect(tab.find("#key")).to_have_count(0)
    assert await tab.page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    assert ALICE in await tab.page.evaluate("JSON.stringify(sessionStorage)")


async def test_speaks_chinese_to_who_reads_it(site: Deployment, browser: Browser) -> None:
    async with Tab.open(browser, site, forgiving=True, locale="zh-CN") as tab:
        await expect(tab.find("#door")).to_contain_text("此服务器需要密钥。")


async def test_a_server_without_keys_asks_for_none(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with (
        Deployment(tmp_path_factory.mktemp("open")) as open_site,
        Tab.open(browser, open_site) as tab,
    ):
        await tab.ask(QUESTION)
        await expect(tab.ending).to_have_text(re.compile("Complete"))
        await expect(tab.find("#door")).to_be_hidden()
