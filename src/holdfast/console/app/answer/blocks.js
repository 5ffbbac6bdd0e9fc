// Where a growing Markdown text may be cut: each block is closed once and never looked at again.
//
//     text ──► lines ──► open(kind) · more(text) … · close()      one block after the other
//
// What a block says is the Markdown renderer's business; here only its first characters in each line
// count. Any way of cutting the text into pieces gives the same blocks, so an answer looks the same
// while it is written and after a reload. A line is judged by its first HEAD characters, so that one
// without an end is not waited for.

const HEAD = 300;
/** A paragraph longer than this is cut where nothing is open: no emphasis, no code, no link. */
const ENOUGH = 1500;
/** It is cut at any space from here on, and anywhere from FULL on. */
const MUCH = 3000;
const FULL = 4000;
/** Anything else is cut when it is longer than this, code and tables excepted. */
const MAX_BLOCK = 20_000;

const FENCE = /^( {0,3})(`{3,}(?!.*`)|~{3,})\s*(\S*)/;
const INNER_FENCE = /^\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)*(`{3,}(?!.*`)|~{3,})/;
const HEADING = /^ {0,3}#{1,6}(?:\s|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const UNDERLINE = /^ {0,3}(?:=+|-+)\s*$/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+(?=\S)|\s*$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?\s*$/;
const SENTENCE_END = /[。！？；]|[^\S\n]/;
const MARK_OPENS = "\uFDD0";
const MARK_CLOSES = "\uFDD1";

const isBlank = (line) => !line.trim();
const indentOf = (line) => /^\s*/.exec(line)[0].replaceAll("\t", "    ").length;
const columns = (line) => line.trim().replace(/^\||\|$/g, "").split("|").length;

