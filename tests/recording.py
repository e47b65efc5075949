"""A plug-in of pytest that keeps the bytes that tests read, in the folder $XRAY_HF_RECORD: `-p recording`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from xray_hf import reading

_read = reading.read


def read(source: Path | str | bytes) -> reading.Reading:
    if isinstance(source, bytes):
        name = hashlib.sha256(source).hexdigest()[:16]
        (Path(os.environ["XRAY_HF_RECORD"]) / name).write_bytes(source)
    return _read(source)


reading.read = read
