"""Real servers on loopback: PostgreSQL, an S3 store, MLflow, and a line that can break."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

START = 120.0
"""Seconds that a server may take to answer on a busy machine."""
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests-only"}
BUCKET = "mlflow"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], what: str, seconds: float = START) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} took more than {seconds:g} s"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def postgres_tools() -> Path | None:
    """Where initdb and pg_ctl are, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgres(tools: Path) -> Iterator[str]:
    """The URI of an empty database in a cluster of its own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    root = os.geteuid() == 0  # which PostgreSQL refuses to run as
    if root:
        shutil.chown(folder, "postgres")
    become = ["runuser", "-u", "postgres", "--"] if root else []

    def tool(name: str, *arguments: str) -> None:
        command = [*become, str(tools / name), *arguments]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=START)

    data, port = str(folder / "data"), free_port()
    try:
        tool("initdb", "-D", data, "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        tool("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        try:
            tool("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
        finally:
            tool("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, of which nothing is left."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """The URL of an S3 store with one empty bucket."""
    import boto3

    folder.mkdir()
    action = {"credentials": [dict(zip(("accessKey", "secretKey"), KEYS.values(), strict=True))]}
    identity = {"name": "tests", "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity | action]}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    options += [f"-{name}.port.grpc={free_port()}" for name in ports]
    weed = [str(Path(sys.executable).parent / "weed"), "-logtostderr", "server", "-s3"]
    where = ["-ip=127.0.0.1", f"-dir={folder}", f"-s3.config={folder / 's3.json'}"]
    small = ["-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"]
    with process([*weed, *where, *small, *options], folder / "log"):
        url = f"http://127.0.0.1:{ports['s3']}"
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        until(lambda: _made(client), "the S3 store")
        yield url


def _made(client) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="probe", Body=b"there")
        client.delete_object(Bucket=BUCKET, Key="probe")
    except client.exceptions.BucketAlreadyOwnedByYou:
        return True
    except (BotoCoreError, ClientError):
        return False
    return True


class Mlflow:
    """`mlflow server` on PostgreSQL and S3, to be started and killed again and again."""

    def __init__(self, database: str, store: str, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self.log = folder / "log"
        self._environment = KEYS | {
            "MLFLOW_S3_ENDPOINT_URL": store,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--backend-store-uri", database,
            "--artifacts-destination", f"s3://{BUCKET}",
        ]  # fmt: skip
        self._running: contextlib.ExitStack | None = None

    def start(self) -> None:
        self._running = contextlib.ExitStack()
        self._running.enter_context(process(self._command, self.log, **self._environment))
        until(lambda: answers(f"http://127.0.0.1:{self.port}/health"), "MLflow")

    def kill(self) -> None:
        """With SIGKILL, all of it."""
        if self._running:
            self._running.close()
        self._running = None


class Line:
    """A TCP line to a port. `pass` lets everything through; `refuse` cuts what is open and answers
    nobody; `deaf` brings requests there and cuts the line when the answer comes."""

    def __init__(self, port: int) -> None:
        self.mode: Literal["pass", "refuse", "deaf"] = "pass"
        self.swallowed = 0
        """Answers that were lost on the way."""
        self._there = ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: Literal["pass", "refuse", "deaf"]) -> None:
        self.mode = mode
        if mode == "refuse":
            for each in list(self._open):
                _cut(each)

    def close(self) -> None:
        self.set("refuse")
        _cut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                _cut(near)
                continue
            try:
                far = socket.create_connection(self._there)
            except OSError:
                _cut(near)
                continue
            self._open |= {near, far}
            for source, sink, answer in ((near, far, False), (far, near, True)):
                threading.Thread(
                    target=self._pump, args=(source, sink, answer), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answer: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                if answer and self.mode == "deaf":
                    self.swallowed += 1
                    break
                sink.sendall(chunk)
        for each in (source, sink):
            self._open.discard(each)
            _cut(each)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
