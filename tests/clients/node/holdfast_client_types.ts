// Uses every part of the types as a page would; the TypeScript compiler checks it in a test.

import {
  HoldfastClient,
  HoldfastError,
  SseParser,
  answerOf,
  emptyAnswer,
  fold,
  type Answer,
  type HoldfastEvent,
  type Message,
  type Page,
} from "../../../src/holdfast/console/holdfast-client.js";

const client = new HoldfastClient({
  url: "https://chat.example",
  apiKey: "key",
  headers: { "X-Tenant": "a" },
  fetch: (url, init) => fetch(url, init),
  patienceMs: 1,
  silenceMs: 1,
  onWait: (cause) => cause.toUpperCase(),
  onConnected: () => {},
});
client.apiKey = null;

function words(event: HoldfastEvent): string {
  switch (event.type) {
    case "run-start":
      return event.session_id + (event.route ?? "") + event.cursor + event.seq.toFixed();
    case "text-delta":
    case "text-replace":
      return event.text + (event.marks ?? []).map(([start, end, ordinal]) => start + end + ordinal);
    case "reasoning-delta":
      return event.text;
    case "references":
      return event.references.map(({ ordinal, url }) => `${ordinal} ${url?.length}`).join();
    case "tool-call":
      return (event.id ?? "") + event.arguments_delta;
    case "step":
      return event.label;
    case "notice":
      return event.code;
    case "usage":
      return String((event.input_tokens ?? 0) + 1);
    case "run-end":
      return event.outcome;
    default: {
      const none: never = event;
      return none;
    }
  }
}

export async function use(message: Message): Promise<Answer> {
  const { signal } = new AbortController();
  const stream = client.ask("Why?", { session: null, onBusy: "cancel", maxTokens: 9, signal });
  for await (const event of stream) fold(emptyAnswer(), event), words(event);
  const cursor: string = stream.cursor ?? "";
  await client.resume(cursor, { answer: answerOf(message) }).result();
  await client.follow("s", { after: cursor }).cancel();
  client.regenerate("m", { upstream: "u" });
  client.edit("q", "Why not?", { idempotencyKey: "k" });
  // @ts-expect-error there is no such option
  client.ask("Why?", { sesion: "s" });
  // @ts-expect-error a session is not for a question that has one
  client.regenerate("m", { session: "s" });
  // @ts-expect-error an answer is not a number
  const wrong: number = await stream.result();

  const page: Page<Message> = await client.messages("s", { limit: 1, after: null });
  for await (const one of client.allMessages("s")) page.items.push(one);
  const titles = (await client.sessions({ query: "a" })).items.map(({ title }) => title ?? "");
  await client.feedback("m", { rating: "up" });
  await client.feedback("m", null);
  const healthy: boolean[] = (await client.upstreams()).map(({ healthy }) => healthy);
  const preset: string | undefined = (await client.presets())[0]?.name;
  client.wake();
  const data: string[] = new SseParser().feed(new Uint8Array()).map((one) => one.data);
  return { ...(await stream.result()), text: [titles, healthy, preset, data, wrong].join() };
}

export function say(error: unknown): string {
  if (!(error instanceof HoldfastError)) throw error;
  if (error.code === "run_active") return String(error.extra.run_id);
  return `${error.status ?? 0} ${error.requestId ?? ""} ${error.message}`;
}
