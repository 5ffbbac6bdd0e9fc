/** Types of `holdfast-client.js`, a client of Holdfast that resumes by itself. */

/** A citation in a text: start, end (Unicode code points, end excluded), the reference's ordinal. */
export type Mark = [start: number, end: number, ordinal: number];

export type Outcome = "completed" | "cancelled" | "interrupted" | "failed";

export type Reason =
  | "client_cancelled"
  | "client_disconnected"
  | "upstream_error"
  | "upstream_empty"
  | "upstream_timeout"
  | "upstream_truncated"
  | "upstream_unreachable"
  | "limit"
  | "storage_error"
  | "server_shutdown"
  | "server_crash";

export type Finish = "stop" | "length" | "tool_calls" | "content_filter";

/** How a message is shown. `partial` ended early with something, `failed` with nothing. */
export type Status = "streaming" | "complete" | "partial" | "failed";

/** A source item that the upstream retrieved. What has no value is left out. */
export interface Reference {
  /** 1-based; the number that is shown for it. */
  ordinal: number;
  document_id?: string;
  document_name?: string;
  chunk_id?: string;
  text?: string;
  /** http and https only. */
  url?: string;
  score?: number;
  positions?: unknown[];
  /** The upstream's own further fields. */
  extra?: Record<string, unknown>;
}

// ---------------------------------------------------------------- events

/** Where an event stands in the log of its run. */
export interface Place {
  /** `<run>.<seq>`: give it to `resume` to get what comes after this event. */
  cursor: string;
  runId: string;
  /** 1, 2, 3 … without gaps. */
  seq: number;
}

export interface RunStart extends Place {
  type: "run-start";
  run_id: string;
  session_id: string;
  message_id: string;
  question_id: string;
  upstream: string;
  model?: string;
  route_reason?: string;
  route?: "local_small" | "cloud_large";
}

/** More of the answer. Its marks count in its own text. */
export interface TextDelta extends Place {
  type: "text-delta";
  text: string;
  marks?: Mark[];
}

/** The upstream wrote the whole answer anew. */
export interface TextReplace extends Place {
  type: "text-replace";
  text: string;
  marks?: Mark[];
}

export interface ReasoningDelta extends Place {
  type: "reasoning-delta";
  text: string;
}

/** The full set so far; replaces the one before. */
export interface References extends Place {
  type: "references";
  references: Reference[];
}

export interface ToolCallPiece extends Place {
  type: "tool-call";
  index: number;
  id?: string;
  name?: string;
  arguments_delta?: string;
}

/** Progress worth showing; never part of the answer. */
export interface Step extends Place {
  type: "step";
  label: string;
  detail?: string;
}

/** With `upstream`, another one answers from here on. */
export interface Notice extends Place {
  type: "notice";
  code: string;
  message: string;
  upstream?: string;
  model?: string;
  route?: "local_small" | "cloud_large";
}

export interface UsageEvent extends Place {
  type: "usage";
  input_tokens?: number;
  output_tokens?: number;
  extra?: Record<string, unknown>;
}

/** Last event of every run, exactly once. */
export interface RunEnd extends Place {
  type: "run-end";
  outcome: Outcome;
  reason?: Reason;
  finish?: Finish;
  error?: string;
  /** The HTTP status by which the upstream refused to answer. */
  status?: number;
}

/**
 * An event of a run's log: the fields of the wire as they are, and its place. A later server may
 * send types that are not listed here; pass over them.
 */
export type HoldfastEvent =
  | RunStart
  | TextDelta
  | TextReplace
  | ReasoningDelta
  | References
  | ToolCallPiece
  | Step
  | Notice
  | UsageEvent
  | RunEnd;

// ---------------------------------------------------------------- answers

export interface ToolCall {
  index: number;
  id?: string;
  name?: string;
  arguments?: string;
}

export interface Usage {
  input_tokens: number | null;
  output_tokens: number | null;
  extra: Record<string, unknown> | null;
}

export interface End {
  outcome: Outcome;
  reason: Reason | null;
  finish: Finish | null;
  error: string | null;
  status: number | null;
}

/** What the events so far amount to: the same as the server's message. */
export interface Answer {
  text: string;
  /** How many code points `text` has. */
  length: number;
  /** They count code points of `text`. */
  marks: Mark[];
  reasoning: string;
  references: Reference[];
  toolCalls: ToolCall[];
  usage: Usage | null;
  notices: { code: string; message: string }[];
  steps: { label: string; detail: string | null }[];
  upstream: string | null;
  model: string | null;
  route: "local_small" | "cloud_large" | null;
  routeReason: string | null;
  /** Whether there is anything that a partial answer keeps. */
  arrived: boolean;
  status: Status;
  end: End | null;
}

