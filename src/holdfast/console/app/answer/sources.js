// The sources of an answer: those that it cites first, the others folded away.

import { html, pure, useLayoutEffect, useRef, useState } from "../html.js";
import { icon } from "../icons.js";
import { canOpen, openDocument } from "./document.js";
import { isWeb, Markdown } from "./markdown.js";
import { cleaned } from "./names.js";
import { say } from "./words.js";

const SNIPPET = 200;
const LONGEST_PASSAGE = 20_000;

export const nameOf = ({ document_name: name, document_id: id, url }) =>
  cleaned(name) || cleaned(id) || cleaned(url) || say("untitled");

/** A passage with its document, as nodes. */
export function Passage({ reference }) {
  const node = useRef();
  useLayoutEffect(() => {
    node.current.replaceChildren(new Markdown().blocks((reference.text ?? "").slice(0, LONGEST_PASSAGE)));
  }, [reference]);
  return html`<div class="passage" ref=${node} dir="auto" tabindex="0"></div>`;
}

/** What can be done with a source: its section, its score, where it leads. */
export function SourceFoot({ reference, answer, actions }) {
  const { score, url, extra } = reference;
  const section = cleaned(extra?.section);
  return html`
    <p class="source-foot">
      ${section && html`<span class="section" dir="auto">${section}</span>`}
      ${Number.isFinite(score) && html`<span class="score">${say("relevance", score.toFixed(2))}</span>`}
      ${isWeb(url) &&
      html`<a href=${url} title=${cleaned(url)} target="_blank" rel="noopener noreferrer nofollow">
        ${icon("arrow-up-right")}${say("open_page")}
      </a>`}
      ${canOpen(reference) &&
      html`<button type="button" class="open-document" onClick=${() => openDocument(answer, reference, actions)}>
        ${icon("book")}${say("open_document")}</button>`}
    </p>
  `;
}

function Source({ reference, answer, actions }) {
  const [isOpen, open] = useState(false);
  const text = reference.text ?? "";
  const snippet = cleaned(text.slice(0, SNIPPET).replace(/^[\s>#*|-]+/gm, " ").replace(/[*`]+/g, ""));
  return html`
    <li class="source" data-ordinal=${reference.ordinal}>
      <details onToggle=${(event) => open(event.currentTarget.open)}>
        <summary>
          <span class="ordinal">${reference.ordinal}</span>
          <span class="name" dir="auto">${nameOf(reference)}</span>
          <span class="snippet" dir="auto">${snippet}</span>
          ${icon("chevron")}
        </summary>
        ${isOpen && html`<${Passage} reference=${reference} /><${SourceFoot} ...${{ reference, answer, actions }} />`}
      </details>
    </li>
  `;
}

const List = ({ references, ...others }) => html`
  <ol>${references.map((reference) => html`<${Source} key=${reference.ordinal} reference=${reference} ...${others} />`)}</ol>
`;

/** While the answer is written only how many there are: nothing moves below the text. */
export const Sources = pure(({ references, live, marks, answer, actions }) => {
  if (!references.length) return null;
  const rest = { answer, actions };
  if (live) {
    const found = references.length === 1 ? say("found_one") : say("found", references.length);
    return html`
      <section class="sources" aria-label=${say("sources")}>
        <details class="folded">
          <summary>${icon("book")}${found}${icon("chevron")}</summary>
          <${List} references=${references} ...${rest} />
        </details>
      </section>
    `;
  }
  const cited = new Set(marks.map(([, , ordinal]) => ordinal));
  const first = cited.size ? references.filter(({ ordinal }) => cited.has(ordinal)) : references;
  const others = references.filter((reference) => !first.includes(reference));
  return html`
    <section class="sources" aria-label=${say("sources")}>
      <h2>${say("sources")}</h2>
      <${List} references=${first} ...${rest} />
      ${others.length > 0 &&
      html`<details class="folded">
        <summary>${say("not_cited", others.length)}${icon("chevron")}</summary>
        <${List} references=${others} ...${rest} />
      </details>`}
    </section>
  `;
});
