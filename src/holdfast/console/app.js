// The page: ask, watch the answer being written, lose nothing.
//
//     POST /api/v1/runs ──► events ──► run-end
//          ▲ same key          │ connection lost
//          └── no event yet ── wait ──► GET /api/v1/runs/{id}/events with Last-Event-ID
//
// The server is the truth: an answer is the fold of its run's events, and the id of the last event
// is all it takes to go on. Content is never HTML: `el` makes every node, and every text that comes
// from outside becomes a text node.

const WORDS = {
  tagline: ["Ask. The answer stays.", "放心提问，回答不会丢"],
  promise: [
    "What you see is already safe on disk. Reload the page, lose the network, kill the server: " +
      "it is all still here.",
    "你看到的每一个字都已经写入磁盘。刷新页面、断开网络、强行结束服务器，内容都还在这里。",
  ],
  new: ["New conversation", "新对话"],
  conversations: ["Conversations", "对话列表"],
  untitled: ["Untitled", "未命名"],
  ask: ["Ask a question", "输入问题"],
  send: ["Send", "发送"],
  stop: ["Stop (Esc)", "停止（Esc）"],
  hint: ["Enter sends, Shift+Enter begins a new line", "Enter 发送，Shift+Enter 换行"],
  preset: ["Preset of the new conversation", "新对话的预设"],
  no_preset: ["No preset", "不使用预设"],
  answer: ["Answer", "回答"],
  writing: ["Writing", "正在回答"],
  searching: ["Searching", "正在检索"],
  stopping: ["Stopping", "正在停止"],
  reconnecting: ["Reconnecting", "正在重新连接"],
  connected: ["Connected again", "已重新连接"],
  reasoning: ["Reasoning", "思考过程"],
  sources: ["Sources", "参考来源"],
  source: ["Source {}", "来源 {}"],
  open: ["Open the source", "打开来源"],
  again: ["Ask again", "重新回答"],
  completed: ["Complete", "回答完毕"],
  cancelled: ["Stopped by you", "已由你停止"],
  client_disconnected: ["Stopped, because nobody was reading", "无人阅读，已停止"],
  interrupted: ["Interrupted", "回答中断"],
  failed: ["No answer", "未能回答"],
  kept: ["What had arrived is kept.", "已收到的内容都已保留。"],
  not_found: ["This conversation does not exist.", "这个对话不存在。"],
  key_wanted: ["This server wants a key.", "此服务器需要密钥。"],
  key_wrong: ["This key is not valid.", "密钥无效。"],
  key_hint: ["It is kept until this tab is closed.", "密钥只保留到关闭此标签页为止。"],
  enter: ["Go on", "继续"],
  run_active: ["An answer is still being written here.", "这里还有一个回答正在生成。"],
  upstream_error: ["The service that writes the answers failed.", "生成回答的服务出错了。"],
  upstream_empty: ["The service sent no answer.", "服务没有返回内容。"],
  upstream_timeout: ["The service took too long.", "服务响应超时。"],
  upstream_truncated: ["The service broke off in the middle.", "服务在中途断开了。"],
  upstream_unreachable: ["The service cannot be reached.", "无法连接到服务。"],
  limit: ["The answer grew beyond what is allowed here.", "回答超过了允许的长度。"],
  storage_error: ["The answer could not be saved any further.", "回答无法继续保存。"],
  server_shutdown: ["The server was shut down.", "服务器已关闭。"],
  server_crash: ["The server stopped in the middle of the answer.", "服务器在回答途中停止了。"],
};
const LANGUAGE = /^zh\b/i.test(navigator.language) ? 1 : 0;

const say = (key, value = "") => (WORDS[key]?.[LANGUAGE] ?? key).replace("{}", value);

const find = (id) => document.getElementById(id);

