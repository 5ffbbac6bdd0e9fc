// A question in the conversation: to read, to copy, to ask in other words.

import { grow } from "./grow.js";
import { html, pure, useLayoutEffect, useRef } from "./html.js";
import { icon } from "./icons.js";
import { announce } from "./live.js";
import { set } from "./state.js";
import { edit } from "./talk.js";
import { say } from "./words.js";

async function copy(text) {
  await navigator.clipboard.writeText(text);
  announce(say("copied"));
}

function Editor({ question }) {
  const input = useRef();
  useLayoutEffect(() => {
    input.current.focus(); // before the next key
    grow(input.current);
    input.current.setSelectionRange(question.text.length, question.text.length);
  }, []);
  const send = (event) => {
    event.preventDefault();
    const text = input.current.value.trim();
    if (text) edit(question, text);
  };
  const onKey = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) send(event);
  };
  return html`
    <form class="editor" onSubmit=${send}>
      <textarea ref=${input} dir="auto" rows="1" aria-label=${say("edit")} aria-describedby="edit-hint"
                defaultValue=${question.text} onInput=${() => grow(input.current)} onKeyDown=${onKey}></textarea>
      <p id="edit-hint">${say("edit_hint")}</p>
      <div class="form-buttons">
        <button type="button" class="button" onClick=${() => set({ editing: null })}>${say("cancel")}</button>
        <button type="submit" class="button primary">${say("send")}</button>
      </div>
    </form>
  `;
}

/** `id` is that of the question once it has one: until then it cannot be edited. */
export const QuestionView = pure(({ question, id, editing, busy }) => {
  if (editing) return html`<${Editor} question=${question} />`;
  return html`
    <div class="asked">
      <h2 class="unseen">${say("you")}</h2>
      <p class="question" dir="auto">${question.text}</p>
      <div class="tools">
        ${navigator.clipboard &&
        html`<button type="button" class="icon-button" aria-label=${say("copy")} title=${say("copy")}
                onClick=${() => copy(question.text)}>${icon("copy")}</button>`}
        ${id &&
        !busy &&
        html`<button type="button" class="icon-button" aria-label=${say("edit")} title=${say("edit")}
                onClick=${() => set({ editing: question })}>${icon("edit")}</button>`}
      </div>
    </div>
  `;
});
