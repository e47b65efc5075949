"""Python with its imports done: each program runs in a fork of it, as a process of its own.

Most of the tests' programs take less time than their imports. A variable that a
library reads at import has one value for all programs; everything else is the program's own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
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
    _python: subprocess.Popen[str]
    _status: int | None = None

    def wait(self) -> int:
        """Its exit status; minus the signal's number where a signal ended it."""
        if self._status is None:
            self._status = _number(self._python)
        return self._status

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class WarmPython:
    """Runs programs one after the other, as `python -c` would."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @contextmanager
    def start(
        self, code: str, *arguments: str, environment: Mapping[str, str], cwd: Path
    ) -> Iterator[Program]:
        """Start a program, which ends with the block. environment: what changes in it."""
        assert self._process.stdin
        with TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = [code, arguments, environment, str(cwd), str(out), str(err)]
            print(json.dumps(job), file=self._process.stdin, flush=True)
            program = Program(_number(self._process), out, err, self._process)
            try:
                yield program
            finally:  # the next program must not get this one's status
                program.kill()
                program.wait()

    def run(
        self, code: str, *arguments: str, environment: Mapping[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str]:
        """What a program says, and its exit status. environment: what changes in it."""
        with self.start(code, *arguments, environment=environment, cwd=cwd) as program:
            status = program.wait()
            return subprocess.CompletedProcess(code, status, program.out.read_text(), program.err.read_text())


@contextmanager
def warm_python(*modules: str, environment: Mapping[str, str]) -> Iterator[WarmPython]:
    """A Python that has imported the modules."""
    command = [sys.executable, __file__, *modules]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield WarmPython(process)


def _number(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the Python with its imports done has ended"
    return int(line)


def _serve(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # so that forks share it for longer
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(*json.loads(line))
            return
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(
    code: str, arguments: list[str], environment: dict[str, str], cwd: str, out: str, err: str
) -> None:
    os.environ.update(environment)
    os.chdir(cwd)
    streams = [
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(path, os.O_WRONLY | os.O_CREAT) for path in (out, err)),
    ]
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
    sys.argv = ["-c", *arguments]
    sys.path[:1] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep)]
    exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    _serve(sys.argv[1:])
