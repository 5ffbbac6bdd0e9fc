// A client of Holdfast that resumes by itself: one module without dependencies, for browsers,
// Node.js from 20 on and Deno. `holdfast-client.d.ts` has the types and says what everything does.
//
//     ask ──► POST with a key ──► events ──► run-end
//                  ▲                 │ connection lost
//                  │ no run known    ▼
//                  └──────────── wait ──► GET events with Last-Event-ID ──► the rest
//
// The same key is the same run, so asking again after a broken connection never asks twice.

const DEFAULT_URL = "http://127.0.0.1:8484";
const PATIENCE_MS = 120_000;
const SILENCE_MS = 45_000; // more than the server's heartbeat
const ANSWER_MS = 30_000; // for whatever is no stream
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 3_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1; // a longer one fires at once
const LONGEST_EVENT = 64_000_000;

const RUNS = "/api/v1/runs";
const SESSIONS = "/api/v1/sessions";
const MESSAGES = "/api/v1/messages";

// ---------------------------------------------------------------- the fold

export const emptyAnswer = () => ({
  text: "",
  length: 0,
  marks: [],
  reasoning: "",
  references: [],
  toolCalls: [],
  usage: null,
  notices: [],
  steps: [],
  upstream: null,
  model: null,
  route: null,
  routeReason: null,
  arrived: false,
  status: "streaming",
  end: null,
});

export function answerOf(message) {
  const { marks, reasoning, references, usage, upstream, model, outcome, status } = message;
  const end = outcome && endOf({ outcome, reason: message.reason, error: message.error });
  const toolCalls = (message.tool_calls ?? []).map((call) => ({ ...call }));
  const answer = { ...emptyAnswer(), reasoning, references, toolCalls, usage, upstream, model };
  addText(answer, message.content, marks);
  answer.arrived = hasAnything(answer);
  return Object.assign(answer, { status, end: end || null });
}

/** What each type of event does to an answer; the same as the server's own fold. */
const FOLDS = {
  "run-start"(answer, { upstream, model = null, route = null, route_reason = null }) {
    Object.assign(answer, { upstream, model, route, routeReason: route_reason });
  },
  "text-delta"(answer, { text, marks = [] }) {
    addText(answer, text, marks);
  },
  "text-replace"(answer, { text, marks = [] }) {
    Object.assign(answer, { text: "", length: 0, marks: [] });
    addText(answer, text, marks);
  },
  "reasoning-delta"(answer, { text }) {
    answer.reasoning += text;
    answer.arrived ||= text !== "";
  },
  references(answer, { references }) {
    answer.references = references;
    answer.arrived ||= references.length > 0;
  },
  "tool-call"(answer, piece) {
    addToolCall(answer.toolCalls, piece);
    answer.arrived = true;
  },
  step(answer, { label, detail = null }) {
    answer.steps.push({ label, detail });
  },
  notice(answer, { code, message, upstream, model = null, route = null }) {
    answer.notices.push({ code, message });
    if (upstream === undefined) return;
    // Another upstream answers from here on: the one before gave nothing that stays.
    Object.assign(answer, { upstream, model, route, usage: null });
    answer.arrived = hasAnything(answer);
  },
  usage(answer, { input_tokens = null, output_tokens = null, extra = null }) {
    answer.usage = { input_tokens, output_tokens, extra };
  },
  "run-end"(answer, event) {
    answer.end = endOf(event);
    const early = answer.arrived ? "partial" : "failed";
    answer.status = event.outcome === "completed" ? "complete" : early;
  },
};

export function fold(answer, event) {
  if (Object.hasOwn(FOLDS, event.type)) FOLDS[event.type](answer, event);
  return answer;
}

const hasAnything = ({ length, reasoning, toolCalls, references }) =>
  length > 0 || reasoning !== "" || toolCalls.length > 0 || references.length > 0;

const endOf = ({ outcome, reason = null, finish = null, error = null, status = null }) => ({
  outcome,
  reason,
  finish,
  error,
  status,
});

