"""The only door to the Hugging Face Hub: pin a revision, download and check every byte, push.

The client's own variables apply: `HF_TOKEN` (or `hf auth login`), `HF_ENDPOINT`, `HF_HOME`,
`HF_HUB_OFFLINE`. A hub that is busy or out of reach is retried for ten minutes;
`ALIGNTUNE_HUB_BUDGET=<seconds>` sets another limit for each operation.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from aligntune.digest import sha256
from aligntune.errors import ConfigError, DataError, ResourceError, ServiceError
from aligntune.hub_retry import Client, budget_of, retried, timeout

if TYPE_CHECKING:
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        DatasetInfo,
        HfApi,
        ModelInfo,
    )

T = TypeVar("T")
RepoType = Literal["model", "dataset"]

COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_][\w./+@-]*(?<![./])", re.ASCII)
"""What git allows, without what has a meaning in paths; `refs/pr/1` is one."""
KEYS = {"model": "model.name_or_path", "dataset": "datasets.name"}
MODEL_FILES = re.compile(
    r"(?!consolidated|sbom\.cdx\.json)[^/]+\.(safetensors|json|txt|model|jinja|tiktoken|spm|bpe|codes)"
    r"|(LICENSE|LICENCE|NOTICE)[^/]*|additional_chat_templates/[^/]+\.jinja"
)
"""Other directories hold exports for other runtimes; `consolidated` is a second copy, and the
bill of materials is that of the model and not of what is made from it."""
CODE_FILES = re.compile(r"[^/]+\.py")
LINKED_BYTES = 2**20
"""Files from this size on are linked, not copied. A program that rewrites a small file in place
would otherwise change the cache with it."""

KEPT_BACK = (
    *(".*", "checkpoint-*", "checkpoints", "*.partial", "__pycache__"),
    *("training_args*", "optimizer*", "scheduler*", "rng_state*"),
    *("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt"),
)
"""Never pushed: training state, pickles, hidden files, and directories of that name."""
STALE = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*"),
    *("config.json", "generation_config.json", "adapter_config.json", "SHA256SUMS.sig"),
)
"""Remote weights that are not in the pushed folder belong to an older model. So do a whole model's
configs, or an adapter's, where this is the other of them, and a signature of other digests."""
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Receipt:
    """Where a push arrived: the commit that holds exactly the pushed files."""

    repo_id: str
    commit: str
    url: str
    files: int


@dataclass(frozen=True)
class _File:
    """A file as the hub lists it."""

    name: str
    digest: str
    """sha256 of a large file, git's sha1 of a small one; the length tells which."""

    def matches(self, path: Path) -> bool:
        return self.digest == (sha256(path) if len(self.digest) == 64 else _git_sha1(path))


def retrying(action: Callable[[], T], what: str) -> T:
    """What `action()` returns, after as many attempts as the budget allows.

    Tried again, with growing waits or those the server asks for: 429, 5xx, timeouts, cut
    connections. `what` names the repository and the config key in the errors, which are
    ServiceError after the budget and ConfigError at once where waiting does not help.
    """
    from huggingface_hub import get_session, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    budget = budget_of()
    client = Client(
        offline=OfflineModeIsEnabled,
        invalid_id=HFValidationError,
        refused=HfHubHTTPError,
        network=httpx.RequestError,  # redirects without end and broken encodings too
        failure=httpx.HTTPError,
        token=get_token(),
    )

    def attempt() -> T:
        # The client's own default is to wait for ever, and it replaces its session after errors.
        get_session().timeout = timeout()
        return action()

    return retried(attempt, what, budget, client)


