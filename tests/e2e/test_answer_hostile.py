"""A hostile answer, passage, name or address does nothing: it is shown as the text that it is.

Everything goes through the real server into the real page. What a page can be made to do would be
seen: `alert`, errors and violations of the policy are complaints, and every request is noted.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.e2e.scripts import END, text
from tests.support.server import Deployment
from tests.support.upstream_server import completion_chunk

EVIL = "https://evil.example"

HTML = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    f'<img src="{EVIL}/1.png" width=100000 height=100000>',
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    f"<iframe src={EVIL}></iframe><iframe srcdoc='<script>alert(1)</script>'></iframe>",
    f'<form action="{EVIL}"><input name=attributes><button>Go</button></form>',
    f"<style>* {{ display: none; background: url({EVIL}/css) }}</style>",
    '<div style="position: fixed; inset: 0; background: red">x</div>',
    '<a href="javascript:alert(1)">x</a><a href="data:text/html,x">x</a>',
    f'<a href="{EVIL}" target="_self" onclick="alert(1)">x</a>',
    f'<meta http-equiv=refresh content="0;url={EVIL}"><base href="{EVIL}/">',
    f"<link rel=stylesheet href={EVIL}/css><object data={EVIL}></object><embed src={EVIL}>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<img name=getElementById><a id=question></a><form id=live name=body></form>",
    "<math><mtext><table><mglyph><style><!--</style>"
    "<img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<template><script>alert(1)</script></template>"
    "<noscript><p title='</noscript><script>alert(1)'>",
    f"<video src={EVIL}/v autoplay onerror=alert(1)></video><audio src={EVIL}/a autoplay>",
    "<textarea autofocus onfocus=alert(1)></textarea><input autofocus onfocus=alert(1)>",
    "<dialog open>x</dialog><div popover id=x>y</div><button popovertarget=x>z</button>",
    '<button class="mark" data-ordinal="1">[1]</button>',
    '<figure class="code"><code>x</code></figure><span class="dots"></span>',
    "<!--><img src=x onerror=alert(1)>--><![CDATA[<img src=x onerror=alert(1)>]]>",
    "<scr<script>ipt>alert(1)</scr</script>ipt><<img src=x onerror=alert(1)>>",
    "<x\u0000 onclick=alert(1)></x\u2028><img\u000bsrc=x\u000conerror=alert(1)>",
    "<a\thref='java\nscript:alert(1)'>x</a>",
    "</p></article></main><h1>free</h1>",
]
LINKS = [
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](\u0001javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:alert(1)) [x](file:///etc/passwd) [x](blob:x) [x](about:blank)",
    "[x](//evil.example/a) [x](/api/v1/sessions) [x](#question) [x](../x)",
    "<javascript:alert(1)> <data:text/html,x> <mailto:a@b.example>",
    "www.evil.example/a a@b.example",
    "[x][1]\n\n[1]: javascript:alert(1)",
    f'[x]({EVIL} "onmouseover=alert(1)") [x]({EVIL}/" onmouseover="alert(1))',
    f"[<img src=x onerror=alert(1)>]({EVIL})",
    f"[a]({EVIL}/`'\"<>\\)",
]
IMAGES = [
    f"![x]({EVIL}/1.png) ![]({EVIL}/2.png) [![x]({EVIL}/3.png)]({EVIL})",
    '![x](javascript:alert(1)) ![x](data:image/svg+xml,<svg onload="alert(1)">)',
    f'!["><img src=x onerror=alert(1)>]({EVIL}/4.png)',
    f"![x][i]\n\n[i]: {EVIL}/5.png",
]
CODE = [
    "```html\n<script>alert(1)</script><img src=x onerror=alert(1)>\n```",
    '```"><img src=x onerror=alert(1)>\n</code></pre><script>alert(1)</script>\n```',
    "```js onload=alert(1)\nconst a = '</span><img src=x onerror=alert(1)>';\n```",
    "`<img src=x onerror=alert(1)>` ``</code><script>alert(1)</script>``",
    "```__proto__\nx\n```\n```constructor\ny\n```",
]
OTHERS = [
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <script>alert(1)</script> | `<b>` |",
    "# <img src=x onerror=alert(1)>\n\n- <script>alert(1)</script>\n\n> <svg onload=alert(1)>",
    "\ufdd00\ufdd1 [\ufdd00\ufdd1] [\ufdd0999\ufdd1] \ufdd2",
    "[ID:99999999999999999999] [ID:-1] [1] [[1]] [1](javascript:alert(1))",
    "__proto__ constructor [constructor] ![toString][toString]",
    "\u202eevil\u202c \u2066x\u2069 \u200b " + "Z\u0351\u0352" * 200,
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "a" * 5000 + "\n\n" + "*" * 3000 + "\n\n" + "[" * 3000 + "\n\n" + "> " * 500 + "x",
]
ANSWERS = [*HTML, *LINKS, *IMAGES, *CODE, *OTHERS]

ALLOWED = {
    *("P", "BR", "HR", "H3", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "STRONG", "EM"),
    *("DEL", "CODE", "PRE", "A", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD"),
    *("FIGURE", "FIGCAPTION", "BUTTON", "SPAN", "DIV"),
}
LOOK = """
() => {
  const all = [...document.querySelectorAll(".prose *, .passage *, .thoughts *, .pages *")];
  return {
    tags: [...new Set(all.map((node) => node.tagName))],
    attributes: [...new Set(all.flatMap((node) => node.getAttributeNames()))],
    links: [...document.querySelectorAll("article a, .card a, dialog a")].map(
      (link) => [link.href, link.target, link.rel],
    ),
    ids: all.filter((node) => node.id || node.getAttribute("name")).length,
    buttons: all.filter((node) => node.tagName === "BUTTON").map((node) => node.className),
    wide: document.documentElement.scrollWidth - innerWidth,
    clobbered: typeof document.getElementById !== "function" || !document.body.append,
  };
}
"""


class Noted:
    """A tab, and the requests that it made to anybody but its server."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.foreign: list[str] = []
        tab.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self.tab.site.server.url):
            self.foreign.append(request.url)

    async def assert_harmless(self) -> None:
        """Nothing but what the renderer makes is in the page, and nobody was asked for anything."""
        found = await self.tab.page.evaluate(LOOK)
        assert set(found["tags"]) <= ALLOWED
        assert set(found["attributes"]) <= {
            *("href", "target", "rel", "class", "start", "type", "disabled", "tabindex", "role"),
            *("aria-label", "data-ordinal", "aria-expanded"),
        }
        for url, target, rel in found["links"]:
            assert url.startswith(("https://", "http://")), url
            assert not url.startswith(self.tab.site.server.url), url
            assert target == "_blank"
            assert "noopener" in rel.split()
        assert found["ids"] == 0
        assert set(found["buttons"]) <= {"mark", "copy-code"}
        assert found["wide"] <= 0
        assert not found["clobbered"]
        assert self.foreign == []


