// What stands under an answer: copy it, judge it, ask again, other versions, how it was made.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { icon } from "../icons.js";
import { copyText } from "./clipboard.js";
import { isWeb } from "./markdown.js";
import { cleaned } from "./names.js";
import { nameOf } from "./sources.js";
import { duration, say } from "./words.js";

const COPIED_MS = 1800;

let pressed = ""; // the button that the focus goes back to when another version is shown

/** A button that is only an icon. */
const IconButton = ({ name, label, ...others }) => html`
  <button type="button" class="icon-button" aria-label=${label} title=${label} ...${others}>${icon(name)}</button>
`;

/** The answer as Markdown, with the sources that it cites. */
export function asMarkdown({ text, marks, references }) {
  const cited = new Set(marks.map(([, , ordinal]) => ordinal));
  const lines = references
    .filter(({ ordinal }) => cited.has(ordinal))
    .map((one) => `[${one.ordinal}] ${nameOf(one)}${isWeb(one.url) ? ` <${one.url}>` : ""}`);
  return lines.length ? `${text.trimEnd()}\n\n${say("sources")}:\n\n${lines.join("  \n")}\n` : text;
}

function Copy({ answer, actions }) {
  const [isDone, done] = useState(false);
  const copy = async () => {
    const succeeded = await copyText(asMarkdown(answer));
    actions.announce(say(succeeded ? "copied" : "copy_failed"));
    done(succeeded);
    if (succeeded) setTimeout(() => done(false), COPIED_MS);
  };
  return html`<${IconButton} name=${isDone ? "check" : "copy"} label=${say("copy")} onClick=${copy} />`;
}

function Thumbs({ answer, actions, judge }) {
  const { feedback } = answer;
  const press = (rating) => {
    const isBack = feedback?.rating === rating;
    const given = actions.feedback(answer, isBack ? null : { rating });
    given.then(() => judge(!isBack), () => {});
  };
  const thumb = (rating, name, label) => html`
    <${IconButton} name=${name} label=${label} aria-pressed=${feedback?.rating === rating} onClick=${() => press(rating)} />
  `;
  return [thumb("up", "thumb-up", say("good")), thumb("down", "thumb-down", say("bad"))];
}

/** A few words with the thumb, if one likes. */
function Comment({ answer, actions, close }) {
  const field = useRef();
  useEffect(() => field.current.focus({ preventScroll: true }), []);
  const send = (event) => {
    event.preventDefault();
    const comment = field.current.value.trim();
    if (!comment) return close();
    const given = { rating: answer.feedback?.rating ?? "up", comment };
    return actions.feedback(answer, given).then(() => {
      actions.announce(say("thanks"));
      close();
    }, () => {});
  };
  const onKeyDown = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    close();
  };
  return html`
    <form class="comment" onSubmit=${send} onKeyDown=${onKeyDown}>
      <input ref=${field} type="text" maxlength="2000" autocomplete="off" aria-label=${say("comment")}
             placeholder=${say("comment")} defaultValue=${answer.feedback?.comment ?? ""} />
      <button type="submit" class="button">${say("send")}</button>
      <${IconButton} name="close" label=${say("close")} onClick=${close} />
    </form>
  `;
}

function Versions({ answer, actions }) {
  const { versions, id } = answer;
  const node = useRef();
  const at = versions.indexOf(id);
  useLayoutEffect(() => {
    if (pressed) (node.current.querySelector(`.${pressed}:enabled`) ?? node.current.querySelector(":enabled"))?.focus();
    pressed = "";
  }, []);
  const go = (name, step) => () => {
    pressed = name;
    actions.showVersion(answer, versions[at + step]);
  };
  return html`
    <span class="versions" ref=${node} role="group" aria-label=${say("versions", at + 1, versions.length)}>
      <button type="button" class="icon-button before" aria-label=${say("version_before")} disabled=${at <= 0}
              onClick=${go("before", -1)}>${icon("left")}</button>
      <span aria-hidden="true">${at + 1}/${versions.length}</span>
      <button type="button" class="icon-button after" aria-label=${say("version_after")} disabled=${at >= versions.length - 1}
              onClick=${go("after", 1)}>${icon("right")}</button>
    </span>
  `;
}

/** Who wrote it and why they were asked, how long it took, how many tokens. */
function About({ answer, actions }) {
  const [run, know] = useState(null);
  const { upstream, model, usage, startedAt, endedAt } = answer;
  const open = (event) => {
    if (event.currentTarget.open && !answer.routeReason) actions.run(answer).then(know, () => {});
  };
  const took = startedAt && endedAt ? duration(endedAt - startedAt) : "";
  const why = answer.routeReason ?? run?.route_reason;
  const out = usage?.output_tokens;
  const short = [cleaned(upstream), took, Number.isFinite(out) && say("tokens_short", out)].filter(Boolean);
  const rows = [
    [say("by"), cleaned([upstream, model].filter(Boolean).join(" · "))],
    [say("why"), cleaned(why && say(why))],
    [say("asked_at"), startedAt ? new Date(startedAt).toLocaleString() : ""],
    [say("took"), took],
    [say("tokens"), usage ? say("tokens_used", usage.input_tokens ?? "–", out ?? "–") : ""],
  ];
  return html`
    <details class="about" onToggle=${open}>
      <summary title=${say("about")}>
        <span class="unseen">${say("about")}: </span>${short.join(" · ") || "…"}${icon("chevron")}
      </summary>
      <dl>${rows.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd dir="auto">${value}</dd>`)}</dl>
    </details>
  `;
}

/** What can be done about an answer that ended early. */
function NextSteps({ answer, actions }) {
  const goOn = () => actions.compose(say("go_on_text"));
  return html`
    <button type="button" class="button again" onClick=${() => actions.regenerate(answer)}>
      ${icon("again")}${say("again")}
    </button>
    ${answer.text && html`<button type="button" class="button" onClick=${goOn}>${say("go_on")}</button>`}
  `;
}

/** The row of buttons. */
export function Foot({ answer, actions, last, busy }) {
  const [isJudged, judge] = useState(false);
  const isBad = answer.outcome !== "completed";
  const mayAsk = last && !busy;
  const again = () => actions.regenerate(answer);
  const hasVersions = answer.versions.length > 1 && answer.versions.includes(answer.id);
  return html`
    <footer>
      <div class="buttons" role="group" aria-label=${say("answer_actions")}>
        ${mayAsk && isBad && html`<${NextSteps} answer=${answer} actions=${actions} />`}
        ${answer.text && html`<${Copy} answer=${answer} actions=${actions} />`}
        ${answer.text && html`<${Thumbs} answer=${answer} actions=${actions} judge=${judge} />`}
        ${mayAsk && !isBad && html`<${IconButton} name="again" label=${say("again")} onClick=${again} />`}
        ${hasVersions && html`<${Versions} answer=${answer} actions=${actions} />`}
      </div>
      <${About} answer=${answer} actions=${actions} />
      ${isJudged && html`<${Comment} answer=${answer} actions=${actions} close=${() => judge(false)} />`}
    </footer>
  `;
}
