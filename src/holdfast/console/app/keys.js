// The keyboard, wherever the focus is.

import { newConversation } from "./navigate.js";
import { isNarrow } from "./screen.js";
import { set, state } from "./state.js";
import { stop } from "./talk.js";

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const COMMAND = MAC ? "⌘" : "Ctrl";

export const SHORTCUTS = [
  [["Enter"], "key_send"],
  [["Shift", "Enter"], "key_line"],
  [["Esc"], "key_stop"],
  [["Shift", "Esc"], "key_focus"],
  [["↑"], "key_edit"],
  [[COMMAND, "Shift", "O"], "key_new"],
  [[COMMAND, "K"], "key_search"],
  [[COMMAND, "/"], "key_help"],
];

const find = (id) => document.getElementById(id);

export function focusQuestion() {
  find("question")?.focus();
}

function focusSearch() {
  set({ side: isNarrow() });
  requestAnimationFrame(() => requestAnimationFrame(() => find("search")?.focus()));
}

function escape(event) {
  if (event.shiftKey) {
    focusQuestion();
  } else if (state.editing || state.renaming) {
    set({ editing: null, renaming: null });
    focusQuestion();
  } else if (state.side) {
    set({ side: false });
  } else {
    stop();
  }
}

const COMMANDS = { k: focusSearch, "/": () => set({ help: true }) };

function onKey(event) {
  if (event.defaultPrevented || event.isComposing || event.keyCode === 229) return;
  const isCovered = state.help || state.deleting || document.querySelector("dialog[open], :popover-open");
  if (isCovered) return; // what lies over the page has its own keys
  if (event.key === "Escape") {
    escape(event);
    return;
  }
  const command = MAC ? event.metaKey : event.ctrlKey;
  if (!command || event.altKey) return;
  const key = event.key.toLowerCase();
  const act = event.shiftKey ? key === "o" && newConversation : COMMANDS[key];
  if (!act) return;
  event.preventDefault();
  act();
}

export const listenToKeys = () => document.addEventListener("keydown", onKey);
