// What the page is seen on.

import { changed } from "./state.js";

const narrow = matchMedia("(max-width: 50rem)");

/** The list is behind a button. */
export const isNarrow = () => narrow.matches;

/** Where it is not, a focused field would open a keyboard on the screen. */
export const hasKeyboard = () => matchMedia("(hover: hover)").matches;

narrow.addEventListener("change", changed);
