// EventSource and @microsoft/fetch-event-source: node sse.mjs URL
//
// Both wait for seconds before they connect again; here they wait for 10 ms. The second needs the
// globals of a page that can be hidden.

import { createRequire } from "node:module";
import { EventSource } from "eventsource";
import { Watch, notedFetch, serve } from "./harness.mjs";

const RECONNECT_MS = 10;
const realSetTimeout = globalThis.setTimeout;
globalThis.setTimeout = (call, ms, ...rest) =>
  realSetTimeout(call, ms >= 1000 ? RECONNECT_MS : ms, ...rest);

class Document extends EventTarget {
  hidden = false;

  set(hidden) {
    this.hidden = hidden;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

globalThis.document = new Document();
globalThis.window = globalThis;

const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");
const [server] = process.argv.slice(2);

const TYPES = [
  ...["run-start", "text-delta", "text-replace", "reasoning-delta", "references", "tool-call"],
  ...["step", "notice", "usage", "run-end", "message"],
];

/** One client: what it asked, what it was told. */
class Reading {
  watch = new Watch();
  requests = [];
  events = [];
  errors = [];
  empty = 0;
  closed = false;
  fetch = notedFetch(this.requests, this.watch.changed);

  take(type, id, data) {
    this.events.push({ type, id, data: JSON.parse(data) });
    this.watch.changed();
  }

  fail(error) {
    this.errors.push(error);
    this.watch.changed();
  }

  text() {
    const deltas = this.events.filter(({ type }) => type === "text-delta");
    return deltas.map(({ data }) => data.text).join("");
  }

  look() {
    const { requests, events, errors, empty, closed } = this;
    return { requests, events, errors, empty, closed, text: this.text() };
  }
}

const readings = new Map();
const reading = (given) => readings.get(given.reading);

await serve({
  event_source: (given) => {
    const one = new Reading();
    readings.set(given.reading, one);
    const source = new EventSource(server + given.path, { fetch: one.fetch });
    for (const type of TYPES) {
      source.addEventListener(type, (event) => one.take(type, event.lastEventId, event.data));
    }
    source.addEventListener("error", ({ code }) => {
      one.closed = source.readyState === EventSource.CLOSED;
      one.fail(code ?? null);
    });
    one.close = () => source.close();
  },

  fetch_event_source: (given) => {
    const one = new Reading();
    readings.set(given.reading, one);
    const controller = new AbortController();
    fetchEventSource(server + given.path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...given.headers },
      body: JSON.stringify(given.body),
      openWhenHidden: given.open_when_hidden ?? false,
      signal: controller.signal,
      fetch: one.fetch,
      onmessage: ({ event, id, data }) => {
        // It takes the blank line after a comment for a message.
        if (event === "") {
          one.empty += 1;
          return;
        }
        one.take(event, id, data);
      },
      onerror: (error) => one.fail(error.message), // it tries again unless this throws
    }).then(() => {
      one.closed = true;
      one.watch.changed();
    });
    one.close = () => controller.abort();
  },

  hide: () => document.set(true),
  show: () => document.set(false),
  close: (given) => reading(given).close(),
  asked: async (given) => {
    await reading(given).watch.until(() => reading(given).requests.length >= given.times);
    return reading(given).look();
  },
  answered: async (given) => {
    const count = () => reading(given).requests.filter(({ status }) => status).length;
    await reading(given).watch.until(() => count() >= given.times);
    return reading(given).look();
  },
  text: async (given) => {
    await reading(given).watch.until(() => reading(given).text() === given.wanted);
    return reading(given).look();
  },
  failed: async (given) => {
    await reading(given).watch.until(() => reading(given).errors.length >= given.times);
    return reading(given).look();
  },
  ended: async (given) => {
    const ended = () => reading(given).events.at(-1)?.type === "run-end";
    await reading(given).watch.until(ended);
    return reading(given).look();
  },
  closed: async (given) => {
    await reading(given).watch.until(() => reading(given).closed);
    return reading(given).look();
  },
});
