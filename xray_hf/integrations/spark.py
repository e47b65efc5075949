"""Spark: a data frame of X-rays -> the rows of `xray-hf predict`. docs/clusters.md has a program.

Spark repeats the task of a worker that dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from uuid import uuid4

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema

from xray_hf import manifest
from xray_hf.inference import Engine, backends, tables


def predict(
    images: DataFrame, bundle: str, *, content: str | None = None, backend: str = backends.DEFAULT
) -> DataFrame:
    """Classify images lazily, when their rows are needed; an unreadable image is a row with its error.

    images: `path` names each image. bundle: a folder that driver and workers see, or "owner/name@revision" on
    the Hub. content: the column of the files' bytes; None: the workers open `path`.
    A task uses the cores of `spark.task.cpus`, one by default.
    Raises BundleError if there is no such bundle.
    """
    schema = tables.schema(manifest.read(manifest.locate(bundle)).labels)
    job = uuid4().hex

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        engine = _engine(job, bundle, backend)
        for batch in batches:
            yield from tables.classify(engine, batch, content).to_batches()

    needed = images.select("path", content) if content else images.select("path")
    return needed.mapInArrow(rows, from_arrow_schema(schema))


@lru_cache(maxsize=1)
def _engine(job: str, bundle: str, backend: str) -> Engine:
    """The engine of this Python process, for all of a job's tasks that run in it one after another.

    job: a later job may find other files in the bundle.
    """
    return Engine.from_pretrained(bundle, backend=backend, threads=TaskContext.get().cpus())
