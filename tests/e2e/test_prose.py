"""How the page renders an answer's text: Markdown to nodes, piece by piece."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.browser import Browser, Tab
from tests.support.server import Deployment

RENDER = """
async (pieces) => {
  const { Prose } = await import("/app.js");
  const prose = new Prose((ordinal, label) => `{${ordinal}:${label}}`);
  for (const [text, marks] of pieces) {
    prose.add(text, marks);
    prose.draw();
  }
  return prose.node.innerHTML;
}
"""


@pytest.fixture(scope="module")
async def tab(browser: Browser, site: Deployment) -> AsyncIterator[Tab]:
    """One page for all: nothing here changes it."""
    async with Tab.open(browser, site) as tab:
        yield tab


async def render(tab: Tab, *pieces: str | tuple[str, list[list[int]]]) -> str:
    """The HTML of an answer that comes in these pieces; a piece may have marks."""
    pairs = [(piece, []) if isinstance(piece, str) else piece for piece in pieces]
    html: str = await tab.page.evaluate(RENDER, [list(pair) for pair in pairs])
    return html


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("One\ntwo\n\nthree", "<p>One\ntwo</p><p>three</p>"),
        ("# Kelp\n## Root", "<h3>Kelp</h3><h4>Root</h4>"),
        ("#Kelp", "<p>#Kelp</p>"),
        ("a **b** *c* `d` e", "<p>a <strong>b</strong> <em>c</em> <code>d</code> e</p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("2 * 3 * 4 and a** b", "<p>2 * 3 * 4 and a** b</p>"),
        ("`**a**`", "<p><code>**a**</code></p>"),
        ("- a\n- b\n\n- c", "<ul><li>a</li><li>b</li><li>c</li></ul>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("- a\n1. b", '<ul><li>a</li></ul><ol start="1"><li>b</li></ol>'),
        ("- a\n\n  b\n\nc", "<ul><li>a<p>b</p></li></ul><p>c</p>"),
        ("> a\n> - b\n>\n> c", "<blockquote><p>a</p><ul><li>b</li></ul><p>c</p></blockquote>"),
        ("> > a", "<blockquote><blockquote><p>a</p></blockquote></blockquote>"),
        ("```js\n# a\n\n> b\n```\nc", '<pre tabindex="0"># a\n\n&gt; b</pre><p>c</p>'),
        ("~~~\na", '<pre tabindex="0">a</pre>'),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("| a | b |\n|---|---|\nc", '<pre tabindex="0">| a | b |\n|---|---|</pre><p>c</p>'),
        ("<b>&amp;</b>", "<p>&lt;b&gt;&amp;amp;&lt;/b&gt;</p>"),
        ("[a](javascript:b)", "<p>[a](javascript:b)</p>"),
        (
            "[a](https://b.example/c)",
            '<p><a href="https://b.example/c" target="_blank" rel="noopener noreferrer">a</a></p>',
        ),
    ],
)
async def test_markdown_becomes_nodes(markdown: str, html: str, tab: Tab) -> None:
    assert await render(tab, markdown) == html


@pytest.mark.parametrize(
    ("text", "marks", "html"),
    [
        ("a [1] b", [[2, 5, 1]], "<p>a {1:[1]} b</p>"),
        ("🌊 [1]", [[2, 5, 1]], "<p>🌊 {1:[1]}</p>"),
        ("> **a [7]**", [[6, 9, 7]], "<blockquote><p><strong>a {7:[7]}</strong></p></blockquote>"),
        ("- a\n- b [2]", [[8, 11, 2]], "<ul><li>a</li><li>b {2:[2]}</li></ul>"),
        ("[1][2]", [[0, 3, 1], [3, 6, 2]], "<p>{1:[1]}{2:[2]}</p>"),
        ("`[1]`", [[1, 4, 1]], "<p><code>[1]</code></p>"),
        ("```\n[1]\n```", [[4, 7, 1]], '<pre tabindex="0">[1]</pre>'),
        ("[1](https://b.example)", [[0, 3, 1]], "<p>{1:[1]}(https://b.example)</p>"),
        ("\ufdd01\ufdd1[1]\ufdd2", [], "<p>1[1]</p>"),
        ("\ufdd0a [1]", [[3, 6, 1]], "<p>a {1:[1]}</p>"),
        ("a", [[0, 9, 1]], "<p>a</p>"),
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

1. One
2. Two

   with more

#### A heading

| a | b |
|---|---|
| 1 | 2 |

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
async (text) => {
  const { Prose } = await import("/app.js");
  const render = (...pieces) => {
    const prose = new Prose();
    for (const piece of pieces) {
      prose.add(piece);
      prose.draw();
    }
    return prose.node.innerHTML;
  };
  const points = Array.from(text);
  const wrong = [];
  for (let end = 0; end <= points.length; end += 1) {
    const part = points.slice(0, end);
    const whole = render(part.join(""));
    if (render(...part) !== whole) wrong.push(part.join(""));
    for (let cut = 0; cut < end; cut += 7) {
      const halves = [part.slice(0, cut).join(""), part.slice(cut).join("")];
      if (render(...halves) !== whole) wrong.push(halves);
    }
  }
  return wrong;
}
"""


async def test_any_pieces_render_as_the_whole(tab: Tab) -> None:
    assert await tab.page.evaluate(EVERY_SPLIT, SAMPLE) == []


async def test_blocks_that_are_finished_stay_the_nodes_that_they_are(tab: Tab) -> None:
    firsts, tail = await tab.page.evaluate(
        """async (pieces) => {
          const { Prose } = await import("/app.js");
          const prose = new Prose();
          const firsts = new Set();
          for (const piece of pieces) {
            prose.add(piece);
            prose.draw();
            firsts.add(prose.node.firstChild);
          }
          return [firsts.size, prose.tail];
        }""",
        ["One.\n", "\n", "Two.\n", *["\n", "More.\n"] * 100],
    )
    assert firsts == 3  # with its own line, with the empty one, with the next block; then no more
    assert tail == "More.\n"


@pytest.mark.parametrize("start", [">", "> ", "- ", "1. ", "**", "*", "[", "`", "#", "|", "```\n"])
async def test_no_nesting_is_too_deep(start: str, tab: Tab) -> None:
    depth = await tab.page.evaluate(
        """async (text) => {
          const { Prose } = await import("/app.js");
          const prose = new Prose();
          prose.add(text);
          prose.draw();
          let depth = 0;
          for (let node = prose.node; node; node = node.lastElementChild) depth += 1;
          return depth;
        }""",
        start * 3000 + "x",
    )
    assert depth < 30