function addText(answer, text, marks) {
  const at = answer.length;
  for (const [start, end, ordinal] of marks) answer.marks.push([start + at, end + at, ordinal]);
  answer.text += text; // engines keep such a string as a tree: its length does not count
  answer.length += countPoints(text);
  answer.arrived ||= text !== "";
}

function countPoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

function addToolCall(calls, { index, id, name, arguments_delta = "" }) {
  let call = calls.findLast((one) => one.index === index); // mostly the last one
  if (!call) calls.push((call = { index }));
  if (id) call.id = id;
  if (name) call.name = name;
  if (arguments_delta) call.arguments = (call.arguments ?? "") + arguments_delta;
}

// ---------------------------------------------------------------- server-sent events

/** HTML Living Standard, section 9.2.6 (Interpreting an event stream). */
export class SseParser {
  retryMs = null;
  #decoder = new TextDecoder(); // takes away the byte order mark, once
  #afterCr = false;
  #line = ""; // that has no end yet
  #data = "";
  #event = "";
  #id = "";

  feed(chunk) {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (this.#afterCr && text) {
      if (text[0] === "\n") text = text.slice(1);
      this.#afterCr = false;
    }
    const messages = [];
    let start = 0;
    for (const { 0: end, index } of text.matchAll(/\r\n|\r|\n/g)) {
      this.#take(this.#line + text.slice(start, index), messages);
      this.#line = "";
      start = index + end.length;
    }
    if (text) this.#afterCr = text.endsWith("\r");
    this.#line += text.slice(start);
    return messages;
  }

  /** How many characters wait for the end of their event. */
  get waiting() {
    return this.#line.length + this.#data.length;
  }

