// A block of code: text that is appended to while it is written; colours when it is whole.
//
// It consists of parts of some lines each, so that neither appending nor colouring touches all of it.

import { highlight } from "./highlight.js";
import { codeHtml } from "./markdown.js";

const PART_LINES = 40;
const BUDGET_MS = 6;
const LINES = /[^\n]*\n|[^\n]+$/g;

export class CodeView {
  constructor(prose, { language }) {
    this.prose = prose;
    this.figure = prose.markdown.purified(codeHtml("", language)).firstElementChild;
    this.parts = new Parts(this.figure.querySelector("code"));
    this.waiting = "";
    prose.node.append(this.figure);
  }

  add(text) {
    this.waiting += this.prose.markdown.restore(text);
  }

  draw() {
    this.parts.add(this.waiting);
    this.waiting = "";
  }

  close() {
    this.draw();
    dress(this.figure);
  }
}

/** Text in parts of some lines. */
class Parts {
  constructor(node) {
    this.node = node;
    this.lines = PART_LINES;
  }

  add(text, className = "") {
    for (const line of text.match(LINES) ?? []) {
      if (this.lines >= PART_LINES) this.next();
      this.append(line, className);
      if (line.endsWith("\n")) this.lines += 1;
    }
  }

  next() {
    this.part = document.createElement("span");
    this.part.className = "part";
    this.node.append(this.part);
    this.lines = 0;
  }

  append(text, className) {
    const { lastChild } = this.part;
    if (className) {
      const span = document.createElement("span");
      span.className = className;
      span.textContent = text;
      this.part.append(span);
    } else if (lastChild?.nodeType === Node.TEXT_NODE) {
      lastChild.appendData(text);
    } else {
      this.part.append(text);
    }
  }
}

/** Colour a block that is whole. */
export async function dress(figure) {
  const code = figure.querySelector("code");
  const language = figure.querySelector(".language").textContent;
  const tokens = language && (await highlight(code.textContent, language));
  if (!tokens) return;
  const coloured = document.createElement("code");
  const parts = new Parts(coloured);
  for (const [text, className] of tokens) parts.add(text, className);
  replaceParts(code, [...coloured.childNodes]);
}

/** Put the coloured parts in place of the others, as many in a frame as there is time for. */
function replaceParts(code, parts) {
  const old = [...code.childNodes];
  const isSame = old.length === parts.length && old.every((part, at) => part.textContent === parts[at].textContent);
  if (!isSame) return code.replaceChildren(...parts);
  const work = () => {
    const started = performance.now();
    while (parts.length && performance.now() - started < BUDGET_MS) old.shift().replaceWith(parts.shift());
    if (parts.length) requestAnimationFrame(work);
  };
  work();
}
