// The page: ask, watch the answer being written, lose nothing.
//
//     POST /api/v1/runs ──► events ──► run-end
//          ▲ same key          │ connection lost
//          └── no event yet ── wait ──► GET /api/v1/runs/{id}/events with Last-Event-ID
//
// The server is the truth: an answer here is the fold of its run's events, and the id of the last
// event is all that is needed to go on. Content is never HTML: nodes are made by `el`, and every
// text that comes from outside is a text node.

// ---------------------------------------------------------------- words

const WORDS = {
  tagline: ["Ask. The answer stays.", "放心提问，回答不会丢"],
  promise: [
    "What you see is already safe on disk. Reload the page, lose the network, kill the server: " +
      "it is all still here.",
    "你看到的每一个字都已经写入磁盘。刷新页面、断开网络、强行结束服务器，内容都还在这里。",
  ],
  new: ["New conversation", "新对话"],
  conversations: ["Conversations", "对话列表"],
  older: ["Older", "更早的对话"],
  untitled: ["Untitled", "未命名"],
  ask: ["Ask a question", "输入问题"],
  send: ["Send", "发送"],
  stop: ["Stop (Esc)", "停止（Esc）"],
  hint: ["Enter sends, Shift+Enter begins a new line", "Enter 发送，Shift+Enter 换行"],
  you: ["You asked", "你的问题"],
  answer: ["Answer", "回答"],
  writing: ["Writing", "正在回答"],
  searching: ["Searching", "正在检索"],
  stopping: ["Stopping", "正在停止"],
  reconnecting: ["Reconnecting", "正在重新连接"],
  reasoning: ["Reasoning", "思考过程"],
  sources: ["Sources", "参考来源"],
  source: ["Source {0}", "来源 {0}"],
  open: ["Open the source", "打开来源"],
  again: ["Ask again", "重新回答"],
  earlier: ["Earlier version", "上一个版本"],
  later: ["Later version", "下一个版本"],
  complete: ["Complete", "回答完毕"],
  stopped: ["Stopped by you", "已由你停止"],
  unread: ["Stopped, because nobody was reading", "无人阅读，已停止"],
  interrupted: ["Interrupted", "回答中断"],
  failed: ["No answer", "未能回答"],
  kept: ["What had arrived is kept.", "已收到的内容都已保留。"],
  gone: ["This conversation does not exist.", "这个对话不存在。"],
  busy: [
    "Another answer is still being written in this conversation.",
    "这个对话里还有一个回答正在生成。",
  ],
  upstream_error: ["The service that writes the answers failed.", "生成回答的服务出错了。"],
  upstream_empty: ["The service sent no answer.", "服务没有返回内容。"],
  upstream_timeout: ["The service took too long.", "服务响应超时。"],
  upstream_truncated: ["The service broke off in the middle.", "服务在中途断开了。"],
  upstream_unreachable: ["The service cannot be reached.", "无法连接到服务。"],
  limit: ["The answer grew beyond what is allowed here.", "回答超过了允许的长度。"],
  storage_error: ["The answer could not be saved any further.", "回答无法继续保存。"],
  server_shutdown: ["The server was shut down.", "服务器已关闭。"],
  server_crash: ["The server died while it was writing.", "服务器在回答途中意外终止。"],
};
const chinese = /^zh\b/i.test(navigator.language);

function say(key, ...values) {
  const text = WORDS[key]?.[chinese ? 1 : 0] ?? key;
  return text.replace(/\{(\d)\}/g, (_, place) => values[place]);
}

// ---------------------------------------------------------------- nodes

const find = (id) => document.getElementById(id);

/** Make an element: functions are listeners, `true` is an empty attribute, `false` is none. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// ---------------------------------------------------------------- Markdown, as far as answers use it

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)/;
const STARTS = [
  ["fence", FENCE],
  ["heading", /^ {0,3}#{1,6}\s/],
  ["rule", /^ {0,3}([-*_])(?:[ \t]*\1){2,}\s*$/],
  ["quote", QUOTE],
  ["list", ITEM],
];
const DELIMITER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const INLINE = new RegExp(
  "(`{1,3})(?!`)(.{1,2000}?)\\1(?!`)|\\*\\*(?=\\S)(.{0,2000}?\\S)\\*\\*" +
    "|\\*(?=[^\\s*])([^*]{0,2000}?[^\\s*])\\*|\\[([^\\]]{1,500})\\]\\((https?://[^\\s()]{1,2000})\\)",
  "gs",
);
const DEEPEST = 8;

/** A line with its place in the whole text; what is cut off in front moves the place. */
const cut = (line, count) => ({ text: line.text.slice(count), at: line.at + count });