  #take(line, messages) {
    if (line === "") return this.#dispatch(messages);
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data += value + "\n";
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch(messages) {
    if (this.#data) {
      const data = this.#data.slice(0, -1);
      messages.push({ id: this.#id, event: this.#event || "message", data });
    }
    this.#data = this.#event = "";
  }
}

// ---------------------------------------------------------------- errors

export class HoldfastError extends Error {
  constructor(code, message, { status = null, requestId = null, extra = {}, cause } = {}) {
    super(message, { cause });
    Object.assign(this, { code, status, requestId, extra });
  }

  get name() {
    return "HoldfastError";
  }
}

/** A connection that broke in the middle; worth another try. */
class Broken extends Error {
  constructor(message, { retryAfterMs = 0, cause } = {}) {
    super(message, { cause });
    this.retryAfterMs = retryAfterMs;
  }
}

/** The error that a response stands for. */
function errorOf(response, body, name) {
  const told = body?.error;
  const { status } = response;
  if (typeof told?.code !== "string") {
    return new HoldfastError("not_holdfast", `${name} answered HTTP ${status}`, { status });
  }
  const { code, message, request_id: requestId, ...extra } = told;
  if (body.message) extra.answer = body.message;
  return new HoldfastError(code, message, { status, requestId, extra });
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Whether another try may fare better; `known`: the server has been met before. */
function isTransient({ status }, error, known) {
  if ([502, 503, 504].includes(status)) return true;
  // Something between the server and here speaks for it, or the run was begun already.
  return known && (status === 429 || (status >= 500 && error.code === "not_holdfast"));
}

function retryAfterMs(response) {
  const value = response.headers.get("Retry-After") ?? "";
  return /^[0-9]+$/.test(value) ? Number(value) * 1000 : 0;
}

const CLOSED = "the connection was closed";

const mediaType = ({ headers }) =>
  (headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();

const isJson = (response) => mediaType(response) === "application/json";

const isStream = (response) => mediaType(response) === "text/event-stream";

// ---------------------------------------------------------------- one connection, and the next

/** One connection: `signal` ends it, and silence does. */
class Line {
  #controller = new AbortController();
  #abort = () => this.#controller.abort(this.#outer.reason);
  #outer;
  #silenceMs;
  #since = null; // when the wait for a sign of life began, by a clock that goes on in sleep

  constructor(silenceMs, outer) {
    this.#silenceMs = silenceMs;
    this.#outer = outer;
    outer?.throwIfAborted();
    outer?.addEventListener("abort", this.#abort);
  }

  get signal() {
    return this.#controller.signal;
  }

  /** Waits for a sign of life; whatever goes wrong with that is a connection that broke. */
  async hear(promise, failure) {
    this.#since = Date.now();
    const timer = setTimeout(() => this.break("it is silent"), this.#silenceMs);
    try {
      return await promise;
    } catch (cause) {
      if (this.signal.aborted) throw this.signal.reason;
      throw new Broken(failure, { cause });
    } finally {
      clearTimeout(timer);
      this.#since = null;
    }
  }

  /** Breaks what has been silent for so long that it must have broken in our sleep. */
  wake() {
    if (this.#since !== null && Date.now() - this.#since > this.#silenceMs / 3) {
      this.break("it was silent");
    }
  }

  break(cause) {
    this.#controller.abort(new Broken(cause));
  }

  close() {
    this.#outer?.removeEventListener("abort", this.#abort);
    this.#controller.abort();
  }
}

async function* chunksOf(response, line) {
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await line.hear(reader.read(), CLOSED);
    if (done) return;
    yield value;
  }
}

/** How long to wait before each try, and when to stop trying. Time asleep does not count. */
class Patience {
  #ms;
  #tryMs;
  #leftMs;
  #waitMs;
  #tried;
  #firstMs = FIRST_WAIT_MS;

  constructor(ms, tryMs) {
    this.#ms = ms;
    this.#tryMs = tryMs;
    this.renew();
  }

  /** Something came: start anew. */
  renew() {
    this.#leftMs = this.#ms;
    this.#waitMs = this.#firstMs;
    this.#tried = Date.now();
  }

  /** How long to wait now; null when patience is at its end. */
  next(atLeastMs) {
    // Spread, so that many clients of one server do not come back at the same instant.
    const waitMs = Math.max(this.#waitMs * (0.75 + Math.random() / 2), atLeastMs);
    const triedMs = Math.min(Math.max(Date.now() - this.#tried, 0), this.#tryMs);
    this.#waitMs = Math.min(this.#waitMs * 2, Math.max(LONGEST_WAIT_MS, this.#firstMs));
    this.#leftMs -= triedMs + waitMs;
    return this.#leftMs > 0 ? Math.min(waitMs, LONGEST_TIMER_MS) : null;
  }

  /** The stream says how long to wait at first. */
  suggest(ms) {
    if (ms !== null && ms !== this.#firstMs) this.#waitMs = this.#firstMs = ms;
  }

  /** Another try begins. */
  try() {
    this.#tried = Date.now();
  }
}

// ---------------------------------------------------------------- a place in a log

/** How far was read, and how to ask for what comes next. */
class Position {
  known = false; // whether a stream has been met
  runId = null;
  seq = 0;
  ended = false; // whether the run's last event was given
  ids = { run: null, session: null, message: null, question: null };
  met; // resolved when `ids.run` is known
  #meet;
  #over = false;
  #opening;
  #target; // the run whose end is the end; null as long as it is not known

  /** Begins with the request `opening`, which may name an earlier position, or with a run. */
  constructor({ opening = null, runId = null, seq = 0, target = null }) {
    Object.assign(this, { runId, seq });
    this.met = new Promise((resolve) => (this.#meet = resolve));
    this.#opening = opening;
    this.#target = target;
    if (target) this.#learn({ run: target });
  }

  get cursor() {
    return this.runId !== null && this.seq > 0 ? `${this.runId}.${this.seq}` : null;
  }

  /** Whether nothing more will come. */
  get done() {
    return this.#over || (this.ended && this.runId === this.#target);
  }

  /** The next request: for what comes after this position. */
  request() {
    const cursor = this.ended ? null : this.cursor; // the next run is read from its start
    const after = cursor ? { "Last-Event-ID": cursor } : {};
    if (this.#target === null) {
      return { ...this.#opening, headers: { ...this.#opening.headers, ...after } };
    }
    return { path: `${RUNS}/${cursor ? this.runId : this.#target}/events`, headers: after };
  }

  /** A response has begun. */
  meet(headers) {
    this.known = true;
    const run = (this.#target ??= headers.get("X-Holdfast-Run"));
    if (this.runId !== null && this.runId !== run) return; // of another run than what comes first
    const session = headers.get("X-Holdfast-Session");
    this.#learn({ run, session, message: headers.get("X-Holdfast-Message") });
  }

  /** The server has nothing after this position in the log that it was asked for. */
  leave() {
    const first = !this.ended && this.seq > 0 && this.runId !== this.#target;
    this.#over = !first || this.#target === null;
    this.ended = true;
  }

  /** A response came to its end. A run that has no name cannot be asked for any more. */
  close() {
    this.#over = this.ended && this.#target === null;
    if (!this.done) throw new Broken(CLOSED);
  }

  /** The message as an event; null if it was given before. */
  take({ id, data }) {
    const [, runId, digits] = /^([^.]+)\.([0-9]{1,15})$/.exec(id) ?? [];
    if (runId === undefined) throw new SyntaxError(`${JSON.stringify(id)} is no cursor`);
    const seq = Number(digits);
    const before = runId === this.runId ? this.seq : 0;
    if (seq <= before) return null;
    if (seq > before + 1) throw new Broken(`event ${before + 1} did not come`);
    const event = JSON.parse(data);
    if (typeof event?.type !== "string") throw new SyntaxError(`${id} is no event`);
    Object.assign(this, { runId, seq, ended: event.type === "run-end" });
    if (this.#opening?.method === "POST") this.#target ??= runId;
    if (event.type === "run-start") this.#start(event);
    return Object.assign(event, { cursor: id, runId, seq });
  }

  #start({ run_id: run, session_id: session, message_id: message, question_id: question }) {
    this.#learn({ run, session, message, question });
  }

  #learn(ids) {
    for (const [name, id] of Object.entries(ids)) this.ids[name] = id ?? this.ids[name];
    if (this.ids.run) this.#meet();
  }
}

/** `<run>.<seq>`, or a run from its start. */
function parseCursor(text) {
  const [, runId, seq = "0"] = /^([0-9A-Za-z-]{1,64})(?:\.([0-9]{1,15}))?$/.exec(text) ?? [];
  if (!runId) throw new HoldfastError("bad_request", `${text} is neither a cursor nor a run`);
  return { runId, seq: Number(seq) };
}

// ---------------------------------------------------------------- one answer

/** The events of an answer; see `AnswerStream` in the types. */
class AnswerStream {
  idempotencyKey;
  answer;
  #position;
  #read;
  #cancel;
  #reading = null; // resolved when whoever reads has left
  #failure = null;

  constructor(position, { read, cancel, idempotencyKey = null, answer = emptyAnswer() }) {
    this.#position = position;
    this.#read = read;
    this.#cancel = cancel;
    Object.assign(this, { idempotencyKey, answer });
  }

  get runId() {
    return this.#position.ids.run;
  }

  get sessionId() {
    return this.#position.ids.session;
  }

  get messageId() {
    return this.#position.ids.message;
  }

  get questionId() {
    return this.#position.ids.question;
  }

  get cursor() {
    return this.#position.cursor;
  }

  async *[Symbol.asyncIterator]() {
    if (this.#reading) {
      throw new HoldfastError("already_read", "somebody reads this answer already");
    }
    let leave;
    this.#reading = new Promise((resolve) => (leave = resolve));
    this.#failure = null;
    try {
      for await (const event of this.#read(this.#position)) {
        if (event.type === "run-start") this.answer = emptyAnswer();
        fold(this.answer, event);
        yield event;
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    } finally {
      this.#reading = null;
      leave();
    }
  }

  async result() {
    while (this.#reading) await this.#reading;
    if (this.#failure) throw this.#failure;
    for await (const _ of this);
    return this.answer;
  }

  async cancel() {
    if (!this.runId) await Promise.race([this.#position.met, this.#reading]);
    if (!this.runId) throw new HoldfastError("run_unknown", "there is no run to cancel yet");
    return this.#cancel(this.runId);
  }
}

// ---------------------------------------------------------------- the client

/** Options of a question, and what they are on the wire. */
const FIELDS = {
  session: "session_id",
  preset: "preset",
  upstream: "upstream",
  model: "model",
  onDisconnect: "on_disconnect",
  onBusy: "on_busy",
  metadata: "metadata",
  temperature: "temperature",
  maxTokens: "max_tokens",
  system: "system",
};

function bodyOf(options) {
  const body = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(FIELDS, name)) throw new TypeError(`there is no option ${name}`);
    if (value !== null) body[FIELDS[name]] = value;
  }
  return body;
}

/** A new key; `crypto.randomUUID` is missing on pages that come without TLS. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function ownOrigin() {
  const origin = globalThis.location?.origin ?? "";
  return origin.startsWith("http") ? origin : DEFAULT_URL; // a page from a file has none
}

function queryOf(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => (value ?? null) !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

const to = (path, ...ids) => [path, ...ids.map(encodeURIComponent)].join("/");

const JSON_BODY = { "Content-Type": "application/json" };

export class HoldfastClient {
  apiKey;
  #url;
  #headers;
  #fetch;
  #patienceMs;
  #silenceMs;
  #onWait;
  #onConnected;
  #lines = new Set(); // connections that are open
  #sleepers = new Set(); // what ends a wait
  #waiting = new Set(); // whoever waits for another try

  constructor({
    url = ownOrigin(),
    apiKey = null,
    headers = {},
    fetch = (address, init) => globalThis.fetch(address, init),
    patienceMs = PATIENCE_MS,
    silenceMs = SILENCE_MS,
    onWait = () => {},
    onConnected = () => {},
  } = {}) {
    this.apiKey = apiKey;
    this.#url = url.replace(/\/+$/, "");
    this.#headers = Object.fromEntries(new Headers(headers));
    this.#fetch = (address, init) => fetch(address, init);
    this.#patienceMs = patienceMs;
    this.#silenceMs = silenceMs;
    this.#onWait = onWait;
    this.#onConnected = onConnected;
  }

  // -------------------------------------------------------------- answers

  ask(message, options = {}) {
    return this.#post(RUNS, { message }, options);
  }

  regenerate(messageId, options = {}) {
    return this.#post(`${to(MESSAGES, messageId)}/regenerate`, {}, options);
  }

  edit(questionId, message, options = {}) {
    return this.#post(`${to(MESSAGES, questionId)}/edit`, { message }, options);
  }

  resume(cursorOrRunId, { signal, answer } = {}) {
    const { runId, seq } = parseCursor(cursorOrRunId);
    return this.#stream(new Position({ runId, seq, target: runId }), { signal, answer });
  }

  follow(sessionId, { after, signal, answer } = {}) {
    const opening = { path: `${to(SESSIONS, sessionId)}/events` };
    const start = after ? parseCursor(after) : {};
    return this.#stream(new Position({ opening, ...start }), { signal, answer });
  }

  #post(path, question, { signal, idempotencyKey, ...options }) {
    const key = idempotencyKey ?? newKey();
    const headers = { ...JSON_BODY, "Idempotency-Key": key };
    const body = JSON.stringify({ ...question, ...bodyOf(options) });
    const opening = { method: "POST", path, headers, body };
    return this.#stream(new Position({ opening }), { signal, idempotencyKey: key });
  }

  #stream(position, { signal, ...more }) {
    const read = (from) => this.#read(from, signal);
    return new AnswerStream(position, { read, cancel: (runId) => this.cancel(runId), ...more });
  }

  // -------------------------------------------------------------- what is stored

  run(runId, options) {
    return this.#get(to(RUNS, runId), options);
  }

  cancel(runId, options) {
    return this.#call("POST", `${to(RUNS, runId)}/cancel`, { ...options, body: {} });
  }

  sessions({ query, before, limit, signal } = {}) {
    return this.#get(SESSIONS + queryOf({ q: query, before, limit }), { signal });
  }

  session(sessionId, options) {
    return this.#get(to(SESSIONS, sessionId), options);
  }

  createSession(fields = {}, options = {}) {
    return this.#call("POST", SESSIONS, { ...options, body: fields, once: true });
  }

  renameSession(sessionId, title, options) {
    return this.#call("PATCH", to(SESSIONS, sessionId), { ...options, body: { title } });
  }

  async deleteSession(sessionId, options) {
    await this.#call("DELETE", to(SESSIONS, sessionId), options);
  }

  messages(sessionId, { after, limit, signal } = {}) {
    const path = `${to(SESSIONS, sessionId)}/messages`;
    return this.#get(path + queryOf({ after, limit }), { signal });
  }

  async *allMessages(sessionId, { signal } = {}) {
    let after = null;
    do {
      const page = await this.messages(sessionId, { after, signal });
      yield* page.items;
      after = page.next;
    } while (after !== null);
  }

  message(messageId, options) {
    return this.#get(to(MESSAGES, messageId), options);
  }

  feedback(messageId, feedback, options) {
    const body = feedback ?? { rating: null };
    return this.#call("PUT", `${to(MESSAGES, messageId)}/feedback`, { ...options, body });
  }

  async upstreams(options) {
    return (await this.#get("/api/v1/upstreams", options)).items;
  }

  async presets(options) {
    return (await this.#get("/api/v1/presets", options)).items;
  }

  // -------------------------------------------------------------- connections

  wake() {
    for (const line of [...this.#lines]) line.wake();
    for (const end of [...this.#sleepers]) end(true);
  }

  /** The events after a position, over as many connections as it takes. */
  async *#read(position, signal) {
    const patience = new Patience(this.#patienceMs, this.#silenceMs);
    try {
      while (!position.done) {
        try {
          yield* this.#readOnce(position, patience, signal);
        } catch (error) {
          await this.#waitOut(error, patience, signal, position.known);
        }
      }
    } finally {
      this.#settle(patience);
    }
  }

  /** What one connection gives. */
  async *#readOnce(position, patience, signal) {
    const line = this.#open(this.#silenceMs, signal);
    try {
      const response = await this.#connect(line, position);
      this.#settle(patience);
      if (response.status === 204) return position.leave();
      const parser = new SseParser();
      for await (const chunk of chunksOf(response, line)) {
        const messages = parser.feed(chunk);
        patience.suggest(parser.retryMs);
        if (parser.waiting > LONGEST_EVENT) throw this.#notHoldfast();
        for (const message of messages) {
          const event = this.#take(position, message);
          if (event === null) continue;
          patience.renew();
          yield event;
          if (position.done) return;
        }
      }
      position.close();
    } finally {
      this.#close(line);
    }
  }

  async #connect(line, position) {
    const response = await this.#send(line, position.request());
    if (!response.ok) throw await this.#refusal(line, response, position.known);
    if (response.status !== 204 && !isStream(response)) {
      if (position.known) throw new Broken("something else answered");
      throw this.#notHoldfast();
    }
    position.meet(response.headers);
    return response;
  }

  #take(position, message) {
    try {
      return position.take(message);
    } catch (error) {
      throw error instanceof SyntaxError ? this.#notHoldfast(error) : error;
    }
  }

  #get(path, options) {
    return this.#call("GET", path, options);
  }

  /** A request whose answer is one JSON object, or nothing; repeated unless it may be sent `once`. */
  async #call(method, path, { body, signal, once = false } = {}) {
    const request = { method, path };
    if (body) Object.assign(request, { headers: JSON_BODY, body: JSON.stringify(body) });
    const patience = new Patience(once ? 0 : this.#patienceMs, ANSWER_MS);
    try {
      for (let again = false; ; again = true) {
        try {
          return await this.#callOnce(request, signal);
        } catch (error) {
          if (again && method === "DELETE" && error.status === 404) return null; // it had worked
          await this.#waitOut(error, patience, signal);
        }
      }
    } finally {
      this.#settle(patience);
    }
  }

  async #callOnce(request, signal) {
    const line = this.#open(ANSWER_MS, signal);
    try {
      const response = await this.#send(line, request);
      if (!response.ok) throw await this.#refusal(line, response);
      if (response.status === 204) return null;
      if (!isJson(response)) throw this.#notHoldfast();
      const text = await line.hear(response.text(), CLOSED);
      const answer = parseJson(text);
      if (answer === null) throw new Broken(CLOSED); // in the middle, without HTTP noticing
      return answer;
    } finally {
      this.#close(line);
    }
  }

  #send(line, { method = "GET", path, headers, body }) {
    const init = {
      method,
      body,
      headers: { ...this.#headers, ...this.#authorization(), ...headers },
      cache: "no-store",
      signal: line.signal,
    };
    return line.hear(this.#fetch(this.#url + path, init), "no connection");
  }

  #authorization() {
    if (!this.apiKey) return {};
    if (!/^[!-~]+$/.test(this.apiKey)) {
      throw new HoldfastError("unauthorized", "the API key has signs in it that no key can have");
    }
    return { Authorization: `Bearer ${this.apiKey}` };
  }

  /** What a response that is not OK comes to: the server's error, or a reason to try again. */
  async #refusal(line, response, known = false) {
    const body = isJson(response) ? parseJson(await line.hear(response.text(), CLOSED)) : null;
    const error = errorOf(response, body, this.#url);
    if (!isTransient(response, error, known)) return error;
    const cause = error.code === "not_holdfast" ? undefined : error;
    return new Broken(`HTTP ${response.status}`, { retryAfterMs: retryAfterMs(response), cause });
  }

  /** Waits before the next try, or throws what another one would not mend. */
  async #waitOut(error, patience, signal, reached = false) {
    signal?.throwIfAborted();
    if (!(error instanceof Broken)) throw error;
    const waitMs = patience.next(error.retryAfterMs);
    if (waitMs === null) {
      const message = `no answer from ${this.#url}: ${error.message}`;
      const more = { cause: error.cause, extra: { reached } };
      throw new HoldfastError("server_unreachable", message, more);
    }
    this.#waiting.add(patience);
    this.#onWait(error.message);
    if (await this.#pause(waitMs, signal)) patience.renew();
    patience.try();
  }

  /** Waits; whether it was ended by `wake`. */
  #pause(waitMs, signal) {
    return new Promise((resolve) => {
      const end = (woken) => {
        clearTimeout(timer);
        this.#sleepers.delete(end);
        signal?.removeEventListener("abort", end);
        resolve(woken);
      };
      const timer = setTimeout(end, waitMs, false);
      this.#sleepers.add(end);
      signal?.addEventListener("abort", end);
    });
  }

  /** Whoever waited does not wait any more. */
  #settle(patience) {
    if (this.#waiting.delete(patience) && this.#waiting.size === 0) this.#onConnected();
  }

  #notHoldfast(cause) {
    const message = `what answers at ${this.#url} is no Holdfast server, or one of another version`;
    return new HoldfastError("not_holdfast", message, { cause });
  }

  #open(silenceMs, signal) {
    const line = new Line(silenceMs, signal);
    this.#lines.add(line);
    return line;
  }

  #close(line) {
    this.#lines.delete(line);
    line.close();
  }
}
