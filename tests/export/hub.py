"""A server on this machine that has the part of the hub's API which an upload uses."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Data sets by name, each with its files; large files arrive before the commit, as on the hub.

    Attributes:
        datasets: name -> path -> bytes.
        visibility: name -> `private` or `public`.
        commits: (name, message) of every commit.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.datasets, self.visibility, self.commits, self.large = {}, {}, [], {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving():
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        parts = urlsplit(self.path).path.strip("/").split("/")
        name = "/".join(parts[2:4])
        if parts[:2] != ["api", "datasets"] or name not in self.server.datasets:
            self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
        elif "tree" in parts:
            files = self.server.datasets[name]
            found = [
                {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)}
                for path, data in files.items()
            ]
            self._answer(found)
        else:
            files = [{"rfilename": path} for path in self.server.datasets[name]]
            self._answer({"id": name, "sha": "0" * 40, "siblings": files})

    def do_POST(self):
        body, path = self._body(), urlsplit(self.path).path
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer(
                {
                    "transfer": "basic",
                    "objects": list(map(self._object, json.loads(body)["objects"])),
                }
            )
        else:
            _, _, _, owner, name, action, *_ = path.split("/")
            self._dataset(f"{owner}/{name}", action, body)

    def do_PUT(self):
        data = self._body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self._answer({})

    def _create(self, wanted):
        assert wanted["type"] == "dataset"
        name = f"{wanted['organization']}/{wanted['name']}"
        found = name in self.server.datasets
        if not found:
            self.server.datasets[name] = {".gitattributes": b""}
            self.server.visibility[name] = wanted["visibility"]
        answer = {"url": f"{self.server.address}/datasets/{name}"}
        self._answer(answer, 409 if found else 200)

    def _object(self, wanted):
        upload = {"href": f"{self.server.address}/large/{wanted['oid']}", "header": {}}
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload}}

    def _dataset(self, name, action, body):
        files = self.server.datasets[name]
        if action == "preupload":
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for each in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
            return
        assert action == "commit"
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    self.server.commits.append((name, value["summary"]))
                case "file":
                    assert value["encoding"] == "base64"
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = f"{self.server.address}/datasets/{name}/commit/{'1' * 40}"
        self._answer({"commitUrl": commit, "commitOid": "1" * 40, "success": True})

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, value, code=200, error=""):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(data)


def _sha1(data):
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