/** Make an element: a function is a listener, `true` an empty attribute, `false` none. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const link = (url, ...children) =>
  el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);

// ---------------------------------------------------------------- Markdown, as answers use it

// A citation mark travels within the text as \uFDD0 ordinal \uFDD1 label \uFDD2: noncharacters,
// which are taken out of everything that comes in.
const MARKS = /\uFDD0(\d+)\uFDD1(.*?)\uFDD2/gs;
const NONCHARACTERS = /[\uFDD0-\uFDD2]/g;

function withMarks(text, marks = []) {
  if (!marks.length) return text.replace(NONCHARACTERS, "");
  const points = Array.from(text, (point) => point.replace(NONCHARACTERS, "")); // as marks count
  for (const [start, end, ordinal] of marks.filter((mark) => mark[1] <= points.length)) {
    points[start] = `\uFDD0${ordinal}\uFDD1${points[start]}`;
    points[end - 1] += "\uFDD2";
  }
  return points.join("");
}

const withoutMarks = (text) => text.replace(MARKS, "$2");

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)/;
const KINDS = [
  ["blank", /^\s*$/],
  ["fence", FENCE],
  ["heading", /^ {0,3}#{1,6}\s+/],
  ["rule", /^ {0,3}([-*_])(?:[ \t]*\1){2,}\s*$/],
  ["quote", QUOTE],
  ["table", /^ {0,3}\|/],
  ["list", ITEM],
  ["paragraph", /^/],
];
const INLINE = new RegExp(
  "\uFDD0(?<ordinal>\\d+)\uFDD1(?<mark>.*?)\uFDD2" +
    "|(?<ticks>`{1,3})(?!`)(?<code>.{1,2000}?)\\k<ticks>(?!`)" +
    "|\\*\\*(?=\\S)(?<bold>.{0,2000}?\\S)\\*\\*|\\*(?=[^\\s*])(?<slant>[^*]{0,2000}?[^\\s*])\\*" +
    "|\\[(?<label>[^\\]]{1,500})\\]\\((?<url>https?://[^\\s()]{1,2000})\\)",
  "gs",
);
const DEEPEST = 8;

const kindOf = (line) => KINDS.find(([, pattern]) => pattern.test(line))[0];
const indentOf = (line) => line.length - line.trimStart().length;
const isOrdered = (line) => /^\s*\d/.test(line);

/** Whether lines[i] goes on with the block that lines[start] began. */
const GOES_ON = {
  quote: (lines, i) => kindOf(lines[i]) === "quote",
  table: (lines, i) => kindOf(lines[i]) === "table",
  paragraph: (lines, i) => kindOf(lines[i]) === "paragraph",
  list(lines, i, start) {
    const next = lines[i].trim() ? lines[i] : (lines[i + 1] ?? "");
    if (indentOf(next) > 1 || !next.trim()) return Boolean(next.trim());
    if (kindOf(next) === "list") return isOrdered(next) === isOrdered(lines[start]);
    return next === lines[i] && kindOf(next) === "paragraph" && lines[i - 1].trim() !== "";
  },
  fence: (lines, i, start) => i === start + 1 || !closes(lines[i - 1], lines[start]),
};

function closes(line, opening) {
  const [fence, text] = [FENCE.exec(opening)[1], line.trim()];
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function toBlocks(lines) {
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    const start = i;
    const kind = kindOf(lines[start]);
    i += 1;
    while (i < lines.length && GOES_ON[kind]?.(lines, i, start)) i += 1;
    if (kind !== "blank") blocks.push({ kind, start, lines: lines.slice(start, i) });
  }
  return blocks;
}

/** Text with code, emphasis, links and citation marks. */
function addInline(parent, text, cite) {
  let at = 0;
  for (const token of text.matchAll(INLINE)) {
    parent.append(text.slice(at, token.index));
    at = token.index + token[0].length;
    const { ordinal, mark, code, bold, slant, label, url } = token.groups;
    if (ordinal) parent.append(cite(Number(ordinal), mark));
    else if (code) parent.append(el("code", {}, withoutMarks(code)));
    else if (bold) parent.append(addInline(el("strong"), bold, cite));
    else if (slant) parent.append(addInline(el("em"), slant, cite));
    else parent.append(addInline(link(url), label, cite));
  }
  parent.append(text.slice(at));
  return parent;
}

const addLines = (parent, lines, cite) =>
  addInline(parent, lines.map((line) => line.trim()).join("\n"), cite);

