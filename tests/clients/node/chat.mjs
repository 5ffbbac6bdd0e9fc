// The machinery of useChat without React: node chat.mjs PACKAGE URL
//
// A page is a chat in the memory of one client; another page of the same chat is what a reload is.

import { Watch, notedFetch, serve } from "./harness.mjs";

const [name, server] = process.argv.slice(2);
const { AbstractChat, DefaultChatTransport } = await import(name);

/** What @ai-sdk/react keeps in React's state. */
class State {
  #watch;
  #values = { status: "ready", error: undefined, messages: [] };

  constructor(messages, watch) {
    this.#values.messages = messages;
    this.#watch = watch;
  }

  get status() { return this.#values.status; }
  set status(status) { this.#set({ status }); }
  get error() { return this.#values.error; }
  set error(error) { this.#set({ error }); }
  get messages() { return this.#values.messages; }
  set messages(messages) { this.#set({ messages: [...messages] }); }

  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => {
    this.messages = this.messages.map((one, at) => (at === index ? this.snapshot(message) : one));
  };
  snapshot = (value) => structuredClone(value);

  #set(values) {
    Object.assign(this.#values, values);
    this.#watch.changed();
  }
}

class Chat extends AbstractChat {}

class Page {
  watch = new Watch();
  requests = [];
  errors = [];
  finishes = [];
  data = [];
  toolCalls = [];
  activity = Promise.resolve();

  constructor({ chat, messages = [], only_last = false, exact = false, body }) {
    this.state = new State(messages, this.watch);
    const transport = new DefaultChatTransport({
      api: `${server}/api/chat`,
      fetch: notedFetch(this.requests, this.watch.changed),
      body,
      // What the documentation of the AI SDK recommends where the server keeps the messages.
      prepareSendMessagesRequest: only_last
        ? ({ id, messages, trigger, messageId, body }) => ({
            body: { ...body, id, trigger, messageId, message: messages.at(-1) },
          })
        : undefined,
      // For a page that has a part of an answer, which may have ended before it resumes.
      prepareReconnectToStreamRequest: exact
        ? ({ api, id }) => ({
            api: `${api}/${encodeURIComponent(id)}/stream?message=${this.state.messages.at(-1).id}`,
          })
        : undefined,
    });
    this.chat = new Chat({
      id: chat,
      transport,
      state: this.state,
      onError: (error) => this.errors.push(error.message),
      onFinish: ({ message, messages, ...rest }) => this.finishes.push(rest),
      onData: (part) => this.data.push(part),
      onToolCall: ({ toolCall }) => { this.toolCalls.push(toolCall); },
    });
  }

  look() {
    return {
      status: this.state.status,
      error: this.state.error?.message,
      messages: this.state.messages,
      requests: this.requests,
      errors: this.errors,
      finishes: this.finishes,
      data: this.data,
      tool_calls: this.toolCalls,
    };
  }

  text() {
    const last = this.state.messages.at(-1);
    if (last?.role !== "assistant") return "";
    return last.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
  }
}

const pages = new Map();
const page = (given) => pages.get(given.page);

await serve({
  open: (given) => { pages.set(given.page, new Page(given)); },
  history: async ({ chat, query = "" }) => {
    const path = `${server}/api/chat/${encodeURIComponent(chat)}/messages${query}`;
    return (await fetch(path)).json();
  },
  send: (given) => {
    const { text, message_id: messageId, body } = given;
    page(given).activity = page(given).chat.sendMessage({ text, messageId }, { body });
  },
  submit: (given) => { page(given).activity = page(given).chat.sendMessage(); },
  regenerate: (given) => {
    page(given).activity = page(given).chat.regenerate({ messageId: given.message_id });
  },
  resume: (given) => { page(given).activity = page(given).chat.resumeStream(); },
  stop: async (given) => { await page(given).chat.stop(); },
  stop_on_server: async ({ chat }) => {
    const path = `${server}/api/chat/${encodeURIComponent(chat)}/stop`;
    return (await fetch(path, { method: "POST" })).status;
  },
  text: async (given) => {
    await page(given).watch.until(() => page(given).text() === given.wanted);
    return page(given).look();
  },
  status: async (given) => {
    await page(given).watch.until(() => page(given).state.status === given.wanted);
    return page(given).look();
  },
  idle: async (given) => {
    await page(given).activity;
    return page(given).look();
  },
});
