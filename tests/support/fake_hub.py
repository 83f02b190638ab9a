"""A Hugging Face Hub for tests: a real HTTP server on loopback that the real huggingface_hub and transformers speak to.

It knows users with tokens, model repositories with commits, branches, tags and pull requests, LFS and Xet uploads,
downloads, and failures on demand. It keeps everything in memory, but for Xet's store.

    with FakeHub(users={"hf_token": "tester"}) as hub:
        hub.fail("POST", r"/commit/", 500)
        ...
        hub.repos["tester/model"].files("main")
"""

import base64
import hashlib
import json
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".png", ".model")
LFS_FROM = 10_000_000
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "llama3", "gemma", "other", "unknown"}
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Blob(NamedTuple):
    sha256: str
    size: int
    oid: str
    """git's id: of the content, or of its LFS pointer."""
    lfs: bool


class Commit(NamedTuple):
    oid: str
    parent: str | None
    title: str
    tree: dict[str, Blob]


@dataclass
class PullRequest:
    num: int
    title: str
    author: str
    status: str = "draft"


@dataclass
class Repo:
    repo_id: str
    private: bool
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)

    def resolve(self, revision: str) -> Commit | None:
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self.commits.get(self.branches.get(name) or self.tags.get(name) or name)

    def files(self, revision: str) -> dict[str, str]:
        """sha256 by path at a revision, without .gitattributes."""
        commit = self.resolve(revision)
        assert commit is not None, f"no revision {revision!r}"
        return {path: blob.sha256 for path, blob in commit.tree.items() if path != ".gitattributes"}

    def add_commit(self, ref: str, title: str, tree: dict[str, Blob]) -> Commit:
        parent = self.branches.get(ref)
        plain = [parent, title, len(self.commits), sorted((path, blob.oid) for path, blob in tree.items())]
        oid = hashlib.sha1(json.dumps(plain).encode()).hexdigest()
        commit = Commit(oid, parent, title, tree)
        self.commits[oid] = commit
        self.branches[ref] = oid
        return commit


@dataclass
class Failure:
    method: str
    pattern: str
    action: int | str
    """A status; "drop" (the connection ends unanswered), "drop after" (once the work is done); or "none"."""
    times: int
    headers: dict[str, str]
    body: str
    call: Callable[[], None] | None
    """Called before the action; to kill the client, for example."""


class Answer(Exception):  # noqa: N818  not an error, but what is sent
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers or {}


def not_found(what: str) -> Answer:
    return Answer(404, {"error": f"{what} not found"}, {"X-Error-Code": what, "X-Error-Message": f"{what} not found"})


