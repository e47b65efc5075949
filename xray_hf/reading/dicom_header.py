"""The header of a DICOM file: the elements that describe the pixels, and where these are.

pydicom finds the elements. Their values are read here from the bytes, because pydicom's own conversion
depends on the settings of the process and on the file's character set. No other element is kept.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

from pydicom import uid
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_dataset, read_sequence
from pydicom.tag import Tag

PIXEL_DATA = 0x7FE00010
FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data

WANTED = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "Modality", "BurnedInAnnotation"),
        *("ViewPosition", "ViewCodeSequence", "SeriesDescription", "ProtocolName", "PatientOrientation"),
        *("BodyPartExamined", "AnatomicRegionSequence"),
        *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
        *("Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit"),
        *("ModalityLUTSequence", "RescaleIntercept", "RescaleSlope"),
        *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    )
]
_SEQUENCES = [tag for tag in WANTED if dictionary_VR(tag) == "SQ"]
_META = [Tag("MediaStorageSOPClassUID"), Tag("TransferSyntaxUID")]
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}  # as struct calls them

MAX_READS = 50_000  # of the header: pydicom keeps up to 2 kB for every element and item it meets
_MAX_HEADER = 32 * 2**20  # bytes; nine tables of 65,536 entries have 1.2 million
MAX_VALUE = 1024  # bytes of a value that is not a sequence


class Header:
    """Elements by keyword; a missing and an empty one are the same."""

    def __init__(self, elements: Iterable[DataElement | RawDataElement], little: bool) -> None:
        """little: whether numbers are little-endian."""
        self._elements = {element.tag: element for element in elements}
        self.order = "<" if little else ">"

    def raw(self, keyword: str) -> bytes:
        """The value's bytes; empty for none, or a sequence."""
        element = self._elements.get(Tag(keyword))
        return (element.value if isinstance(element, RawDataElement) else None) or b""

    def texts(self, keyword: str) -> list[str]:
        """The values as text in capitals, without the blanks around them."""
        return [part.strip(" \0").upper() for part in self.raw(keyword).decode("latin-1").split("\\")]

    def text(self, keyword: str) -> str:
        """The first value as text in capitals; "" for none."""
        return self.texts(keyword)[0]

    def numbers(self, keyword: str) -> list[float]:
        """The values as numbers. Raises ValueError or struct.error if they are not."""
        raw = self.raw(keyword)
        if not raw:
            return []
        vr = self._elements[Tag(keyword)].VR
        code = _NUMBERS.get(dictionary_VR(keyword) if vr in (None, "UN") else vr)
        if code is None:
            return [float(part) for part in self.texts(keyword) if part]
        return list(struct.unpack(f"{self.order}{len(raw) // struct.calcsize(code)}{code}", raw))

    def whole(self, keyword: str, default: int | None = None) -> int:
        """The first value as an integer. Raises ValueError if not whole, or if missing without a default."""
        numbers = self.numbers(keyword)
        if not numbers and default is not None:
            return default
        if not numbers or not float(numbers[0]).is_integer():
            raise ValueError("no whole number")
        return int(numbers[0])

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence."""
        element = self._elements.get(Tag(keyword))
        if element is None or not element.value:
            return []
        little, items = self.order == "<", element.value
        if isinstance(element, RawDataElement):  # of known length: not yet taken apart
            stream = Bounded(items, _MAX_HEADER)
            items = read_sequence(stream, element.is_implicit_VR, little, len(items), default_encoding)
        return [Header(item.elements(), little) for item in items]


class File(NamedTuple):
    """A file's description of itself, and the place of its pixels."""

    syntax: uid.UID  # the transfer syntax, guessed where the file states none
    is_stated: bool  # whether it states one
    header: Header
    tag: int  # where the header ends: PIXEL_DATA, one of FLOAT_PIXELS, a later one, or 0
    vr: str  # "OW" or "OB"; with big endian, bytes lie in another order in words
    place: int  # of the first byte of the pixels
    length: int  # of the pixels, or UNDEFINED


def open_meta(data: bytes) -> tuple[io.BytesIO, Header]:
    """The file meta information (PS3.10, 7.1), and the file behind it. Preamble and meta may be missing."""
    stream = Bounded(data, _MAX_HEADER)
    stream.seek(132 if data[128:132] == b"DICM" else 4 if data[:4] == b"DICM" else 0)
    meta = read_dataset(
        stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2, specific_tags=_META
    )
    return stream, Header(meta.elements(), little=True)


def read_header(stream: io.BytesIO, stated: uid.UID) -> File:
    """The elements up to the pixels.

    stated: the transfer syntax, "" where the file states none.
    Raises ValueError for a value longer than any that is wanted; whatever pydicom raises for damage.
    """
    start = stream.read(6)
    stream.seek(-len(start), io.SEEK_CUR)
    # By the bytes: files state explicit VR but are implicit, or the reverse. (pydicom's own check warns.)
    is_implicit = re.fullmatch(rb"[A-Z]{2}", start[4:]) is None
    is_little = stated != uid.ExplicitVRBigEndian if stated else start[:1] != b"\0"
    native = uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian
    guessed = uid.ImplicitVRLittleEndian if is_implicit else native
    pixels = (0, "OW", 0, 0)

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        nonlocal pixels
        if tag >= FLOAT_PIXELS[0]:
            pixels = (int(tag), vr or "OW", stream.tell(), length)
        return tag >= FLOAT_PIXELS[0]

    header = read_dataset(stream, is_implicit, is_little, stop_when=at_pixels, specific_tags=WANTED)
    for element in header.elements():
        is_short = len(element.value or b"") <= MAX_VALUE
        if isinstance(element, RawDataElement) and element.tag not in _SEQUENCES and not is_short:
            raise ValueError("a value that is too long")
    return File(stated or guessed, bool(stated), Header(header.elements(), is_little), *pixels)


class Bounded(io.BytesIO):
    """A file that refuses to be read in too many pieces or at too great a length."""

    def __init__(self, data: bytes, limit: int) -> None:
        """limit: bytes that may be read in all."""
        super().__init__(data)
        self.pieces, self.left = MAX_READS, limit

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.pieces, self.left = self.pieces - 1, self.left - len(part)
        if self.pieces < 0 or self.left < 0:
            raise OSError("too many or too long elements")
        return part
