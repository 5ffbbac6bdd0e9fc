// Asks the worker for the colours of a block of code.

const MAX_CODE = 200_000;
const PATIENCE_MS = 10_000;

const waiting = new Map();
let worker = null;
let last = 0;

function start() {
  worker = new Worker(new URL("highlight-worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => settle(data.id, data.tokens);
  worker.onerror = giveUp;
}

function settle(id, tokens) {
  waiting.get(id)?.(tokens);
  waiting.delete(id);
}

/** Code stays without colours where the worker cannot be had or does not come to an end. */
function giveUp() {
  worker?.terminate();
  worker = null;
  for (const id of [...waiting.keys()]) settle(id, null);
}

/** The code as pairs of text and class; null: it has no colours. */
export function highlight(code, language) {
  if (code.length > MAX_CODE) return Promise.resolve(null);
  if (!worker) start();
  last += 1;
  const id = last;
  const timer = setTimeout(giveUp, PATIENCE_MS);
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    worker.postMessage({ id, code, language });
  }).finally(() => clearTimeout(timer));
}
