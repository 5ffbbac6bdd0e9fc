// Which conversation is on the page is in its address.

import { hasKeyboard } from "./screen.js";
import { set } from "./state.js";
import { open } from "./talk.js";

const addressed = () => location.hash.slice(1);

export function newConversation(event) {
  event?.preventDefault();
  if (location.hash.length > 1) location.hash = "";
  else open("");
  set({ side: false });
  if (hasKeyboard()) document.getElementById("question")?.focus();
}

export function listenToAddress() {
  window.addEventListener("hashchange", () => open(addressed()));
  open(addressed());
}
