// One answer on the page, live or stored.
//
// The text is drawn by `Prose`, which takes what is new in it; everything around it is made anew only
// when it changes.

import { html, useEffect, useLayoutEffect, useMemo, useRef } from "../html.js";
import { markListeners } from "./card.js";
import { copyText } from "./clipboard.js";
import { Ending } from "./endings.js";
import { Foot } from "./foot.js";
import { Notices, Progress, Reasoning, Tools } from "./progress.js";
import { Prose } from "./prose.js";
import { Sources } from "./sources.js";
import { say } from "./words.js";

const COPIED_MS = 1800;

/** The text. It is drawn whenever the answer is; what is left over waits for the next frame. */
function Text({ answer, actions }) {
  const node = useRef();
  const prose = useRef(null);
  const frame = useRef(0);
  const known = useRef(null);
  const { references } = answer;
  const draw = () => {
    frame.current = 0;
    if (known.current !== references) prose.current.know(new Set(references.map(({ ordinal }) => ordinal)));
    known.current = references;
    prose.current.show(answer);
  };
  useLayoutEffect(() => {
    prose.current ??= new Prose(node.current, () => (frame.current ||= requestAnimationFrame(draw)));
    draw();
  });
  useEffect(() => () => cancelAnimationFrame(frame.current), []);
  const listeners = useMemo(() => {
    const found = (ordinal) => answer.references.find((reference) => reference.ordinal === ordinal);
    return markListeners((ordinal) => found(ordinal) && { reference: found(ordinal), answer, actions });
  }, [answer, actions]);
  const onClick = (event) => {
    const button = event.target.closest(".copy-code");
    if (button) copyCode(button, actions);
    else listeners.onClick(event);
  };
  return html`<div class="prose" ref=${node} dir="auto" ...${listeners} onClick=${onClick}></div>`;
}

async function copyCode(button, actions) {
  const done = await copyText(button.closest("figure").querySelector("code").textContent.replace(/\n$/, ""));
  const text = say(done ? "copied" : "copy_failed");
  actions.announce(text);
  button.textContent = text;
  setTimeout(() => (button.textContent = say("copy")), COPIED_MS);
}

export function Answer({ answer, actions, last, busy }) {
  const { live, text, reasoning, references, notices, steps, toolCalls, marks, stopping } = answer;
  const isSilent = live && !text && !reasoning;
  return html`
    <article class="answer" aria-label=${say("answer")}>
      ${notices.length > 0 && html`<${Notices} notices=${notices} count=${notices.length} />`}
      ${reasoning && html`<${Reasoning} text=${reasoning} isAll=${live && !text} isLive=${live} />`}
      ${toolCalls.length > 0 && html`<${Tools} calls=${toolCalls} />`}
      <${Text} answer=${answer} actions=${actions} />
      <${Sources} references=${references} live=${live} marks=${marks} answer=${answer} actions=${actions} />
      ${live
        ? html`<${Progress} steps=${steps} count=${steps.length} isSilent=${isSilent} isStopping=${stopping}
                 isThinking=${Boolean(reasoning && !text && !stopping)} startedAt=${answer.startedAt} />`
        : html`<${Ending} answer=${answer} /><${Foot} answer=${answer} actions=${actions} last=${last} busy=${busy} />`}
    </article>
  `;
}
