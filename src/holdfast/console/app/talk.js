// The conversation on the page: open it, ask, watch the answer being written, stop it.
//
//     open ──► load ──► join ──┐            the server is the truth: leaving a conversation
//     ask, edit, regenerate ───┴► follow    ends the reading of it here, never the run
//                                  │
//                       run-start, …, run-end

import { endingText } from "./answer/endings.js";
import { holdDraft, moveDraft, recallDraft, setDraft } from "./draft.js";
import { announce } from "./live.js";
import { Answer, Question } from "./message.js";
import { listSessions } from "./sessions.js";
import { changed, set, state } from "./state.js";
import { tellTabs } from "./tabs.js";
import { client, explain } from "./wire.js";
import { say } from "./words.js";

export let view = new AbortController(); // ends all reading for the conversation on the page
let looking = new AbortController(); // ends a look that is overtaken
let seen = ""; // when the conversation had last changed, as far as the page knows
let takeBack = null; // undoes what was asked, as long as the server may not have it

// ---------------------------------------------------------------- opening

/** Show the conversation of this id; none is a new one. */
export async function open(id) {
  leave();
  if (id !== state.session || !id) set({ items: [], title: null, preset: null });
  state.jump += 1;
  seen = "";
  set({ session: id, phase: id ? "loading" : "open", side: false, draft: recallDraft(id) });
  listSessions();
  if (!id || !(await load(view.signal))) return;
  const last = state.items.findLast((item) => item.role === "user");
  if (last && last.text === state.draft.trim()) setDraft(""); // it had arrived after all
  await join();
}

/** Let go of what the page is reading; the server goes on. */
function leave() {
  view.abort();
  view = new AbortController();
  looking.abort();
  takeBack = null;
  set({ live: null, editing: null, note: "" });
}

/** Read the conversation from the server; tells whether it is there. */
async function load(signal) {
  const id = state.session;
  try {
    const [session, messages] = await Promise.all([
      client.session(id, { signal }),
      Array.fromAsync(client.allMessages(id, { limit: 200, signal })),
    ]);
    if (signal.aborted) return false;
    seen = session.updated_at;
    set({ items: arranged(messages), title: session.title, preset: session.preset, phase: "open" });
    return true;
  } catch (error) {
    if (!signal.aborted) unread(error);
    return false;
  }
}

/** Only a conversation that is gone is taken from the page; anything else can mend itself. */
function unread(error) {
  if (error.code === "not_found") missing(explain(error));
  else set({ phase: "open", note: explain(error) });
}

/** These messages as items; what is on the page already stays the same object. */
function arranged(messages) {
  const known = new Map(state.items.map((item) => [item.id, item]));
  return messages.map((message) => {
    const before = known.get(message.id);
    if (message.role === "user") return before ?? new Question(message);
    if (!before) return new Answer(message);
    before.store(message);
    return before;
  });
}

/** Say why there is nothing to show; what is being typed can begin a new conversation. */
export function missing(note) {
  leave();
  history.replaceState(null, "", "#");
  if (state.draft) moveDraft(state.session, "");
  else state.draft = recallDraft("");
  set({ session: "", title: null, preset: null, items: [], phase: "open", note });
  listSessions();
}

/** Go on reading the answer that is being written, if there is one. */
async function join() {
  const answer = state.items.findLast((item) => item.live);
  if (!answer) return;
  answer.begin();
  await follow(answer, client.resume(answer.runId, { signal: view.signal }));
}

/** See whether anything has happened here, in another tab or on another machine. */
export async function look() {
  if (!state.session || state.phase !== "open" || state.live) return;
  looking.abort();
  looking = new AbortController();
  const signal = AbortSignal.any([view.signal, looking.signal]);
  try {
    const found = await client.session(state.session, { signal });
    if (found.updated_at === seen && !found.live_run_id) return;
  } catch (error) {
    if (!signal.aborted && error.code === "not_found") missing(explain(error));
    return; // what is on the page stays; the next look may see more
  }
  if ((await load(signal)) && !signal.aborted) await join();
}

// ---------------------------------------------------------------- asking

export const isBusy = () => Boolean(state.live) || state.phase !== "open";

export function ask(text) {
  if (isBusy()) return;
  const { session, choice } = state;
  const options = { upstream: choice.upstream || null, signal: view.signal };
  if (session) options.session = session;
  else options.preset = choice.preset || null;
  const question = new Question({ content: text });
  holdDraft(text);
  begin(question, (answer) => [...state.items, question, answer], client.ask(text, options));
}

