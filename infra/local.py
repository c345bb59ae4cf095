"""PostgreSQL, an S3 store, MLflow, Prefect and a worker as processes of one machine, on loopback.

What a server is started with stands in serve.sh, for images and Kubernetes too; here is what they
need from the machine: a database cluster, ports, pid files, and an end that leaves nothing behind.
"""

import base64
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

import psutil

HERE = Path(__file__).resolve().parent
SERVE = str(HERE / "serve.sh")
ROUNDS = (("postgres", "s3"), ("mlflow", "prefect"), ("worker",))
"""Services, each round started when the one before answers."""
SERVICES = tuple(name for names in ROUNDS for name in names)
PORTS = {"prefect": 0, "mlflow": 1, "s3": 2, "postgres": 3, "weed": 4}
"""Counted from the first port; weed takes seven."""
PORT_COUNT = 11
START = 300.0
"""Seconds that a service may take to answer, on a busy machine and an empty database."""
GRACE = 90.0
"""Seconds that a service may take to stop: a training in the worker saves a checkpoint."""
MARK = "ALIGNTUNE_LOCAL"
"""The variable by which a process that belongs to a stack is known: the stack's folder."""
ROOT = os.geteuid() == 0
TARGET = {"user": "postgres", "group": "postgres", "extra_groups": []} if ROOT else {}
"""Who runs PostgreSQL, which refuses to be run by root."""


class LocalError(Exception):
    """Something that whoever called `local.sh` can mend."""


