// Names from outside, as they can be shown: one line, bounded, and in their place.

const LONGEST = 200;
/** Characters that turn the direction of what follows, or cannot be seen at all. */
const TURNING = /[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u0000-\u001f\u007f-\u009f]+/g;

export function cleaned(text) {
  const line = String(text ?? "").replace(TURNING, " ").replace(/\s+/g, " ").trim();
  const points = Array.from(line.slice(0, 2 * LONGEST));
  return points.length > LONGEST ? `${points.slice(0, LONGEST).join("")}…` : line;
}
