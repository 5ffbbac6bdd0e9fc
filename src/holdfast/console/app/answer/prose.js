// The text of an answer on the page, as it grows.
//
//     text + marks ──► Blocks ──► a view for each block ──► nodes
//
// A block that is closed is drawn for the last time. Of the open one, what a view draws at a frame is
// bounded: the last lines of code, the last row of a table, the last part of a paragraph.

import { Blocks } from "./blocks.js";
import { CodeView, dress } from "./code.js";
import { Markdown } from "./markdown.js";
import { MarkedText } from "./marked-text.js";
import { mend } from "./mend.js";
import { morph } from "./morph.js";
import { TableView } from "./table.js";

/** How much text is taken in at once; more of it waits for the next frame when the time is up. */
const PIECE = 2000;
const BUDGET_MS = 12;
/** An open block that takes long to draw is drawn less often: it may take this part of the time. */
const SHARE = 8;
/** A line that has only begun and may still become anything is not shown. */
const UNCLEAR = /^\s*(?:[-=*+_#>|~`]+|\d{1,9}[.)]?|\[[^\]]*)?\s*$|^ {0,3}(?:`{3}|~{3})/;

/** An answer's text; `node` is what is on the page. */
export class Prose {
  constructor(node, changed = () => {}) {
    this.node = node;
    this.changed = changed; // wants to be drawn again
    this.markdown = new Markdown();
    this.rewrites = 0;
    this.begin();
  }

  begin() {
    this.node.replaceChildren();
    this.markdown.citations = [];
    this.taken = new MarkedText(this.markdown);
    this.blocks = new Blocks(this);
    this.view = null;
    this.ghost = null; // shows a line that no block has yet
    this.over = false;
  }

  /** Take the text as it is now, and draw it. Returns whether all of it is drawn. */
  show({ text, marks, rewrites, live }) {
    const isBack = text.length < this.taken.at || marks.length < this.taken.mark;
    if (rewrites !== this.rewrites || isBack || (this.over && text.length > this.taken.at)) this.begin();
    this.rewrites = rewrites;
    const started = performance.now();
    while (this.taken.at < text.length) {
      const before = this.taken.at;
      this.blocks.add(this.taken.take(text, marks, PIECE));
      if (this.taken.at === before || performance.now() - started > BUDGET_MS) break;
    }
    const isWhole = this.taken.at >= text.length;
    if (isWhole && !live && !this.over) this.finish();
    if (!this.over) this.draw();
    if (!isWhole) this.changed();
    return isWhole;
  }

  finish() {
    this.blocks.finish();
    this.dropGhost();
    this.over = true;
  }

  draw() {
    const { pending } = this.blocks;
    const shown = UNCLEAR.test(pending) ? "" : pending;
    if (this.view) return this.view.draw(shown);
    if (!shown && !this.ghost) return;
    this.ghost ??= new TextView(this, {});
    this.ghost.draw(shown);
  }

  /** The sources that marks can lead to. */
  know(ordinals) {
    this.markdown.known = ordinals;
    for (const mark of this.node.querySelectorAll(".mark")) {
      const { attributes } = this.markdown.inline(this.markdown.mark(Number(mark.dataset.ordinal), "")).firstChild;
      for (const name of ["disabled", "aria-label"]) {
        if (attributes[name]) mark.setAttribute(name, attributes[name].value);
        else mark.removeAttribute(name);
      }
    }
  }

  dropGhost() {
    this.ghost?.remove();
    this.ghost = null;
  }

  // ------------------------------------------------------------ what `Blocks` tells

  open(kind, about) {
    if (kind === "code" || about.joined) this.dropGhost();
    if (kind === "code") this.view = new CodeView(this, about);
    else this.view = this.ghost ?? new TextView(this, about);
    this.view.begin?.(kind, about);
    this.ghost = null;
  }

  more(text) {
    this.view.add(text);
  }

  /** The text's last line was the head of a table. */
  turn() {
    const { source } = this.view;
    this.view.remove();
    this.view = new TableView(this, source);
  }

  source() {
    return this.view.source;
  }

  /** Take some characters back. */
  take(length) {
    this.view.source = this.view.source.slice(0, -length);
  }

  close() {
    this.view.close();
    this.view = null;
  }
}

/** Paragraphs, headings, quotations, an item of a list: drawn by the renderer as a whole. */
class TextView {
  constructor(prose, { joined, header }) {
    this.prose = prose;
    this.source = "";
    this.before = joined && header ? "\n" : "";
    this.joined = joined && prose.node.lastElementChild?.localName === "p";
    this.host = this.joined ? prose.node.lastElementChild : prose.node;
    this.first = this.host.childNodes.length;
    this.notBefore = 0;
  }

  begin(kind) {
    this.isItem = kind === "item";
  }

  add(text) {
    this.source += text;
  }

  draw(rest) {
    const now = performance.now();
    if (now < this.notBefore) return this.prose.changed();
    this.render(mend(this.source + rest));
    const cost = performance.now() - now;
    if (cost > SHARE) this.notBefore = now + cost * SHARE;
  }

  render(source) {
    const { markdown } = this.prose;
    const nodes = this.joined ? markdown.inline(this.before + source) : markdown.blocks(source);
    morph(this.host, this.first, [...nodes.childNodes].filter(this.joined ? () => true : isElement));
  }

  close() {
    this.render(this.source);
    if (this.isItem) joinList(this.host, this.first);
    for (const node of this.nodes.filter(isElement)) node.querySelectorAll("figure.code").forEach(dress);
  }

  get nodes() {
    return [...this.host.childNodes].slice(this.first);
  }

  remove() {
    for (const node of this.nodes) node.remove();
  }
}

const isElement = (node) => node.nodeType === Node.ELEMENT_NODE;

/** Give an item to the list before it. */
function joinList(host, at) {
  const [list, before] = [host.childNodes[at], host.childNodes[at - 1]];
  if (!list || !before || host.childNodes.length > at + 1) return;
  if (!/^[uo]l$/.test(list.localName) || list.localName !== before.localName) return;
  before.append(...list.childNodes);
  list.remove();
}
