// The line to the server: one client for the whole page, and the key that it sends.

import { HoldfastClient, HoldfastError } from "../holdfast-client.js";
import { announce } from "./live.js";
import { set, state } from "./state.js";
import { say } from "./words.js";

const STORED = "holdfast.key";
const SOON_MS = 300; // a connection that is back by then is not worth a word

const BASE = new URL(".", document.baseURI).href;

let key = recall();
let entered = null; // whoever waits for a key waits for this
let take = () => {};
let telling = null; // the timer that will say that we wait

function recall() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return ""; // storage can be forbidden
  }
}

/** Wait for another key than the one that the server has refused. */
function another(refused) {
  if (key !== refused) return undefined; // it came while the request was on its way
  entered ??= new Promise((resolve) => {
    take = resolve;
    set({ door: { wrong: Boolean(refused) } });
    announce(say("key_wanted"));
  });
  return entered;
}

/** Go on with this key; tells whether it could be one. */
export function enterKey(text) {
  const fits = /^[!-~]+$/.test(text); // nothing else can be sent in a header
  if (!fits || !entered) {
    set({ door: { wrong: !fits } });
    return fits;
  }
  key = text;
  try {
    sessionStorage.setItem(STORED, key);
  } catch {
    // Then it is kept as long as the page is.
  }
  entered = null;
  set({ door: null });
  take();
  return true;
}

/** `fetch` that comes back with an answer to somebody who may ask. */
async function fetchWithKey(url, options = {}) {
  for (;;) {
    const sent = key;
    const headers = new Headers(options.headers);
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    const response = await fetch(url, { ...options, headers });
    if (response.status !== 401) return response;
    await Promise.race([another(sent), aborted(options.signal)]);
  }
}

function aborted(signal) {
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

export const client = new HoldfastClient({
  url: BASE,
  fetch: fetchWithKey,
  patienceMs: Infinity, // the reader decides when to give up
  onWait: () => (telling ??= setTimeout(tell, SOON_MS, true)),
  onConnected: () => tell(false),
});

function tell(waiting) {
  clearTimeout(telling);
  telling = null;
  if (waiting === state.waiting) return;
  set({ waiting });
  announce(say(waiting ? "reconnecting" : "connected"));
}

/** Any JSON of the server. */
export async function getJson(path, signal) {
  const response = await fetchWithKey(new URL(path, BASE).href, { signal });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const { code = "not_found", message = `HTTP ${response.status}` } = body.error ?? {};
  throw new HoldfastError(code, message, { status: response.status });
}

/** What to say about an error. */
export function explain(error) {
  const code = error?.code ?? "";
  const said = say(code);
  return said !== code ? said : (error?.message ?? String(error));
}
