// A conversation as a file: Markdown for people, JSON for programs.

import { endingText, explanation } from "./answer/endings.js";
import { announce } from "./live.js";
import { set } from "./state.js";
import { client, explain } from "./wire.js";
import { say } from "./words.js";

const KINDS = {
  md: ["text/markdown", (session, messages) => toMarkdown(session, messages)],
  json: ["application/json", (session, messages) => `${JSON.stringify({ session, messages }, null, 2)}\n`],
};

export async function exportSession(id, kind) {
  try {
    const session = await client.session(id);
    const messages = await Array.fromAsync(client.allMessages(id, { limit: 200 }));
    const [type, write] = KINDS[kind];
    save(new Blob([write(session, messages)], { type }), `${fileName(session)}.${kind}`);
    announce(say("exported"));
  } catch (error) {
    set({ note: explain(error) });
  }
}

/** The title, as every file system takes it. */
const fileName = ({ title, id }) => (title ?? "").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60).replace(/^-|-$/g, "") || id;

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it in its own time
}

function toMarkdown({ title, created_at: created }, messages) {
  const head = `# ${oneLine(title ?? say("untitled"))}\n\n${created}\n`;
  return [head, ...messages.map(section)].join("\n");
}

function section({ role, content, outcome, reason, references, upstream, model, created_at: at }) {
  if (role === "user") return `## ${say("you")} (${at})\n\n${content}\n`;
  const by = [upstream, model].filter(Boolean).join(", ");
  const parts = [`## ${by || "Holdfast"} (${at})`, content];
  if (outcome && outcome !== "completed") parts.push(`*${ending({ outcome, reason, text: content })}*`);
  if (references.length) parts.push(references.map(sourceLine).join("\n"));
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

const ending = (answer) => [endingText(answer), explanation(answer)].filter(Boolean).join(" – ");

function sourceLine({ ordinal, document_name: name, document_id: id, url }) {
  const told = oneLine(name ?? id ?? url ?? "").replace(/[[\]\\`*_<>]/g, "\\$&");
  return `[${ordinal}] ${url ? `[${told}](<${url.replace(/[<>\s]/g, encodeURIComponent)}>)` : told}  `;
}

const oneLine = (text) => text.replace(/\s+/g, " ").trim();
