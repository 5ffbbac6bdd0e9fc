// What screen readers are told: how things stand, never every word.

export function announce(text) {
  document.getElementById("live").textContent = text;
}
