# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of the tests' own: a temporary folder, a Unix socket in it, an unprivileged user.

Clusters of the machine are left alone. It ends with the tests, also when they crash.
"""

import ctypes
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
PASSWORD = "s3cret-w0rd"
PR_SET_PDEATHSIG = 1


def end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


class Postgres:
    """initdb, start, stop; `url(schema)` names a schema of its own in the one database."""

    def __init__(self):
        self.programs = pathlib.Path(PROGRAMS[-1])
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sora-pg-"))
        self.data = self.folder / "data"
        self.process = None
        self.as_user = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.log = open(self.folder / "log", "ab")
        command = [self.programs / "initdb", "-D", self.data, "-U", "sora", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            command, stdout=self.log, stderr=self.log, cwd=self.folder, check=False, **self.as_user
        )
        assert made.returncode == 0, self.said()

    def said(self):
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def start(self):
        command = [self.programs / "postgres", "-D", self.data, "-c", "listen_addresses="]
        command += ["-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, cwd=self.folder,
            preexec_fn=end_with_parent, start_new_session=True, **self.as_user,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.psql("SELECT 1", check=False).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return self

    def stop(self):
        """Connections are closed at once, what was committed stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def close(self):
        self.stop()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def psql(self, sql, check=True):
        command = [self.programs / "psql", "-X", "-q", "-A", "-t", "-h", self.folder, "-U", "sora"]
        command += ["-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or run.returncode == 0, run.stderr
        return run

    def url(self, schema):
        options = f"host={self.folder}&options=-csearch_path%3D{schema}"
        return f"postgresql://sora:{PASSWORD}@/postgres?{options}"