function listNode(lines, cite, depth) {
  const [, { length: outer }, sign] = ITEM.exec(lines[0]);
  const items = [];
  let width = 0;
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (match && match[1].length <= outer + 1) {
      width = match[0].length;
      items.push([line.slice(width)]);
    } else {
      items.at(-1).push(line.slice(Math.min(indentOf(line), width)));
    }
  }
  const node = isOrdered(lines[0]) ? el("ol", { start: parseInt(sign, 10) }) : el("ul");
  for (const item of items) {
    const blocks = toBlocks(item);
    const first = blocks[0]?.kind === "paragraph" ? blocks.shift().lines : [];
    const nodes = blocks.map((block) => blockNode(block, cite, depth + 1));
    node.append(addLines(el("li"), first, cite));
    node.lastChild.append(...nodes);
  }
  return node;
}

function blockNode({ kind, lines }, cite, depth = 0) {
  if (kind === "fence") {
    const end = lines.length > 1 && closes(lines.at(-1), lines[0]) ? -1 : undefined;
    return el("pre", { tabindex: 0 }, withoutMarks(lines.slice(1, end).join("\n")));
  }
  if (kind === "rule") return el("hr");
  if (kind === "table") return addInline(el("pre", { tabindex: 0 }), lines.join("\n"), cite);
  if (kind === "heading") {
    const [signs] = /^ *#+/.exec(lines[0]);
    const level = Math.min(signs.trim().length + 2, 6);
    return addLines(el(`h${level}`), [lines[0].slice(signs.length)], cite);
  }
  if (kind === "quote" && depth < DEEPEST) {
    const inner = toBlocks(lines.map((line) => line.replace(QUOTE, "")));
    return el("blockquote", {}, ...inner.map((block) => blockNode(block, cite, depth + 1)));
  }
  if (kind === "list" && depth < DEEPEST) return listNode(lines, cite, depth);
  return addLines(el("p"), lines, cite);
}

/** A text that grows. Blocks that cannot change any more are rendered once and let go of. */
export class Prose {
  constructor(cite = (ordinal, label) => label) {
    this.node = el("div", { class: "prose" });
    this.cite = cite;
    this.replace("");
  }

  replace(text, marks) {
    this.tail = withMarks(text, marks);
    this.kept = 0;
  }

  add(text, marks) {
    this.tail += withMarks(text, marks);
  }

  draw() {
    while (this.node.childNodes.length > this.kept) this.node.lastChild.remove();
    const lines = this.tail.split("\n");
    // The last line may still become anything; what the others say of the blocks is certain.
    const certain = toBlocks(lines.slice(0, -1));
    const rest = lines.slice(certain.pop()?.start ?? 0);
    const blocks = [...certain, ...toBlocks(rest)];
    this.node.append(...blocks.map((block) => blockNode(block, this.cite)));
    this.kept += certain.length;
    this.tail = rest.join("\n");
  }
}

// ---------------------------------------------------------------- the key

const STORED = "holdfast.key";

/** The key that requests are sent with, if the server wants one. */
class Keeper {
  constructor() {
    this.entered = null; // whoever waits for a key waits for this
    try {
      this.key = sessionStorage.getItem(STORED) ?? "";
    } catch {
      this.key = ""; // storage can be forbidden
    }
  }

  get headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  get waits() {
    return this.entered !== null;
  }

  /** Wait for another key than the one that the server has refused. */
  another(refused) {
    if (this.key !== refused) return undefined; // it came while the request was on its way
    this.entered ??= new Promise((resolve) => {
      this.take = resolve;
      this.show(true);
      find("wrong").hidden = !refused;
      find("key").focus();
      announce(say("key_wanted"));
    });
    return this.entered;
  }

  enter(key) {
    const fits = /^[!-~]+$/.test(key); // nothing else can be sent in a header
    find("wrong").hidden = fits;
    if (!fits || !this.waits) return;
    this.key = key;
    try {
      sessionStorage.setItem(STORED, key);
    } catch {
      // Then it is kept as long as the page is.
    }
    this.show(false);
    this.entered = null;
    this.take();
    focusInput();
  }

  show(shown) {
    find("door").hidden = !shown;
    find("composer").hidden = shown;
    find("key").value = "";
  }
}

const keeper = new Keeper();

// ---------------------------------------------------------------- the wire

const TRANSIENT = new Set([429, 502, 503, 504]);
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 3000;
const SILENCE_MS = 45_000; // far more than the server's heartbeat

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const lost = new Set();

