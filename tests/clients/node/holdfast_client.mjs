// The module that comes with Holdfast: node holdfast_client.mjs
//
// A client or a stream is made by one command and named in the following ones. Commands run side by
// side: {"number": 1, "do": "ask", ...} -> {"number": 1, "result": ...}, in the order of their ends.

import {
  HoldfastClient,
  SseParser,
  answerOf,
  emptyAnswer,
  fold,
} from "../../../src/holdfast/console/holdfast-client.js";
import { createInterface } from "node:readline";
import { Watch, notedFetch } from "./harness.mjs";

const told = ({ code, status, requestId, extra, message, name, cause }) => ({
  ...{ name, code, status, requestId, extra, message },
  cause: cause && { code: cause.code, message: cause.message },
});

const realNow = Date.now;
let asleepMs = 0;
Date.now = () => realNow() + asleepMs;

/** A client, and how it fared. */
class Client {
  watch = new Watch();
  requests = [];
  waits = [];
  connected = 0;

  constructor(options) {
    this.client = new HoldfastClient({
      fetch: notedFetch(this.requests, this.watch.changed),
      onWait: (cause) => this.note(() => this.waits.push(cause)),
      onConnected: () => this.note(() => (this.connected += 1)),
      ...options,
    });
  }

  note(change) {
    change();
    this.watch.changed();
  }

  look() {
    const { requests, waits, connected } = this;
    return { requests, waits, connected };
  }
}

/** A stream that is read. */
class Reading {
  watch = new Watch();
  abort = new AbortController();
  events = [];
  error = null;
  done = false;

  constructor(make, { leave_after: limit = Infinity } = {}) {
    this.stream = make({ signal: this.abort.signal });
    if (limit > 0) this.read(limit);
  }

  async read(limit) {
    this.done = false;
    this.error = null;
    try {
      for await (const event of this.stream) {
        this.events.push(event);
        this.watch.changed();
        if (this.events.length >= limit) break;
      }
    } catch (error) {
      this.error = told(error);
    }
    this.done = true;
    this.watch.changed();
  }

  look() {
    const { runId, sessionId, messageId, questionId, cursor, answer, idempotencyKey } = this.stream;
    const ids = { runId, sessionId, messageId, questionId, cursor, idempotencyKey };
    return { ...ids, answer, events: this.events, error: this.error };
  }
}

const clients = new Map();
const readings = new Map();
const client = (given) => clients.get(given.client);
const reading = (given) => readings.get(given.reading);

function begin(given, make) {
  readings.set(given.reading, new Reading(make, given));
}

/** What a promise comes to: its value, or the error it is rejected with. */
const outcome = (promise) =>
  promise.then((value) => ({ value: value ?? null }), (error) => ({ error: told(error) }));

const commands = {
  client: (given) => void clients.set(given.client, new Client(given.options)),
  key: (given) => void (client(given).client.apiKey = given.key),
  fared: (given) => client(given).look(),
  waited: (given) => client(given).watch.until(() => client(given).waits.length >= given.times),
  asked: (given) => client(given).watch.until(() => client(given).requests.length >= given.times),
  /** The machine sleeps: the wall clock goes on, no timer does. */
  sleep: (given) => void (asleepMs += given.ms),
  wake: (given) => client(given).client.wake(),

  /** Begins to read what a method gives; the last argument gets the signal. */
  read: (given) => {
    const { method, args = [], options = {} } = given;
    begin(given, (more) => client(given).client[method](...args, { ...options, ...more }));
  },
  go_on: (given) => void reading(given).read(given.leave_after ?? Infinity),
  events: async (given) => {
    const one = reading(given);
    await one.watch.until(() => one.events.length >= given.times || one.done);
    return one.look();
  },
  done: async (given) => {
    const one = reading(given);
    await one.watch.until(() => one.done);
    return one.look();
  },
  look: (given) => reading(given).look(),
  abort: (given) => reading(given).abort.abort(),
  result: (given) => outcome(reading(given).stream.result()),
  cancel: (given) => outcome(reading(given).stream.cancel()),
  read_again: (given) => outcome(reading(given).stream[Symbol.asyncIterator]().next()),

  /** Calls any other method. */
  call: ({ method, args = [], ...given }) => outcome(client(given).client[method](...args)),
  all_messages: async (given) => {
    const all = [];
    for await (const one of client(given).client.allMessages(given.session)) all.push(one);
    return all;
  },

  /** Many event streams at once: each is a list of chunks in base64. */
  parse: ({ streams }) =>
    streams.map((chunks) => {
      const parser = new SseParser();
      const messages = chunks.flatMap((chunk) => parser.feed(Buffer.from(chunk, "base64")));
      return { messages, retry: parser.retryMs };
    }),
  fold: ({ logs }) => logs.map((events) => events.reduce(fold, emptyAnswer())),
  answer_of: ({ message, events = [] }) => events.reduce(fold, answerOf(message)),
};

async function run({ number, do: name, ...given }) {
  let answer;
  try {
    answer = { result: (await commands[name](given)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify({ number, ...answer }) + "\n");
}

for await (const line of createInterface({ input: process.stdin })) run(JSON.parse(line));
process.exit(0);
