"""A server for wandb's own client, which takes a run's rows, tells at a resume what it has, and can fall silent.

It answers what logging in, beginning and resuming a run ask for, and refuses everything else; wandb goes on without.
"""

import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = {"id": "1", "name": "me"}
PROJECT = {"id": "2", "name": "grpo-tests", "entity": ENTITY}


class WandbServer:
    """`with WandbServer() as server:` answers at `server.url`; `lines[id]` are the history lines of a run."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[int, str]] = defaultdict(dict)
        self.silent = threading.Event()
        """While set, requests are taken and not answered."""
        self.ended = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if server.silent.is_set():
                    server.ended.wait()
                    return
                content = json.dumps(server.response(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()

    def steps(self, run: str) -> list[int]:
        """Those of the run's rows, in the order of their lines."""
        return [json.loads(line)["step"] for _, line in sorted(self.lines[run].items())]

    def response(self, path: str, body: bytes) -> dict:
        if stream := re.search(r"/([^/]+)/file_stream$", path):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            for number, line in enumerate(history["content"] if history else []):
                self.lines[stream[1]][history["offset"] + number] = line
            return {}
        if not path.endswith("/graphql"):
            return {}
        request = json.loads(body)
        variables = request.get("variables") or {}
        asked = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        match asked and asked[1]:
            case "Viewer":
                return {"data": {"viewer": {"id": "3", "entity": "me", "username": "me", "teams": {"edges": []}}}}
            case "ServerFeaturesQuery":
                return {"data": {"serverInfo": {"features": []}}}
            case "UpsertBucket":
                bucket = {"id": "4", "name": variables["name"], "displayName": variables.get("displayName")}
                bucket |= {"config": "{}", "project": PROJECT, "historyLineCount": 0}
                return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
            case "RunResumeStatus":
                return {"data": {"model": PROJECT | {"bucket": self.bucket(variables["name"])}}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
                return {"data": {"createRunFiles": {"runID": "4", "uploadHeaders": [], "files": files}}}
        return {"errors": [{"message": f"no answer to {asked and asked[1]}"}]}

    def bucket(self, run: str) -> dict | None:
        """What the server tells of a run that is resumed; None for one that it does not know."""
        if not self.lines[run]:
            return None
        tail = json.dumps([self.lines[run][max(self.lines[run])]])
        counts = {"historyLineCount": len(self.lines[run]), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"summaryMetrics": "{}", "config": "{}", "wandbConfig": '{"t": {}}'}
        return {"id": "4", "name": run, "historyTail": tail, "eventsTail": "[]", "tags": [], **counts, **texts}
