"""An OpenAI-compatible server on this machine that judges by a rule, and can be made to fail."""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Said = tuple[int, str]


class JudgeServer:
    """`with JudgeServer(lambda text, mark, n: (200, f"VERDICT {mark}: 7")) as server:` answers at `server.url`.

    answer: (question, mark, how often it was asked before) -> status and the reply, or a body where that is no 200.
    """

    def __init__(self, answer: Callable[[str, str, int], Said] | None = None, seconds: float = 0.0) -> None:
        self.asked: list[dict] = []
        """The bodies of the requests."""
        self.keys: list[str | None] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        answer = answer or (lambda text, mark, before: (200, f"Fine.\nVERDICT {mark}: 7"))
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][0]["content"]
                with server._lock:
                    before = sum(other["messages"][0]["content"] == text for other in server.asked)
                    server.asked.append(body)
                    server.keys.append(self.headers.get("Authorization"))
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                try:
                    time.sleep(seconds)
                    mark = re.search(r"VERDICT (\w+): NUMBER", text)
                    status, said = answer(text, mark[1] if mark else "", before)
                finally:
                    with server._lock:
                        server._now -= 1
                if status == 200:
                    said = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})
                self.send_response(abs(status))
                self.send_header("Content-Length", str(len(said.encode())))
                if status == 429:
                    self.send_header("Retry-After", "0.01")
                self.end_headers()
                self.wfile.write(said.encode())

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()
