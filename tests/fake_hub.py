"""A model hub on loopback that answers as huggingface.co does, and fails as it is told.

It serves `ROOT/OWNER/NAME/...` under `/api/models/...` and `/OWNER/NAME/resolve/REVISION/FILE`. Settings are answered by a
redirect on the same host; weights are "LFS files", a redirect to another host, with digest and size in its headers. A
repository's commit is a digest of its files. Faults, by repository or "*", are keys of a dict that may change while the
hub runs:

    status: N          answer every request so            gated: True      files want a token
    api_status: N      answer the API's requests so       missing: True    as for a name that nobody has
    stall: True        accept, and never answer           corrupt: True    one bit of each LFS file is wrong
    cut_after: N       end each LFS body after N bytes    short: True      LFS files lack their last bytes
    pause_after: N     an LFS body stops after N bytes, and trickle_s: S    comes a byte every S seconds, both with the
                       connection kept open
    times: N           the fault of this dict applies to the first N requests that it could apply to

Whoever brings a token may also make a model and commit to it, as `upload_folder` does where the client has no Xet: the files
land below ROOT.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = (".bin", ".safetensors", ".pth")
SHORT_BYTES = 100


class FakeHub:
    """A running hub: its `url`, the `log` of requests ("GET /path 200"), and the `faults`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: dict[str, dict[str, Any]] = {}
        self.log: list[str] = []
        self.tokens: list[tuple[str, str]] = []  # of requests that brought one: path, token
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}  # LFS files by their SHA-256, once they were sent
        self.stopping = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    def environ(self, home: Path, wait_s: int = 1) -> dict[str, str]:
        """Return what makes the hub's client use this hub, with its cache below `home`."""
        return {
            **{"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""},
            **{"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DOWNLOAD_TIMEOUT": str(wait_s)},
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def files(self, repository: str) -> dict[str, bytes]:
        folder = self.root / repository
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def commit(self, repository: str) -> str:
        total = hashlib.sha1()
        for name, data in self.files(repository).items():
            total.update(f"{name} {hashlib.sha1(data).hexdigest()}\n".encode())
        return total.hexdigest()

    def fault(self, repository: str, *names: str) -> dict[str, Any]:
        """Return the fault of a repository if it has one of `names`, and count that it was used."""
        fault = self.faults.get(repository) or self.faults.get("*") or {}
        if not fault.keys() & set(names) or fault.get("times") == 0:
            return {}
        if "times" in fault:
            fault["times"] -= 1
        return fault


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing: the hub keeps its own log."""

    def handle(self) -> None:
        """Answer until the client goes away, however it does."""
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "Authorization" in self.headers:
            self.hub.tokens.append((path, self.headers["Authorization"].removeprefix("Bearer ")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/(cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        kept = re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", path)
        if api is not None:
            if not self.refuse(api[1], is_file=False):
                self.give_info(api[1], api[3] or "main", tree=api[2] == "tree")
        elif file is not None:
            if not self.refuse(file[2], is_file=True):
                self.give_file(file[2], file[3], file[4], cdn=bool(file[1]))
        elif kept is not None:
            data = self.hub.files(kept[1])[kept[3]]
            self.give(200, data, {"ETag": f'"{git_id(data)}"', "X-Repo-Commit": kept[2]})
        else:
            self.give(404, b"")

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.give(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        call = re.fullmatch(
            r"/(?:api/models/)?([^/]+/[^/]+?)(?:/(preupload|commit)/main|\.git/info/lfs/objects/(batch))", path
        )
        if path == "/api/validate-yaml":
            known = "license: of-my-own" not in json.loads(body)["content"]
            errors = [] if known else [{"message": '"license" must be one of [apache-2.0, mit, ...]'}]
            return self.give(200 if known else 400, json.dumps({"errors": errors, "warnings": []}).encode())
        if "Authorization" not in self.headers:
            return self.give(401, b"{}")
        if path == "/api/repos/create":
            return self.make_model(json.loads(body))
        if call is None or not (self.hub.root / call[1]).is_dir():
            return self.give(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if self.refuse(call[1], is_file=False):
            return None
        answer = {"preupload": self.sort_files, "batch": self.take_objects, "commit": self.keep_commit}[
            call[2] or call[3]
        ]
        return self.give(200, json.dumps(answer(call[1], body)).encode())

    def make_model(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        place = {"url": f"{self.hub.url}/{name}"}
        if (self.hub.root / name).exists():
            return self.give(409, json.dumps(place | {"error": "You already created this model repo"}).encode())
        (self.hub.root / name).mkdir(parents=True)
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(name)
        return self.give(200, json.dumps(place).encode())

    def sort_files(self, _: str, body: bytes) -> dict[str, Any]:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if name.endswith((*LFS, ".onnx")) else "regular" for name in names}
        return {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]}

    def take_objects(self, _: str, body: bytes) -> dict[str, Any]:
        upload = {each["oid"]: {"href": f"{self.hub.url}/put/{each['oid']}"} for each in json.loads(body)["objects"]}
        return {
            "objects": [each | {"actions": {"upload": upload[each["oid"]]}} for each in json.loads(body)["objects"]]
        }

    def keep_commit(self, repository: str, body: bytes) -> dict[str, Any]:
        for line in map(json.loads, body.splitlines()):
            path = self.hub.root / repository / line["value"].get("path", "")
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(line["value"]["content"]))
            elif line["key"] == "lfsFile":
                path.write_bytes(self.hub.objects[line["value"]["oid"]])
            elif line["key"] == "deletedFile":
                path.unlink()
        commit = self.hub.commit(repository)
        return {"commitOid": commit, "commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "success": True}

    def refuse(self, repository: str, *, is_file: bool) -> bool:
        """Answer as a fault says, and return whether there is one."""
        hub = self.hub
        status = hub.fault(repository, "status").get("status")
        if not is_file:
            status = status or hub.fault(repository, "api_status").get("api_status")
        if hub.fault(repository, "stall"):
            hub.log.append(f"{self.command} {self.path} stalled")
            hub.stopping.wait()
            self.close_connection = True
        elif status is not None:
            self.give(status, b"{}")
        elif hub.fault(repository, "missing") or not (hub.root / repository).is_dir():
            self.give(401, b"{}", {"X-Error-Code": "RepoNotFound"})  # without a token: private or not there, who knows
        elif is_file and hub.fault(repository, "gated"):
            self.give(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        else:
            return False
        return True

    def give_info(self, repository: str, revision: str, *, tree: bool) -> None:
        commit = self.hub.commit(repository)
        if revision not in ("main", "v1", commit):
            return self.give(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings, entries = [], []
        for name, data in self.hub.files(repository).items():
            sha256 = hashlib.sha256(data).hexdigest() if name.endswith(LFS) else None
            lfs = {"lfs": {"size": len(data), "pointerSize": 135}} if sha256 else {}
            siblings.append({"rfilename": name, "size": len(data), "blobId": git_id(data)} | lfs)
            entries.append({"type": "file", "path": name, "size": len(data), "oid": git_id(data)} | lfs)
            if sha256:
                siblings[-1]["lfs"] = {**lfs["lfs"], "sha256": sha256}
                entries[-1]["lfs"] = {**lfs["lfs"], "oid": sha256}
        if tree:
            return self.give(200, json.dumps(entries).encode())
        held = {"_id": "0", "id": repository, "modelId": repository, "sha": commit, "tags": []}
        held["private"] = repository in self.hub.private
        return self.give(200, json.dumps(held | {"downloads": 0, "likes": 0, "siblings": siblings}).encode())

    def give_file(self, repository: str, commit: str, name: str, *, cdn: bool) -> None:
        data = self.hub.files(repository).get(name)
        if data is None or commit not in ("main", "v1", self.hub.commit(repository)):
            return self.give(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        commit = self.hub.commit(repository)
        if not name.endswith(LFS):
            place = f"/api/resolve-cache/models/{repository}/{commit}/{name}?etag=%22{git_id(data)}%22"
            return self.give(307, b"", {"Location": place, "X-Repo-Commit": commit})
        if not cdn:
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            place = f"http://localhost:{self.hub.port}/cdn/{repository}/resolve/{commit}/{name}"
            return self.give(302, b"", linked | {"Location": place, "X-Repo-Commit": commit})
        if self.hub.fault(repository, "corrupt"):
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if self.hub.fault(repository, "short"):
            data = data[:-SHORT_BYTES]
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        if start and start >= len(data):
            return self.give(416, b"")
        cut = self.hub.fault(repository, "cut_after").get("cut_after")
        ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if pausing := self.hub.fault(repository, "pause_after", "trickle_s"):
            return self.drip(data, pausing.get("pause_after", 0), pausing.get("trickle_s"))
        return self.give(206 if start else 200, data[start:], ranged, cut)

    def drip(self, data: bytes, first: int, wait_s: float | None) -> None:
        """Send `first` bytes of a body, and the rest byte by byte, or never."""
        self.give(200, data, cut=first, keep=True)
        while not self.hub.stopping.wait(wait_s) and first < len(data):
            try:
                self.wfile.write(data[first : first + 1])
            except OSError:
                break
            first += 1
        self.close_connection = True

    def give(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Send an answer; its body ends after `cut` bytes, and the connection with it unless `keep`."""
        self.hub.log.append(f"{self.command} {urlsplit(self.path).path} {status}")
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with suppress(OSError):  # the client went away
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None and cut < len(body) and not keep:
            self.close_connection = True


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
