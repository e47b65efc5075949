"""Ray Data: a data set of X-rays -> the rows of `xray-hf predict`. docs/clusters.md has a program.

Ray replaces a worker that dies and repeats its unfinished calls.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from xray_hf import manifest
from xray_hf.inference import Engine, backends, tables

ROWS = 64  # in one call of a worker


class Worker:
    """A Ray actor, which loads the bundle once and uses the cores that Ray has reserved for it."""

    def __init__(self, bundle: str, content: str | None, backend: str) -> None:
        reserved = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        self._engine = Engine.from_pretrained(bundle, backend=backend, threads=max(1, int(reserved)))
        self._content = content

    def __call__(self, images: pa.Table) -> pa.Table:
        return tables.classify(self._engine, images, self._content)


def predict(
    images: Dataset,
    bundle: str,
    *,
    content: str | None = None,
    backend: str = backends.DEFAULT,
    **options: Any,
) -> Dataset:
    """Classify images lazily, when their rows are needed; an unreadable image is a row with its error.

    images: `path` names each image. bundle: a folder that driver and workers see, or "owner/name@revision" on
    the Hub. content: the column of the files' bytes; None: the workers open `path`. options: of
    `map_batches`; a worker has one core, unless `num_cpus` says more.
    Raises BundleError if there is no such bundle.
    """
    manifest.read(manifest.locate(bundle))
    needed = images.select_columns(["path", content] if content else ["path"])
    return needed.map_batches(
        Worker,
        fn_constructor_args=(bundle, content, backend),
        batch_format="pyarrow",
        batch_size=ROWS,
        **options,
    )
