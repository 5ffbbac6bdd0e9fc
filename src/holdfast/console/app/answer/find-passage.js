// Where a passage stands in a document, which may have changed since it was cited.

const LINES = /#L(\d+)-L(\d+)$/;
const LINK = /!?\[([^[\]]*)\]\([^()\s]*(?:[ \t]+"[^"]*")?\)/g;
const ENOUGH = 80;

/** The lines that a passage was taken from; null if its name does not say so. */
export function linesOf({ chunk_id: chunk, document_id: id }) {
  const found = LINES.exec(chunk ?? "");
  return found && id && chunk === id + found[0] ? [Number(found[1]), Number(found[2])] : null;
}

/** What counts in a comparison: no spaces, no signs, no addresses of links. */
const letters = (text) => text.replace(LINK, "$1").replace(LINK, "$1").replace(/[^\p{L}\p{N}]+/gu, "");

/** The first and the last line of the passage in the document as it is now; null: it is not there. */
export function findLines(text, reference) {
  const lines = text.split(/\r\n|\r|\n/).map(letters);
  const wanted = letters(reference.text ?? "");
  const [first, last] = linesOf(reference) ?? [1, 1];
  if (!wanted) return first <= lines.length ? [first, Math.min(last, lines.length)] : null;
  const before = [0];
  for (const line of lines) before.push(before.at(-1) + line.length);
  const whole = lines.join("");
  const at = nearest(whole, wanted.slice(0, ENOUGH), before[first - 1] ?? 0);
  if (at < 0) return null;
  const start = before.findLastIndex((length) => length <= at);
  const end = start + last - first;
  return [start + 1, Math.min(end + 1, lines.length)];
}

/** Where `wanted` stands in `whole`, next to `place`. */
function nearest(whole, wanted, place) {
  const [after, before] = [whole.indexOf(wanted, place), whole.lastIndexOf(wanted, place)];
  if (after < 0 || before < 0) return Math.max(after, before);
  return after - place <= place - before ? after : before;
}
