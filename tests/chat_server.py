"""A chat endpoint on loopback that speaks the protocol of OpenAI's, and misbehaves on demand."""

import base64
import json
import threading
import time
from collections import Counter, deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

ANSWERS = {
    "RegionVerdict": {"soundness": 5, "distinctness": 5, "unambiguity": 5},
    "SampleVerdict": {"correctness": 5, "uniqueness": 5, "clarity": 5},
    "Phrase": {"phrase": "The thing that lies somewhere in this quiet scene."},
    "Cues": {"cues": ["it lies further up", "nothing touches it"]},
    "QuestionAndReason": {
        "question": "Which one is of use here, all in all?",
        "explanation": "It is of use.",
    },
}


class ChatServer:
    """What was asked and what shall be answered.

    Attributes:
        faults: what befalls the next requests, one each: "429", "500", "401", "timeout", "drop", "prose",
            "empty", "refusal", "filter" (the question is rejected), "cut" (the answer is), "400", or "ok".
        answers: by schema, or a function of the request that gives the content.
        requests: bodies of all requests that came in, in order.
        busiest: most requests under way at a time.
    """

    def __init__(self):
        self.faults, self.answers, self.requests = deque(), dict(ANSWERS), []
        self.statuses, self.keys, self.times = Counter(), set(), []
        self.busiest, self._busy, self._lock = 0, 0, threading.Lock()
        self.url, self.delay = "", 0.0

    def enter(self, body, key):
        with self._lock:
            self.requests.append(body)
            self.keys.add(key)
            self.times.append(time.monotonic())
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            return self.faults.popleft() if self.faults else "ok"

    def leave(self):
        with self._lock:
            self._busy -= 1

    def content(self, body):
        name = body["response_format"]["json_schema"]["name"]
        answer = self.answers[name]
        return json.dumps(answer(body) if callable(answer) else answer)


def picture(body):
    """The image of a request, RGB."""
    (url,) = (p["image_url"]["url"] for p in body["messages"][1]["content"] if p["type"] == "image_url")
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def question(body):
    """The text of a request."""
    return next(p["text"] for p in body["messages"][1]["content"] if p["type"] == "text")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in fault_proxy

    def log_message(self, *args):
        pass

    def do_POST(self):
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = chat.enter(body, self.headers.get("Authorization"))
        try:
            time.sleep(chat.delay)
            self._answer(chat, body, fault)
        except BrokenPipeError:
            pass
        finally:
            chat.leave()

    def _answer(self, chat, body, fault):
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no {self.path}"}})
        if fault == "filter":  # as Azure words it
            inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
            text = "The response was filtered due to the prompt triggering the content management policy."
            error = {
                "message": text,
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
            }
            return self._send(400, {"error": error | {"innererror": inner}})
        if fault in ("400", "401", "429", "500"):
            headers = {"Retry-After": "0.01"} if fault == "429" else {}
            return self._send(int(fault), {"error": {"message": f"told to answer {fault}"}}, headers)
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        if fault == "timeout":
            time.sleep(1.5)
        message = {"role": "assistant", "content": chat.content(body), "refusal": None}
        if fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        if fault in ("prose", "empty"):
            message["content"] = "Sure! Here is the JSON:" if fault == "prose" else ""
        ended = "content_filter" if fault == "cut" else "stop"
        if fault == "cut":
            message["content"] = message["content"][:5]
        choice = {"index": 0, "message": message, "finish_reason": ended, "logprobs": None}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        whole = {"id": "chat-1", "object": "chat.completion", "created": 0, "model": body["model"]}
        return self._send(200, whole | {"choices": [choice], "usage": usage})

    def _send(self, status, document, headers=()):
        self.server.chat.statuses[status] += 1
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(data),
            **dict(headers),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def chat_server():
    """Serves on a free port of loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.chat = ChatServer()
    server.chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
