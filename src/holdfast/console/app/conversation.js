// The conversation: its questions and answers, or what a new one can begin with.

import { actions } from "./actions.js";
import { Answer } from "./answer/answer.js";
import { html, pure, useRef, useState } from "./html.js";
import { CHINESE } from "./i18n.js";
import { icon } from "./icons.js";
import { focusQuestion } from "./keys.js";
import { QuestionView } from "./question.js";
import { useFollowing } from "./scroll.js";
import { ask, isBusy } from "./talk.js";
import { say } from "./words.js";

const SHOWN = 40; // items that a long conversation begins with; what is earlier is asked for

const STARTERS = CHINESE
  ? ["数据库为什么要先写日志？", "潮汐是怎样形成的？", "中国有哪些茶？"]
  : [
      "How does a write-ahead log keep data safe when a server is killed?",
      "What is a holdfast, and how does it hold on to the rock?",
      "Why are there tides?",
    ];

const AnswerView = pure(Answer);

function Empty() {
  const begin = (text) => {
    ask(text);
    focusQuestion();
  };
  return html`
    <section id="empty">
      <h1>${say("tagline")}</h1>
      <p>${say("promise")}</p>
      <div class="samples" role="group" aria-label=${say("starters")}>
        ${STARTERS.map(
          (text) => html`
            <button type="button" onClick=${() => begin(text)}><span>${text}</span>${icon("arrow-up-right")}</button>
          `,
        )}
      </div>
    </section>
  `;
}

const Loading = () => html`
  <p class="loading" role="status"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>
    <span class="unseen">${say("loading")}</span></p>
`;

function Items({ items, editing, busy }) {
  const last = items.at(-1);
  return items.map((item) =>
    item.role === "user"
      ? html`<${QuestionView} key=${item.key} question=${item} id=${item.id} editing=${item === editing} busy=${busy} />`
      : html`<${AnswerView} key=${item.key} answer=${item} revision=${item.revision} actions=${actions}
               last=${item === last} busy=${busy} />`,
  );
}

export function Conversation({ state: { items, editing, live, phase, session, jump } }) {
  const [page, content] = [useRef(), useRef()];
  const { away, toEnd, keepPlace, onScroll } = useFollowing(page, content, items.length > 0 && jump);
  const [shown, show] = useState(SHOWN);
  const [opened, open] = useState(jump);
  if (opened !== jump) {
    open(jump);
    show(SHOWN);
  }
  const showEarlier = () => {
    keepPlace();
    show(shown + SHOWN);
  };
  const hidden = Math.max(0, items.length - shown);
  return html`
    <div id="page" ref=${page} onScroll=${onScroll}>
      <div id="content" ref=${content}>
        ${items.length === 0 && !session && html`<${Empty} />`}
        ${items.length === 0 && phase === "loading" && html`<${Loading} />`}
        ${hidden > 0 &&
        html`<button type="button" class="button earlier" onClick=${showEarlier}>${say("earlier")}</button>`}
        <div id="messages" aria-busy=${live !== null}>
          <${Items} items=${items.slice(hidden)} editing=${editing} busy=${isBusy()} />
        </div>
      </div>
    </div>
    <div class="jump" hidden=${!away || items.length === 0}>
      <button type="button" aria-label=${say("latest")} title=${say("latest")} onClick=${toEnd}>${icon("down")}</button>
    </div>
  `;
}
