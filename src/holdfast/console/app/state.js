// The one state of the page. Actions change it and call `changed`; it is drawn at the next frame.

export const state = {
  sessions: { items: [], next: null, query: "", loading: false, loaded: false },
  session: "", // the id of the conversation on the page; empty: a new one
  title: null, // of that conversation, which the list need not show
  preset: null,
  items: [], // its questions and answers, oldest first
  phase: "open", // or loading
  jump: 0, // rises when the end of the conversation is to come into view
  live: null, // the answer that is being written here
  editing: null, // the question that is being edited
  renaming: null, // the id of the session that is being renamed
  deleting: null, // the session that is asked about before it is deleted
  draft: "",
  note: "", // what went wrong, in a line over the question
  waiting: false, // the server cannot be reached just now
  door: null, // { wrong }: a key is wanted
  side: false, // the list is open, on narrow screens
  help: false,
  upstreams: [],
  presets: [],
  choice: { upstream: "", preset: "" },
};

const HIDDEN_MS = 200; // a hidden page has no frames; its title still changes

let draw = () => {};
let drawing = false;

export function onChange(drawPage) {
  draw = drawPage;
}

export function changed() {
  if (drawing) return;
  drawing = true;
  const now = () => {
    drawing = false;
    draw();
  };
  if (document.hidden) setTimeout(now, HIDDEN_MS);
  else requestAnimationFrame(now);
}

/** Change members of the state. */
export function set(members) {
  Object.assign(state, members);
  changed();
}

/** The name of the conversation on the page. */
export function currentTitle() {
  const item = state.sessions.items.find(({ id }) => id === state.session);
  return item ? item.title : state.title;
}
