"""The hub's HTTP interface, as far as `huggingface_hub` and `datasets` use it."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from loopback_store import Blob, Repo, Request, is_lfs

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub

TOKEN = "hf_loopbackLoopbackLoopbackLoopback00"
STALL_SECONDS = 3


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: "LoopbackHub", *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.query = parse_qs(url.query)
        path = unquote(url.path)
        self.hub.requests.append(Request(self.command, path, self.headers.get("Authorization")))
        self.plan = self.hub.take_fault(self.command, path)
        if self.plan and self.plan.fault in ("cut", "stall"):
            time.sleep(STALL_SECONDS if self.plan.fault == "stall" else 0)
            self.close_connection = True
            return None
        if self.plan and self.plan.fault == "redirect":
            return self.send(302, b"", {"Location": self.path})
        try:
            if self.plan and isinstance(self.plan.fault, int):
                raise Refused(self.plan.fault, self.plan.message)
            self.route(url.path)
        except Refused as refused:
            extra = self.plan.headers if self.plan else {}
            body = json.dumps({"error": str(refused)}).encode()
            self.send(refused.status, body, {**refused.headers, **extra})

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def route(self, path: str) -> None:
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                parts = {name: unquote(part or "") for name, part in match.groupdict().items()}
                return action(self, **parts)
        raise Refused(404, "no such page", "RepoNotFound")

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        fault = self.plan.fault if self.plan else None
        if fault == "lost":
            self.close_connection = True
            return
        if fault == "etag" and "ETag" in headers:
            headers = {**headers, "ETag": f'"{"0" * 64}"'}
        if fault == "tamper" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "short" else body)
            self.close_connection = self.close_connection or fault == "short"

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def repo(self, kind: str, id: str, *, write: bool = False) -> Repo:
        """The repository, if it exists and the request may read or write it."""
        repo = self.hub.repos.get((kind, id))
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not known):
            raise Refused(404 if known else 401, "Repository not found", "RepoNotFound")
        if repo.gated and not known:
            raise Refused(401, "Access to this repository is restricted", "GatedRepo")
        if write:
            self.require_token()
        return repo

    def require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Invalid credentials in Authorization header")

    def tree(self, kind: str, id: str, revision: str) -> tuple[str, dict[str, Blob]]:
        repo = self.repo(kind, id)
        commit = repo.resolve(revision or "main")
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.trees[commit]


def _whoami(request: Handler) -> None:
    request.require_token()
    request.send_json({"type": "user", "name": "tester", "orgs": [], "auth": {}})


def _create(request: Handler) -> None:
    request.require_token()
    asked = json.loads(request.body)
    kind, id = asked.get("type") or "model", f"{asked['organization'] or 'tester'}/{asked['name']}"
    place = {"url": f"{request.hub.url}/{'datasets/' * (kind == 'dataset')}{id}", "name": id}
    if (kind, id) in request.hub.repos:
        return request.send_json(place | {"error": "You already created this repo"}, 409)
    repo = Repo(private=asked.get("visibility") == "private")
    repo.add(
        {".gitattributes": Blob.of(".gitattributes", b"*.safetensors lfs\n")}, "initial commit"
    )
    request.hub.repos[kind, id] = repo
    return request.send_json(place)


def _validate_yaml(request: Handler) -> None:
    front = re.match(r"---\n(.*?)\n---", json.loads(request.body)["content"], re.DOTALL)
    try:
        valid = isinstance(yaml.safe_load(front[1]) if front else {}, dict)
    except yaml.YAMLError:
        valid = False
    errors = [] if valid else [{"message": "metadata is not valid YAML"}]
    request.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _info(request: Handler, kind: str, id: str, revision: str = "") -> None:
    commit, tree = request.tree(kind, id, revision)
    repo = request.repo(kind, id)
    info = {"_id": commit[:24], "id": id, "modelId": id, "sha": commit, "private": repo.private}
    info |= {"gated": "auto" if repo.gated else False, "disabled": False, "tags": []}
    blobs = "blobs" in request.query
    siblings = [blob.sibling(name) if blobs else {"rfilename": name} for name, blob in tree.items()]
    info |= {"siblings": siblings, "downloads": 0, "likes": 0}
    request.send_json(info)


def _refs(request: Handler, kind: str, id: str) -> None:
    refs = request.repo(kind, id).refs
    listed = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in refs.items()]
    request.send_json({"branches": listed, "converts": [], "tags": []})


def _list(request: Handler, kind: str, id: str, revision: str, path: str = "") -> None:
    _, tree = request.tree(kind, id, revision)
    start = f"{path}/" if path else ""
    below = {name: blob for name, blob in tree.items() if name.startswith(start)}
    if not below:
        raise Refused(404, f"{path} does not exist", "EntryNotFound")
    deep = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries = _folders(below, start) if deep else []
    for name, blob in below.items():
        head, slash, _ = name.removeprefix(start).partition("/")
        if deep or not slash:
            entries.append(blob.entry(name))
        elif _folder(start + head) not in entries:
            entries.append(_folder(start + head))
    request.send_json(entries)


def _folders(names: Iterable[str], start: str) -> list[dict[str, Any]]:
    parents = {p.as_posix() for name in names for p in Path(name).parents}
    return [_folder(p) for p in sorted(parents) if p != "." and p.startswith(start)]


def _folder(path: str) -> dict[str, Any]:
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _paths_info(request: Handler, kind: str, id: str, revision: str) -> None:
    _, tree = request.tree(kind, id, revision)
    if "json" in (request.headers.get("Content-Type") or ""):
        paths = json.loads(request.body)["paths"]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    found = [tree[path].entry(path) for path in paths if path in tree]
    folders = [p for p in paths if any(name.startswith(f"{p}/") for name in tree)]
    request.send_json(found + [_folder(path) for path in folders])


def _resolve(request: Handler, id: str, revision: str, path: str, kind: str = "model") -> None:
    commit, tree = request.tree(kind.removesuffix("s/") or "model", id, revision)
    head = {"X-Repo-Commit": commit}
    if path not in tree:
        refused = Refused(404, "Entry not found", "EntryNotFound")
        refused.headers |= head
        raise refused
    blob = tree[path]
    head |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if request.command == "HEAD":
        return request.send(200, b"", head | {"Content-Length": str(blob.size)})
    data = blob.read()
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not wanted:
        return request.send(200, data, head)
    first, last = int(wanted[1]), min(int(wanted[2] or blob.size), blob.size - 1)
    if first >= blob.size:
        raise Refused(416, "Range Not Satisfiable")
    head["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
    return request.send(206, data[first : last + 1], head)


def _preupload(request: Handler, kind: str, id: str, revision: str) -> None:
    request.repo(kind, id, write=True)
    _, tree = request.tree(kind, id, revision)
    answers = []
    for file in json.loads(request.body)["files"]:
        name, there = file["path"], tree.get(file["path"])
        mode = "lfs" if is_lfs(name, file["size"]) else "regular"
        answer = {"path": name, "uploadMode": mode, "shouldIgnore": False}
        answers.append(answer | ({"oid": there.etag} if there else {}))
    request.send_json({"files": answers})


def _lfs_batch(request: Handler, id: str, kind: str = "") -> None:
    request.repo(kind.removesuffix("s/") or "model", id, write=True)
    objects = json.loads(request.body)["objects"]
    for entry in objects:
        if entry["oid"] not in request.hub.objects:
            upload = {"href": f"{request.hub.url}/lfs/objects/{entry['oid']}"}
            entry["actions"] = {
                "upload": upload,
                "verify": {"href": f"{request.hub.url}/lfs/verify"},
            }
    request.send_json({"transfer": "basic", "objects": objects})


def _lfs_put(request: Handler, oid: str) -> None:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refused(400, "content does not match its id")
    request.hub.objects[oid] = request.body
    request.send(200, b"", {})


def _lfs_verify(request: Handler) -> None:
    asked = json.loads(request.body)
    if len(request.hub.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(404, "object was not uploaded")
    request.send_json({})


def _commit(request: Handler, kind: str, id: str, revision: str) -> None:
    repo = request.repo(kind, id, write=True)
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with request.hub.lock:
        parent, before = request.tree(kind, id, revision)
        if header.get("parentCommit") not in (None, parent):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(before)
        for line in lines:
            _apply(tree, line["key"], line["value"], request.hub.objects)
        commit = repo.add(tree, header["summary"])
    url = f"{request.hub.url}/{id}/commit/{commit}"
    request.send_json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


def _apply(tree: dict[str, Blob], key: str, value: Any, objects: Mapping[str, bytes]) -> None:
    if key == "file":
        tree[value["path"]] = Blob.of(value["path"], base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise Refused(400, f"LFS object of {value['path']} was not uploaded")
        tree[value["path"]] = Blob.of(value["path"], objects[value["oid"]])
    elif key == "deletedFile":
        del tree[value["path"]]
    elif key == "deletedFolder":
        for name in [name for name in tree if name.startswith(f"{value['path'].rstrip('/')}/")]:
            del tree[name]


_API = r"/api/(?P<kind>model|dataset)s/(?P<id>[^/]+/[^/]+)"
_REV = r"/(?P<revision>[^/]+)"
_FILE = r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate_yaml),
    ("GET", _API, _info),
    ("GET", f"{_API}/revision{_REV}", _info),
    ("GET", f"{_API}/refs", _refs),
    ("GET", f"{_API}/tree{_REV}(?:/(?P<path>.+))?", _list),
    ("POST", f"{_API}/paths-info{_REV}", _paths_info),
    ("POST", f"{_API}/preupload{_REV}", _preupload),
    ("POST", f"{_API}/commit{_REV}", _commit),
    ("GET HEAD", f"{_FILE}/resolve{_REV}/(?P<path>.+)", _resolve),
    ("POST", rf"{_FILE}\.git/info/lfs/objects/batch", _lfs_batch),
    ("PUT", "/lfs/objects/(?P<oid>[0-9a-f]{64})", _lfs_put),
    ("POST", "/lfs/verify", _lfs_verify),
]
