// What is to be seen before and beside the text: steps, reasoning, notices, tool calls.

import { CHINESE } from "../i18n.js";
import { html, pure, useEffect, useLayoutEffect, useReducer, useRef, useState } from "../html.js";
import { icon } from "../icons.js";
import { cleaned } from "./names.js";
import { Prose } from "./prose.js";
import { duration, say } from "./words.js";

const SHOWN_STEPS = 4;
const PATIENCE_MS = 3000; // after so long a wait is counted
const LABELS = { searching: "searching", writing: "step_writing" };
const LONGEST_ARGUMENTS = 2000;

const stepText = ({ label, detail }) =>
  cleaned([LABELS[label] ? say(LABELS[label]) : label, detail].filter(Boolean).join(": "));

/** Milliseconds since `start`, counted while `on`. */
function useElapsed(start, on) {
  const [now, tick] = useState(Date.now());
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => tick(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [on]);
  return start ? Math.max(0, now - start) : 0;
}

const wholeSeconds = (ms) => say("seconds", Math.round(ms / 1000));

export const Dots = () => html`<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>`;

/** What is being done, while it is being done. */
export const Progress = pure(({ steps, isSilent, isThinking, isStopping, startedAt }) => {
  const elapsed = useElapsed(startedAt, isSilent);
  const last = isSilent && steps.at(-1);
  const text = isStopping ? say("stopping") : last ? stepText(last) : say("writing");
  const done = isSilent ? steps.slice(0, -1).slice(-SHOWN_STEPS) : [];
  return html`
    ${done.length > 0 &&
    html`<ul class="steps">
      ${done.map((step) => html`<li>${icon("check")}<span dir="auto">${stepText(step)}</span></li>`)}
    </ul>`}
    <p class="state ${last ? "step" : ""} ${isThinking ? "unseen" : ""}">
      <${Dots} /><span dir="auto">${text}</span>
      ${elapsed > PATIENCE_MS && html`<span class="elapsed" aria-hidden="true">${wholeSeconds(elapsed)}</span>`}
    </p>
  `;
});

/** The model's reasoning: open while it is all there is, until the reader says otherwise. */
export function Reasoning({ text, isAll, isLive }) {
  const node = useRef();
  const prose = useRef(null);
  const [wanted, want] = useState(null);
  const [startedAt] = useState(isLive && !isOld(text) ? Date.now() : 0);
  const [endedAt, end] = useState(0);
  const [, again] = useReducer((times) => times + 1, 0);
  const isOpen = wanted ?? isAll;
  useEffect(() => {
    if (!isAll && startedAt && !endedAt) end(Date.now());
  }, [isAll]);
  useLayoutEffect(() => {
    if (!isOpen) return;
    prose.current ??= new Prose(node.current, () => requestAnimationFrame(again));
    prose.current.show({ text, marks: [], rewrites: 0, live: isLive });
    if (isAll) node.current.scrollTop = node.current.scrollHeight;
  });
  const elapsed = useElapsed(startedAt, isAll);
  const toggle = (event) => {
    event.preventDefault();
    want(!isOpen);
  };
  return html`
    <details class="reasoning ${isAll ? "busy" : ""}" open=${isOpen}>
      <summary onClick=${toggle}>
        ${icon("spark")}<span>${reasoningTitle(isAll, elapsed, startedAt, endedAt)}</span>${icon("chevron")}
      </summary>
      <div class="thoughts" ref=${node} tabindex="0" dir="auto"></div>
    </details>
  `;
}

/** Whether the reasoning was there before the page was. */
const isOld = (text) => text.length > 2000;

function reasoningTitle(isAll, elapsed, startedAt, endedAt) {
  if (isAll) return elapsed > PATIENCE_MS ? `${say("thinking")} · ${wholeSeconds(elapsed)}` : say("thinking");
  return startedAt && endedAt ? say("thought_for", duration(endedAt - startedAt)) : say("reasoning");
}

/** What the reader should know about how the answer is made. */
export const Notices = pure(({ notices }) => {
  const text = ({ code, message, upstream }) =>
    CHINESE && code === "fallback" && upstream ? say("fallback", cleaned(upstream)) : message;
  return notices.map(
    (notice) => html`<p class="notice">${icon("info")}<span dir="auto">${text(notice)}</span></p>`,
  );
});

/** The calls of tools, small. */
export function Tools({ calls }) {
  return html`
    <ul class="tools">
      ${calls.map(
        ({ name, arguments: given = "" }) => html`
          <li>
            <details>
              <summary>${icon("tool")}<span dir="auto">${cleaned(name) || say("tool")}</span></summary>
              <pre tabindex="0">${readable(given)}</pre>
            </details>
          </li>
        `,
      )}
    </ul>
  `;
}

function readable(given) {
  if (given.length > LONGEST_ARGUMENTS) return `${given.slice(0, LONGEST_ARGUMENTS)}…`;
  try {
    return JSON.stringify(JSON.parse(given), null, 2);
  } catch {
    return given;
  }
}
