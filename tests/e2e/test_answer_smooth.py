"""An answer streams in smoothly: what the page does for a token does not grow with the answer.

Counts come first, which no busy machine changes: closed blocks are drawn once, and a frame changes
few nodes. Then no task of the page's thread may be long, over 50 ms, at 200 characters a second. A
browser's own `longtask` goes by the clock, so on a machine that has other things to do it tells of
them, too, and repeating the run does not help while they go on. What is asserted is therefore the
processor's time that each task took, from the browser's trace; what `longtask` saw is printed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.e2e.scripts import END, text
from tests.support.server import Deployment

LENGTH = 20_000
PIECE = 10  # characters; 20 pieces a second
RATE = 200
LONG_MS = 50

PROSE = (
    "The tide **comes** and goes [twice a day](https://a.example/b), and `kelp` holds on to "
    "the rock with a *holdfast*, which is no root at all. "
)
LINE = 'def hold_{0}(rock: str = "firm") -> bool:  # line {0}\n    return rock != "loose"\n'
ROW = "| Laminaria {0} | **{0}** m | `strong` |\n"


def filled(unit: str, before: str = "") -> str:
    parts = [before]
    for number in range(LENGTH):
        parts.append(unit.replace("{0}", str(number)))
        if sum(map(len, parts)) >= LENGTH:
            break
    return "".join(parts)[:LENGTH]


KINDS = {
    "paragraph": filled(PROSE),
    "paragraphs": filled(PROSE * 3 + "\n\n"),
    "code": filled(LINE, "```python\n"),
    "table": filled(ROW, "| Species | Depth | Grip |\n|---|---:|---|\n"),
    "list": filled("1. " + PROSE + "\n   - inner **item**\n"),
}

WATCH = """
() => {
  const seen = { long: [], frames: 0, most: 0, total: 0, elements: 0 };
  window.seen = seen;
  new PerformanceObserver((list) => {
    for (const { duration, startTime } of list.getEntries()) seen.long.push([startTime, duration]);
  }).observe({ type: "longtask" });
  let changes = 0;
  const count = (records) => {
    for (const { addedNodes, removedNodes } of records) {
      changes += Math.max(1, addedNodes.length + removedNodes.length);
      for (const node of addedNodes) {
        if (node.nodeType === 1) seen.elements += 1 + node.querySelectorAll("*").length;
      }
    }
  };
  const observer = new MutationObserver(count);
  const options = { childList: true, characterData: true, subtree: true };
  const wait = () => {
    const prose = document.querySelector(".answer .prose");
    if (prose) observer.observe(prose, options);
    else requestAnimationFrame(wait);
  };
  wait();
  const frame = () => {
    count(observer.takeRecords());
    seen.frames += 1;
    seen.most = Math.max(seen.most, changes);
    seen.total += changes;
    changes = 0;
    if (!seen.over) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
"""


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


class Writing:
    """An answer that is being written, and the tab that shows it."""

    def __init__(self, tab: Tab, gates: list[asyncio.Event]) -> None:
        self._tab = tab
        self._gates = gates

    @classmethod
    @asynccontextmanager
    async def of(cls, content: str, browser: Browser, site: Deployment) -> AsyncIterator["Writing"]:
        """Ask for this answer; nothing of it is written yet."""
        pieces = [text(content[at : at + PIECE]) for at in range(0, len(content), PIECE)]
        gates = [asyncio.Event() for _ in pieces]
        steps = [step for pair in zip(gates, pieces, strict=True) for step in pair]
        async with Tab.open(browser, site) as tab:
            await tab.page.evaluate(WATCH)
            await tab.ask(site.answers(*steps, *END))
            yield cls(tab, gates)

    async def go_on(self, length: int, rate: float) -> None:
        """Write so many characters more, at `rate` a second."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        for gate in self._gates[: length // PIECE]:
            at += PIECE / rate
            await asyncio.sleep(max(0.0, at - loop.time()))
            gate.set()
        del self._gates[: length // PIECE]

    async def shows(self, length: int) -> None:
        """Wait until so many characters are on the page."""
        await self._tab.page.wait_for_function(
            "length => document.querySelector('.prose')?.textContent.length >= length", arg=length
        )

    async def end(self) -> dict[str, Any]:
        """Wait for the end; what the browser saw."""
        await expect(self._tab.find(".state.completed")).to_be_attached(timeout=60_000)
        seen: dict[str, Any] = await self._tab.page.evaluate(
            """() => {
              seen.over = true;
              const prose = document.querySelector(".answer .prose");
              const [now, shown] = [prose.querySelectorAll("*").length, prose.textContent.length];
              return { ...seen, now, shown };
            }"""
        )
        return seen


SLOW = pytest.mark.slow
"""`make soak` plays these, too; each takes as long as its answer does."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in ("paragraph", "table") else SLOW) for kind in KINDS],
)
async def test_a_frame_changes_few_nodes_however_long_the_answer_is(
    kind: str, browser: Browser, site: Deployment
) -> None:
    """Ten times as fast as a model writes: a frame has more to do, and still little."""
    async with Writing.of(KINDS[kind], browser, site) as writing:
        await writing.go_on(LENGTH, 10 * RATE)
        seen = await writing.end()
    print(kind, {name: value for name, value in seen.items() if name != "long"})
    assert seen["shown"] > LENGTH / 2
    # What is open may be drawn some times. If all were drawn at each of the 2,000 pieces, it would
    # be a thousand times as much.
    assert seen["elements"] < 4 * seen["now"] + 300
    assert seen["total"] < 4 * (LENGTH / PIECE) + seen["now"]
    assert seen["most"] < 150


class Trace:
    """The tasks of the pages' threads, as the browser recorded them."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._events: list[dict[str, Any]] = []
        self._complete = asyncio.Event()
        session.on("Tracing.dataCollected", lambda told: self._events.extend(told["value"]))
        session.on("Tracing.tracingComplete", lambda _: self._complete.set())

    @classmethod
    @asynccontextmanager
    async def of(cls, browser: Browser) -> AsyncIterator["Trace"]:
        """Record while the block runs."""
        trace = cls(await browser.new_browser_cdp_session())
        config = {"includedCategories": ["toplevel"], "recordMode": "recordAsMuchAsPossible"}
        await trace._session.send("Tracing.start", {"traceConfig": config})
        yield trace
        await trace._session.send("Tracing.end")
        await trace._complete.wait()
        await trace._session.detach()

    def tasks(self) -> list[float]:
        """How much of the processor's time each task took, in milliseconds; not the test's own."""
        mains = {
            (event["pid"], event["tid"])
            for event in self._events
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        here = [event for event in self._events if (event["pid"], event["tid"]) in mains]
        ours = [event["ts"] for event in here if _is_instrument(event)]
        return [
            event["tdur"] / 1000
            for event in here
            if event["name"].endswith("RunTask") and "tdur" in event
            if not any(event["ts"] <= at <= event["ts"] + event["dur"] for at in ours)
        ]


def _is_instrument(event: dict[str, Any]) -> bool:
    """Whether the test asked the page for something."""
    message = event.get("args", {}).get("chrome_mojo_event_info", {})
    return str(message.get("mojo_interface_tag", "")).startswith("blink.mojom.DevTools")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kind",
    ["code", pytest.param("paragraph", marks=SLOW), pytest.param("table", marks=SLOW)],
)
async def test_no_task_is_long_at_the_pace_of_a_model(
    kind: str, browser: Browser, site: Deployment
) -> None:
    """The last fifth is looked at, with most on the page, and the end with its colours."""
    async with Writing.of(KINDS[kind], browser, site) as writing:
        await writing.go_on(4 * LENGTH // 5, 10 * RATE)
        await writing.shows(4 * LENGTH // 10)
        async with Trace.of(browser) as trace:
            await writing.go_on(LENGTH, RATE)
            seen = await writing.end()
    tasks = sorted(trace.tasks())
    print(kind, "tasks:", len(tasks), "longest (ms):", [round(task) for task in tasks[-8:]])
    print(kind, "by the clock (ms):", [round(duration) for _, duration in seen["long"]])
    assert len(tasks) > 100
    assert tasks[-1] <= LONG_MS
