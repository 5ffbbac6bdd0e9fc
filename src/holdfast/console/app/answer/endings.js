// How an answer stands or has ended, honestly, and what can be done about it.

import { html } from "../html.js";
import { icon } from "../icons.js";
import { say } from "./words.js";

const ICONS = { cancelled: "stop", interrupted: "alert", failed: "alert" };

/** How an answer has ended, in a few words. */
export function endingText({ outcome, reason }) {
  return say(reason === "client_disconnected" ? reason : outcome);
}

/** Why it has ended so, in words for people. */
export function explanation({ outcome, reason, finish, text, toolCalls }) {
  if (outcome === "completed") {
    if (finish === "length") return say("cut_short");
    if (finish === "content_filter") return say("filtered");
    return text || toolCalls.length ? "" : say("no_text");
  }
  if (outcome === "cancelled") return "";
  const why = reason ? say(reason) : "";
  return outcome === "interrupted" && text ? `${why} ${say("kept")}` : why;
}

/** The line that says how it ended; a box if that is not how it should be. */
export function Ending({ answer }) {
  const { outcome, reason, error } = answer;
  const why = explanation(answer);
  const isBad = outcome === "interrupted" || outcome === "failed";
  const isTold = isBad && error && !reason?.startsWith("server_");
  return html`
    <div class="state ${outcome} ${isBad || why ? "told" : ""}">
      ${ICONS[outcome] && icon(ICONS[outcome])}
      <div>
        <strong>${endingText(answer)}</strong>
        ${why && html`<p>${why}</p>`}
        ${isTold && html`<p class="error" dir="auto">${error}</p>`}
      </div>
    </div>
  `;
}
