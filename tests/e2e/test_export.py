"""A conversation as a file."""

import asyncio
import json

from tests.e2e.browser import Tab, expect
from tests.e2e.scripts import END, SOURCES, text
from tests.support.server import Deployment
from tests.support.upstream_server import Wire


async def saved(tab: Tab, kind: str) -> tuple[str, str]:
    """The name and the content of the file that the menu gives."""
    await tab.find(".bar").get_by_role("button", name="More").click()
    async with tab.page.expect_download() as waiting:
        await tab.page.get_by_role("menuitem", name=f"Export as {kind}").click()
    download = await waiting.value
    path = await download.path()
    return download.suggested_filename, await asyncio.to_thread(path.read_text, "utf-8")


async def begin(tab: Tab, site: Deployment) -> list[str]:
    """A conversation with a whole answer and one that broke off."""
    questions = [
        site.answers(SOURCES, text("**Kelp** holds [ID:0], 海带 [ID:1]."), *END),
        site.answers(text("Half an ans"), Wire.CLOSE),
    ]
    await tab.ask(questions[0])
    await expect(tab.ending).to_have_text("Complete")
    await tab.ask(questions[1])
    await expect(tab.ending).to_contain_text("Interrupted")
    return questions


async def test_as_markdown(tab: Tab, site: Deployment) -> None:
    first, second = await begin(tab, site)
    name, written = await saved(tab, "Markdown")
    assert name == f"{first.replace(' ', '-').removesuffix('?')}.md"
    assert written.startswith(f"# {first}\n")
    parts = [part.partition("\n\n")[2].strip() for part in written.split("\n## ")[1:]]
    answer = "**Kelp** holds [1], 海带 [2].\n\n[1] kelp.md  \n[2] [tides.md](<https://sea.example/tides>)"
    assert parts[:3] == [first, answer, second]
    told = "Interrupted – The service broke off in the middle. What had arrived is kept."
    assert parts[3] == f"Half an ans\n\n*{told}*"


async def test_as_json_it_is_all_that_the_server_has(tab: Tab, site: Deployment) -> None:
    await begin(tab, site)
    name, written = await saved(tab, "JSON")
    assert name.endswith(".json")
    assert json.loads(written) == {
        "session": (await site.server.get(f"/api/v1/sessions/{tab.session}")).json,
        "messages": await tab.messages(),
    }


async def test_a_hostile_title_is_a_plain_file_name(tab: Tab, site: Deployment) -> None:
    await tab.ask("../../etc/passwd\u202e\x07 <b>*.exe")
    await expect(tab.ending).to_have_text("Complete")
    name, _ = await saved(tab, "JSON")
    assert name == "etc-passwd-b-exe.json"
