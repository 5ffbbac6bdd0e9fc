// Colours code away from the page's thread: code in, pairs of text and class out, never HTML.

import hljs from "../../vendor/highlight.js";

const PIECE = /<span class="([\w -]*)">|<\/span>|[^<]+/g;
const ENTITY = /&(?:amp|lt|gt|quot|#x27);/g;
const SIGNS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

function tokens(html) {
  const [found, classes] = [[], []];
  for (const [piece, name] of html.matchAll(PIECE)) {
    if (name !== undefined) classes.push(name);
    else if (piece === "</span>") classes.pop();
    else found.push([piece.replace(ENTITY, (entity) => SIGNS[entity]), classes.join(" ")]);
  }
  return found;
}

onmessage = ({ data: { id, code, language } }) => {
  const known = hljs.getLanguage(language);
  postMessage({ id, tokens: known ? tokens(hljs.highlight(code, { language, ignoreIllegals: true }).value) : null });
};
