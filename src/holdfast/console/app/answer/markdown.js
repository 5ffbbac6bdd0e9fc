// Markdown to nodes. HTML in it is text; what the renderer makes is purified all the same.
//
// A citation travels within the text as `[\uFDD0 number \uFDD1]`, noncharacters which are taken out of
// everything that comes in: brackets, because Markdown's rules ask whether what follows a word is
// punctuation. In code and addresses its own characters are put back.

import { Marked } from "../../vendor/marked.js";
import DOMPurify from "../../vendor/purify.js";
import { say } from "./words.js";

const CITATION = /\[\uFDD0(\d+)\uFDD1\]/;
const CITATIONS = new RegExp(CITATION, "g");
const LEFT_OVER = /[\uFDD0-\uFDD2]/g;
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const WEB = /^https?:\/\/[^\s]/i;
/** An emphasis that begins or ends with wide punctuation and has no spaces around it: `见**《茶》**和**要点：**先` */
const WIDE = "[\\u2014-\\u2026\\u3001-\\u3017\\uff00-\\uff65]";
const CJK_STRONG = new RegExp(`^\\*\\*(?=[^\\s*])((?=${WIDE})[^*\\n]*[^\\s*]|[^*\\n]*${WIDE})\\*\\*`);
/** More quotations and lists in each other than anybody reads. */
const TOO_DEEP = /^((?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])){8}[ \t]*)(?=>|[-*+]|\d{1,9}[.)])/gm;
const LABEL_LENGTH = 24;

const TAGS =
  "p br hr h3 h4 h5 h6 ul ol li blockquote strong em del code pre a " +
  "table thead tbody tr th td figure figcaption button span div";