function toLines(text, at = 0) {
  return text.split("\n").map((line) => {
    const place = at;
    at += line.length + 1;
    return { text: line, at: place };
  });
}

function kindAt(lines, i) {
  const { text } = lines[i];
  if (!text.trim()) return "blank";
  const start = STARTS.find(([, pattern]) => pattern.test(text));
  if (start) return start[0];
  const table = text.includes("|") && lines[i + 1]?.text.includes("|");
  return table && DELIMITER.test(lines[i + 1].text) ? "table" : "paragraph";
}

const isOrdered = (line) => /^\s*\d/.test(line.text);

function goesOnInList(lines, i, start) {
  let next = i;
  while (next < lines.length && !lines[next].text.trim()) next += 1;
  if (next === lines.length) return false;
  if (/^(?: {2}|\t)/.test(lines[next].text)) return true;
  const kind = kindAt(lines, next);
  if (kind === "list") return isOrdered(lines[next]) === isOrdered(lines[start]);
  return kind === "paragraph" && next === i && Boolean(lines[i - 1].text.trim());
}

/** Only a bullet or a 1 begins a list in the middle of a paragraph: "…\n1986. A year" does not. */
function goesOnInParagraph(lines, i) {
  const kind = kindAt(lines, i);
  return kind === "paragraph" || (kind === "list" && /^\s*(?!1[.)])\d/.test(lines[i].text));
}

function endOf(kind, lines, start) {
  const until = (from, goesOn) => {
    let i = from;
    while (i < lines.length && goesOn(i)) i += 1;
    return i;
  };
  switch (kind) {
    case "fence": {
      const fence = FENCE.exec(lines[start].text)[1];
      const last = until(start + 1, (i) => {
        const text = lines[i].text.trim();
        return !text.startsWith(fence) || text !== fence[0].repeat(text.length);
      });
      return Math.min(last + 1, lines.length);
    }
    case "quote":
      return until(start, (i) => kindAt(lines, i) === "quote");
    case "list":
      return until(start + 1, (i) => goesOnInList(lines, i, start));
    case "table":
      return until(start + 2, (i) => lines[i].text.includes("|"));
    case "paragraph":
      return until(start + 1, (i) => goesOnInParagraph(lines, i));
    default:
      return start + 1;
  }
}

function toBlocks(lines) {
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    const kind = kindAt(lines, i);
    const end = endOf(kind, lines, i);
    if (kind !== "blank") blocks.push({ kind, lines: lines.slice(i, end), at: lines[i].at });
    i = end;
  }
  return blocks;
}

/** Text with code, bold, links and citation marks; `marks` are places in `text`. */
function addInline(parent, text, marks, cite, from = 0) {
  const pattern = new RegExp(INLINE);
  for (let at = from; at < text.length; ) {
    const mark = marks.find(([start, end]) => start >= at && end <= text.length);
    pattern.lastIndex = at;
    const token = pattern.exec(text);
    const next = Math.min(mark?.[0] ?? text.length, token?.index ?? text.length);
    if (next > at) parent.append(text.slice(at, next));
    at = next;
    if (mark?.[0] === at) {
      parent.append(cite(mark[2], text.slice(at, mark[1])));
      at = mark[1];
    } else if (token?.index === at) {
      const [all, ticks, code, bold, emphasis, label, url] = token;
      const inner = (node, skip, content) => {
        addInline(node, text.slice(0, at + skip + content.length), marks, cite, at + skip);
        return node;
      };
      if (ticks) parent.append(el("code", {}, code));
      else if (bold) parent.append(inner(el("strong"), 2, bold));
      else if (emphasis) parent.append(inner(el("em"), 1, emphasis));
      else parent.append(inner(link(url), 1, label));
      at += all.length;
    }
  }
}

const link = (url, ...children) =>
  el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);

function addLines(parent, lines, context) {
  let text = "";
  const marks = [];
  lines.forEach((whole, i) => {
    const line = cut(whole, whole.text.length - whole.text.trimStart().length);
    if (i) text += "\n";
    const shift = text.length - line.at;
    text += line.text.trimEnd();
    for (const [start, end, ordinal] of context.marks) {
      if (start >= line.at && end + shift <= text.length) {
        marks.push([start + shift, end + shift, ordinal]);
      }
    }
  });
  addInline(parent, text, marks, context.cite);
  return parent;
}