/** An answer before its first event. */
export function emptyAnswer(): Answer;

/** The answer that a stored message holds, to go on from. Steps and notices are not stored. */
export function answerOf(message: Message): Answer;

/**
 * Takes the next event of the log into `answer`, which changes in place, and gives it back. It
 * costs the size of the event, not of the answer.
 */
export function fold(answer: Answer, event: HoldfastEvent): Answer;

/**
 * The events of an answer, each once and in order, however often the connection breaks.
 *
 * The request is sent when reading begins: by `for await` or by `result()`. After a loop that was
 * left, or that ended in an error, another one goes on after the last event: the same run.
 */
export interface AnswerStream extends AsyncIterable<HoldfastEvent> {
  /** Known from the first response on, at the latest from `run-start`; null before. */
  readonly runId: string | null;
  readonly sessionId: string | null;
  readonly messageId: string | null;
  readonly questionId: string | null;
  /** The position after the last event that was given; null before the first. */
  readonly cursor: string | null;
  /** What the events so far amount to. It changes in place, and is another one for another run. */
  readonly answer: Answer;
  /** The key that the question is asked with; null if nothing is asked. */
  readonly idempotencyKey: string | null;
  /** The whole answer; reads what is left, or waits for whoever reads. */
  result(): Promise<Answer>;
  /** Stops the run, keeps what it has written, and gives both. Reading goes on to `run-end`. */
  cancel(): Promise<RunAnswer>;
}

// ---------------------------------------------------------------- what is stored

export interface Run {
  id: string;
  session_id: string;
  message_id: string;
  question_id: string;
  status: "accepted" | "connecting" | "streaming" | "ended";
  outcome: Outcome | null;
  reason: Reason | null;
  error: string | null;
  upstream: string;
  model: string | null;
  route_reason: string | null;
  /** The position of this picture: events after it are not in it. */
  cursor: string;
  created_at: string;
  ended_at: string | null;
}

export interface Feedback {
  rating: "up" | "down" | null;
  comment?: string | null;
}

export interface Message {
  id: string;
  session_id: string;
  role: "user" | "assistant";
  content: string;
  /** They count code points of `content`. */
  marks: Mark[];
  reasoning: string;
  status: Status;
  outcome: Outcome | null;
  reason: Reason | null;
  error: string | null;
  references: Reference[];
  upstream: string | null;
  model: string | null;
  usage: Usage | null;
  run_id: string | null;
  /** Ids of all answers to the same question, the oldest first. */
  versions: string[];
  feedback: (Feedback & { at: string }) | null;
  metadata: Record<string, unknown> | null;
  created_at: string;
  completed_at: string | null;
  tool_calls?: ToolCall[];
}

export interface Session {
  id: string;
  title: string | null;
  preset: string | null;
  metadata: Record<string, unknown> | null;
  live_run_id: string | null;
  created_at: string;
  updated_at: string;
}

export interface RunAnswer {
  run: Run;
  message: Message;
}

export interface Page<Item> {
  items: Item[];
  /** What the next page is asked for with; null on the last one. */
  next: string | null;
}

export interface Upstream {
  name: string;
  kind: string;
  healthy: boolean;
}

export interface Preset {
  name: string;
  upstream: string | null;
  model: string | null;
}

// ---------------------------------------------------------------- errors

export type ErrorCode =
  | "bad_request"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "method_not_allowed"
  | "run_active"
  | "conflict"
  | "cursor_ahead"
  | "too_large"
  | "unsupported_media_type"
  | "idempotency_mismatch"
  | "too_many_requests"
  | "internal_error"
  | "unavailable"
  | "store_unavailable"
  | "draining"
  /** Nobody answers, or not any more for `patienceMs`; `cause` is the last that was seen. */
  | "server_unreachable"
  /** Something else than a Holdfast server answers. */
  | "not_holdfast"
  /** There is no run to cancel: none was asked for, or nobody reads the answer any more. */
  | "run_unknown"
  /** Somebody reads this answer already. */
  | "already_read";

/** What the server refused, or why it could not be asked. */
export class HoldfastError extends Error {
  constructor(
    code: ErrorCode,
    message: string,
    more?: Partial<Pick<HoldfastError, "status" | "requestId" | "extra" | "cause">>,
  );
  /** One of `ErrorCode`; a later server may have others. */
  readonly code: ErrorCode | (string & {});
  /** The HTTP status; null if there was no response. */
  readonly status: number | null;
  /** The id by which the request is found in the server's log. */
  readonly requestId: string | null;
  /**
   * Further members of the error: `run_id` of `run_active`, `last_seq` and `answer` (the message) of
   * `cursor_ahead`, `reached` of `server_unreachable`.
   */
  readonly extra: Record<string, unknown>;
}

