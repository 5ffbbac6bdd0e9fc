"""A program that passes an answer on line by line: `requests_ask.py URL json|form QUESTION`.

It reads with requests, repairs what it takes for mojibake, and writes what it would send to its own
page. What fails on the way it tells there, too; its last words are always `final_end`.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import requests

URL, FORM, QUESTION = sys.argv[1:]


def event_stream() -> Iterator[bytes]:
    payload = {"question": QUESTION}
    headers = {
        "Authorization": "Bearer your-api-key",
        "Accept": "text/event-stream",
    }
    try:
        with requests.post(
            f"{URL}/stream-ask",
            headers=headers,
            json=payload if FORM == "json" else None,
            data=payload if FORM == "form" else None,
            stream=True,
            timeout=180,
        ) as response:
            response.raise_for_status()
            lines: Any = response.iter_lines(decode_unicode=True)
            for line in lines:
                if line:
                    if line.startswith("data:"):
                        data_content = line[len("data:") :].strip()
                        is_complete_signal = False
                        try:
                            json.loads(data_content)
                            if not is_complete_signal:
                                repaired_data = data_content.encode("latin-1")
                                corrected_data = repaired_data.decode("utf-8")
                                yield (f"data: {corrected_data}\n\n").encode()
                        except json.JSONDecodeError:
                            print(f"cannot be parsed: {data_content}", file=sys.stderr)
                        except Exception as e:
                            print(f"unexpected: {e}", file=sys.stderr)
                            yield b'event: error\ndata: {"message": "Error processing stream"}\n\n'
                            break
                    elif line.startswith("event:"):
                        yield f"{line}\n".encode()
    except requests.exceptions.Timeout:
        yield b'event: error\ndata: {"message": "Connection to knowledge base timed out."}\n\n'
    except requests.exceptions.HTTPError as e:
        status = e.response.status_code if e.response is not None else None
        text = f"Failed to connect to the knowledge base ({status})."
        yield f'event: error\ndata: {{"message": "{text}"}}\n\n'.encode()
    except requests.exceptions.RequestException as e:
        print(f"request failed: {e}", file=sys.stderr)
        yield b'event: error\ndata: {"message": "Could not connect to the knowledge base."}\n\n'
    finally:
        yield b"event: final_end\ndata: {}\n\n"


for piece in event_stream():
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