class Stack:
    """The services that live in `folder`."""

    def __init__(self, folder: Path, port: int = 4200) -> None:
        self.folder = folder.absolute()
        self.secrets = self.folder / "secrets"
        kept = self.folder / "port"
        self.port = int(kept.read_text()) if kept.exists() else port

    def up(self, *names: str) -> None:
        """Start what does not run, and wait until it answers.

        Raises:
            LocalError: a service ended or did not answer, or the machine lacks what it needs.
        """
        self._prepare()
        for wanted in ROUNDS:
            chosen = [name for name in wanted if not names or name in names]
            for name in chosen:
                if not self.process(name):
                    self._start(name)
            for name in chosen:
                self._wait(name)

    def down(self, *names: str) -> None:
        """Stop services, last first; without names, everything that belongs to the stack."""
        for stopped in reversed(ROUNDS):
            self._stop([name for name in stopped if not names or name in names])
        if not names:
            for process in (left := self.processes()):
                _signal(process, signal.SIGTERM)
            _wait_or_kill(left)

    def kill(self, name: str) -> None:
        """End a service with SIGKILL, all of its processes."""
        if process := self.process(name):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(GRACE)
        self._pid(name).unlink(missing_ok=True)

    def process(self, name: str) -> psutil.Process | None:
        """The first process of a service that runs."""
        if not self._pid(name).exists():
            return None
        pid, created = self._pid(name).read_text().split()
        try:
            process = psutil.Process(int(pid))
        except psutil.NoSuchProcess:
            return None
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and f"{process.create_time():.2f}" == created else None

    def processes(self) -> list[psutil.Process]:
        """All that belong to the stack, flow runs of the worker and what they started included."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port + PORTS[name]}"

    def env(self) -> dict[str, str]:
        """What a client of the servers has in its environment."""
        self._prepare()
        said = subprocess.run(
            [SERVE, "run", "env", "-0"], env=self.environment(), capture_output=True, check=True
        )
        found = dict(line.split("=", 1) for line in said.stdout.decode().split("\0") if line)
        return {
            k: v for k, v in found.items() if k.startswith(("MLFLOW_TRACKING_", "PREFECT_API_"))
        }

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # for user postgres to pass
        (self.folder / "port").write_text(str(self.port))
        subprocess.run([str(HERE / "secrets.sh"), str(self.secrets)], check=True)

    def _start(self, name: str) -> None:
        state = self.folder / name
        state.mkdir(mode=0o700, exist_ok=True)
        extra = {}
        command = [SERVE, name]
        if name == "postgres":
            command, extra = self._cluster(state), TARGET
        self.log(name).touch(mode=0o600)
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=state,
                env=self.environment(STATE=str(state)),
                start_new_session=True,
                **extra,
            )
        created = psutil.Process(process.pid).create_time()
        self._pid(name).write_text(f"{process.pid} {created:.2f}")

    def _cluster(self, state: Path) -> list[str]:
        """The command of a database server whose cluster exists."""
        tools, data = postgres_tools(), state / "data"
        if not data.exists():
            password = state / "password"
            password.touch(mode=0o600)
            password.write_text((self.secrets / "postgres-password").read_text())
            if ROOT:
                shutil.chown(state, "postgres")
                shutil.chown(password, "postgres")
            making = [str(tools / "initdb"), "-D", str(data), "-U", "aligntune", "-E", "UTF8"]
            making += ["--auth=scram-sha-256", f"--pwfile={password}"]
            made = subprocess.run(making, cwd="/", capture_output=True, text=True, **TARGET)
            password.unlink()
            if made.returncode:
                raise LocalError(
                    f"initdb in {data} failed: {made.stderr.strip()[-300:]}; if it may not be "
                    f"entered by user postgres, set {MARK} to a directory that may"
                )
        port = str(self.port + PORTS["postgres"])
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        return [str(tools / "postgres"), "-D", str(data), "-p", port, *listen]

    def _wait(self, name: str) -> None:
        answers: dict[str, Callable[[], bool]] = {
            "postgres": self._database_answers,
            "s3": lambda: _answers(Request(f"{self.url('s3')}/healthz")),
            "mlflow": lambda: _answers(Request(f"{self.url('mlflow')}/health")),
            "prefect": lambda: _answers(Request(f"{self.url('prefect')}/api/health")),
            "worker": self._worker_online,
        }
        end = time.monotonic() + START
        while not answers[name]():
            if self.process(name) is None or time.monotonic() > end:
                state = "ended" if self.process(name) is None else f"was silent for {START:g} s"
                last = self.log(name).read_text(errors="replace").strip().split("\n")[-1]
                raise LocalError(f"{name} {state}; {self.log(name)} ends with {last!r}")
            time.sleep(0.2)

    def _database_answers(self) -> bool:
        """Whether both databases are there; on the first time, they are made."""
        there = {"PGPASSWORD": (self.secrets / "postgres-password").read_text()}
        where = ["-h", "127.0.0.1", "-p", str(self.port + PORTS["postgres"]), "-U", "aligntune"]
        psql = [str(postgres_tools() / "psql"), *where, "-q", "-v", "ON_ERROR_STOP=1"]
        for how in (["-c", "SELECT 1"], ["-f", str(HERE / "databases.sql"), "postgres"]):
            command = [*psql, *(how if how[0] == "-f" else [*how, "prefect"])]
            if not subprocess.run(command, env=os.environ | there, capture_output=True).returncode:
                return True
        return False

    def _worker_online(self) -> bool:
        login = base64.b64encode(self.env()["PREFECT_API_AUTH_STRING"].encode()).decode()
        pool = os.environ.get("POOL", "default")
        asked = Request(
            f"{self.url('prefect')}/api/work_pools/{pool}/workers/filter",
            data=b"{}",
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        return _answers(asked, lambda workers: any(w["status"] == "ONLINE" for w in workers))

    def _stop(self, names: Iterable[str]) -> None:
        running = {name: process for name in names if (process := self.process(name))}
        for name, process in running.items():
            if name == "postgres":
                process.send_signal(signal.SIGINT)  # its "fast" shutdown
            else:
                os.killpg(process.pid, signal.SIGTERM)
        _wait_or_kill(list(running.values()))
        for name in running:
            self._pid(name).unlink()

    def _owns(self, process: psutil.Process) -> bool:
        try:
            marked = process.environ().get(MARK) == str(self.folder)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False
        return marked and process.pid != os.getpid()

    def environment(self, **more: str) -> dict[str, str]:
        ports = {name: str(self.port + offset) for name, offset in PORTS.items()}
        return os.environ | {
            MARK: str(self.folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SECRETS": str(self.secrets),
            "POSTGRES": f"127.0.0.1:{ports['postgres']}",
            "S3_PORT": ports["s3"],
            "MLFLOW_PORT": ports["mlflow"],
            "PREFECT_PORT": ports["prefect"],
            "WEED_PORT": ports["weed"],
            "MLFLOW_WORKERS": os.environ.get("MLFLOW_WORKERS", "1"),
            "VOLUME_MB": "64",
            **more,
        }

    def _pid(self, name: str) -> Path:
        return self.folder / f"{name}.pid"


def postgres_tools() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise LocalError("PostgreSQL's initdb is not on this machine; apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


def _answers(asked: Request, right: Callable[[list[dict[str, str]]], bool] | None = None) -> bool:
    try:
        with urlopen(asked, timeout=10) as reply:
            return right(json.load(reply)) if right else True
    except OSError:
        return False


def _wait_or_kill(processes: Sequence[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, GRACE)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, GRACE)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def free_ports(count: int = PORT_COUNT) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(20_000 + os.getpid() % 1000 * 12, 32_000, count):
        if all(_free(first + each) for each in range(count)):
            return first
    raise LocalError(f"there are no {count} free ports in a row below 32000")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _default_folder() -> str:
    return "/var/lib/aligntune" if ROOT else str(Path.home() / ".local" / "share" / "aligntune")


def _show(stack: Stack, names: Iterable[str]) -> int:
    running = {name: stack.process(name) for name in names}
    for name, process in running.items():
        where = stack.url(name) if name in PORTS else ""
        where = where.removeprefix("http://") if name == "postgres" else where
        print(f"{name:<9} {f'up, pid {process.pid}' if process else 'down':<16} {where}".rstrip())
    return 0 if all(running.values()) else 1


def main(verb: str = "", *names: str) -> int:
    stack = Stack(
        Path(os.environ.get(MARK) or _default_folder()),
        int(os.environ.get("ALIGNTUNE_LOCAL_PORT", "4200")),
    )
    services = verb in ("up", "down", "status", "env") and set(names) <= set(SERVICES)
    known = services or (verb == "run" and names)
    if not known:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if verb == "env":
            for name, value in stack.env().items():
                print(f"export {name}={shlex.quote(value)}")
            return 0
        if verb == "run":
            os.execvpe(names[0], names, stack.environment() | stack.env())
        if verb in ("up", "down"):
            getattr(stack, verb)(*names)
    except LocalError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    shown = _show(stack, names or SERVICES)
    return shown if verb != "down" else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
