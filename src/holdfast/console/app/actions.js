// What the buttons of an answer do.

import { setDraft } from "./draft.js";
import { announce } from "./live.js";
import { changed, set, state } from "./state.js";
import { ask, regenerate, showVersion, stop } from "./talk.js";
import { client, explain, getJson } from "./wire.js";

async function feedback(answer, given) {
  try {
    const message = await client.feedback(answer.id, given);
    answer.feedback = message.feedback;
    answer.revision += 1;
    changed();
  } catch (error) {
    set({ note: explain(error) });
    throw error;
  }
}

const runs = new Map();

function run({ runId }) {
  if (!runId) return Promise.resolve(null);
  if (!runs.has(runId)) {
    const asked = client.run(runId).then((found) => found.run);
    asked.catch(() => runs.delete(runId));
    runs.set(runId, asked);
  }
  return runs.get(runId);
}

function readDocument({ upstream }, { document_id: id }) {
  const name = encodeURIComponent(upstream);
  return getJson(`api/v1/upstreams/${name}/document?id=${encodeURIComponent(id)}`);
}

function compose(text) {
  setDraft(text);
  document.getElementById("question").focus();
}

export const actions = {
  regenerate,
  stop,
  compose,
  sendNow: ask,
  feedback,
  showVersion,
  run,
  document: readDocument,
  announce,
  upstreams: () => state.upstreams,
};
