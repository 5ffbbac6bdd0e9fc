// Questions and answers as the page shows them, stored ones and those that are being written alike.

import { answerOf, emptyAnswer, fold } from "../holdfast-client.js";

let made = 0;

const time = (text) => (text ? Date.parse(text) : null);

export class Question {
  role = "user";

  constructor({ id = null, content, created_at = null }) {
    this.key = `q${(made += 1)}`;
    this.id = id;
    this.text = content;
    this.at = time(created_at);
  }
}

/**
 * An answer. `revision` rises with every change; `rewrites` when the text did not merely grow.
 *
 * A stored answer that is still being written is read once more from its first event, for the
 * notices and steps that are not stored. Until that has caught up, what is stored stays on show.
 */
export class Answer {
  role = "assistant";
  id = null;
  runId = null;
  sessionId = null;
  revision = 0;
  rewrites = 0;
  finish = null;
  endStatus = null;
  outcome = null;
  reason = null;
  error = null;
  versions = [];
  feedback = null;
  metadata = null;
  startedAt = null;
  endedAt = null;
  live = false;
  stopping = false;

  constructor(message) {
    this.key = `a${(made += 1)}`;
    this.mirror(emptyAnswer());
    if (message) this.store(message);
  }

  /** Show it as it is stored. */
  store(message) {
    const told = answerOf(message);
    if (!this.text || !this.outcome || told.text !== this.text) {
      this.rewrites += told.text.startsWith(this.text) ? 0 : 1;
      this.mirror({ ...told, notices: this.notices, steps: this.steps, routeReason: this.routeReason });
    }
    this.id = message.id;
    this.runId = message.run_id;
    this.sessionId = message.session_id;
    this.status = message.status;
    this.live = message.status === "streaming";
    this.usage = message.usage;
    this.outcome = message.outcome;
    this.reason = message.reason;
    this.error = message.error;
    this.versions = message.versions;
    this.feedback = message.feedback;
    this.metadata = message.metadata;
    this.startedAt = time(message.created_at);
    this.endedAt = time(message.completed_at);
    this.revision += 1;
  }

  /** Begin to be written. */
  begin() {
    this.folded = emptyAnswer();
    this.behind = this.text.length;
    this.live = true;
    this.status = "streaming";
    this.startedAt ??= Date.now();
    this.revision += 1;
  }

  /** Take the next event of the run. */
  take(event) {
    const { folded } = this;
    fold(folded, event);
    if (event.type === "run-start") this.name(event);
    if (event.type === "run-end") this.end(event);
    if (this.behind) {
      if (folded.text.length < this.behind && this.live) return;
      this.rewrites += folded.text.startsWith(this.text) ? 0 : 1;
      this.behind = 0;
    } else if (event.type === "text-replace") {
      this.rewrites += 1;
    }
    this.mirror(folded);
  }

  mirror(folded) {
    const { text, marks, reasoning, references, toolCalls, notices, steps } = folded;
    const { usage, upstream, model, route, routeReason } = folded;
    Object.assign(this, { text, marks, reasoning, references, toolCalls, notices, steps });
    Object.assign(this, { usage, upstream, model, route, routeReason });
    this.revision += 1;
  }

  name({ message_id, run_id, session_id }) {
    this.id = message_id;
    this.runId = run_id;
    this.sessionId = session_id;
  }

  end({ outcome, reason = null, error = null, finish = null, status = null }) {
    Object.assign(this, { outcome, reason, error, finish, endStatus: status });
    this.live = false;
    this.stopping = false;
    this.status = this.folded.status;
    this.endedAt = Date.now();
  }
}