/** A line to the server that no lost connection ends, only `signal`. */
class Line {
  constructor(signal) {
    this.signal = signal;
    this.waitMs = FIRST_WAIT_MS;
    signal.addEventListener("abort", () => this.tell(true));
  }

  /** Show whether any line waits for the server. */
  tell(connected) {
    const before = lost.size;
    if (connected) lost.delete(this);
    else lost.add(this);
    find("sign").hidden = lost.size === 0;
    if (!before !== !lost.size) announce(say(lost.size ? "reconnecting" : "connected"));
  }

  async wait(atLeastMs = 0) {
    this.signal.throwIfAborted();
    this.tell(false);
    const ms = Math.max(this.waitMs * (0.75 + Math.random() / 2), atLeastMs);
    this.waitMs = Math.min(this.waitMs * 2, LONGEST_WAIT_MS);
    await pause(ms);
    this.signal.throwIfAborted();
  }

  /** Give the connection up if nothing more is heard of it. */
  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connection.abort(), SILENCE_MS);
  }

  /** What `read` makes of the server's answer, however often it takes to get one. */
  async send(path, options, read) {
    for (;;) {
      this.signal.throwIfAborted();
      let laterMs = 0;
      this.connection = new AbortController();
      this.watch();
      try {
        const signal = AbortSignal.any([this.signal, this.connection.signal]);
        const { key, headers } = keeper;
        const sent = { ...options, headers: { ...options?.headers, ...headers }, signal };
        const response = await fetch(path, sent);
        if (response.status === 401) {
          clearTimeout(this.timer);
          this.tell(true);
          await keeper.another(key);
          continue;
        }
        if (!TRANSIENT.has(response.status)) {
          const answer = await read(response);
          this.tell(true);
          return answer;
        }
        laterMs = 1000 * Number(response.headers.get("Retry-After"));
      } catch {
        // Whatever the network's reason is, the answer to it is to try again.
      }
      await this.wait(laterMs || 0);
    }
  }

  json(path, options) {
    const read = async (response) => ({ status: response.status, body: await response.json() });
    return this.send(path, options, read);
  }

  async *frames(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let [frame, rest] = [{}, ""];
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) return;
      this.watch();
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        const [, name, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (line) frame[name] = content;
        else if (frame.data) yield frame;
        if (!line) frame = {};
      }
    }
  }

  /** Each event of a run, once and in order; returns the answer that is no stream, if one comes. */
  async *events(path, options) {
    let [run, seq] = ["", 0];
    for (;;) {
      const resume = { headers: { "Last-Event-ID": `${run}.${seq}` } };
      const request = seq ? [`api/v1/runs/${run}/events`, resume] : [path, options];
      const response = await this.send(...request, (answer) => answer);
      if (response.status !== 200) return response;
      for await (const { id, data } of this.frames(response)) {
        const [from, number] = id.split(".");
        if (Number(number) <= seq) continue;
        if (Number(number) > seq + 1) break; // a hole: ask for what is missing
        [run, seq, this.waitMs] = [from, seq + 1, FIRST_WAIT_MS];
        const event = JSON.parse(data);
        yield event;
        if (event.type === "run-end") return null;
      }
      this.connection.abort();
      await this.wait();
    }
  }
}

// ---------------------------------------------------------------- an answer on the page

