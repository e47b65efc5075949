"""Any number of images -> one table in the order of the inputs, by a run that may be killed at any moment.

Rows are computed in pieces of about a thousand. A finished piece is a file in a hidden folder beside the
table; the complete pieces become the table. A kill loses only the unfinished pieces.

Several processes on one machine share the pieces, and a stopped run may continue with another number of
them. Each takes its share of the cores; on the backend torch, a GPU of its own:

accelerate launch --multi_gpu --num_processes 4 -m xray_hf.cli predict BUNDLE scans --out results.parquet
torchrun --nproc-per-node 4 -m xray_hf.cli predict BUNDLE scans --out results.parquet

`accelerate launch --cpu` starts one process only; --multi_gpu needs no GPU. For many machines there are Ray
Data and Spark: docs/clusters.md.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xray_hf import __version__, cores, manifest
from xray_hf.errors import ConfigError, DataError, ImageError, OutputError, XrayHFError
from xray_hf.files import atomic_file
from xray_hf.folders import in_words
from xray_hf.inference import backends
from xray_hf.inference.engine import BATCH_SIZE, Engine
from xray_hf.inference.inputs import Content, Inputs, Item
from xray_hf.inference.overlay import Pictures
from xray_hf.inference.tables import PIECE, WRITERS, Pieces, Row, to_row
from xray_hf.signals import Signals
from xray_hf.text import counted


@dataclass(frozen=True)
class Summary:
    """The result of a run; `str` of it is for a person.

    computed: images computed in `seconds` by this run, not by an interrupted one before it. mark: as
    Manifest.mark. lacks: as Calibration.lacks.
    """

    out: Path
    images: int
    errors: int
    decisions: Counter[str]
    skipped: Counter[str]
    computed: int
    seconds: float
    mark: str
    lacks: str

    def __str__(self) -> str:
        lines = [f"{self.mark}the model was trained on them"] if self.mark else []
        if self.lacks:
            lines.append(f"the model is {self.lacks}; `xray-hf calibrate` fits that")
        lines.append(f"{self.images:>9,}  {'image' if self.images == 1 else 'images'}")
        lines += [f"{count:>9,}  {decision}" for decision, count in sorted(self.decisions.items())]
        if self.errors:
            lines.append(f"{self.errors:>9,}  without an answer; the column `error` says why")
        if left_out := in_words(self.skipped):
            lines.append(f"files in folders, skipped because they are not images: {left_out}")
        speed = self.computed / self.seconds
        images = counted(self.computed, "image")
        lines.append(f"{images} in {self.seconds:.1f} s, {speed:.1f} images/s: {self.out}")
        return "\n".join(lines)


def is_finished(out: Path, *, resume: bool) -> bool:
    """Whether an earlier run has written `out`. This is quick: call it before anything is loaded.

    Raises ConfigError for a suffix that names no format, OutputError if `out` exists, unless with `resume`.
    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"--out is {out}; expected a name that ends in {', '.join(WRITERS)}.")
    if out.suffix == ".parquet":
        import pyarrow  # noqa: F401  # so that a missing package is an error now, not after hours of work
    if not out.exists():
        return False
    if not resume:
        raise OutputError(f"{out} exists and is not overwritten; delete it or choose another --out.")
    Pieces(out).remove()  # left by a run that was killed while it cleaned up
    return True


def predict_in_bulk(
    bundle: Path | str,
    inputs: Inputs,
    out: Path,
    *,
    heatmaps: Path | None = None,
    resume: bool = False,
    batch_size: int = BATCH_SIZE,
    backend: str = backends.DEFAULT,
) -> Summary | None:
    """Classify all inputs and write `out`: Parquet, CSV or JSON lines, by its suffix. For the main thread.

    heatmaps: a folder for one picture per image, except errors and rejected images. resume: continue an
    interrupted run of the same job, or start one. batch_size: images computed in one call.
    Returns None if `out` was finished before, and in all processes but the first. Each process reads only its
    own files, and decodes only its own rows of a streamed data set.
    An image that cannot be read is a row with its error. Raises ConfigError, BundleError or OutputError
    before any work, DataError if a data set breaks off, and SystemExit(128 + signal) after SIGTERM or SIGINT,
    with the finished pieces kept.
    """
    if is_finished(out, resume=resume):
        return None
    if batch_size < 1:
        raise ConfigError(f"--batch-size is {batch_size}; expected 1 or more.")
    with _join() as processes, ExitStack() as stack:
        engine = Engine.from_pretrained(bundle, backend=backend, threads=processes.threads)
        signals = stack.enter_context(
            Signals()
        )  # only now: while a bundle is fetched, nothing checks for one
        if heatmaps and not engine.has_heatmaps:
            raise ConfigError(
                f"the graph of {engine.name} gives no class activation maps; leave --cams out, or use "
                "--backend torch."
            )
        # Whole batches, so that every run computes the same images together and gives the same bits.
        pieces = Pieces(out, batch_size * math.ceil(PIECE / batch_size))
        job = {
            "xray_hf": __version__,
            "bundle": _fingerprint(engine.manifest.folder, backend),
            "images": inputs.count,
            "inputs": inputs.fingerprint(),
            "backend": backend,
            "batch_size": batch_size,
            "rows_per_piece": pieces.rows,
            "heatmaps": str(heatmaps) if heatmaps else None,
        }
        if processes.is_main:
            pieces.begin(job, heatmaps, resume=resume)
        processes.wait()
        pieces.require_same(job)
        run = _Run(engine, inputs, pieces, frozenset(pieces.existing()), processes, signals)
        processes.wait()  # no process writes a piece before all have listed them
        started = time.monotonic()
        total = run.compute(heatmaps, batch_size)
        processes.wait()
        if not processes.is_main:
            return None
        errors, decisions = run.merge(total)
        computed = total - sum(pieces.size(number, total) for number in run.kept)
    seconds = time.monotonic() - started
    mark, lacks = engine.manifest.mark, engine.calibration.lacks
    return Summary(out, total, errors, decisions, inputs.skipped, computed, seconds, mark, lacks)


