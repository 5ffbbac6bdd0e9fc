// The page as a whole: the list at the side, the conversation, the composer.

import { Composer, Door } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Dialogs } from "./dialogs.js";
import { exportSession } from "./export.js";
import { html, pure, useEffect, useRef } from "./html.js";
import { icon } from "./icons.js";
import { Menu } from "./menu.js";
import { newConversation } from "./navigate.js";
import { menuItems, Sidebar } from "./sidebar.js";
import { isNarrow } from "./screen.js";
import { set, currentTitle } from "./state.js";
import { say } from "./words.js";

const exports = (id) => [
  { icon: "download", label: say("export_markdown"), act: () => exportSession(id, "md") },
  { icon: "download", label: say("export_json"), act: () => exportSession(id, "json") },
];

const Bar = pure(({ id, title, side }) => {
  const session = { id, title };
  const name = title ?? say("untitled");
  return html`
    <header class="bar">
      <button id="menu" type="button" class="icon-button narrow" aria-controls="side" aria-expanded=${side}
              aria-label=${say("conversations")} onClick=${() => set({ side: !side })}>${icon("menu")}</button>
      ${id ? html`<h1 class="title" dir="auto">${name}</h1>` : html`<span class="title"></span>`}
      ${id && html`<${Menu} label=${say("more")} items=${[...exports(id), ...menuItems(session)]} />`}
      <a class="icon-button narrow" href="#" aria-label=${say("new")} onClick=${newConversation}>${icon("plus")}</a>
    </header>
  `;
});

const toQuestion = (event) => {
  event.preventDefault();
  document.querySelector("#question, #key").focus();
};

/** The focus goes into the list when that opens over the page, and back when it closes. */
function useSideFocus(side) {
  const was = useRef(false);
  useEffect(() => {
    const list = document.getElementById("side");
    const isInside = list.contains(document.activeElement) || document.activeElement === document.body;
    if (side && isNarrow()) list.querySelector(".close").focus();
    else if (was.current && isInside) document.getElementById("menu").focus();
    was.current = side;
  }, [side]);
}

export function Page({ state }) {
  const { sessions, session, side, door, deleting, help, renaming } = state;
  const { items, next, query, loaded } = sessions;
  useSideFocus(side);
  return html`
    <a class="skip" href="#question" onClick=${toQuestion}>${say("skip")}</a>
    <aside id="side" class=${side ? "open" : ""} aria-label=${say("conversations")}>
      <${Sidebar} items=${items} next=${next} query=${query} loaded=${loaded} here=${session} renaming=${renaming} />
    </aside>
    <div class="veil" hidden=${!side} onClick=${() => set({ side: false })}></div>
    <main aria-label=${say("conversation")} inert=${side && isNarrow()}>
      <${Bar} id=${session} title=${currentTitle()} side=${side} />
      <${Conversation} state=${state} />
      ${door ? html`<${Door} wrong=${door.wrong} />` : html`<${Composer} state=${state} />`}
    </main>
    <${Dialogs} deleting=${deleting} help=${help} />
  `;
}