function sourceNode({ ordinal, document_name: name, document_id: id, url, text = "" }) {
  const passage = new Prose();
  passage.add(text);
  passage.draw();
  const snippet = text.slice(0, 200).replace(/^[\s>#*|-]+/gm, " ").replace(/[\s*`]+/g, " ");
  const summary = el(
    "summary",
    {},
    el("span", { class: "ordinal" }, String(ordinal)),
    el("span", { class: "name" }, name || id || url || say("untitled")),
    el("span", { class: "snippet" }, snippet),
  );
  const node = el("details", {}, summary, passage.node);
  if (/^https?:\/\//i.test(url ?? "")) node.append(link(url, say("open")));
  return node;
}

const questionNode = (text) => el("p", { class: "question" }, text);

class Answer {
  constructor(message) {
    this.prose = new Prose((ordinal, label) => this.citation(ordinal, label));
    this.notices = el("div");
    this.thoughts = el("p");
    this.reasoning = el("details", {}, el("summary", {}, say("reasoning")), this.thoughts);
    this.sources = el("section", { class: "sources", "aria-label": say("sources") });
    this.foot = el("footer");
    this.items = new Map();
    const parts = [this.notices, this.reasoning, this.prose.node, this.sources, this.foot];
    this.node = el("article", { class: "answer", "aria-label": say("answer") }, ...parts);
    this.show(message);
  }

  /** Show a message as it is stored. */
  show(message) {
    this.message = { references: [], ...message };
    this.step = "";
    this.prose.replace(message.content ?? "", message.marks);
    this.thoughts.textContent = message.reasoning ?? "";
    this.notices.replaceChildren();
    this.changed();
  }

  /** Take the next event of the run. */
  apply(event) {
    const { type, text, marks } = event;
    if (text) this.step = "";
    if (type === "run-start") {
      this.show({ id: event.message_id, run_id: event.run_id, status: "streaming" });
    } else if (type === "text-delta") {
      this.prose.add(text, marks);
    } else if (type === "text-replace") {
      this.prose.replace(text, marks);
    } else if (type === "reasoning-delta") {
      this.thoughts.append(text);
    } else if (type === "references") {
      this.message.references = event.references;
    } else if (type === "step") {
      const label = event.label === "searching" ? say("searching") : event.label;
      this.step = [label, event.detail].filter(Boolean).join(": ");
    } else if (type === "notice") {
      this.notices.append(el("p", { class: "note" }, event.message));
    } else if (type === "run-end") {
      const { outcome, reason, error } = event;
      Object.assign(this.message, { outcome, reason, error, status: "ended" });
    }
    this.changed();
  }

  get live() {
    return this.message.status === "streaming";
  }

  /** Draw at the next frame, however many events come in until then. */
  changed() {
    this.frame ??= requestAnimationFrame(() => {
      const follows = isAtEnd();
      this.draw();
      if (follows) scrollToEnd();
    });
  }

  draw() {
    this.frame = undefined;
    const { references } = this.message;
    if (references !== this.drawn) {
      this.drawn = references;
      this.items = new Map(references.map((item) => [item.ordinal, sourceNode(item)]));
      const items = Array.from(this.items.values(), (item) => el("li", {}, item));
      this.sources.replaceChildren(el("h2", {}, say("sources")), el("ol", {}, ...items));
      this.sources.hidden = items.length === 0;
      for (const mark of this.node.querySelectorAll(".mark")) this.connect(mark);
    }
    this.prose.draw();
    this.reasoning.hidden = !this.thoughts.hasChildNodes();
    const state = `${this.message.status} ${this.stopping} ${this.step}`;
    if (state === this.state) return; // the dots would begin anew with every word
    this.state = state;
    this.foot.replaceChildren(...(this.live ? [this.progress()] : this.ending()));
  }

  progress() {
    const text = this.stopping ? say("stopping") : this.step || say("writing");
    const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
    return el("p", { class: "state" }, dots, text);
  }

  get title() {
    const { outcome, reason } = this.message;
    return say(reason === "client_disconnected" ? reason : outcome);
  }

  /** How it ended, honestly, and what can be done about it. */
  ending() {
    const { outcome, reason, error } = this.message;
    const state = el("div", { class: `state ${outcome}` }, el("strong", {}, this.title));
    if (outcome === "interrupted" || outcome === "failed") {
      const kept = outcome === "interrupted" ? ` ${say("kept")}` : "";
      state.append(el("p", {}, say(reason ?? "") + kept));
      if (error && !reason.startsWith("server_")) state.append(el("p", { class: "error" }, error));
    }
    return [state, el("button", { class: "again", click: () => askAgain(this) }, say("again"))];
  }

  citation(ordinal, label) {
    const reveal = (event) => {
      event.preventDefault();
      const source = this.items.get(ordinal);
      if (!source) return;
      source.open = true;
      source.scrollIntoView({ block: "nearest" });
      source.firstChild.focus({ preventScroll: true });
    };
    const mark = el("a", { class: "mark", "data-ordinal": ordinal, click: reveal }, label);
    this.connect(mark);
    return mark;
  }

  /** Make a mark the link to its source; one that no source belongs to (yet) is only text. */
  connect(mark) {
    const { ordinal } = mark.dataset;
    const source = this.items.get(Number(ordinal));
    if (!source) return mark.removeAttribute("href");
    mark.href = `#${session}`;
    mark.title = source.querySelector(".name").textContent;
    mark.setAttribute("aria-label", say("source", ordinal));
  }
}

// ---------------------------------------------------------------- the conversation

const [page, messages, input] = [find("page"), find("messages"), find("question")];

let session = "";
let view = new AbortController(); // ends all that belongs to the conversation on the page
let current = null; // the answer that is being written
let loading = false;

const announce = (text) => (find("live").textContent = text);

const isAtEnd = () => page.scrollHeight - page.scrollTop - page.clientHeight < 80;
const scrollToEnd = () => (page.scrollTop = page.scrollHeight);

function note(text = "") {
  find("note").textContent = text;
  find("note").hidden = !text;
}

function setCurrent(answer) {
  current = answer;
  find("send").hidden = Boolean(answer);
  find("stop").hidden = !answer;
  messages.setAttribute("aria-busy", String(Boolean(answer)));
}

/** Let go of what the page is doing; the server goes on. */
function leave() {
  view.abort();
  view = new AbortController();
  setCurrent(null);
  loading = false;
}

/** Work for the conversation on the page, until it is done or left. */
function go(work) {
  const { signal } = view;
  return work(signal).catch((error) => {
    if (!signal.aborted) throw error;
  });
}

function open(id) {
  leave();
  note();
  showSide(false);
  if (id !== session || !id) messages.replaceChildren();
  session = id;
  loading = Boolean(id);
  find("empty").hidden = loading;
  listSessions();
  return loading ? go(load) : undefined;
}

async function load(signal) {
  const [line, items] = [new Line(signal), []];
  const path = `api/v1/sessions/${encodeURIComponent(session)}/messages?limit=200`;
  for (let after = ""; after !== null; ) {
    const { status, body } = await line.json(after ? `${path}&after=${after}` : path);
    if (status !== 200) return cannotShow(explain(status, body));
    items.push(...body.items);
    after = body.next;
  }
  const answers = [];
  const nodes = items.map((item) => {
    if (item.role === "user") return questionNode(item.content);
    answers.push(new Answer(item));
    return answers.at(-1).node;
  });
  messages.replaceChildren(...nodes);
  for (const answer of answers) answer.draw();
  scrollToEnd();
  loading = false;
  const live = answers.find((answer) => answer.live);
  if (live) await follow(live, signal, `api/v1/runs/${live.message.run_id}/events`);
}

/** Say why, and let the next question begin a new conversation. */
function cannotShow(why) {
  leave();
  note(why);
  messages.replaceChildren();
  session = "";
  find("empty").hidden = false;
}

/** Read an answer to its end. */
async function follow(answer, signal, path, options) {
  setCurrent(answer);
  const events = new Line(signal).events(path, options);
  for (;;) {
    const { value, done } = await events.next();
    signal.throwIfAborted();
    if (done && value) return refused(answer, signal, value);
    if (done) break;
    answer.apply(value);
    if (value.type === "run-start") started(answer, value.session_id);
  }
  setCurrent(null);
  announce(answer.title);
  listSessions();
}

function started(answer, id) {
  if (id !== session) history.replaceState(null, "", `#${id}`);
  session = id;
  listSessions();
  if (answer.stopping) stop();
}

/** The server has no stream for us: show what it has instead. */
async function refused(answer, signal, response) {
  if (answer.message.run_id) {
    await pause(LONGEST_WAIT_MS);
    signal.throwIfAborted();
    setCurrent(null);
    return load(signal);
  }
  const body = await response.json().catch(() => ({}));
  answer.undo();
  if (body.error?.code === "run_active") open(session);
  note(explain(response.status, body));
}

const explain = (status, { error }) =>
  WORDS[error?.code] ? say(error.code) : (error?.message ?? `HTTP ${status}`);

/** Show an answer that is asked for now; `undo` takes it back if it never begins. */
function begin(path, body, show, undo) {
  note();
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16))).join("-");
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const answer = new Answer({ status: "streaming" });
  answer.undo = () => {
    leave();
    undo(answer.node);
  };
  show(answer.node);
  find("empty").hidden = true;
  scrollToEnd();
  announce(say("writing"));
  const options = { method: "POST", headers, body: JSON.stringify(body) };
  go((signal) => follow(answer, signal, path, options));
}

