// The page's own dialogs: before a conversation is deleted, and the keyboard's shortcuts.

import { html, useEffect, useRef } from "./html.js";
import { icon } from "./icons.js";
import { SHORTCUTS } from "./keys.js";
import { remove } from "./sessions.js";
import { set } from "./state.js";
import { say } from "./words.js";

/** A modal dialog for as long as it is there; Escape and a click beside it close it. */
function Dialog({ name, close, children }) {
  const dialog = useRef();
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  const onClick = (event) => event.target === dialog.current && dialog.current.close();
  return html`
    <dialog ref=${dialog} aria-labelledby=${`${name}-title`} onClose=${close} onClick=${onClick}>
      <div class="inside">${children}</div>
    </dialog>
  `;
}

function ConfirmDelete({ session }) {
  const close = () => set({ deleting: null });
  return html`
    <${Dialog} name="delete" close=${close}>
      <h2 id="delete-title">${say("delete_title")}</h2>
      <p>${say("delete_text", session.title ?? say("untitled"))}</p>
      <div class="form-buttons">
        <button type="button" class="button" onClick=${close}>${say("cancel")}</button>
        <button type="button" class="button danger" onClick=${() => remove(session)}>${say("delete")}</button>
      </div>
    <//>
  `;
}

function Help() {
  const close = () => set({ help: false });
  return html`
    <${Dialog} name="help" close=${close}>
      <div class="head">
        <h2 id="help-title">${say("shortcuts")}</h2>
        <button type="button" class="icon-button" aria-label=${say("close")} onClick=${close}>${icon("close")}</button>
      </div>
      <dl class="shortcuts">
        ${SHORTCUTS.map(
          ([keys, word]) => html`
            <div><dt>${say(word)}</dt><dd>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dd></div>
          `,
        )}
      </dl>
    <//>
  `;
}

export const Dialogs = ({ deleting, help }) => html`
  ${deleting && html`<${ConfirmDelete} key=${deleting.id} session=${deleting} />`}
  ${help && html`<${Help} />`}
`;