@pytest.fixture
async def noted(browser: Browser, site: Deployment) -> AsyncIterator[Noted]:
    async with Tab.open(browser, site) as tab:
        yield Noted(tab)


def script(answer: str) -> list[bytes]:
    """The answer, in reasoning, in pieces of text, and once more at one go."""
    pieces = [answer[at : at + 7] for at in range(0, min(len(answer), 700), 7)]
    reasoning = completion_chunk(reasoning_content=answer)
    return [reasoning, *map(text, pieces), text(answer[700:] + "\n\n" + answer), *END]


@pytest.mark.timeout(300)
async def test_no_answer_does_anything(noted: Noted, site: Deployment) -> None:
    """Each live, and then from the store."""
    tab = noted.tab
    for answer in ANSWERS:
        await tab.find(".new").click()
        await expect(tab.find("#empty")).to_be_visible()
        await tab.ask(site.answers(*script(answer)))
        await expect(tab.ending).to_have_text("Complete")
        await tab.find(".reasoning summary").click()
        await noted.assert_harmless()
        await tab.page.reload()
        await expect(tab.ending).to_have_text("Complete")
        await noted.assert_harmless()


@pytest.mark.parametrize("answer", [HTML[0], HTML[1], HTML[20]])
async def test_is_shown_as_the_text_that_it_is(answer: str, noted: Noted, site: Deployment) -> None:
    await noted.tab.ask(site.answers(text(answer), *END))
    await expect(noted.tab.ending).to_have_text("Complete")
    await expect(noted.tab.prose).to_have_text(answer)


