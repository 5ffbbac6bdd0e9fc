"""The page of a server that has presets."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.support.server import Deployment
from tests.support.upstream_server import completion


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    presets = {"careful": {"upstream": "script", "system": "Be careful."}}
    async with Deployment(tmp_path_factory.mktemp("site"), presets=presets) as site:
        yield site


@pytest.fixture
async def tab(browser: Browser, site: Deployment) -> AsyncIterator[Tab]:
    async with Tab.open(browser, site) as tab:
        yield tab


async def test_a_new_conversation_begins_with_the_one_that_is_chosen(
    tab: Tab, site: Deployment
) -> None:
    choice = tab.find("#preset")
    await expect(choice.locator("option")).to_have_text(["No preset", "careful"])
    await choice.select_option("careful")
    question = site.answers(*completion("Kelp holds."))
    await tab.ask(question)
    await expect(tab.ending).to_have_text("Complete")
    (request,) = site.requests_for(question)
    assert request.json["messages"][0] == {"role": "system", "content": "Be careful."}
    await expect(choice).to_be_hidden()  # the conversation keeps its preset
    session = (await site.server.get(f"/api/v1/sessions/{tab.session}")).json
    assert session["preset"] == "careful"


async def test_without_a_choice_there_is_none(tab: Tab, site: Deployment) -> None:
    await expect(tab.find("#preset")).to_be_visible()
    question = site.answers(*completion("Kelp holds."))
    await tab.ask(question)
    await expect(tab.ending).to_have_text("Complete")
    (request,) = site.requests_for(question)
    assert [message["role"] for message in request.json["messages"]] == ["user"]