class FakeHub:
    """The server and its state."""

    def __init__(self, users: dict[str, str], *, xet: Path | None = None) -> None:
        """`users`: user name by token. `xet`: folder for Xet's local store; without it uploads go through LFS."""
        self.users, self.xet = users, xet
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        """Content by sha256; what came through Xet is in its store instead."""
        self.sizes: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request, in order."""
        self.uploaded: list[str] = []
        """sha256 of every LFS object whose bytes were sent."""
        self.failures: list[Failure] = []
        self.before: Callable[[int, str, str], None] | None = None
        """Called with number, method and path before each request is worked on; to kill the client, for example."""
        self.lock = threading.RLock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # headers and body in one packet: two would wait for each other

            def do_any(self) -> None:
                hub.handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        if xet is not None:
            xet.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # What tests use

    def fail(
        self,
        method: str,
        pattern: str,
        action: int | str,
        *,
        times: int = 1_000_000,
        call: Callable[[], None] | None = None,
        headers: dict[str, str] | None = None,
        body: str = '{"error": "on demand"}',
    ) -> None:
        """Answer the next `times` requests whose path matches with a failure."""
        self.failures.append(Failure(method, pattern, action, times, headers or {}, body, call))

    def create(self, repo_id: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repo:
        """A repository with one commit on main."""
        repo = self.repos[repo_id] = Repo(repo_id, private=private)
        tree = {".gitattributes": self.store(".gitattributes", GITATTRIBUTES)}
        tree |= {path: self.store(path, content) for path, content in (files or {}).items()}
        repo.add_commit("main", "initial commit", tree)
        return repo

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        commit = self.repos[repo_id].resolve(revision)
        assert commit is not None, f"no revision {revision!r}"
        return self.objects[commit.tree[path].sha256]

    def writes(self) -> list[tuple[str, str]]:
        """The requests so far that change something."""
        reading = ("/preupload/", "/validate-yaml", "/paths-info/", "/objects/batch")
        return [
            (method, path)
            for method, path in self.requests
            if method not in ("GET", "HEAD") and not any(part in path for part in reading)
        ]

    def store(self, path: str, content: bytes) -> Blob:
        digest = hashlib.sha256(content).hexdigest()
        self.objects[digest] = content
        return self.blob(digest, len(content), lfs=path.endswith(LFS_SUFFIXES))

    def blob(self, digest: str, size: int, *, lfs: bool) -> Blob:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        content = text if lfs else self.objects[digest]
        return Blob(digest, size, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), lfs)

    # Requests

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else b""
        if request.headers.get("Transfer-Encoding") == "chunked":
            body = _read_chunks(request)
        parts = urlsplit(request.path)
        path, query = unquote(parts.path), {k: v[0] for k, v in parse_qs(parts.query).items()}
        with self.lock:
            self.requests.append((request.command, path))
            number = len(self.requests)
        if self.before is not None:
            self.before(number, request.command, path)
        failure = self._failure(request.command, path)
        if failure is not None and failure.call is not None and failure.action != "drop after":
            failure.call()
        if failure is not None and failure.action == "drop":
            request.close_connection = True
            request.connection.close()
            return
        try:
            self.answer(request, failure, path, query, body)
        except Answer as answer:
            if failure is not None and failure.action == "drop after":
                if failure.call is not None:
                    failure.call()
                request.close_connection = True
                request.connection.close()
                return
            self.send(request, answer)

    def answer(
        self, request: BaseHTTPRequestHandler, failure: Failure | None, path: str, query: dict[str, str], body: bytes
    ) -> None:
        if failure is not None and isinstance(failure.action, int):
            raise Answer(failure.action, failure.body.encode(), failure.headers)
        with self.lock:
            self.route(request, request.command, path, query, body)
        raise not_found("Page")

    def _failure(self, method: str, path: str) -> Failure | None:
        for failure in self.failures:
            if failure.times > 0 and failure.method in (method, "*") and re.search(failure.pattern, path):
                failure.times -= 1
                return failure
        return None

    def send(self, request: BaseHTTPRequestHandler, answer: Answer) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        request.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def route(  # noqa: PLR0911  one per kind of address
        self, request: BaseHTTPRequestHandler, method: str, path: str, query: dict[str, str], body: bytes
    ) -> None:
        if method == "PUT" and path.startswith("/lfs/"):  # a presigned address: without a token
            return self.put_object(path.removeprefix("/lfs/"), body)
        user = self.user(request)
        if path == "/api/whoami-v2":
            if user is None:
                raise Answer(401, {"error": "Invalid user token."}, {"X-Error-Message": "Invalid user token."})
            raise Answer(200, {"type": "user", "name": user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        if path == "/api/validate-yaml":
            return self.validate_yaml(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self.create_repo(user, json.loads(body))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(.*))?", path)
        if found:
            repo = self.visible(found[1], user)
            if method != "GET" and not (found[2] or "").startswith("paths-info/"):
                self.require_rights(repo.repo_id, user)
            return self.api(repo, method, found[2] or "", query, body, user)
        found = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        if found:
            self.require_rights(found[1], user)
            return self.lfs_batch(json.loads(body))
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path)
        if found:
            repo = self.visible(found[1], user)
            return self.download(repo, found[2], found[3], request)
        return None

    def user(self, request: BaseHTTPRequestHandler) -> str | None:
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.users:
            message = "Invalid credentials in Authorization header"
            raise Answer(401, {"error": message}, {"X-Error-Message": message})
        return self.users.get(token)

    def visible(self, repo_id: str, user: str | None) -> Repo:
        repo = self.repos.get(repo_id)
        if repo is None or (repo.private and user != repo_id.split("/", maxsplit=1)[0]):
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            raise Answer(401 if user is None else 404, {"error": "Repository not found"}, headers)
        return repo

    def require_rights(self, repo_id: str, user: str | None) -> None:
        if user != repo_id.split("/", maxsplit=1)[0]:
            message = f"You don't have the rights to write to {repo_id}"
            raise Answer(401 if user is None else 403, {"error": message}, {"X-Error-Message": message})

    def create_repo(self, user: str | None, wish: dict[str, Any]) -> None:
        namespace = wish.get("organization") or user
        if user is None or namespace != user:
            message = f'You don\'t have the rights to create a model under the namespace "{namespace}"'
            raise Answer(401 if user is None else 403, {"error": message}, {"X-Error-Message": message})
        repo_id = f"{namespace}/{wish['name']}"
        if repo_id in self.repos:
            message = "You already created this model repo"
            raise Answer(409, {"error": message, "url": f"{self.url}/{repo_id}"}, {"X-Error-Message": message})
        self.create(repo_id, private=wish.get("visibility") == "private")
        raise Answer(200, {"url": f"{self.url}/{repo_id}", "name": repo_id})

    def validate_yaml(self, content: str) -> None:
        errors = []
        block = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
        try:
            metadata = yaml.safe_load(block[1]) if block else {}
        except yaml.YAMLError as error:
            metadata, errors = {}, [f"bad YAML: {str(error).splitlines()[0]}"]
        if metadata and metadata.get("license", "unknown") not in LICENSES:
            errors.append('"license" must be one of the known licenses')
        if metadata and any(not re.fullmatch(r"[a-z]{2,3}", str(code)) for code in metadata.get("language") or []):
            errors.append('"language" must only contain ISO 639 codes')
        listed = {"errors": [{"message": message} for message in errors], "warnings": []}
        raise Answer(400 if errors else 200, listed)

    def api(  # noqa: C901, PLR0911  one line per route
        self,
        repo: Repo,
        method: str,
        rest: str,
        query: dict[str, str],
        body: bytes,
        user: str | None,
    ) -> None:
        name, _, argument = rest.partition("/")
        if rest in ("", "revision/" + argument) and method == "GET":
            return self.info(repo, argument or "main")
        if rest == "refs":
            return self.refs(repo)
        if rest == "settings":
            return self.settings(repo, json.loads(body))
        if name == "tree":
            return self.tree(repo, argument, recursive=query.get("recursive", "").lower() in ("1", "true"))
        if name == "paths-info":
            form = parse_qs(body.decode())
            commit = self.commit_of(repo, argument)
            wanted = [entry(path, commit.tree[path]) for path in form.get("paths", []) if path in commit.tree]
            raise Answer(200, wanted)
        if name == "preupload":
            return self.preupload(repo, argument, json.loads(body))
        if name in ("xet-write-token", "xet-read-token"):
            return self.xet_token()
        if name == "commit":
            return self.commit(repo, argument, query, body, user)
        if name == "commits":
            return self.history(repo, argument)
        if name == "branch":
            return self.branch(repo, method, argument, json.loads(body) if body else {})
        if name == "tag":
            return self.tag(repo, method, argument, json.loads(body) if body else {})
        if name == "discussions":
            return self.discussions(repo, method, argument, json.loads(body) if body else {}, user)
        return None

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise not_found("RevisionNotFound")
        return commit

    def info(self, repo: Repo, revision: str) -> None:
        commit = self.commit_of(repo, revision)
        raise Answer(
            200,
            {
                "id": repo.repo_id,
                "modelId": repo.repo_id,
                "sha": commit.oid,
                "private": repo.private,
                "gated": repo.gated,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
            },
        )

    def refs(self, repo: Repo) -> None:
        pulls = {ref: oid for ref, oid in repo.branches.items() if ref.startswith("refs/pr/")}
        heads = {ref: oid for ref, oid in repo.branches.items() if ref not in pulls}
        raise Answer(
            200,
            {
                "branches": [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in heads.items()],
                "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in repo.tags.items()],
                "converts": [],
                "pullRequests": [{"name": n, "ref": n, "targetCommit": oid} for n, oid in pulls.items()],
            },
        )

    def settings(self, repo: Repo, wish: dict[str, Any]) -> None:
        if "visibility" in wish:
            repo.private = wish["visibility"] == "private"
        if "gated" in wish:
            repo.gated = wish["gated"]
        raise Answer(200, {})

    def tree(self, repo: Repo, argument: str, *, recursive: bool) -> None:
        found = re.fullmatch(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.*))?", argument)
        assert found is not None, argument
        commit, folder = self.commit_of(repo, found[1]), (found[2] + "/") if found[2] else ""
        below = {path: blob for path, blob in commit.tree.items() if path.startswith(folder)}
        if folder and not below:
            raise not_found("EntryNotFound")
        entries = {
            path: entry(path, blob) for path, blob in below.items() if recursive or "/" not in path[len(folder) :]
        }
        for path in below:
            for parent in Path(path).parents:
                name = parent.as_posix()
                direct = recursive or parent.parent.as_posix() in (folder.rstrip("/"), "." if not folder else "")
                if name != "." and name.startswith(folder) and direct:
                    entries.setdefault(name, {"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
        raise Answer(200, [entries[path] for path in sorted(entries)])

    def preupload(self, repo: Repo, revision: str, wish: dict[str, Any]) -> None:
        commit = self.commit_of(repo, revision)
        files = []
        for file in wish["files"]:
            lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] >= LFS_FROM
            mode = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            old = commit.tree.get(file["path"])
            if old is not None:
                mode["oid"] = old.sha256 if old.lfs else old.oid
            files.append(mode)
        raise Answer(200, {"files": files})

    def lfs_batch(self, wish: dict[str, Any]) -> None:
        answers = []
        for item in wish["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.objects:
                answer["actions"] = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}
            answers.append(answer)
        raise Answer(200, {"transfer": "basic", "objects": answers})

    def put_object(self, digest: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != digest:
            raise Answer(400, {"error": "the content does not have this sha256"})
        self.objects[digest] = content
        self.uploaded.append(digest)
        raise Answer(200, {})

    def commit(self, repo: Repo, revision: str, query: dict[str, str], body: bytes, user: str | None) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        head = self.commit_of(repo, revision)
        expected = header.get("parentCommit")
        if expected and expected != head.oid:
            message = "The parent commit is not the head of this branch: a commit has happened since."
            raise Answer(412, {"error": message}, {"X-Error-Message": message})
        tree = dict(head.tree)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
                digest = hashlib.sha256(content).hexdigest()
                self.objects[digest] = content
                tree[value["path"]] = self.blob(digest, len(content), lfs=False)
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.lfs_file(value["oid"], value.get("size"))
            elif line["key"] == "deletedFile":
                if value["path"] not in tree:
                    raise not_found("EntryNotFound")
                del tree[value["path"]]
        if query.get("create_pr"):
            revision = self.open_pull_request(repo, header["summary"], user or "", head)
        elif revision not in repo.branches:
            raise Answer(400, {"error": "not a branch"})
        commit = repo.add_commit(revision, header["summary"], tree)
        answer = {
            "commitUrl": f"{self.url}/{repo.repo_id}/commit/{commit.oid}",
            "commitOid": commit.oid,
            "success": True,
        }
        if query.get("create_pr"):
            answer["pullRequestUrl"] = f"{self.url}/{repo.repo_id}/discussions/{revision.split('/')[-1]}"
        raise Answer(200, answer)

    def lfs_file(self, digest: str, size: int | None) -> Blob:
        if digest in self.objects:
            size = len(self.objects[digest])
        elif self.xet is None or digest not in self.xet_hashes():
            raise Answer(400, {"error": f"LFS pointer points to a file that does not exist: {digest}"})
        self.sizes.setdefault(digest, size or 0)  # a copy inside the repository comes without its size
        return self.blob(digest, self.sizes[digest], lfs=True)

    def history(self, repo: Repo, revision: str) -> None:
        commits, commit = [], repo.resolve(revision)
        while commit is not None:
            date = "2026-01-01T00:00:00.000Z"
            commits.append({"id": commit.oid, "title": commit.title, "message": "", "date": date, "authors": []})
            commit = repo.commits.get(commit.parent or "")
        raise Answer(200, commits)

    def branch(self, repo: Repo, method: str, name: str, wish: dict[str, Any]) -> None:
        if method == "DELETE":
            if repo.branches.pop(name, None) is None:
                raise not_found("RevisionNotFound")
            raise Answer(200, {})
        if name in repo.branches:
            raise Answer(409, {"error": f"Reference already exists: {name}"})
        repo.branches[name] = self.commit_of(repo, wish.get("startingPoint", "main")).oid
        raise Answer(201, {})

    def tag(self, repo: Repo, method: str, revision: str, wish: dict[str, Any]) -> None:
        if method == "DELETE":
            repo.tags.pop(revision, None)
            raise Answer(200, {})
        if wish["tag"] in repo.tags:
            raise Answer(409, {"error": f"Tag reference exists already: {wish['tag']}"})
        repo.tags[wish["tag"]] = self.commit_of(repo, revision).oid
        raise Answer(200, {})

    # Pull requests

    def open_pull_request(self, repo: Repo, title: str, author: str, head: Commit) -> str:
        number = len(repo.pull_requests) + 1
        repo.pull_requests.append(PullRequest(number, title, author))
        repo.branches[f"refs/pr/{number}"] = head.oid
        return f"refs/pr/{number}"

    def discussions(self, repo: Repo, method: str, rest: str, wish: dict[str, Any], user: str | None) -> None:
        number, _, action = rest.partition("/")
        if method == "POST" and not number:
            self.open_pull_request(repo, wish["title"], user or "", self.commit_of(repo, "main"))
            raise Answer(200, {"num": len(repo.pull_requests)})
        if not number:
            page = [self.discussion(repo, pull) for pull in reversed(repo.pull_requests)]
            raise Answer(200, {"discussions": page, "count": len(page), "start": 0})
        if int(number) > len(repo.pull_requests):
            raise not_found("Discussion")
        pull = repo.pull_requests[int(number) - 1]
        if action == "status":
            pull.status = wish["status"]
            event = {"id": "1", "type": "status-change", "createdAt": "2026-01-01T00:00:00.000Z", "data": wish}
            raise Answer(200, {"newStatus": event})
        if action == "merge":
            if pull.status != "open":
                raise Answer(400, {"error": "Only open pull requests can be merged"})
            pull.status = "merged"
            repo.add_commit("main", pull.title, self.commit_of(repo, f"refs/pr/{number}").tree)
            raise Answer(200, {})
        details = {"events": [], "changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "diff": ""}
        raise Answer(200, self.discussion(repo, pull) | details)

    def discussion(self, repo: Repo, pull: PullRequest) -> dict[str, Any]:
        return {
            "num": pull.num,
            "title": pull.title,
            "status": pull.status,
            "author": {"name": pull.author},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "isPullRequest": True,
            "repo": {"name": repo.repo_id, "type": "model"},
        }

    # Downloads

    def download(self, repo: Repo, revision: str, path: str, request: BaseHTTPRequestHandler) -> None:
        if repo.gated and self.user(request) != repo.repo_id.split("/")[0]:
            raise Answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        commit = self.commit_of(repo, revision)
        blob = commit.tree.get(path)
        if blob is None:
            raise Answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.oid})
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"', "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
            xet_hash = self.xet_hashes().get(blob.sha256) if self.xet is not None else None
            if blob.sha256 not in self.objects:
                refresh = f"{self.url}/api/models/{repo.repo_id}/xet-read-token/{commit.oid}"
                headers |= {"X-Xet-Hash": xet_hash or "", "X-Xet-Refresh-Route": refresh}
                if request.command == "GET":
                    raise Answer(501, {"error": "this file is in Xet's store"})
                raise Answer(200, b"", headers | {"Content-Length": str(blob.size)})
        content = self.objects[blob.sha256]
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if span is None:
            raise Answer(200, content, headers)
        start, end = int(span[1]), min(int(span[2] or blob.size - 1), blob.size - 1)
        raise Answer(206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{blob.size}"})

    # Xet, by the local store that hf_xet brings along

    def xet_token(self) -> None:
        if self.xet is None:
            raise not_found("Page")
        store, expires = f"local://{self.xet}", "4000000000"
        headers = {
            "X-Xet-Cas-Url": store,
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": expires,
        }
        raise Answer(200, {"casUrl": store, "accessToken": "xet", "exp": int(expires)}, headers)

    def xet_hashes(self) -> dict[str, str]:
        """Xet's hash of every stored file, by its sha256."""
        assert self.xet is not None, "Xet is off"
        found: dict[str, str] = {}
        for shard in self.xet.rglob("*.mdb"):
            found |= _files_of_shard(shard.read_bytes())
        return found


def entry(path: str, blob: Blob) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
    if blob.lfs:
        plain["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
    return plain


def _files_of_shard(content: bytes) -> dict[str, str]:
    """Xet hash by sha256 of the files in a shard of Xet's store (its header is 48 bytes, as is every entry)."""
    found, at = {}, 48
    while content[at : at + 32] != b"\xff" * 32:
        file_hash = content[at : at + 32]
        flags, entries = struct.unpack_from("<II", content, at + 32)
        at += 48 * (1 + entries * (2 if flags & 0x8000_0000 else 1))
        if flags & 0x4000_0000:
            found[_hex(content[at : at + 32])] = _hex(file_hash)
            at += 48
    return found


def _hex(value: bytes) -> str:
    """Xet spells a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", value))


def _read_chunks(request: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while size := int(request.rfile.readline().strip() or b"0", 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