NAMES = [*HTML[:12], "\u202egpj.exe\u202c\u2066", "a" * 3000, "line\nbreak", "", "../../etc/passwd"]
URLS = [
    *("javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "//evil.example", "/x"),
    *(" javascript:alert(1)", "java\nscript:alert(1)", "file:///etc/passwd", "https://", "x"),
    *(f'{EVIL}/"><img src=x onerror=alert(1)>', f"{EVIL}/\u202egpj", EVIL),
]


def references() -> list[dict[str, Any]]:
    return [
        {
            "id": f'c{number}"><img src=x onerror=alert(1)>',
            "content": ANSWERS[number % len(ANSWERS)],
            "document_id": NAMES[number % len(NAMES)],
            "document_name": NAMES[number % len(NAMES)],
            "url": URLS[number % len(URLS)],
            "similarity": "<b>",
        }
        for number in range(max(len(NAMES), len(URLS)))
    ]


async def test_no_source_does_anything(noted: Noted, site: Deployment) -> None:
    tab, items = noted.tab, references()
    cited = " ".join(f"[ID:{number}]" for number in range(len(items)))
    await tab.ask(site.answers(completion_chunk(reference=items), text(cited), *END))
    await expect(tab.ending).to_have_text("Complete")
    await expect(tab.sources).to_have_count(len(items))
    for number in range(len(items)):
        await tab.sources.nth(number).locator("summary").click()
        await tab.find(".mark").nth(number).click()
        await expect(tab.find(".card")).to_be_visible()
        await noted.assert_harmless()
        await tab.page.keyboard.press("Escape")
    names = await tab.find(".sources .name").all_inner_texts()
    for name in names:
        assert not set(name) & set("\u202e\u202c\u2066\n")
        assert len(name) <= 201


async def test_no_document_does_anything(browser: Browser, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    body = "\n\n".join(["# <img src=x onerror=alert(1)>", "Kelp holds fast.", *ANSWERS])
    for name in ("<img src=x onerror=alert(1)>.md", "plain.txt"):
        (docs / name).write_text(body.replace("\0", ""), encoding="utf-8")
    library = {"kind": "library", "path": str(docs), "pace": 0}
    async with (
        Deployment(tmp_path, upstreams={"docs": library}, router={"default": "docs"}) as site,
        Tab.open(browser, site) as tab,
    ):
        noted = Noted(tab)
        await tab.ask("What does kelp do?")
        await expect(tab.ending).to_have_text("Complete")
        for number in range(await tab.sources.count()):
            source = tab.sources.nth(number)
            await source.locator("summary").click()
            await source.get_by_role("button", name="Read it in the document").click()
            await expect(tab.find("dialog .part").first).to_be_attached()
            await noted.assert_harmless()
            await tab.page.keyboard.press("Escape")
            await expect(tab.find("dialog.document")).to_have_count(0)


ERRORS = [HTML[0], HTML[1], "[x](javascript:alert(1))", "\u202eevil"]


@pytest.mark.parametrize("told", ERRORS)
async def test_no_error_or_tool_does_anything(told: str, noted: Noted, site: Deployment) -> None:
    call = {"index": 0, "id": told, "function": {"name": told, "arguments": told}}
    await noted.tab.ask(site.answers(completion_chunk(tool_calls=[call]), text("Kelp."), *END))
    await expect(noted.tab.ending).to_have_text("Complete")
    await noted.tab.find(".answer .tools summary").click()
    await noted.assert_harmless()
