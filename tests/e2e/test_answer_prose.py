"""How the page renders an answer's text: Markdown to nodes, piece by piece."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.e2e.browser import Browser, Tab
from tests.support.server import Deployment

PROSE = """
const { Prose } = await import("/app/answer/prose.js");
/** An answer that comes in pieces of text, each with marks that count from its own beginning. */
const written = (pieces, known = [1, 2, 7]) => {
  const prose = new Prose(document.createElement("div"));
  prose.know(new Set(known));
  const answer = { text: "", marks: [], rewrites: 0, live: true };
  for (const [text, marks] of pieces) {
    const points = Array.from(answer.text).length;
    answer.text += text;
    answer.marks.push(...marks.map(([start, end, n]) => [start + points, end + points, n]));
    while (!prose.show(answer));
  }
  return [prose, answer];
};
const end = ([prose, answer]) => {
  answer.live = false;
  while (!prose.show(answer));
  return prose.node;
};
const tidy = (node) => {
  for (const mark of node.querySelectorAll(".mark")) {
    const sign = mark.disabled ? "!" : "";
    mark.replaceWith(`{${sign}${mark.dataset.ordinal}:${mark.textContent}}`);
  }
  for (const code of node.querySelectorAll("figure.code")) {
    const pre = document.createElement("pre");
    pre.textContent = code.querySelector("code").textContent;
    code.replaceWith(pre);
  }
  for (const table of node.querySelectorAll("div.table")) table.replaceWith(table.firstChild);
  return node.innerHTML.replaceAll(/ (target|rel)="[^"]*"/g, "");
};
"""


@pytest.fixture(scope="module")
async def tab(browser: Browser, site: Deployment) -> AsyncIterator[Tab]:
    """One page for all: nothing here changes it."""
    async with Tab.open(browser, site) as tab:
        yield tab


async def run(tab: Tab, script: str, argument: Any = None) -> Any:
    """Call `script`, the body of a function of `given`, with the above at hand."""
    return await tab.page.evaluate(f"async (given) => {{ {PROSE} {script} }}", argument)


Piece = str | tuple[str, list[list[int]]]


def pairs(pieces: Sequence[Piece]) -> list[list[Any]]:
    return [[piece, []] if isinstance(piece, str) else list(piece) for piece in pieces]


async def render(tab: Tab, *pieces: Piece) -> str:
    """The HTML of an answer that came in these pieces, without what every link and code has."""
    html: str = await run(tab, "return tidy(end(written(given)));", pairs(pieces))
    return html


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("One\ntwo\n\nthree", "<p>One\ntwo</p><p>three</p>"),
        ("# Kelp\n## Root\ntext", "<h3>Kelp</h3><h4>Root</h4><p>text</p>"),
        ("Kelp\n====\nRoot\n---\ntext", "<h3>Kelp</h3><h4>Root</h4><p>text</p>"),
        ("#Kelp", "<p>#Kelp</p>"),
        ("a **b** *c* `d` e", "<p>a <strong>b</strong> <em>c</em> <code>d</code> e</p>"),
        ("a\\\nb  \nc", "<p>a<br>b<br>c</p>"),
        ("**注意：**先看", "<p><strong>注意：</strong>先看</p>"),
        ("摘自**《茶》**（五）", "<p>摘自<strong>《茶》</strong>（五）</p>"),
        ("2 * 3 * 4 and a** b", "<p>2 * 3 * 4 and a** b</p>"),
        ("`**a**`", "<p><code>**a**</code></p>"),
        ("- a\n- b\n\n- c", "<ul><li>a</li><li>b</li><li>c</li></ul>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("- a\n\t- b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("1. a\n\nb\n\n2. c", '<ol><li>a</li></ol><p>b</p><ol start="2"><li>c</li></ol>'),
        ("- a\n1. b", "<ul><li>a</li></ul><ol><li>b</li></ol>"),
        ("a\n- b\nc", "<p>a</p><ul><li>b\nc</li></ul>"),
        ("a\n2. b", "<p>a\n2. b</p>"),
        ("- [x] a\n- [ ] b", "<ul><li>☑ a</li><li>☐ b</li></ul>"),
        ("- a\n  ```\nb\n  ```\n- c", "<ul><li>a<pre>b</pre></li><li>c</li></ul>"),
        ("> a\n> - b\n>\n> c", "<blockquote><p>a</p><ul><li>b</li></ul><p>c</p></blockquote>"),
        ("a\n> b", "<p>a</p><blockquote><p>b</p></blockquote>"),
        ("```js\n# a\n\n> b\n```\nc", "<pre># a\n\n&gt; b\n</pre><p>c</p>"),
        ("a\n````\n```\n````", "<p>a</p><pre>```\n</pre>"),
        ("~~~\na", "<pre>a</pre>"),
        ("    a", "<pre>a</pre>"),
        ("a\n\n---\n\nb\n\n* * *", "<p>a</p><hr><p>b</p><hr>"),
        (
            "a | b\n:-: | -:\n1 | `2`\nc",
            '<table><thead><tr><th class="center">a</th><th class="right">b</th></tr></thead>'
            '<tbody><tr><td class="center">1</td><td class="right"><code>2</code></td></tr></tbody>'
            "</table><p>c</p>",
        ),
        (
            "text\n| a |\n|---|",
            "<p>text</p><table><thead><tr><th>a</th></tr></thead><tbody></tbody></table>",
        ),
        ("a\nb | c\nd", "<p>a\nb | c\nd</p>"),
        ("<b>&amp;</b>", "<p>&lt;b&gt;&amp;&lt;/b&gt;</p>"),
        ("<!-- a -->\n\n<div>\nb", "<p>&lt;!-- a --&gt;</p><p>&lt;div&gt;\nb</p>"),
        ("[a]: https://b.example", '<p>[a]: <a href="https://b.example">https://b.example</a></p>'),
        ("[a](javascript:b)", "<p>[a](javascript:b)</p>"),
        ("[a](https://b.example/c)", '<p><a href="https://b.example/c">a</a></p>'),
    ],
)
async def test_markdown_becomes_nodes(markdown: str, html: str, tab: Tab) -> None:
    assert await render(tab, markdown) == html


@pytest.mark.parametrize(
    ("text", "marks", "html"),
    [
        ("a [1] b", [[2, 5, 1]], "<p>a {1:[1]} b</p>"),
        ("a [1] b", [], "<p>a [1] b</p>"),
        ("🌊 [1]", [[2, 5, 1]], "<p>🌊 {1:[1]}</p>"),
        ("a [9] b", [[2, 5, 9]], "<p>a {!9:[9]} b</p>"),
        ("> **a [7]**", [[6, 9, 7]], "<blockquote><p><strong>a {7:[7]}</strong></p></blockquote>"),
        ("**要点。**[1]", [[7, 10, 1]], "<p><strong>要点。</strong>{1:[1]}</p>"),
        ("- a\n- b [2]", [[8, 11, 2]], "<ul><li>a</li><li>b {2:[2]}</li></ul>"),
        ("[1][2]", [[0, 3, 1], [3, 6, 2]], "<p>{1:[1]}{2:[2]}</p>"),
        ("`[1]`", [[1, 4, 1]], "<p><code>[1]</code></p>"),
        ("```\n[1]\n```", [[4, 7, 1]], "<pre>[1]\n</pre>"),
        ("- ```\n  [1]\n  ```", [[8, 11, 1]], "<ul><li><pre>[1]</pre></li></ul>"),
        ("[a [1]](https://b.example)", [[3, 6, 1]], '<p><a href="https://b.example">a [1]</a></p>'),
        (
            "[a](https://b.example/[1])",
            [[22, 25, 1]],
            '<p><a href="https://b.example/[1]">a</a></p>',
        ),
        ("\\[1]", [[1, 4, 1]], "<p>[1]</p>"),
        ("x【1†a】", [[1, 6, 1]], "<p>x{1:【1†a】}</p>"),
        ("\ufdd00\ufdd1[1]\ufdd2[\ufdd00\ufdd1]", [], "<p>0[1][0]</p>"),
        ("\ufdd0a [1]", [[3, 6, 1]], "<p>a {1:[1]}</p>"),
        ("a", [[0, 9, 1]], "<p>a</p>"),
        ("ab [1]", [[3, 6, 1], [3, 6, 2], [4, 4, 1], [-1, 2, 1], [5, 2, 1]], "<p>ab {1:[1]}</p>"),
    ],
)
async def test_marks_are_where_the_events_say(
    text: str, marks: list[list[int]], html: str, tab: Tab
) -> None:
    assert await render(tab, (text, marks)) == html


SAMPLE = """Here is what there is – 海带 🌊.

