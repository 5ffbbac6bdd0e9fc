// Where the page begins.

import { html, render } from "./html.js";
import { CHINESE } from "./i18n.js";
import { listenToKeys } from "./keys.js";
import { listenToAddress } from "./navigate.js";
import { Page } from "./page.js";
import { listSessions } from "./sessions.js";
import { onChange, set, state, currentTitle } from "./state.js";
import { onTabs } from "./tabs.js";
import { look, missing } from "./talk.js";
import { client } from "./wire.js";
import { say } from "./words.js";

const root = document.getElementById("app");

function draw() {
  const title = currentTitle();
  document.title = title ? `${title} · Holdfast` : "Holdfast";
  render(html`<${Page} state=${state} />`, root);
}

/** The page is seen again, or the network is back: what happened meanwhile? */
function wake() {
  if (document.hidden) return;
  client.wake();
  listSessions();
  look();
}

function hear({ session, gone }) {
  if (gone && session === state.session) missing(say("deleted_elsewhere"));
  else listSessions();
  if (!gone && session === state.session && !document.hidden) look();
}

/** Who can answer; without it, the router's choice is all there is. */
async function readChoices() {
  const [upstreams, presets] = await Promise.all([client.upstreams(), client.presets()]);
  set({ upstreams, presets });
}

document.documentElement.lang = CHINESE ? "zh" : "en";
onChange(draw);
draw();
listenToKeys();
listenToAddress();
onTabs(hear);
document.addEventListener("visibilitychange", wake);
window.addEventListener("focus", wake);
window.addEventListener("online", wake);
readChoices().catch(() => {});
