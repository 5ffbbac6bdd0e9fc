"""`holdfast-client.js` in Chromium, as the server serves it, on a bad network."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, chromium
from tests.support.hostile_proxy import Cut, HostileProxy
from tests.support.server import Deployment
from tests.support.upstream_server import Request, Script, ScriptedUpstream, completion, whole

ASK = """
async ([url, question]) => {
  const { HoldfastClient } = await import("/holdfast-client.js");
  const client = new HoldfastClient(url ? { url } : {});
  const answer = client.ask(question);
  const seqs = [];
  for await (const event of answer) seqs.push(event.seq);
  const { text, status } = await answer.result();
  return { seqs, text, status, run: answer.runId };
}
"""
WORDS = tuple(f"Word {number} of 海带. " for number in range(20))
WHOLE = {"seqs": [*range(1, 23)], "text": "".join(WORDS), "status": "complete"}

MODULE = Path(__file__).parents[2] / "src" / "holdfast" / "console" / "holdfast-client.js"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("kind", Cut)
async def test_p5_p7_the_answer_arrives_whole_and_once(
    tmp_path: Path, browser: Browser, kind: Cut
) -> None:
    async with Deployment(tmp_path) as site, HostileProxy(site.server.port) as proxy:
        page = await browser.new_page()
        await page.goto(f"{proxy.url}/icon.svg")  # a document of the server without the page
        await page.evaluate('() => import("/holdfast-client.js")')
        proxy.cut_after(1_300, kind)
        question = site.answers(*completion(*WORDS))
        told = await page.evaluate(ASK, ["", question])
        found = (await site.server.run(told.pop("run")))["message"]
        assert told == WHOLE
        assert found["content"] == WHOLE["text"]
        assert len(site.requests_for(question)) == 1
        assert proxy.cuts > 0


def other_site(request: Request) -> Script:
    """A site of its own: a page, and the module in a copy."""
    if request.path.endswith(".js"):
        return whole(MODULE.read_text(encoding="utf-8"), content_type="text/javascript")
    return whole("<p>A page", content_type="text/html")


async def test_a_page_of_another_origin_may_ask_if_it_is_named(
    tmp_path: Path, browser: Browser
) -> None:
    async with ScriptedUpstream(other_site) as other:
        named = {"cors_origins": [other.base_url]}
        async with Deployment(tmp_path, server=named) as site:
            page = await browser.new_page()
            await page.goto(f"{other.base_url}/page")
            question = site.answers(*completion(*WORDS))
            told = await page.evaluate(ASK, [site.server.url, question])
            assert told.pop("run")
            assert told == WHOLE
