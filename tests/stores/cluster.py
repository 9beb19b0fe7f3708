"""A private PostgreSQL server for the tests: in a temporary directory, on a Unix socket."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time


class Missing(Exception):
    """What a test needs is not on this machine."""


def _programs() -> str:
    found = shutil.which("initdb")
    places = [os.path.dirname(found)] if found else []
    places += sorted(
        glob.glob("/usr/lib/postgresql/*/bin"),
        key=lambda place: float(place.split("/")[-2]),
        reverse=True,
    )
    for place in places:
        if all(os.path.exists(f"{place}/{name}") for name in ("initdb", "pg_ctl", "postgres")):
            return place
    raise Missing("PostgreSQL is not installed")


def _room() -> str:
    """Where a cluster is quick, if there is room; a path that is short enough for a socket."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return memory
    return "/tmp"


class Cluster:
    """A running server; `url` is its address."""

    def __init__(self, room: str = "") -> None:
        self._bin = _programs()
        self._as: list[str] = []
        owner = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                raise Missing("there is no user 'postgres' to run PostgreSQL as") from None
            if shutil.which("setpriv"):
                self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            elif shutil.which("runuser"):
                self._as = ["runuser", "-u", "postgres", "--"]
            else:
                raise Missing("neither setpriv nor runuser is installed")
        self.directory = tempfile.mkdtemp(prefix="pg-", dir=room or _room())
        if owner is not None:
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        self._data = f"{self.directory}/data"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        self.url = f"postgresql://postgres@/postgres?host={self.directory}"

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            [*self._as, f"{self._bin}/{program}", "-D", self._data, *options],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def _start(self) -> None:
        access = ["--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"]
        self._run("initdb", "--username=postgres", *access)
        with open(f"{self._data}/pg_hba.conf", "w", encoding="utf-8") as file:
            file.write("local all careful scram-sha-256\nlocal all all trust\n")
        settings = [
            "-c listen_addresses=''",
            f"-c unix_socket_directories='{self.directory}'",
            "-c fsync=on",
            "-c max_connections=60",
            "-c shared_buffers=16MB",
        ]
        log = f"{self.directory}/log"
        self._run("pg_ctl", "start", "-w", "-t", "30", "-l", log, "-o", " ".join(settings))

    def restart(self) -> None:
        self._run("pg_ctl", "restart", "-w", "-t", "30", "-m", "immediate")

    def run(self, *statements: str) -> None:
        """Run statements as the owner of everything."""
        import psycopg

        with psycopg.connect(self.url) as connection:
            for statement in statements:
                connection.execute(statement)

    def stop(self) -> None:
        if os.path.exists(f"{self._data}/postmaster.pid"):
            self._run("pg_ctl", "stop", "-W", "-m", "immediate")
            deadline = time.monotonic() + 20
            while os.path.exists(f"{self._data}/postmaster.pid") and time.monotonic() < deadline:
                time.sleep(0.01)
        shutil.rmtree(self.directory, ignore_errors=True)