function ask(text) {
  const question = questionNode(text);
  const undo = (node) => {
    node.remove();
    question.remove();
    input.value ||= text;
    find("empty").hidden = Boolean(session);
  };
  const preset = find("preset").value;
  const place = session ? { session_id: session } : preset && { preset };
  const body = { message: text, ...place };
  begin("api/v1/runs", body, (node) => messages.append(question, node), undo);
}

function askAgain({ message, node: old }) {
  if (current) return;
  const undo = (node) => node.replaceWith(old);
  begin(`api/v1/messages/${message.id}/regenerate`, {}, (node) => old.replaceWith(node), undo);
}

function stop() {
  if (!current) return;
  const { run_id: run } = current.message;
  if (!run && (lost.size || keeper.waits)) return current.undo();
  current.stopping = true; // without a run yet: as soon as there is one
  current.changed();
  if (run) go((signal) => new Line(signal).json(`api/v1/runs/${run}/cancel`, { method: "POST" }));
}

let listing = new AbortController();

async function listSessions() {
  listing.abort();
  listing = new AbortController();
  const { signal } = listing;
  const { body } = await new Line(signal).json("api/v1/sessions").catch(() => ({ body: {} }));
  if (signal.aborted || !body.items) return;
  document.title = "Holdfast";
  const nodes = body.items.map(({ id, title, live_run_id: live }) => {
    const [here, name] = [id === session, title ?? say("untitled")];
    if (here) document.title = `${name} · Holdfast`;
    const node = el("a", { href: `#${id}`, "aria-current": here && "page" }, name);
    return el("li", { class: live ? "live" : false }, node);
  });
  find("sessions").replaceChildren(...nodes);
  await offerPresets(signal);
}