def commit_of(repo_id: str, repo_type: RepoType, revision: str | None) -> str:
    """The commit that a branch or tag names now; None is main, a commit is returned as it is.

    With `HF_HUB_OFFLINE=1` it is the commit of the last time that the revision was looked up.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision
    if revision is not None and not REVISION.fullmatch(revision):
        raise ConfigError(
            f"{_what(repo_id, repo_type)}: {revision!r} is no branch, tag or commit; name one"
        )
    note = _cache(repo_id, repo_type) / "refs" / (revision or "main")
    what = _what(repo_id, repo_type)
    if _offline():
        noted = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
        if not COMMIT.fullmatch(noted):
            raise _not_cached(what)
        return noted
    commit = retrying(lambda: _info(repo_id, repo_type, revision), what).sha
    if commit is None or not COMMIT.fullmatch(commit):
        raise ServiceError(f"{what}: the hub did not say which commit that is")
    with suppress(OSError):  # a cache may be read-only; only offline runs miss the note
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(commit, encoding="utf-8")
    return commit


def download_model(
    repo_id: str,
    revision: str | None,
    into: Path,
    *,
    allow_code: bool = False,
    weights: bool = True,
) -> Path:
    """`into`, holding what a causal LM is loaded from, each file with the digest the hub lists.

    That is safetensors (not without `weights`), json, tokenizer and licence files, and `*.py`
    with `allow_code`. Large files are hard links into the hub cache where that is possible: do not
    write to them.
    """
    commit = commit_of(repo_id, "model", revision)
    files = [
        file
        for file in _listing(repo_id, "model", commit)
        if MODEL_FILES.fullmatch(file.name) or (allow_code and CODE_FILES.fullmatch(file.name))
    ]
    if not weights:
        files = [file for file in files if ".safetensors" not in file.name]
    elif not any(file.name.endswith(".safetensors") for file in files):
        raise ConfigError(
            f"{_what(repo_id, 'model')} has no *.safetensors at its top level, and other formats "
            "can run code; where a pull request there has a conversion, name it with "
            "model.revision: refs/pr/<number>, or choose another model"
        )
    for file in files:
        _place(_verified(repo_id, "model", commit, file), into / file.name)
    return into


def download_dataset(repo_id: str, revision: str | None, names: Iterable[str]) -> dict[str, Path]:
    """Name -> path in the hub cache of those files of a dataset, each with the hub's digest.

    `datasets.load_dataset(repo_id, revision=<the same commit>)` then reads these files instead of
    downloading them without a check.
    """
    commit = commit_of(repo_id, "dataset", revision)
    listed = {file.name: file for file in _listing(repo_id, "dataset", commit)}
    wanted = list(names)
    for name in wanted:
        if name not in listed:
            raise ConfigError(f"{_what(repo_id, 'dataset')} has no file {name!r} at {commit[:12]}")
    return {name: _verified(repo_id, "dataset", commit, listed[name]) for name in wanted}


def push(folder: Path, repo_id: str, *, private: bool, message: str) -> Receipt:
    """The receipt for `folder` in the model repository, which is created where there is none.

    One commit adds what differs and removes weights of an older model; afterwards the digests on
    the hub are compared. If main already holds all of it, there is no new commit.
    """
    files = shipped(folder)

    def attempt() -> Receipt:
        with _understood():
            return _push_once(files, repo_id, private=private, message=message)

    return retrying(
        attempt,
        f"repository {repo_id!r} (logging.hub_model_id)",
    )


def _push_once(files: dict[str, Path], repo_id: str, *, private: bool, message: str) -> Receipt:
    api = _api()
    api.create_repo(repo_id, private=private, exist_ok=True)
    info = _info(repo_id, "model", None)
    commit = str(info.sha)
    if private and info.private is False:
        raise ConfigError(
            f"repository {repo_id!r} (logging.hub_model_id) is public, but logging.hub_private is "
            "true; make it private on the hub, choose another id, or set hub_private to false"
        )
    operations = _operations(files, _files(info))
    if operations:
        commit = api.create_commit(
            repo_id, operations, commit_message=message, parent_commit=commit
        ).oid
        if wrong := _differing(files, _files(_info(repo_id, "model", commit))):
            raise ServiceError(
                f"repository {repo_id!r}: commit {commit[:12]} does not hold {wrong[0]!r} as it "
                "was sent; push again"
            )
    return Receipt(repo_id, commit, f"{api.endpoint}/{repo_id}/tree/{commit}", len(files))


def _operations(
    files: dict[str, Path], there: Sequence[_File]
) -> "list[CommitOperationAdd | CommitOperationDelete]":
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    stale = [file.name for file in there if file.name not in files and _any(file.name, STALE)]
    return [
        *(CommitOperationAdd(name, files[name]) for name in _differing(files, there)),
        *(CommitOperationDelete(name) for name in stale),
    ]


def _differing(files: dict[str, Path], there: Sequence[_File]) -> list[str]:
    listed = {file.name: file for file in there}
    return [n for n, path in files.items() if n not in listed or not listed[n].matches(path)]


def shipped(folder: Path) -> dict[str, Path]:
    """Relative name -> path of what may leave this machine. ConfigError for what must not."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or any(_any(part, KEPT_BACK) for part in name.parts):
            continue
        if path.is_symlink():
            raise ConfigError(f"{path} is a symbolic link; put the file itself there to push it")
        if path.suffix != ".safetensors" and TOKEN.search(path.read_bytes()):
            raise ConfigError(f"{path} holds an access token; remove it, and revoke the token")
        files[name.as_posix()] = path
    if not any(name.endswith(".safetensors") for name in files):
        raise ConfigError(f"{folder} has no *.safetensors, so there is no model to push")
    return files


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _verified(repo_id: str, repo_type: RepoType, commit: str, file: _File) -> Path:
    """The file in the hub cache. One with a wrong digest is removed and fetched once more."""
    what = _what(repo_id, repo_type)
    for _ in range(2):
        found = retrying(
            lambda: _api().hf_hub_download(
                repo_id, file.name, repo_type=repo_type, revision=commit
            ),
            what,
        )
        path = Path(found).resolve()
        if file.matches(path):
            return path
        path.unlink()
        Path(found).unlink(missing_ok=True)
    raise DataError(
        f"{what}: {file.name!r} of commit {commit[:12]} arrived twice with another content than "
        "the hub lists; do not use it, and check what HF_ENDPOINT and the proxy serve"
    )


