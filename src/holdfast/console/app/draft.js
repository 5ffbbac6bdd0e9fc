// What is being typed, kept for each conversation until the tab is closed.

import { set, state } from "./state.js";

const nameOf = (session) => `holdfast.draft.${session}`;

function store(session, text) {
  try {
    if (text) sessionStorage.setItem(nameOf(session), text);
    else sessionStorage.removeItem(nameOf(session));
  } catch {
    // Then it is kept as long as the conversation is open.
  }
}

export function setDraft(text) {
  store(state.session, text);
  set({ draft: text });
}

/** The field is empty for the next question; this one stays kept until the server has it. */
export function holdDraft(text) {
  store(state.session, text);
  set({ draft: "" });
}

export function recallDraft(session) {
  try {
    return sessionStorage.getItem(nameOf(session)) ?? "";
  } catch {
    return "";
  }
}

/** A new conversation has got its id: what is typed there is now its draft. */
export function moveDraft(from, to) {
  store(from, "");
  store(to, state.draft);
}