/** Ask a question in other words, in place of it and of all that came after it. */
export function edit(question, text) {
  if (isBusy()) {
    set({ note: say("run_active") }); // asked for in another tab, since the editor was opened
    return;
  }
  const asked = new Question({ content: text });
  const kept = state.items.slice(0, state.items.indexOf(question));
  const options = { upstream: state.choice.upstream || null, signal: view.signal };
  set({ editing: null });
  begin(asked, (answer) => [...kept, asked, answer], client.edit(question.id, text, options));
}

/** Answer the same question once more. */
export function regenerate(old, { upstream = null } = {}) {
  if (isBusy()) return;
  const options = { upstream: upstream ?? (state.choice.upstream || null), signal: view.signal };
  const events = client.regenerate(old.id, options);
  begin(null, (answer) => state.items.map((item) => (item === old ? answer : item)), events);
}

function begin(question, arrange, events) {
  looking.abort();
  const before = state.items;
  const answer = new Answer();
  answer.begin();
  takeBack = () => {
    leave();
    set({ items: before });
    if (question && !state.draft) setDraft(question.text);
  };
  set({ items: arrange(answer), note: "", jump: state.jump + 1 });
  showNewest();
  follow(answer, events, question);
}

/** Each answer is gone on from as it was written last: that is what the page shows again. */
function showNewest() {
  for (const item of state.items) {
    const newest = item.versions?.at(-1);
    if (newest && newest !== item.id) showVersion(item, newest);
  }
}

/** Show another version of an answer in its place. */
export async function showVersion(answer, id) {
  const { signal } = view;
  try {
    const other = new Answer(await client.message(id, { signal }));
    set({ items: state.items.map((item) => (item === answer ? other : item)) });
  } catch (error) {
    if (!signal.aborted) set({ note: explain(error) });
  }
}

/** Read an answer to its end. */
async function follow(answer, events, question = null) {
  const { signal } = view;
  set({ live: answer });
  announce(say("writing"));
  try {
    for await (const event of events) {
      if (signal.aborted) return;
      answer.take(event);
      if (event.type === "run-start") began(answer, question, event);
      changed();
    }
  } catch (error) {
    if (!signal.aborted) await refused(answer, error);
    return;
  }
  if (!signal.aborted) await ended(answer, signal);
}

function began(answer, question, { session_id: session, question_id: id }) {
  takeBack = null;
  if (question) question.id = id;
  if (session !== state.session) {
    history.replaceState(null, "", `#${session}`);
    moveDraft(state.session, session);
    set({ session });
  } else {
    setDraft(state.draft); // the question has arrived; this is what was typed since
  }
  tellTabs({ session });
  listSessions();
  if (answer.stopping) cancel(answer);
}

const SOON_MS = 1000;

async function ended(answer, signal) {
  set({ live: null });
  // Stopped by somebody else: perhaps because the conversation is being deleted just now.
  if (answer.outcome === "cancelled" && !answer.stopping) setTimeout(look, SOON_MS);
  if (!answer.outcome) return load(signal); // it was over before we came
  announce(endingText(answer));
  tellTabs({ session: answer.sessionId });
  listSessions();
  try {
    answer.store(await client.message(answer.id, { signal })); // its versions, its times
    changed();
  } catch (error) {
    if (!signal.aborted && error.code === "not_found") await load(signal); // deleted meanwhile
  }
  return undefined;
}

/** The server has no stream for us: show what it has instead, or give the question back. */
async function refused(answer, error) {
  if (answer.runId) {
    set({ live: null });
    await load(view.signal);
  } else {
    const { session } = state;
    takeBack?.();
    if (error.code === "run_active") open(session);
  }
  set({ note: explain(error) });
}

// ---------------------------------------------------------------- stopping

/** Stop the answer; a question that the server may never have got is given back. */
export function stop() {
  const answer = state.live;
  if (!answer) return;
  if (!answer.runId && (state.waiting || state.door)) {
    takeBack();
    return;
  }
  if (answer.stopping) return;
  answer.stopping = true; // without a run yet: as soon as there is one
  answer.revision += 1;
  changed();
  if (answer.runId) cancel(answer);
}

function cancel(answer) {
  client.cancel(answer.runId, { signal: view.signal }).catch((error) => {
    if (error.name !== "AbortError") set({ note: explain(error) });
  });
}