function closesFence(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

/** Cuts a text into blocks and tells `sink`: `open(kind, about)`, `more(text)`, `turn(kind)`, `close()`. */
export class Blocks {
  constructor(sink) {
    this.sink = sink;
    this.pending = ""; // what is not given on yet
    this.within = false; // whether it goes on with a line that has been judged
    this.swallowed = false; // whether the line that is judged belongs to no block's text
    this.block = null;
  }

  add(text) {
    this.pending += text;
    while (this.pending && (this.within ? this.pass() : this.judge(false)));
  }

  /** The text is over: the last line is judged as it is. */
  finish() {
    if (this.pending && !this.within) this.judge(true);
    if (this.pending) this.pass();
    this.within = false;
    this.close();
  }

  /** Give the rest of a line on. */
  pass() {
    const end = this.pending.indexOf("\n") + 1;
    const text = end ? this.pending.slice(0, end) : this.pending;
    this.pending = this.pending.slice(text.length);
    if (end) this.within = false;
    this.more(text);
    return true;
  }

  judge(last) {
    const end = this.pending.indexOf("\n");
    const line = end < 0 ? this.pending : this.pending.slice(0, end);
    const head = line.slice(0, HEAD);
    if (end < 0 && line.length < HEAD && !last && !this.isCode(head)) return false;
    if (this.block?.kind === "code") this.inCode(head);
    else this.place(head);
    this.within = !this.swallowed || line.length > HEAD;
    if (this.swallowed) this.pending = this.pending.slice(this.within ? HEAD : line.length + 1);
    this.swallowed = false;
    return true;
  }

  /** Whether a line that has only begun is code for certain. */
  isCode(head) {
    return this.block?.kind === "code" && !isBlank(head) && !/^[`~]*\s*$/.test(head.trimStart());
  }

  inCode(line) {
    if (indentOf(line) > 3 || !closesFence(line, this.block.fence)) return;
    this.swallowed = true; // the fence itself is no code
    this.close();
  }

  /** Find out which block a line belongs to. */
  place(line) {
    const { block } = this;
    if (block?.kind === "item" && this.inItem(line)) return;
    if (block?.kind === "table" && !isBlank(line) && line.includes("|") && !this.begins(line)) return;
    if (block?.kind === "text" && this.inText(line)) return;
    this.close();
    if (!isBlank(line)) this.begin(line);
    else this.swallowed = true;
  }

  inItem(line) {
    const { block } = this;
    const deep = indentOf(line) >= block.indent;
    if (block.fence) {
      if (closesFence(line, block.fence)) block.fence = "";
      if (!deep && !isBlank(line)) this.more(" ".repeat(block.indent - indentOf(line))); // as it was meant
      return true;
    }
    if (isBlank(line)) return (block.blank = true);
    if (!deep && (block.blank || this.begins(line))) return false;
    block.fence = INNER_FENCE.exec(line)?.[1] ?? "";
    block.blank = false;
    return true;
  }

  inText(line) {
    const { block } = this;
    if (isBlank(line) || block.single) return false;
    const isHeader = block.header && DELIMITERS.test(line) && columns(line) === columns(block.header);
    if (isHeader && line.includes("|")) {
      block.kind = "table";
      this.sink.turn("table");
      return true;
    }
    block.header = "";
    if (block.paragraph && !block.joined && UNDERLINE.test(line)) return (block.single = true);
    if (QUOTE.test(line)) return block.quote || false;
    if (this.begins(line)) return false;
    if (!block.paragraph || !line.includes("|")) return true;
    this.close(); // it may become the head of a table
    this.open("text", { paragraph: true, joined: true, header: line });
    return true;
  }

  /** Whether a line begins a block of its own even after a line of text. */
  begins(line) {
    const [, , sign, gap] = ITEM.exec(line) ?? [];
    if (sign && indentOf(line) < 4) {
      const interrupts = gap && (!/\d/.test(sign) || parseInt(sign, 10) === 1);
      if (interrupts || this.block?.kind === "item") return true;
    }
    return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);
  }

  begin(line) {
    const fence = FENCE.exec(line);
    const item = ITEM.exec(line);
    if (fence) {
      this.open("code", { fence: fence[2], language: fence[3] });
      this.swallowed = true;
    } else if (item && indentOf(line) < 4 && !RULE.test(line)) {
      const gap = indentOf(item[3]);
      const indent = indentOf(line) + item[2].length + (gap > 4 || !gap ? 1 : gap);
      this.open("item", { indent, blank: false, fence: INNER_FENCE.exec(line)?.[1] ?? "" });
    } else {
      const single = HEADING.test(line) || RULE.test(line);
      const quote = QUOTE.test(line);
      const paragraph = !single && !quote && indentOf(line) < 4;
      this.open("text", { single, quote, paragraph, header: line.includes("|") ? line : "" });
    }
  }

  open(kind, about) {
    this.block = { kind, length: 0, ...about };
    this.sink.open(kind, this.block);
  }

  close() {
    if (this.block) this.sink.close();
    this.block = null;
  }

  more(text) {
    const { block } = this;
    if (!block) return;
    const isBounded = block.kind === "item" || (block.kind === "text" && !block.paragraph);
    const room = isBounded ? MAX_BLOCK - block.length : Infinity;
    block.length += text.length;
    this.sink.more(text.slice(0, room));
    if (text.length > room) this.goOn(text.slice(room));
    else if (block.paragraph && block.kind === "text" && block.length > ENOUGH) this.divide();
  }

  /** Close the block and go on with a part that belongs to it. */
  goOn(text) {
    this.close();
    this.open("text", { paragraph: true, joined: true });
    this.more(text);
  }

  /** Begin a new part of a long paragraph. */
  divide() {
    const source = this.sink.source();
    const at = cut(source);
    if (!at) return;
    this.sink.take(source.length - at);
    this.goOn(source.slice(at));
  }
}

/** Where a long text can be cut so that both parts mean what they meant together; 0: not yet. */
function cut(source) {
  const open = { "`": 0, "*": 0, _: 0, "~": 0, "[": 0, "(": 0 };
  for (let at = 0; at < Math.min(source.length - 1, FULL); at += 1) {
    const sign = source[at];
    if (sign in open) open[sign] += 1;
    else if (sign === "]") open["["] -= 1;
    else if (sign === ")") open["("] -= 1;
    if (at < ENOUGH || !canEnd(source, at)) continue;
    const { "[": square, "(": round, ...pairs } = open;
    const neutral = square <= 0 && round <= 0 && Object.values(pairs).every((count) => count % 2 === 0);
    if (neutral || at > MUCH) return /\s/.test(source[at]) ? at : at + 1;
  }
  return source.length > FULL + 2 ? anywhere(source) : 0;
}

const canEnd = (source, at) => SENTENCE_END.test(source[at]) && source[at + 1] !== "\n";

/** A place in a text without spaces, neither in a mark nor between the halves of a character. */
function anywhere(source) {
  let at = FULL;
  const opened = source.lastIndexOf(MARK_OPENS, at);
  if (opened > source.lastIndexOf(MARK_CLOSES, at)) at = opened - 1;
  return /[\uDC00-\uDFFF]/.test(source[at]) ? at - 1 : at;
}
