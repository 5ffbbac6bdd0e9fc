// The end of a text that is still being written, as it most likely goes on: what is open is closed for
// the moment, so that words do not jump between signs and emphasis.

const HALF_LINK = /!?\[((?!\uFDD0)[^[\]\n]*)(?:\](?:\([^)\n]*)?)?$/;
const HALF_IMAGE = /!\[[^\]\n]*$/;
const CODE_SPAN = /(`+)[^`](?:.*?[^`])??\1(?!`)/gs;

const isOdd = (text, pattern) => (text.match(pattern)?.length ?? 0) % 2 === 1;

/** The text with what its last paragraph leaves open closed. */
export function mend(source) {
  if (/^\s*(?:`{3,}|~{3,})/m.test(source)) return source; // code in a list is shown as it comes
  const at = source.lastIndexOf("\n\n") + 1;
  return source.slice(0, at) + closed(source.slice(at));
}

function closed(text) {
  const shown = text.replace(HALF_IMAGE, "").replace(HALF_LINK, "$1");
  const outside = shown.replace(CODE_SPAN, "");
  if (isOdd(outside, /`/g)) return shown.endsWith("`") ? shown.slice(0, -1) : `${shown}\``;
  const bare = shown.replace(/\*+\s*$/, "");
  const isOpen = isOdd(bare.replace(CODE_SPAN, ""), /\*\*/g);
  if (isOpen) return `${bare.trimEnd()}**`;
  return isOdd(outside, /\*\*/g) || /(?:^|[^*\n])\*$/.test(shown) ? bare : shown;
}
