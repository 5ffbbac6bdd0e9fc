"""A page that was written for RAGFlow: `messages_page.py URL SESSION send QUESTION` or `... load`.

It puts the answer together by RAGFlow's own rule, shows the conversation after every frame, as one
line of JSON, and after a reload shows what the server has of it, references included.
"""

import json
import sys
from typing import Any

import requests

URL, SESSION, WHAT, *REST = sys.argv[1:]


def show(messages: list[dict[str, Any]]) -> None:
    print(json.dumps(messages), flush=True)


def load() -> list[dict[str, Any]]:
    found = requests.get(f"{URL}/api/messages", params={"session_id": SESSION}, timeout=30).json()
    assert found["code"] == 0, found
    messages: list[dict[str, Any]] = found["data"]
    return messages


def send(question: str) -> None:
    body = {"question": question, "session_id": SESSION}
    answer: dict[str, Any] = {"role": "assistant", "content": "", "reference": {}}
    with requests.post(
        f"{URL}/api/messages/stream", json=body, stream=True, timeout=180
    ) as response:
        for line in response.iter_lines():
            if not line.startswith(b"data:"):
                continue
            said = json.loads(line[len(b"data:") :])
            if said["data"] is True:
                return
            if said["code"] != 0:
                continue  # the text so far stays, and so do its references
            if said["data"].get("final", True):
                answer["content"] = said["data"]["answer"] or answer["content"]
                answer["reference"] = said["data"]["reference"]
            else:
                answer["content"] += said["data"]["answer"]
            show([{"role": "user", "content": question}, answer])
    sys.exit("the stream ended without its terminator")


if WHAT == "send":
    send(*REST)
else:
    show(load())