function listNode(block, context, depth) {
  const first = ITEM.exec(block.lines[0].text);
  const items = [];
  let indent = 0;
  for (const line of block.lines) {
    const match = ITEM.exec(line.text);
    if (match && match[1].length <= first[1].length + 1) {
      indent = match[0].length;
      items.push([cut(line, indent)]);
    } else {
      const spaces = line.text.length - line.text.trimStart().length;
      items.at(-1).push(cut(line, Math.min(spaces, indent)));
    }
  }
  const start = parseInt(first[2], 10);
  const node = start >= 0 ? el("ol", { start }) : el("ul");
  for (const lines of items) {
    const [head, ...rest] = toBlocks(lines);
    const item = el("li");
    if (head?.kind === "paragraph") addLines(item, head.lines, context);
    else if (head) item.append(blockNode(head, context, depth + 1));
    item.append(...rest.map((block) => blockNode(block, context, depth + 1)));
    node.append(item);
  }
  return node;
}

function cellsOf(line) {
  let at = 0;
  const cells = line.text.split("|").map((text) => {
    at += text.length + 1;
    return { text, at: line.at + at - text.length - 1 };
  });
  if (!cells[0].text.trim()) cells.shift();
  if (cells.length && !cells.at(-1).text.trim()) cells.pop();
  return cells;
}

function tableNode(block, context) {
  const row = (line, tag) =>
    el("tr", {}, ...cellsOf(line).map((cell) => addLines(el(tag), [cell], context)));
  const [head, , ...rest] = block.lines;
  const body = el("tbody", {}, ...rest.map((line) => row(line, "td")));
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, row(head, "th")), body));
}

function fenceNode(block) {
  const [first, ...rest] = block.lines.map((line) => line.text);
  const fence = FENCE.exec(first)[1];
  if (rest.at(-1)?.trim().startsWith(fence)) rest.pop();
  return el("pre", { tabindex: "0" }, el("code", {}, rest.join("\n")));
}

function blockNode(block, context, depth = 0) {
  const { kind, lines } = block;
  if (kind === "fence") return fenceNode(block);
  if (kind === "rule") return el("hr");
  if (kind === "table") return tableNode(block, context);
  if (kind === "heading") {
    const [mark, signs] = /^\s*(#+)\s+/.exec(lines[0].text) ?? [lines[0].text, "#"];
    const level = Math.min(signs.length + 2, 6);
    return addLines(el(`h${level}`), [cut(lines[0], mark.length)], context);
  }
  if (kind === "quote" && depth < DEEPEST) {
    const inner = lines.map((line) => cut(line, QUOTE.exec(line.text)[0].length));
    const nodes = toBlocks(inner).map((part) => blockNode(part, context, depth + 1));
    return el("blockquote", {}, ...nodes);
  }
  if (kind === "list" && depth < DEEPEST) return listNode(block, context, depth);
  return addLines(el("p"), lines, context);
}

/** Marks count code points, strings here count UTF-16 units. */
function toUnits(text, marks) {
  if (!marks.length || !/[\ud800-\udfff]/.test(text)) return marks;
  const units = [0];
  for (const character of text) units.push(units.at(-1) + character.length);
  return marks.map(([start, end, ordinal]) => [units[start], units[end], ordinal]);
}

/** A text that grows. Blocks that cannot change any more are rendered once and let go of. */
export class Prose {
  constructor(cite = (ordinal, label) => label) {
    this.node = el("div", { class: "prose" });
    this.cite = cite;
    this.clear();
  }

  clear() {
    this.tail = "";
    this.at = 0;
    this.marks = [];
    this.kept = 0;
  }

  add(text, marks = []) {
    const base = this.at + this.tail.length;
    for (const [start, end, ordinal] of toUnits(text, marks)) {
      this.marks.push([base + start, base + end, ordinal]);
    }
    this.tail += text;
  }

  draw() {
    while (this.node.childNodes.length > this.kept) this.node.lastChild.remove();
    const lines = toLines(this.tail, this.at);
    // The last line may still become anything; what the others say of the blocks is certain.
    const certain = toBlocks(lines.slice(0, -1));
    const open = certain.pop();
    this.node.append(...certain.map((block) => blockNode(block, this)));
    this.kept += certain.length;
    if (certain.length) {
      this.tail = this.tail.slice(open.at - this.at);
      this.at = open.at;
      this.marks = this.marks.filter(([start]) => start >= this.at);
    }
    const rest = toBlocks(lines.filter((line) => line.at >= this.at));
    this.node.append(...rest.map((block) => blockNode(block, this)));
  }
}