**In short**

- It *holds*.
  - On to `rock`
- It does not feed.

  ```sh
  cd "kelp"
  ```

1. One
2. Two

   with more

#### A heading
Title
-----

| a | b |
|---|---|
| 1 | 2 |
| **3** |
not a row
text
a | b
more

From **Kelp** (Root):

> A holdfast is no root.
> - It grips
>
> ```
> # code
> ```

---
- - -
-- no rule
~~~
- no list
~~~~
* last
+ [end](https://a.example/b)
"""

EVERY_SPLIT = """
const html = (...pieces) => end(written(pieces.map((text) => [text, []]))).innerHTML;
const points = Array.from(given);
const whole = html(given);
const wrong = [];
if (html(...points) !== whole) wrong.push("all");
for (let at = 0; at <= points.length; at += 1) {
  const halves = [points.slice(0, at).join(""), points.slice(at).join("")];
  if (html(...halves) !== whole) wrong.push(halves[0]);
}
return wrong;
"""


async def test_any_pieces_render_as_the_whole(tab: Tab) -> None:
    assert await run(tab, EVERY_SPLIT, SAMPLE) == []


LONG = {
    "prose": "The tide **comes and goes**, and `kelp` [holds](https://a.example/b) fast. ",
    "Chinese": "海带牢牢地**抓住岩石**，潮水来了又去。",
    "no spaces": "海带🌊",
    "never closed": "The *tide (comes [and goes ",
    "a line each": "The tide comes\nand goes, ",
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_paragraph_is_one_paragraph_however_it_comes(name: str, tab: Tab) -> None:
    text = (LONG[name] * 800)[:9000]
    found = await run(
        tab,
        """
        const html = (size) => {
          const pieces = [];
          const points = Array.from(given);
          while (points.length) pieces.push([points.splice(0, size).join(""), []]);
          return end(written(pieces));
        };
        const nodes = [1, 7, 300, 1999, 9000].map(html);
        const [{ childNodes, textContent }] = nodes;
        return [nodes.map((node) => node.innerHTML), childNodes.length, textContent];
        """,
        text,
    )
    htmls, blocks, shown = found
    assert len(set(htmls)) == 1
    assert blocks == 1
    if name in ("no spaces", "never closed"):
        assert shown.strip() == text.strip()
    if name == "prose":
        assert htmls[0].count("<strong>") == text.count("**comes and goes**")
        assert "fast. The tide" in shown
        assert "fast.The" not in shown


async def test_what_is_open_is_not_shown_as_signs(tab: Tab) -> None:
    shown = await run(
        tab,
        """
        const [prose, answer] = written([]);
        const seen = new Set();
        for (const sign of given) {
          answer.text += sign;
          prose.show(answer);
          seen.add(prose.node.textContent);
        }
        return [...seen].filter((text) => /[*`#|>\\]\\[]|https/.test(text));
        """,
        "# Kelp\n\nIt **holds** and `grips` [on](https://a.example/b) fast.\n\n- a **b**\n\n> c",
    )
    assert shown == []


async def test_blocks_that_are_closed_stay_the_nodes_that_they_are(tab: Tab) -> None:
    added, kept, tail = await run(
        tab,
        """
        const [prose, answer] = written([]);
        let added = 0;
        const observer = new MutationObserver((changes) => {
          for (const { addedNodes } of changes) added += addedNodes.length;
        });
        observer.observe(prose.node, { childList: true, subtree: true, characterData: true });
        const firsts = new Set();
        for (const piece of given) {
          answer.text += piece;
          prose.show(answer);
          firsts.add(prose.node.firstChild);
        }
        await Promise.resolve();
        return [added, firsts.size, prose.node.lastChild.textContent];
        """,
        ["One", " two.", "\n", *["\n", "More ", "and more.\n"] * 100],
    )
    assert kept == 1
    assert added == 101
    assert tail == "More and more."


async def test_a_rewritten_text_is_drawn_anew(tab: Tab) -> None:
    assert (
        await run(
            tab,
            """
        const [prose, answer] = written([["Kelp [1] holds", [[5, 8, 1]]]]);
        Object.assign(answer, { text: "Other [2]", marks: [[6, 9, 2]], rewrites: 1 });
        return tidy(end([prose, answer]));
        """,
        )
        == "<p>Other {2:[2]}</p>"
    )


async def test_marks_become_buttons_when_their_source_is_known(tab: Tab) -> None:
    assert await run(
        tab,
        """
        const [prose, answer] = written([["a [1] b [2]", [[2, 5, 1], [8, 11, 2]]]], []);
        const state = () => [...prose.node.querySelectorAll(".mark")].map((mark) => mark.disabled);
        const before = state();
        const [mark] = prose.node.querySelectorAll(".mark");
        prose.know(new Set([1]));
        answer.text += " more";
        prose.show(answer);
        return [before, state(), mark.isConnected || prose.node.contains(mark), mark.ariaLabel];
        """,
    ) == [[True, True], [False, True], True, "Source 1"]


NESTED = [
    ">",
    "> ",
    "- ",
    "1. ",
    "**",
    "*",
    "_",
    "[",
    "![",
    "`",
    "#",
    "|",
    "```\n",
    "~~",
    "<",
    "(",
    "**a",
]


@pytest.mark.parametrize("start", NESTED)
async def test_no_nesting_is_too_deep(start: str, tab: Tab) -> None:
    depth, took = await run(
        tab,
        """
        const started = performance.now();
        const node = end(written([[given, []]]));
        const took = performance.now() - started;
        let depth = 0;
        for (let inner = node; inner; inner = inner.lastElementChild) depth += 1;
        return [depth, took];
        """,
        start * 3000 + "x",
    )
    assert depth < 40
    assert took < 15_000  # far more than it takes, far less than what grows with the square
