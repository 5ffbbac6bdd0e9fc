"""The page without a mouse, and for screen readers."""

import asyncio

import pytest

from tests.e2e.browser import Browser, Tab, expect
from tests.e2e.scripts import END, text
from tests.support.server import Deployment

NAMELESS = """
() => [...document.querySelectorAll("button, a[href], input, select, textarea, summary")]
  .filter((node) => node.checkVisibility())
  .filter((node) => !(node.ariaLabel || node.labels?.length || node.textContent.trim()))
  .map((node) => node.outerHTML)
"""
TO_THE_START = """
() => {
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
}
"""
FOCUSED = """
() => {
  const node = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(node);
  const group = node.closest("aside, .bar, #page, #composer");
  const inField = node.matches("textarea, .search input"); // the field around it shows it
  return {
    name: node.ariaLabel || node.textContent.trim(),
    place: group ? group.id || group.className : node.className,
    seen: inField || (outlineStyle !== "none" && outlineWidth !== "0px"),
  };
}
"""


async def test_everything_has_a_name(tab: Tab, site: Deployment) -> None:
    await tab.ask(site.answers(text("One."), *END))
    await expect(tab.ending).to_have_text("Complete")
    assert await tab.page.evaluate(NAMELESS) == []
    for role, name in (
        ("main", "Conversation"),
        ("complementary", "Conversations"),
        ("navigation", "Conversations"),
    ):
        await expect(tab.page.get_by_role(role, name=name)).to_have_count(1)  # type: ignore[arg-type]
    assert await tab.find("html").get_attribute("lang") == "en"


async def test_the_focus_goes_through_the_page_in_its_order_and_is_seen(
    tab: Tab, site: Deployment
) -> None:
    await tab.ask(site.answers(text("One."), *END))
    await expect(tab.ending).to_have_text("Complete")
    await tab.page.evaluate(TO_THE_START)
    await tab.page.keyboard.press("Tab")
    places: list[str] = []
    for _ in range(40):
        found = await tab.page.evaluate(FOCUSED)
        assert found["seen"], found
        if not places or places[-1] != found["place"]:
            places.append(found["place"])
        if found["name"] == "Ask a question":
            break
        await tab.page.keyboard.press("Tab")
    assert [place for place in places if place != "page"] == ["skip", "side", "bar", "composer"]


async def test_the_first_link_leads_to_the_question(tab: Tab) -> None:
    await expect(tab.find("#empty")).to_be_visible()
    await tab.page.evaluate(TO_THE_START)
    await tab.page.keyboard.press("Tab")
    await expect(tab.find(".skip")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.find("#question")).to_be_focused()


async def test_a_menu_is_used_with_the_arrows_and_gives_the_focus_back(
    tab: Tab, site: Deployment
) -> None:
    await tab.ask(site.answers(text("One."), *END))
    await expect(tab.ending).to_have_text("Complete")
    more = tab.find(".bar").get_by_role("button", name="More")
    await more.focus()
    await tab.page.keyboard.press("Enter")
    items = tab.page.get_by_role("menuitem")
    await expect(items.nth(0)).to_be_focused()
    await expect(more).to_have_attribute("aria-expanded", "true")
    await tab.page.keyboard.press("ArrowUp")
    await expect(items.last).to_be_focused()
    await tab.page.keyboard.press("ArrowDown")
    await expect(items.nth(0)).to_be_focused()
    await tab.page.keyboard.press("Escape")
    await expect(items).to_have_count(0)
    await expect(more).to_be_focused()


async def test_a_conversation_is_deleted_with_the_keyboard_alone(
    browser: Browser, own: Deployment
) -> None:
    await own.server.post("/api/v1/sessions", {"title": "Kelp"})
    async with Tab.open(browser, own) as tab:
        await tab.page.get_by_role("button", name="More about “Kelp”").focus()
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.get_by_role("menuitem", name="Rename")).to_be_focused()
        await tab.page.keyboard.press("End")
        await tab.page.keyboard.press("Enter")
        dialog = tab.page.get_by_role("dialog", name="Delete this conversation?")
        await expect(dialog).to_be_visible()
        await dialog.get_by_role("button", name="Delete").press("Enter")
        await expect(tab.entries).to_have_count(0)


async def test_what_is_announced_is_how_things_stand(tab: Tab, site: Deployment) -> None:
    """Few words, whatever the answer's length."""
    await tab.page.evaluate(
        """() => {
          window.told = [];
          const live = document.getElementById("live");
          new MutationObserver(() => window.told.push(live.textContent))
            .observe(live, { childList: true, characterData: true, subtree: true });
        }"""
    )
    gate = asyncio.Event()
    await tab.ask(site.answers(*(text(f"word {n} ") for n in range(50)), gate, *END))
    await expect(tab.prose).to_contain_text("word 49")
    gate.set()
    await expect(tab.find("#live")).to_have_text("Complete")
    assert await tab.page.evaluate("window.told") == ["Writing", "Complete"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_told_from_its_ground(
    scheme: str, browser: Browser, site: Deployment
) -> None:
    """WCAG AA: 4.5 to 1 for every pair of colours that text is written in."""
    pairs = [
        *(("ink", ground) for ground in ("paper", "side", "card", "soft")),
        *(("quiet", ground) for ground in ("paper", "side", "card", "soft")),
        *(("faint", ground) for ground in ("paper", "side", "card")),
        *(("accent", ground) for ground in ("paper", "card", "soft")),
        *(("on-accent", "accent"), ("warn", "warn-soft"), ("bad", "bad-soft"), ("bad", "card")),
    ]
    async with Tab.open(browser, site, color_scheme=scheme) as tab:
        colours = await tab.page.evaluate(
            """(names) => Object.fromEntries(names.map((name) => [name,
              getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))""",
            sorted({name for pair in pairs for name in pair}),
        )
    low = {
        pair: round(ratio, 2)
        for pair in pairs
        if (ratio := _contrast(colours[pair[0]], colours[pair[1]])) < 4.5
    }
    assert low == {}


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
