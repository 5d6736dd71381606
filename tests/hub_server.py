"""A hub for huggingface_hub's own client: makes repositories and takes commits, and can refuse the latter."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer:
    """`with HubServer() as hub:` answers at `hub.url`; `hub.files` is what commits have brought, by its path."""

    def __init__(self, private: bool = True, commit_status: int = 200) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict] = []
        self.tokens: set[str | None] = set()
        hub, blobs = self, {}

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, content, status=200):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def do_GET(self):
                self.answer({"id": "me/m", "private": private, "sha": "0" * 40, "siblings": [], "tags": []})

            def do_PUT(self):
                blobs[self.path.rpartition("/")[2]] = self.body()
                self.answer({})

            def do_POST(self):
                body = self.body()
                hub.tokens.add(self.headers.get("Authorization"))
                if self.path.endswith("/repos/create"):
                    hub.created.append(json.loads(body))
                    self.answer({"url": f"{hub.url}/me/m"})
                elif "/preupload/" in self.path:
                    files = json.loads(body)["files"]
                    mode = {True: "lfs", False: "regular"}
                    large = [{"path": f["path"], "uploadMode": mode[f["path"].endswith("s")]} for f in files]
                    self.answer({"files": [{**f, "shouldIgnore": False} for f in large]})
                elif self.path.endswith("/info/lfs/objects/batch"):
                    objects = json.loads(body)["objects"]
                    upload = lambda oid: {"actions": {"upload": {"href": f"{hub.url}/blob/{oid}"}}}  # noqa: E731
                    self.answer({"transfer": "basic", "objects": [{**o, **upload(o["oid"])} for o in objects]})
                elif "/commit/" in self.path and commit_status == 200:
                    for line in map(json.loads, body.splitlines()):
                        value = line["value"]
                        if line["key"] == "file":
                            hub.files[value["path"]] = base64.b64decode(value["content"])
                        elif line["key"] == "lfsFile":
                            hub.files[value["path"]] = blobs[value["oid"]]
                    self.answer({"commitUrl": f"{hub.url}/me/m/commit/{'0' * 40}", "commitOid": "0" * 40})
                else:
                    self.answer({"error": "no room"}, commit_status if "/commit/" in self.path else 404)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
