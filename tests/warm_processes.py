"""Real processes of the commands, forked where the libraries are loaded already.

A fresh Python takes five seconds of computing before a training of one second begins: torch and
Lightning are loaded. Here one process loads the libraries, once for all tests, and each command is
a fork of it: with a process id, a folder, an environment, streams, signals and an end of its own.
Of percoin nothing is loaded before the fork, so a command reads its own code as ever.

What a command loads, and what a variable of the environment does to Python itself, needs a fresh
Python: ``subprocess``.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

LIBRARIES = (
    "arch",
    "fastapi",
    "hydra",
    "jinja2",
    "lightning.pytorch",
    "matplotlib.figure",
    "optuna",
    "pandas",
    "prometheus_client",
    "requests",
    "scipy.stats",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sqlalchemy",
    "torch.utils.tensorboard",
    "uvicorn",
)
REQUEST_BYTES = 1 << 17
PR_SET_CHILD_SUBREAPER = 36


class Process:
    """A command with the methods of ``subprocess.Popen`` that the tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        stderr: int | None = None,
    ) -> None:
        out, out_end = os.pipe()
        err, err_end = (None, stderr) if stderr is not None else os.pipe()
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "new_session": start_new_session,
        }
        self.args = list(arguments)
        self.returncode: int | None = None
        self.pid = _fork(request, out_end, err_end)
        self.stdout = os.fdopen(out, encoding="utf-8")
        self.stderr = None if err is None else os.fdopen(err, encoding="utf-8")
        os.close(out_end)
        if err is not None:
            os.close(err_end)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            ended = os.pidfd_open(self.pid)
            found, _, _ = select.select([ended], [], [], timeout)
            os.close(ended)
            if not found:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is left to be read of both streams, once it has ended."""
        said = ["", ""]

        def read(number: int) -> None:
            stream = (self.stdout, self.stderr)[number]
            if stream is not None and not stream.closed:
                said[number] = stream.read()
                stream.close()

        readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in (0, 1)]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def run(
    arguments: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 240.0,
) -> subprocess.CompletedProcess[str]:
    """A command from its start to its end: what would follow ``python``."""
    with Process(arguments, cwd, env) as process:
        try:
            stdout, stderr = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


class _Server:
    """The process that has the libraries, and the way to it."""

    def __init__(self) -> None:
        self.link, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * REQUEST_BYTES)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
            pass_fds=[there.fileno()],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        there.close()

    def end(self) -> None:
        self.link.close()
        self.process.wait(60)


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.end)
    return server


def _fork(request: dict[str, object], stdout: int, stderr: int) -> int:
    """Have a command forked, as a child of this process; its process id."""
    link = _server().link
    _adopt_orphans(True)
    try:
        socket.send_fds(link, [json.dumps(request).encode()], [stdout, stderr])
        answer = link.recv(32)
    finally:
        _adopt_orphans(False)
    if not answer:
        raise RuntimeError("the process that has the libraries has ended; see its error above")
    return int(answer)


def _adopt_orphans(yes: bool) -> None:
    """Whether a process whose parent ends becomes a child of this one (Linux)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def serve(link: socket.socket) -> dict[str, object] | None:
    """Fork what is asked for; returns in each fork with its request, and at the end with none."""
    while True:
        message, streams, _, _ = socket.recv_fds(link, REQUEST_BYTES, 2)
        if not message:
            return None
        told, tell = os.pipe()
        # The fork in the middle ends at once: its child then belongs to the tests.
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child:
                os.write(tell, str(child).encode())
                os._exit(0)
            os.dup2(streams[0], 1)
            os.dup2(streams[1], 2)
            os.closerange(3, max(link.fileno(), told, tell, *streams) + 1)
            link.detach()
            return json.loads(message)
        os.waitpid(middle, 0)
        link.send(os.read(told, 32))
        for number in (told, tell, *streams):
            os.close(number)


class Leaving:
    """The end of a fork without the third of a second in which Python forgets every module."""

    def __init__(self) -> None:
        self.code: object = None
        atexit.register(self)  # before all others, and so called after them

    def __call__(self) -> None:
        if isinstance(self.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


def become(request: dict[str, object], leaving: Leaving) -> None:
    """Be the process that ``python ARGUMENTS`` would have started."""
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or "PYTHONUNBUFFERED" in os.environ)
    first, *others = request["arguments"]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    script_folder = str(Path(first).resolve().parent)
    at_first = {"-m": str(Path.cwd()), "-c": ""}.get(first, script_folder)
    sys.path[:1] = [at_first, *filter(None, places)]
    try:
        if first == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = [first, *others[1:]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(others[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        else:
            sys.argv = [first, *others]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        leaving.code = end.code
        raise


def main() -> None:
    leaving = Leaving()
    for library in LIBRARIES:
        with suppress(ImportError):  # not every command needs every one
            importlib.import_module(library)
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request, leaving)


if __name__ == "__main__":
    main()
