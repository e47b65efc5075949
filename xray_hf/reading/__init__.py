"""Bytes of any kind -> one checked grey image."""

from xray_hf.reading.grey import Reading, resize
from xray_hf.reading.kinds import KINDS
from xray_hf.reading.limits import MAX_BYTES, MAX_PIXELS, MIN_SIDE
from xray_hf.reading.reader import READER_VERSION, from_array, from_image, read, read_grey

__all__ = [
    "KINDS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "READER_VERSION",
    "Reading",
    "from_array",
    "from_image",
    "read",
    "read_grey",
    "resize",
]
