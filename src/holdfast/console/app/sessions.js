// The list of conversations: read, search, go on reading, rename, delete.

import { announce } from "./live.js";
import { changed, set, state } from "./state.js";
import { tellTabs } from "./tabs.js";
import { client, explain } from "./wire.js";
import { say } from "./words.js";

const PAGE = 50;
const LONGEST_PAGE = 200;
const TYPING_MS = 200;
const AGAIN_MS = 5000; // an answer that nobody reads here ends unheard

let listing = new AbortController();
let timer;

/** Read the list anew, as far as it was read. */
export async function listSessions() {
  listing.abort();
  listing = new AbortController();
  clearTimeout(timer);
  const { signal } = listing;
  const { sessions } = state;
  const limit = Math.min(Math.max(PAGE, sessions.items.length), LONGEST_PAGE);
  try {
    const { items, next } = await client.sessions({ query: sessions.query || undefined, limit, signal });
    if (signal.aborted) return;
    Object.assign(sessions, { items, next, loaded: true, loading: false });
    changed();
  } catch (error) {
    if (!signal.aborted) set({ note: explain(error) });
    return;
  }
  if (state.session && !sessions.items.some(({ id }) => id === state.session)) readTitle(signal);
  if (sessions.items.some(isLiveElsewhere)) timer = setTimeout(listIfSeen, AGAIN_MS);
}

/** The conversation on the page is not among those that are listed. */
async function readTitle(signal) {
  const { session } = state;
  const found = await client.session(session, { signal }).catch(() => null);
  if (found && session === state.session) set({ title: found.title });
}

const isLiveElsewhere = (item) => item.live_run_id && item.id !== state.live?.sessionId;

const listIfSeen = () => document.hidden || listSessions();

/** Read the next page of the list, once its end comes into view. */
export async function listMore() {
  const { sessions } = state;
  if (!sessions.next || sessions.loading) return;
  sessions.loading = true;
  const { signal } = listing;
  try {
    const query = sessions.query || undefined;
    const page = await client.sessions({ query, before: sessions.next, limit: PAGE, signal });
    if (signal.aborted) return;
    const known = new Set(sessions.items.map((item) => item.id));
    sessions.items = [...sessions.items, ...page.items.filter((item) => !known.has(item.id))];
    sessions.next = page.next;
  } catch {
    // The list is read anew by what aborted this, or when the end comes into view again.
  } finally {
    sessions.loading = false;
    changed();
  }
}

export function search(query) {
  state.sessions.query = query;
  changed();
  clearTimeout(timer);
  timer = setTimeout(listSessions, TYPING_MS);
}

export async function rename(id, text) {
  set({ renaming: null });
  const title = text.trim();
  if (!title || title === state.sessions.items.find((one) => one.id === id)?.title) return;
  try {
    await client.renameSession(id, title);
    if (id === state.session) set({ title });
    announce(say("renamed"));
    tellTabs({ session: id });
  } catch (error) {
    set({ note: explain(error) });
  }
  await listSessions();
}

/** Delete a conversation; its place in the list is closed at once. */
export async function remove({ id }) {
  const { sessions } = state;
  set({ deleting: null });
  sessions.items = sessions.items.filter((item) => item.id !== id);
  if (id === state.session) location.hash = "";
  try {
    await client.deleteSession(id);
    announce(say("deleted"));
    tellTabs({ session: id, gone: true });
  } catch (error) {
    set({ note: explain(error) });
  }
  return listSessions();
}

const DAY_MS = 86_400_000;

const midnight = (at) => new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();

/** The list by days: [[heading, items], …]; the newest come first, as they do in the list. */
export function grouped(items, now = new Date()) {
  const groups = new Map();
  for (const item of items) {
    const heading = headingOf(new Date(item.updated_at), now);
    if (!groups.has(heading)) groups.set(heading, []);
    groups.get(heading).push(item);
  }
  return [...groups];
}

function headingOf(at, now) {
  const days = Math.round((midnight(now) - midnight(at)) / DAY_MS); // a day can have 23 hours
  if (days < 1) return say("today");
  if (days < 2) return say("yesterday");
  if (days < 8) return say("week");
  if (days < 31) return say("month");
  return at.toLocaleDateString(document.documentElement.lang, { month: "long", year: "numeric" });
}
