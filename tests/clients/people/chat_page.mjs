// A chat page's reader, as people have it: it parses each network read by itself, throws at a frame
// that is cut in two, and at [DONE] loads the session's messages again and shows them.
//
//   node chat_page.mjs URL SESSION send MESSAGE    one line of JSON for each time it shows something
//   node chat_page.mjs URL SESSION load            what it shows after a reload of the page

const [url, currentSessionId, action, userMessage] = process.argv.slice(2);

let messages = [];
const setMessages = (next) => {
  messages = typeof next === 'function' ? next(messages) : next;
  process.stdout.write(JSON.stringify(messages) + '\n');
};

const getSessionMessages = async (sessionId) => {
  const response = await fetch(`${url}/sessions/${sessionId}/messages`);
  return response.json();
};

const handleSendStream = async () => {
  const response = await fetch(`${url}/chat/stream`, {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({
      message: userMessage,
      session_id: currentSessionId
    })
  });

  const reader = response.body.getReader();
  const decoder = new TextDecoder();

  let tempMessage = {
    id: Date.now(),
    session_id: currentSessionId,
    role: 'assistant',
    content: '',
    timestamp: new Date().toISOString()
  };

  setMessages(prev => [...prev, tempMessage]);

  while (true) {
    const {done, value} = await reader.read();
    if (done) break;

    const chunk = decoder.decode(value);
    const lines = chunk.split('\n');

    for (const line of lines) {
      if (line.startsWith('data: ')) {
        const data = line.slice(6);
        if (data === '[DONE]') {
          const updatedMessages = await getSessionMessages(currentSessionId);
          setMessages(updatedMessages);
          return;
        }

        const parsed = JSON.parse(data);
        if (parsed.content) {
          tempMessage.content += parsed.content;
          setMessages(prev => [
            ...prev.slice(0, -1),
            {...tempMessage}
          ]);
        }
      }
    }
  }
};

if (action === 'load') {
  setMessages(await getSessionMessages(currentSessionId));
} else {
  await handleSendStream();
}
