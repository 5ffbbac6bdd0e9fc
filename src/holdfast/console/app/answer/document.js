// The document that a passage was taken from, opened at the passage.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { icon } from "../icons.js";
import { findLines, linesOf } from "./find-passage.js";
import { Markdown } from "./markdown.js";
import { cleaned } from "./names.js";
import { Dots } from "./progress.js";
import { say } from "./words.js";

const LONGEST_RENDERED = 200_000;
const MARKDOWN = /\.(?:md|markdown)$/i;

/** Whether the server can show the document: its passages are named by their lines. */
export const canOpen = (reference) => linesOf(reference) !== null;

/** Open the document of a reference in a dialog, and give the focus back when it is closed. */
export function openDocument(answer, reference, actions) {
  const { activeElement } = document;
  const place = document.createElement("div");
  document.body.append(place);
  const close = () => {
    render(null, place);
    place.remove();
    activeElement?.focus();
  };
  render(html`<${Viewer} read=${() => actions.document(answer, reference)} reference=${reference} close=${close} />`, place);
}

function Viewer({ read, reference, close }) {
  const dialog = useRef();
  const [found, find] = useState(null);
  const [failure, fail] = useState("");
  useLayoutEffect(() => dialog.current.showModal(), []);
  useEffect(() => {
    read().then(find, (error) => fail(error.message || say("no_document")));
  }, []);
  const onClick = (event) => event.target === dialog.current && dialog.current.close();
  const title = cleaned(found?.title ?? reference.document_name ?? reference.document_id);
  return html`
    <dialog class="document" ref=${dialog} aria-labelledby="document-title" onClose=${close} onClick=${onClick}>
      <div class="frame">
        <header>
          ${icon("book")}
          <div><h2 id="document-title" dir="auto">${title}</h2><p dir="auto">${cleaned(reference.document_id)}</p></div>
          <button type="button" class="icon-button" aria-label=${say("close")} onClick=${() => dialog.current.close()}>
            ${icon("close")}
          </button>
        </header>
        ${failure && html`<p class="note" role="alert">${say("no_document")} ${failure}</p>`}
        ${found && html`<${Pages} found=${found} reference=${reference} />`}
        ${!found && !failure && html`<p class="state"><${Dots} /></p>`}
      </div>
    </dialog>
  `;
}

function Pages({ found, reference }) {
  const node = useRef();
  const lines = findLines(found.text, reference);
  useLayoutEffect(() => {
    const isMarkdown = MARKDOWN.test(found.id) && found.text.length < LONGEST_RENDERED;
    node.current.replaceChildren(...(isMarkdown ? blocks : plain)(found.text, lines));
    node.current.querySelector(".here")?.scrollIntoView({ block: "center" });
    node.current.focus({ preventScroll: true });
  }, [found]);
  return html`
    ${!lines && html`<p class="note">${say("passage_gone")}</p>`}
    <div class="pages" ref=${node} tabindex="0" dir="auto"></div>
  `;
}

/** A document's blocks; those that the passage is in are marked. */
function blocks(text, lines) {
  const markdown = new Markdown();
  let line = 1;
  return markdown.split(text).flatMap((source) => {
    const first = line;
    line += source.split("\n").length - 1;
    if (!source.trim()) return [];
    const node = part(lines && first <= lines[1] && lastLine(source, first) >= lines[0]);
    node.append(markdown.blocks(source));
    return [node];
  });
}

const lastLine = (source, first) => first + source.trimEnd().split("\n").length - 1;

function plain(text, lines) {
  const all = text.split("\n");
  const [first, last] = lines ?? [1, 0];
  const cuts = [all.slice(0, first - 1), all.slice(first - 1, last), all.slice(last)];
  return cuts.map((some, at) => {
    const node = part(at === 1);
    node.classList.add("plain");
    node.append(some.join("\n"));
    return node;
  });
}

function part(isHere) {
  const node = document.createElement("div");
  node.className = isHere ? "part here" : "part";
  return node;
}