const ATTRIBUTES = "target rel class start type disabled tabindex role aria-label data-ordinal".split(" ");
const PURIFY = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ["href", ...ATTRIBUTES],
  ALLOWED_URI_REGEXP: WEB,
  ADD_URI_SAFE_ATTR: ATTRIBUTES,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escape = (text) => text.replace(/[&<>"']/g, (sign) => ESCAPES[sign]);

/** Whether a link may lead there. */
export const isWeb = (url) => typeof url === "string" && WEB.test(url);

/** Renders Markdown with citations: `citations[number]` is `{ordinal, label}` of the mark with this number. */
export class Markdown {
  constructor() {
    this.citations = [];
    this.known = new Set(); // the ordinals that a source belongs to
    this.marked = new Marked({ gfm: true });
    this.marked.use({ extensions: [this.citation(), CJK], tokenizer: TOKENIZER, renderer: this.renderer() });
  }

  /** A mark's number in place of its characters. */
  mark(ordinal, label) {
    return `[\uFDD0${this.citations.push({ ordinal, label }) - 1}\uFDD1]`;
  }

  /** A text with the marks' own characters. */
  restore(text) {
    const plain = text.replace(CITATIONS, (_, number) => this.citations[number]?.label ?? "");
    return plain.replace(LEFT_OVER, "");
  }

  /** Blocks as nodes. */
  blocks(source) {
    return this.rendered(() => this.marked.parse(source.replace(TOO_DEEP, "$1\\")), source);
  }

  /** The sources of a text's blocks. */
  split(source) {
    return this.marked.lexer(source).map((token) => token.raw);
  }

  /** A part of a paragraph as nodes. */
  inline(source) {
    return this.rendered(() => this.marked.parseInline(source), source);
  }

  /** What the renderer makes of it; its own text if that is too much for it. */
  rendered(render, source) {
    try {
      return this.purified(render());
    } catch {
      return this.purified(`<p>${escape(this.restore(source))}</p>`);
    }
  }

  purified(html) {
    const fragment = DOMPurify.sanitize(html.replace(LEFT_OVER, ""), PURIFY);
    for (const mark of fragment.querySelectorAll("a .mark")) mark.replaceWith(mark.textContent);
    for (const node of fragment.querySelectorAll("ul, ol, blockquote, li")) dropBlanks(node);
    return fragment;
  }

  citation() {
    return {
      name: "citation",
      level: "inline",
      start: (source) => source.match(CITATION)?.index,
      tokenizer(source) {
        const found = CITATION.exec(source);
        return found?.index === 0 ? { type: "citation", raw: found[0], number: Number(found[1]) } : undefined;
      },
      renderer: ({ number }) => this.chip(this.citations[number]),
    };
  }

  chip(citation) {
    if (!citation) return "";
    const { ordinal, label } = citation;
    const [, inner] = /^\[(.+)\]$/s.exec(label) ?? [];
    const bracket = (sign) => `<span class="bracket">${sign}</span>`;
    const text = inner ? bracket("[") + escape(inner) + bracket("]") : escape(label);
    const state = this.known.has(ordinal) ? `aria-label="${escape(say("source", ordinal))}"` : "disabled";
    return `<button type="button" class="mark" data-ordinal="${ordinal}" ${state}>${text}</button>`;
  }

  renderer() {
    const restore = (text) => this.restore(text);
    const inner = (renderer, token) => renderer.parser.parseInline(token.tokens);
    return {
      heading(token) {
        const tag = `h${Math.min(token.depth + 2, 6)}`;
        return `<${tag}>${inner(this, token)}</${tag}>`;
      },
      code: ({ text, lang }) => codeHtml(restore(text), lang),
      codespan: ({ text }) => `<code>${escape(restore(text))}</code>`,
      html: ({ text }) => escape(text),
      link(token) {
        const url = restore(token.href);
        return isWeb(url) ? anchor(url, inner(this, token)) : escape(restore(token.raw));
      },
      image({ href, text, raw }) {
        const url = restore(href);
        const name = escape(restore(text) || url);
        return isWeb(url) ? anchor(url, `<span class="picture">${name}</span>`) : escape(restore(raw));
      },
      checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
      table(token) {
        const row = (cells, tag) =>
          `<tr>${cells.map((cell) => `<${tag}${aligned(cell)}>${inner(this, cell)}</${tag}>`).join("")}</tr>`;
        const rows = token.rows.map((cells) => row(cells, "td")).join("");
        const table = `<thead>${row(token.header, "th")}</thead><tbody>${rows}</tbody>`;
        return `<div class="table" tabindex="0" role="region" aria-label="${say("table")}"><table>${table}</table></div>`;
      },
    };
  }
}

const TOKENIZER = {
  html: () => undefined,
  tag: () => undefined,
  def: () => undefined, // it would vanish, and what it names may be in another block
};

const CJK = {
  name: "cjk-strong",
  level: "inline",
  start: (source) => source.indexOf("**"),
  tokenizer(source) {
    const [raw, inner] = CJK_STRONG.exec(source) ?? [];
    return raw && { type: "cjk-strong", raw, tokens: this.lexer.inlineTokens(inner) };
  },
  renderer(token) {
    return `<strong>${this.parser.parseInline(token.tokens)}</strong>`;
  },
};

/** Lines between blocks are nothing to see, but would be seen where lines are kept. */
function dropBlanks(node) {
  for (const inner of [...node.childNodes]) {
    if (inner.nodeType === Node.TEXT_NODE && /^\s*\n\s*$/.test(inner.data)) inner.remove();
  }
}

const anchor = (url, inner) =>
  `<a href="${escape(url)}" target="_blank" rel="noopener noreferrer nofollow">${inner}</a>`;

const aligned = ({ align }) => (align === "center" || align === "right" ? ` class="${align}"` : "");

/** The language that a code block names, if it is a name. */
export const languageOf = (info) => /^[\w+#.-]+/.exec(info ?? "")?.[0].slice(0, LABEL_LENGTH) ?? "";

/** A block of code with its language and a button to copy it. */
export function codeHtml(text, info) {
  const language = escape(languageOf(info));
  const copy = `<button type="button" class="copy-code">${say("copy")}</button>`;
  const head = `<figcaption><span class="language">${language}</span>${copy}</figcaption>`;
  return `<figure class="code">${head}<pre tabindex="0"><code>${escape(text)}</code></pre></figure>`;
}