// ---------------------------------------------------------------- the client

export interface ClientOptions {
  /** The server's address (default: the page's own origin, else http://127.0.0.1:8484). */
  url?: string;
  /** A key of the server, if it wants one. */
  apiKey?: string | null;
  /** Sent with every request. */
  headers?: Record<string, string>;
  /** Instead of the global one. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** How long to try again without one new event before giving up (default 120,000). */
  patienceMs?: number;
  /** How long a connection may be silent before it counts as broken (default 45,000). */
  silenceMs?: number;
  /** A connection broke; another try follows. */
  onWait?: (cause: string) => void;
  /** No request waits for another try any more: they got through, or were given up. */
  onConnected?: () => void;
}

export interface Abortable {
  /** Ends this request or this reading; never the run. */
  signal?: AbortSignal;
}

export interface AnswerOptions extends Abortable {
  upstream?: string | null;
  model?: string | null;
  /** Makes asking again the same run (default: a new one for each call). */
  idempotencyKey?: string;
  /** What becomes of the run when nobody reads it. */
  onDisconnect?: "continue" | "cancel" | null;
  /** What becomes of the session's live run. */
  onBusy?: "reject" | "cancel" | null;
  metadata?: Record<string, unknown> | null;
  temperature?: number | null;
  maxTokens?: number | null;
  system?: string | null;
}

export interface AskOptions extends AnswerOptions {
  /** The id of the session to ask in; without it one is begun. */
  session?: string | null;
  preset?: string | null;
}

export interface ResumeOptions extends Abortable {
  /** What the events before the cursor amount to; `result()` goes on from it. */
  answer?: Answer;
}

/**
 * Speaks to one Holdfast server. Whatever may be repeated is repeated when a connection breaks, for
 * as long as `patienceMs`; a question is never asked twice.
 */
export class HoldfastClient {
  constructor(options?: ClientOptions);

  /** May be set at any time; later requests send it. */
  apiKey: string | null;

  ask(message: string, options?: AskOptions): AnswerStream;
  /** Answers the question of an answer once more. */
  regenerate(messageId: string, options?: AnswerOptions): AnswerStream;
  /** Asks a question anew in other words; that turn and all later ones are retired. */
  edit(questionId: string, message: string, options?: AnswerOptions): AnswerStream;
  /** The events after a cursor, or all events of a run. */
  resume(cursorOrRunId: string, options?: ResumeOptions): AnswerStream;
  /** Joins the session's live run, after the rest of the cursor's run; ends at once without one. */
  follow(sessionId: string, options?: ResumeOptions & { after?: string }): AnswerStream;

  run(runId: string, options?: Abortable): Promise<RunAnswer>;
  cancel(runId: string, options?: Abortable): Promise<RunAnswer>;

  /** Sessions, last used first; `before` is the `next` of the page before. */
  sessions(
    options?: Abortable & { query?: string; before?: string | null; limit?: number },
  ): Promise<Page<Session>>;
  session(sessionId: string, options?: Abortable): Promise<Session>;
  createSession(
    fields?: { title?: string; preset?: string; metadata?: Record<string, unknown> },
    options?: Abortable,
  ): Promise<Session>;
  renameSession(sessionId: string, title: string, options?: Abortable): Promise<Session>;
  deleteSession(sessionId: string, options?: Abortable): Promise<void>;

  /** Messages, oldest first; `after` is the `next` of the page before. */
  messages(
    sessionId: string,
    options?: Abortable & { after?: string | null; limit?: number },
  ): Promise<Page<Message>>;
  allMessages(sessionId: string, options?: Abortable): AsyncGenerator<Message, void, undefined>;
  message(messageId: string, options?: Abortable): Promise<Message>;
  /** Says what a person thinks of an answer; null takes it back. */
  feedback(messageId: string, feedback: Feedback | null, options?: Abortable): Promise<Message>;

  upstreams(options?: Abortable): Promise<Upstream[]>;
  presets(options?: Abortable): Promise<Preset[]>;

  /**
   * The page is awake, or the network is back: skips every wait, and drops connections that have
   * been silent for suspiciously long. Call it on `online` and `visibilitychange`.
   */
  wake(): void;
}

/** An event of any stream of server-sent events. */
export interface SseMessage {
  id: string;
  event: string;
  data: string;
}

/** Cuts bytes into server-sent events, to the letter of the HTML standard. */
export class SseParser {
  /** The reconnection time that the stream asked for. */
  readonly retryMs: number | null;
  /** How many characters wait for the end of their event. */
  readonly waiting: number;
  feed(chunk: Uint8Array): SseMessage[];
}