@dataclass(frozen=True)
class _Run:
    """One process's part of a job. kept: the pieces that an earlier run has left."""

    engine: Engine
    inputs: Inputs
    pieces: Pieces
    kept: frozenset[int]
    processes: _Processes
    signals: Signals

    def compute(self, heatmaps: Path | None, batch_size: int) -> int:
        """Write the missing pieces of this process; returns the total number of rows."""
        waiting: deque[tuple[int, str, Content]] = deque()  # taken by the engine and not answered yet
        total = 0

        def contents() -> Iterator[Content]:
            nonlocal total
            for number, item in enumerate(self.inputs):
                total = number + 1
                if self._is_mine(number // self.pieces.rows):
                    content = _content(item)
                    waiting.append((number, item.source, content))
                    yield content

        rows: list[Row] = []
        with self._bar() as bar, Pictures(heatmaps, self.processes.threads) as pictures:
            for found in self.engine.stream(contents(), batch_size):
                number, source, content = waiting.popleft()
                rows.append(to_row(source, found, self.engine.labels))
                pictures.draw(number, source, content, found)
                if len(rows) == self.pieces.rows:
                    self._write(number, rows, pictures)
                    rows = []
                bar.update()
                self._stop_on_signal()
            if rows:  # the last piece, which is shorter
                self._write(number, rows, pictures)
        return total

    def merge(self, total: int) -> tuple[int, Counter[str]]:
        """All pieces -> the table; returns the number of errors, and of each decision."""
        if total == 0:
            self.pieces.remove()
            raise DataError("the inputs hold no rows; nothing was written.")
        decisions: Counter[str] = Counter()

        def rows() -> Iterator[list[Row]]:
            for piece in self.pieces.read_all(total):
                self._stop_on_signal()
                decisions.update(row["decision"] for row in piece)
                yield piece

        out = self.pieces.out
        with atomic_file(out) as temporary:
            WRITERS[out.suffix](temporary, self.engine.labels, rows())
        self.pieces.remove()
        return decisions.pop(None, 0), decisions  # type: ignore[call-overload]  # None: of errors

    def _is_mine(self, piece: int) -> bool:
        return piece % self.processes.count == self.processes.rank and piece not in self.kept

    def _write(self, number: int, rows: list[Row], pictures: Pictures) -> None:
        pictures.finish()  # a finished piece has its pictures
        self.pieces.write(number // self.pieces.rows, rows)

    def _stop_on_signal(self) -> None:
        if self.signals.received:
            if self.processes.is_main:
                text = f"the finished pieces are in {self.pieces.folder}, --resume continues from there."
                print(f"\nstopped by a signal; {text}", file=sys.stderr)
            raise SystemExit(128 + self.signals.received)

    def _bar(self) -> tqdm[Any]:
        total = self.inputs.count
        if total is not None:
            numbers = filter(self._is_mine, range(self.pieces.count(total)))
            total = sum(self.pieces.size(number, total) for number in numbers)
        # None: shown on a terminal only.
        is_hidden = None if self.processes.is_main else True
        return tqdm(total=total, desc="predicting", unit=" images", disable=is_hidden, leave=False)


def _content(item: Item) -> Content:
    try:
        return item.fetch()
    except ImageError as error:  # which the engine returns in its place
        return error


@dataclass(frozen=True)
class _Processes:
    """The processes of a run. threads: cores for each; None for all of the machine's."""

    rank: int = 0
    count: int = 1
    threads: int | None = None
    state: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process begins and ends the job."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all processes; raises XrayHFError if one has ended."""
        if self.state is None:
            return
        try:
            self.state.wait_for_everyone()
        except RuntimeError as error:
            raise XrayHFError("another process has ended; its own message says why.") from error


@contextmanager
def _join() -> Iterator[_Processes]:
    """The processes that `accelerate launch` or torchrun started on this machine, if there are any."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield _Processes()
        return
    if count != int(os.environ.get("LOCAL_WORLD_SIZE", count)):
        raise ConfigError(
            f"this is one of {count} processes on several machines; expected all of them on one. For many "
            "machines use Ray Data or Spark: docs/clusters.md."
        )
    from accelerate import PartialState

    # They only wait for each other, which works on any CPU; for days, if one is much slower.
    state = PartialState(cpu=True, timeout=timedelta(days=7))
    threads = max(1, cores.usable() // count)
    try:
        yield _Processes(state.process_index, state.num_processes, threads, state)
    finally:
        state.destroy_process_group()


def _fingerprint(folder: Path, backend: str) -> str:
    """A hash of the files of a bundle that decide its answers."""
    network = manifest.WEIGHTS if backend == "torch" else manifest.GRAPH
    digest = hashlib.sha256()
    for name in (manifest.CONFIG, manifest.PREPROCESSOR, network, manifest.CALIBRATION):
        with suppress(FileNotFoundError), (folder / name).open("rb") as stream:
            digest.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