def _listing(repo_id: str, repo_type: RepoType, commit: str) -> list[_File]:
    """Every file of a commit; with `HF_HUB_OFFLINE=1`, every one that is in the cache."""
    what = _what(repo_id, repo_type)
    if not _offline():
        return _files(retrying(lambda: _info(repo_id, repo_type, commit), what))
    snapshot = _cache(repo_id, repo_type) / "snapshots" / commit
    paths = sorted(path for path in snapshot.rglob("*") if path.is_file())
    if not paths:
        raise _not_cached(what)
    # A blob in the cache is named by its digest; without symlinks there is none to compare.
    digests = [path.resolve().name if path.is_symlink() else sha256(path) for path in paths]
    names = [path.relative_to(snapshot).as_posix() for path in paths]
    return [_File(name, digest) for name, digest in zip(names, digests, strict=True)]


def _info(repo_id: str, repo_type: RepoType, revision: str | None) -> "ModelInfo | DatasetInfo":
    """The repository at a revision, with the digests of its files."""
    # Not `list_repo_tree`: that takes no timeout.
    ask = _api().model_info if repo_type == "model" else _api().dataset_info
    with _understood():
        return ask(repo_id, revision=revision, files_metadata=True, timeout=timeout())


@contextmanager
def _understood() -> Iterator[None]:
    """Turns an answer that is no JSON, as a login page of a network or a broken proxy is, into one
    of those that may pass."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise ConnectionError("an answer that is no JSON") from error


def _files(info: "ModelInfo | DatasetInfo") -> list[_File]:
    return [
        _File(entry.rfilename, entry.lfs.sha256 if entry.lfs else str(entry.blob_id))
        for entry in info.siblings or []
    ]


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        if source.stat().st_size >= LINKED_BYTES:
            os.link(source, target)
            return
    except OSError:
        pass  # another file system, or one without hard links
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise ResourceError(f"cannot write {target}: {error.strerror}; make room there") from error


def _git_sha1(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _not_cached(what: str) -> ServiceError:
    return ServiceError(
        f"{what} is not in the local cache and HF_HUB_OFFLINE is set; run once without it"
    )


def _cache(repo_id: str, repo_type: RepoType) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{repo_type}s--{repo_id.replace('/', '--')}"


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.is_offline_mode()


def _what(repo_id: str, repo_type: RepoType) -> str:
    return f"{repo_type} {repo_id!r} ({KEYS[repo_type]})"


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    endpoint = os.environ.get("HF_ENDPOINT") or None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError("HF_ENDPOINT must start with http:// or https://; correct or unset it")
    return HfApi(endpoint=endpoint, library_name="aligntune")
