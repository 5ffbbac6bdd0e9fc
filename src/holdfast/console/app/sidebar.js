// The conversations at the side.

import { html, pure, useEffect, useLayoutEffect, useRef } from "./html.js";
import { icon } from "./icons.js";
import { focusQuestion } from "./keys.js";
import { Menu } from "./menu.js";
import { newConversation } from "./navigate.js";
import { grouped, listMore, rename, search } from "./sessions.js";
import { isNarrow } from "./screen.js";
import { currentTitle, set } from "./state.js";
import { say } from "./words.js";

const Brand = () => html`
  <span class="brand"><img src="icon.svg" alt="" width="24" height="24" />Holdfast</span>
`;

export const menuItems = (session) => [
  { icon: "edit", label: say("rename"), act: () => set({ renaming: session.id, side: isNarrow() }) },
  { icon: "trash", label: say("delete"), act: () => set({ deleting: session }), danger: true },
];

function Rename({ session }) {
  const input = useRef();
  useLayoutEffect(() => input.current.select(), []); // before the next key
  const done = () => rename(session.id, input.current?.value ?? "");
  const onKey = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter") done();
    if (event.key !== "Escape") return;
    event.preventDefault();
    input.current.value = "";
    done();
  };
  return html`
    <input ref=${input} class="rename" aria-label=${say("name")} maxlength="500" defaultValue=${session.title ?? ""}
           onKeyDown=${onKey} onBlur=${done} />
  `;
}

/** The conversation on the page is renamed, but not among those that are listed. */
function RenameApart({ id }) {
  const leave = () => document.activeElement.matches("body, .rename") && focusQuestion();
  useLayoutEffect(() => leave, []);
  return html`<ul><li><${Rename} session=${{ id, title: currentTitle() }} /></li></ul>`;
}

/** The focus goes to the entry's link when its name was typed and Enter or Escape has ended that. */
function useRenameFocus(renaming) {
  const link = useRef();
  const was = useRef(false);
  useEffect(() => {
    if (was.current && !renaming && document.activeElement === document.body) link.current.focus();
    was.current = renaming;
  }, [renaming]);
  return link;
}

const Entry = pure(({ session, title, live, here, renaming }) => {
  const name = title ?? say("untitled");
  const link = useRenameFocus(renaming);
  if (renaming) return html`<li><${Rename} session=${session} /></li>`;
  return html`
    <li class=${live ? "live" : ""}>
      <a ref=${link} href=${`#${session.id}`} aria-current=${here ? "page" : null} title=${name} dir="auto"
         onClick=${() => set({ side: false })}>
        ${live && html`<span class="pulse" role="img" aria-label=${say("live")}></span>`}${name}
      </a>
      <${Menu} label=${say("more_about", name)} items=${menuItems(session)} />
    </li>
  `;
});

function Search({ query }) {
  const onKey = (event) => {
    if (event.key !== "Escape" || !query) return;
    event.preventDefault(); // the answer that is being written goes on
    search("");
  };
  return html`
    <div class="search">
      ${icon("search")}
      <input id="search" type="search" autocomplete="off" spellcheck="false" maxlength="200" placeholder=${say("search")}
             aria-label=${say("search")} value=${query} onInput=${(event) => search(event.target.value)} onKeyDown=${onKey} />
    </div>
  `;
}

function Groups({ sessions, here, renaming }) {
  return grouped(sessions).map(
    ([heading, items]) => html`
      <section key=${heading} aria-label=${heading}>
        <h2>${heading}</h2>
        <ul>
          ${items.map(
            (item) => html`
              <${Entry} key=${item.id} session=${item} title=${item.title} live=${item.live_run_id !== null}
                        here=${item.id === here} renaming=${item.id === renaming} />
            `,
          )}
        </ul>
      </section>
    `,
  );
}

/** Calls for the next page when the end of the list comes into view. */
function End({ next }) {
  const node = useRef();
  useEffect(() => {
    const observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && listMore(), {
      root: node.current.closest("nav"),
      rootMargin: "200px",
    });
    observer.observe(node.current);
    return () => observer.disconnect();
  }, [next]);
  return html`<div ref=${node} class="end"></div>`;
}

const nothing = (query) => (query ? say("nothing_found", query) : say("no_conversations"));

export const Sidebar = pure(({ items, next, query, loaded, here, renaming }) => {
  const isApart = renaming && !items.some(({ id }) => id === renaming);
  const list = html`<${Groups} sessions=${items} here=${here} renaming=${renaming} />`;
  return html`
    <div class="top">
      <${Brand} />
      <button type="button" class="icon-button close" aria-label=${say("close_list")}
              onClick=${() => set({ side: false })}>${icon("close")}</button>
    </div>
    <a class="new" href="#" onClick=${newConversation}>${icon("plus")}<span>${say("new")}</span></a>
    <${Search} query=${query} />
    <nav id="sessions" aria-label=${say("conversations")}>
      ${isApart && html`<${RenameApart} id=${renaming} />`}
      ${items.length > 0 ? list : loaded && html`<p class="nothing">${nothing(query)}</p>`}
      ${next && html`<${End} next=${next} />`}
    </nav>
    <button type="button" class="help" onClick=${() => set({ help: true })}>${say("shortcuts")}</button>
  `;
});
