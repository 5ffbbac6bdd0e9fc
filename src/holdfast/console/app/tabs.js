// What one tab tells the others: that something happened in a conversation. No tab keeps a
// connection open to hear of it; the others look at the server when they are told, or seen again.

const channel = "BroadcastChannel" in window ? new BroadcastChannel("holdfast") : null;

/** `{session}`: an answer began or ended there, or it was changed; `{session, gone}`: deleted. */
export const tellTabs = (news) => channel?.postMessage(news);

export function onTabs(handle) {
  channel?.addEventListener("message", ({ data }) => handle(data));
}
