// A client as a process: a command per line of standard input, its result per line of output.
//
// {"do": "send", ...} -> {"result": ...} or {"error": "..."}; in the order of the commands.

import { createInterface } from "node:readline";

/** Runs `commands`, an object of functions, until standard input ends. */
export async function serve(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...given } = JSON.parse(line);
    let answer;
    try {
      answer = { result: (await commands[name](given)) ?? null };
    } catch (error) {
      answer = { error: String(error?.stack ?? error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}

/** What changes, and who waits for it. */
export class Watch {
  #waiting = new Set();

  /** Say that something has changed. */
  changed = () => {
    for (const look of [...this.#waiting]) look();
  };

  /** Wait until `condition` holds. */
  until(condition) {
    return new Promise((resolve) => {
      const look = () => {
        if (condition()) {
          this.#waiting.delete(look);
          resolve();
        }
      };
      this.#waiting.add(look);
      look();
    });
  }
}

/** `fetch` that notes what was asked and how it was answered. */
export function notedFetch(requests, changed = () => {}) {
  return async (url, init = {}) => {
    const headers = Object.fromEntries(new Headers(init.headers));
    const request = { method: init.method ?? "GET", path: new URL(url).pathname, headers };
    requests.push(request);
    changed();
    const response = await fetch(url, init);
    request.status = response.status;
    request.session = response.headers.get("x-holdfast-session");
    request.run = response.headers.get("x-holdfast-run");
    changed();
    return response;
  };
}
