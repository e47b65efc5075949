"""Python with its imports done: each program runs in a fork of it, as a process of its own.

Most of the tests' programs take less time than their imports. A variable that a
library reads at import has one value for all programs; everything else is the program's own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass
class Program:
    """A program that runs. out, err: the files that it writes its output to."""

    pid: int
    out: Path
    err: Path
    _python: WarmPython

    def poll(self) -> int | None:
        """Its exit status if it has ended; minus the signal's number where a signal ended it."""
        return self._python.status_of(self.pid, waits=False)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        status = self._python.status_of(self.pid, waits=True)
        assert status is not None
        return status

    def completed(self) -> subprocess.CompletedProcess[str]:
        """What it says, and its exit status, once it has ended."""
        status = self.wait()
        return subprocess.CompletedProcess([], status, self.out.read_text(), self.err.read_text())

    def terminate(self) -> None:
        """Ask it to end, unless it has."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class WarmPython:
    """Runs programs, several at a time, as `python -c` would."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._statuses: dict[int, int | None] = {}  # by process; None: it runs

    @contextmanager
    def start(
        self, code: str, *arguments: str, environment: Mapping[str, str], cwd: Path, log: Path | None = None
    ) -> Iterator[Program]:
        """Start a program, which ends with the block.

        environment: what changes in it. log: takes all output, in place of a file for each stream.
        """
        assert self._process.stdin
        with TemporaryDirectory() as folder:
            out, err = (log, log) if log else (Path(folder, "out"), Path(folder, "err"))
            job = [code, arguments, environment, str(cwd), str(out), str(err)]
            known = set(self._statuses)
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            while not (started := self._statuses.keys() - known):
                self._hear()
            program = Program(started.pop(), out, err, self)
            try:
                yield program
            finally:
                program.kill()
                program.wait()
                del self._statuses[program.pid]  # another may get its number

    def run(
        self, code: str, *arguments: str, environment: Mapping[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str]:
        """What a program says, and its exit status. environment: what changes in it."""
        with self.start(code, *arguments, environment=environment, cwd=cwd) as program:
            return program.completed()

    def status_of(self, pid: int, *, waits: bool) -> int | None:
        """The exit status of a program, None while it runs. waits: until it ends."""
        while self._statuses[pid] is None and (waits or select.select([self._process.stdout], [], [], 0)[0]):
            self._hear()
        return self._statuses[pid]

    def _hear(self) -> None:
        """Take the next line: which program has started, or ended and how."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the Python with its imports done has ended"
        pid, *status = map(int, line.split())
        self._statuses[pid] = status[0] if status else None


@contextmanager
def warm_python(*modules: str, environment: Mapping[str, str]) -> Iterator[WarmPython]:
    """A Python that has imported the modules."""
    command = [sys.executable, __file__, *modules]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
    ) as process:
        yield WarmPython(process)


def _serve(modules: list[str]) -> None:
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # so that forks share it for longer
    gc.enable()
    signal.signal(signal.SIGCHLD, _tell_who_ended)
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # who starts is told before who ends
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _become(*json.loads(line))
            return
        os.write(1, b"%d\n" % child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _tell_who_ended(*_: object) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            os.write(1, b"%d %d\n" % (ended[0], os.waitstatus_to_exitcode(ended[1])))


def _become(
    code: str, arguments: list[str], environment: dict[str, str], cwd: str, out: str, err: str
) -> None:
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None  # an import may have asked for it
    streams = [
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in (out, err)),
    ]
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
    sys.argv = ["-c", *arguments]
    sys.path[:1] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep)]
    exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    _serve(sys.argv[1:])
