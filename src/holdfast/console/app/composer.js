// Where questions are written, and the choice of who answers.

import { setDraft } from "./draft.js";
import { html, useEffect, useLayoutEffect, useRef } from "./html.js";
import { grow } from "./grow.js";
import { icon } from "./icons.js";
import { hasKeyboard } from "./screen.js";
import { set, state } from "./state.js";
import { ask, isBusy, stop } from "./talk.js";
import { enterKey } from "./wire.js";
import { say } from "./words.js";

function submit(event) {
  event?.preventDefault();
  const text = state.draft.trim();
  if (text && !isBusy()) ask(text);
}

/** Edit the last question, as the arrow up in an empty field asks for. */
function editLast() {
  const question = state.items.findLast((item) => item.role === "user" && item.id);
  if (question && !isBusy()) set({ editing: question });
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return; // a choice in an input method
  if (event.key === "Enter" && !event.shiftKey) submit(event);
  if (event.key === "ArrowUp" && !event.target.value) {
    event.preventDefault();
    editLast();
  }
}

function Choice({ id, label, none, options, chosen, choose }) {
  return html`
    <label class="choice" title=${label}>
      <span class="unseen">${label}</span>
      <select id=${id} value=${chosen} onChange=${(event) => choose(event.target.value)}>
        <option value="">${none}</option>
        ${options.map(({ name, text }) => html`<option key=${name} value=${name}>${text}</option>`)}
      </select>
      ${icon("chevron")}
    </label>
  `;
}

const upstreamOption = ({ name, healthy }) => ({ name, text: healthy ? name : say("not_answering", name) });

function Choices({ state: { upstreams, presets, choice, session, preset } }) {
  const chosen = (members) => set({ choice: { ...choice, ...members } });
  return html`
    ${upstreams.length > 1 &&
    html`<${Choice} id="upstream" label=${say("upstream")} none=${say("automatic")} chosen=${choice.upstream}
           options=${upstreams.map(upstreamOption)} choose=${(upstream) => chosen({ upstream })} />`}
    ${presets.length > 0 &&
    !session &&
    html`<${Choice} id="preset" label=${say("preset")} none=${say("no_preset")} chosen=${choice.preset}
           options=${presets.map(({ name }) => ({ name, text: name }))} choose=${(one) => chosen({ preset: one })} />`}
    ${session && preset && html`<span class="chip">${preset}</span>`}
  `;
}

const Sign = () => html`
  <p id="sign"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>${say("reconnecting")}</p>
`;

const Note = ({ text }) => html`
  <div class="note" role="alert">
    <span id="note">${text}</span>
    <button type="button" class="icon-button" aria-label=${say("dismiss")} onClick=${() => set({ note: "" })}>
      ${icon("close")}
    </button>
  </div>
`;

function Send({ live, empty }) {
  if (live) {
    return html`
      <button key="stop" id="stop" type="button" aria-label=${say("stop")} title=${say("stop")} onClick=${stop}>
        ${icon("stop")}
      </button>
    `;
  }
  return html`
    <button key="send" id="send" type="submit" aria-label=${say("send")} title=${say("send")} aria-disabled=${empty}>
      ${icon("send")}
    </button>
  `;
}

export function Composer({ state: now }) {
  const { draft, live, note, waiting } = now;
  const input = useRef();
  useEffect(() => {
    if (hasKeyboard()) input.current.focus();
  }, []);
  useLayoutEffect(() => grow(input.current), [draft]);
  const write = (event) => setDraft(event.target.value);
  return html`
    <form id="composer" onSubmit=${submit}>
      ${waiting && html`<${Sign} />`}
      ${note && html`<${Note} text=${note} />`}
      <div class="field" onClick=${(event) => event.target === event.currentTarget && input.current.focus()}>
        <textarea ref=${input} id="question" rows="1" autocomplete="off" dir="auto" placeholder=${say("ask")}
                  aria-label=${say("ask")} value=${draft} onInput=${write} onKeyDown=${onKey}></textarea>
        <div class="row">
          <${Choices} state=${now} />
          <span class="hint">${say("hint")}</span>
          <${Send} live=${live} empty=${!draft.trim()} />
        </div>
      </div>
    </form>
  `;
}

/** In place of the composer: the server wants a key. */
export function Door({ wrong }) {
  const input = useRef();
  useEffect(() => input.current.focus(), []);
  const enter = (event) => {
    event.preventDefault();
    const text = input.current.value.trim();
    input.current.value = "";
    enterKey(text);
  };
  return html`
    <form id="door" onSubmit=${enter}>
      ${wrong && html`<p id="wrong" class="note" role="alert">${say("key_wrong")}</p>`}
      <label for="key">${say("key_wanted")}</label>
      <div class="field">
        <input ref=${input} id="key" type="password" autocomplete="off" spellcheck="false" maxlength="1000" />
        <button type="submit" aria-label=${say("enter")} title=${say("enter")}>${icon("right")}</button>
      </div>
      <p class="hint">${say("key_hint")}</p>
    </form>
  `;
}
