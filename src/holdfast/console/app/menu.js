// A button with a menu: what can be done with a conversation.

import { html, useRef, useState } from "./html.js";
import { icon } from "./icons.js";

let made = 0;

const ROOM = 180; // pixels that a menu needs below its button

/** `items` are `{icon, label, act, danger}`. */
export function Menu({ label, items }) {
  const [shown, show] = useState(false);
  const [button, menu] = [useRef(), useRef()];
  const [id] = useState(() => `menu-${(made += 1)}`);
  const onBeforeToggle = ({ newState }) => {
    if (newState === "open") place(menu.current, button.current.getBoundingClientRect());
  };
  const onToggle = ({ newState }) => {
    show(newState === "open");
    if (newState === "open") menu.current.querySelector("button").focus();
  };
  const choose = (act) => {
    menu.current.hidePopover();
    act();
  };
  return html`
    <button ref=${button} type="button" class="icon-button" popovertarget=${id} aria-haspopup="menu"
            aria-expanded=${shown} aria-label=${label} title=${label}>${icon("more")}</button>
    <div ref=${menu} id=${id} class="menu" popover="auto" role="menu" aria-label=${label}
         onBeforeToggle=${onBeforeToggle} onToggle=${onToggle} onKeyDown=${move}>
      ${items.map(
        (item) => html`
          <button type="button" role="menuitem" tabindex="-1" class=${item.danger ? "danger" : ""}
                  onClick=${() => choose(item.act)}>${icon(item.icon)}${item.label}</button>
        `,
      )}
    </div>
  `;
}

function place(menu, { top, bottom, right }) {
  const below = bottom + ROOM < window.innerHeight;
  menu.style.right = `${Math.max(8, document.documentElement.clientWidth - right)}px`;
  menu.style.top = below ? `${bottom + 4}px` : "auto";
  menu.style.bottom = below ? "auto" : `${window.innerHeight - top + 4}px`;
}

const STEPS = { ArrowDown: 1, ArrowUp: -1 };

/** Arrow keys, Home and End go through the menu; Tab leaves it. */
function move(event) {
  const items = [...event.currentTarget.querySelectorAll("button")];
  const at = items.indexOf(document.activeElement);
  let next;
  if (event.key in STEPS) next = (at + STEPS[event.key] + items.length) % items.length;
  else if (event.key === "Home") next = 0;
  else if (event.key === "End") next = items.length - 1;
  else if (event.key === "Tab") event.currentTarget.hidePopover();
  if (next === undefined) return;
  event.preventDefault();
  items[next].focus();
}
