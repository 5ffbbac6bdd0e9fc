// The card of a citation: the passage, its document, its score, where it leads.
//
//     hover, focus ──► shown ──► gone with the pointer or the focus
//     click, Enter, tap ──► kept, the focus in it ──► Escape, a click elsewhere
//
// There is one card on the page; on narrow screens it is a sheet at the bottom.

import { html, render } from "../html.js";
import { icon } from "../icons.js";
import { nameOf, Passage, SourceFoot } from "./sources.js";
import { say } from "./words.js";

const OPEN_MS = 120;
const CLOSE_MS = 220;
const GAP = 8;

let card = null;
let shown = null; // {mark, reference, answer, actions, isKept}
let timer = 0;
let isGivenBack = false; // while the focus goes back to a mark: that is no wish to see the card

function make() {
  card = document.createElement("div");
  card.className = "card";
  card.popover = "manual";
  card.setAttribute("role", "dialog");
  card.addEventListener("pointerenter", () => clearTimeout(timer));
  card.addEventListener("pointerleave", () => later(hideUnlessKept, CLOSE_MS));
  document.body.append(card);
  document.addEventListener("keydown", onKey, true);
  document.addEventListener("pointerdown", onPointerDown, true);
  document.addEventListener("scroll", onScroll, { capture: true, passive: true });
  window.addEventListener("resize", () => hide());
}

function later(act, ms) {
  clearTimeout(timer);
  timer = setTimeout(act, ms);
}

function show(wanted) {
  if (!card) make();
  clearTimeout(timer);
  if (shown?.mark !== wanted.mark) shown?.mark.removeAttribute("aria-expanded");
  shown = { ...wanted, isKept: wanted.isKept || (shown?.mark === wanted.mark && shown.isKept) };
  card.setAttribute("aria-label", say("source", wanted.reference.ordinal));
  render(html`<${Card} key=${wanted.reference.ordinal} ...${shown} />`, card);
  wanted.mark.setAttribute("aria-expanded", "true");
  if (!card.matches(":popover-open")) card.showPopover();
  place();
}

function Card({ reference, answer, actions, isKept }) {
  return html`
    <header>
      <span class="ordinal">${reference.ordinal}</span>
      <strong class="name" dir="auto">${nameOf(reference)}</strong>
      ${isKept &&
      html`<button type="button" class="icon-button" aria-label=${say("close")} onClick=${() => hide(true)}>
        ${icon("close")}
      </button>`}
    </header>
    <${Passage} reference=${reference} />
    <${SourceFoot} reference=${reference} answer=${answer} actions=${actions} />
  `;
}

/** Put the card below its mark, or above it where there is more room. */
function place() {
  const mark = shown.mark.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const isBelow = mark.bottom + GAP + height <= innerHeight || mark.top < innerHeight - mark.bottom;
  const top = isBelow ? mark.bottom + GAP : mark.top - GAP - height;
  card.style.left = `${Math.max(GAP, Math.min(mark.left - 24, innerWidth - width - GAP))}px`;
  card.style.top = `${Math.max(GAP, top)}px`;
}

function hide(isByHand = false) {
  clearTimeout(timer);
  if (!shown) return;
  const { mark } = shown;
  const hadFocus = card.contains(document.activeElement);
  shown = null;
  mark.removeAttribute("aria-expanded");
  card.hidePopover();
  render(null, card);
  isGivenBack = true;
  if (isByHand || hadFocus) mark.focus({ preventScroll: true });
  isGivenBack = false;
}

const hideUnlessKept = () => !shown?.isKept && hide();

function onKey(event) {
  if (event.key !== "Escape" || !shown || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  event.stopPropagation();
  hide(shown.isKept);
}

function onPointerDown(event) {
  if (shown && !card.contains(event.target) && !shown.mark.contains(event.target)) hide();
}

function onScroll(event) {
  if (!shown || card.contains(event.target)) return;
  const { top, bottom } = shown.mark.getBoundingClientRect();
  if (bottom < 0 || top > innerHeight || !shown.mark.isConnected) hide();
  else place();
}

/** Open the card as a click does: it stays, and the focus goes into it. */
function keep(wanted) {
  if (shown?.mark === wanted.mark && shown.isKept) return hide(true);
  show({ ...wanted, isKept: true });
  card.querySelector(".passage").focus({ preventScroll: true });
  return undefined;
}

/** What the marks in a text do; `find` gives the reference of an ordinal, and whose it is. */
export function markListeners(find) {
  const about = (event, then) => {
    const mark = event.target.closest?.(".mark");
    const found = mark && !mark.disabled && find(Number(mark.dataset.ordinal));
    if (found) then({ mark, ...found });
  };
  return {
    onPointerOver: (event) =>
      event.pointerType === "mouse" && about(event, (wanted) => !shown?.isKept && later(() => show(wanted), OPEN_MS)),
    onPointerOut: (event) => about(event, () => later(hideUnlessKept, CLOSE_MS)),
    onFocusIn: (event) =>
      about(event, (wanted) => !isGivenBack && !shown && wanted.mark.matches(":focus-visible") && show(wanted)),
    onFocusOut: (event) => about(event, () => later(hideUnlessKept, CLOSE_MS)),
    onClick: (event) => about(event, keep),
  };
}