/** A new conversation may begin with a named configuration, where there are some. */
async function offerPresets(signal) {
  const choice = find("preset");
  if (!choice.options.length) {
    const { body } = await new Line(signal).json("api/v1/presets").catch(() => ({ body: {} }));
    if (!body.items || choice.options.length) return;
    const names = body.items.map(({ name }) => el("option", { value: name }, name));
    choice.replaceChildren(el("option", { value: "" }, say("no_preset")), ...names);
  }
  choice.hidden = Boolean(session) || choice.options.length < 2;
}

// ---------------------------------------------------------------- hands on the page

function submit() {
  const text = input.value.trim();
  if (!text || current || loading) return;
  input.value = "";
  ask(text);
}

function onKey(event) {
  if (event.key === "Escape") {
    if (!showSide(false)) stop();
  } else if (event.target === input && event.key === "Enter") {
    // Shift begins a new line; 229 and isComposing are the choice in an input method.
    if (event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    submit();
  }
}

/** Show or hide the list on narrow screens; tells whether that changed anything. */
function showSide(shown) {
  const before = document.body.classList.contains("side");
  document.body.classList.toggle("side", shown);
  find("menu").setAttribute("aria-expanded", String(shown));
  return before !== shown;
}

/** The button that had the focus is gone; on a touch screen the keyboard would pop up. */
function focusInput() {
  if (matchMedia("(hover: hover)").matches) input.focus();
}

function translate() {
  document.documentElement.lang = LANGUAGE ? "zh" : "en";
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = say(node.dataset.text);
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", say(node.dataset.label));
    if (node.matches("button, a")) node.title = say(node.dataset.label);
  }
  input.placeholder = say("ask");
}

const openFromAddress = () => open(location.hash.slice(1));

translate();
find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
find("door").addEventListener("submit", (event) => {
  event.preventDefault();
  keeper.enter(find("key").value.trim());
});
find("stop").addEventListener("click", () => {
  stop();
  focusInput();
});
find("menu").addEventListener("click", () => showSide(true) || showSide(false));
for (const sample of document.querySelectorAll(".samples button")) {
  sample.addEventListener("click", () => {
    ask(sample.textContent);
    focusInput();
  });
}
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", openFromAddress);
openFromAddress();
