"""The parts of PNG and JPEG files, without decoding them: sizes, depths, and where the file ends."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from xray_hf.errors import ImageError
from xray_hf.reading.kinds import stowaway
from xray_hf.reading.limits import several_pages

APPLE = "is a PNG in Apple's own form; save it again as PNG with another program."
MAX_EXIF = 2**16  # bytes, one JPEG segment; Pillow may keep a copy of all of it per entry

MAX_PARTS = 200_000  # chunks of a PNG, segments of a JPEG: each costs Pillow microseconds
MAX_SCANS = 100  # a progressive JPEG has about 10; each costs a pass over the whole image
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte nor a restart
_RAW_EXIF = b"Raw profile type exif\0"  # how ImageMagick writes EXIF into a text chunk


class Png(NamedTuple):
    """data: the file without chunks that say nothing about the pixels (text, colour profiles, ...), which can
    be long or damaged while the pixels are intact. depth: bits a sample. stated: the bits of a sample that
    hold the picture, as sBIT says (PNG, third edition, 11.3.2.6); None if it does not, or differs among
    channels. exif: the content of its eXIf chunk.
    """

    data: bytes
    depth: int
    stated: int | None
    exif: bytes


class Jpeg(NamedTuple):
    """precision: bits a sample; process: the marker of the frame header, 0xC0 to 0xCF, 0 if there is none.
    width, height, components: as it says. is_whole: whether the end marker is there. exif: of its segment.
    """

    precision: int = 8
    process: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    is_whole: bool = False
    exif: bytes = b""


def png(data: bytes, name: str) -> Png:
    """Read the chunks of a PNG; if the file is truncated, so is `Png.data`.

    Raises ImageError for absurdly many chunks, an animation, or another file after the end.
    """
    kept, place, depth, stated, exif = [data[:8]], 8, 0, None, b""
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, place) if place + 8 <= len(data) else (len(data), b"")
        end = place + 12 + length
        if end > len(data):
            kept.append(data[place:])
            break
        body = data[place + 8 : end - 4]
        if _is_needed(kind, body, data[end - 4 : end]):
            kept.append(data[place:end])
            exif = body if kind == b"eXIf" else exif
        if kind == b"CgBI":
            raise ImageError(f"{name} {APPLE}")
        if kind == b"IHDR" and length == 13:
            depth = body[8]
        if kind == b"sBIT" and _is_right(kind, body, data[end - 4 : end]) and body and len(set(body)) == 1:
            stated = body[0]
        if kind == b"acTL" and body[:4] not in (b"", b"\0\0\0\1"):
            raise several_pages(name)
        place = end
        if kind == b"IEND":
            break
    else:
        raise _too_many(name, "chunks")
    _check_tail(data[place:], name)
    check_exif(exif, name)
    is_whole = sum(map(len, kept)) == len(data)
    return Png(data if is_whole else b"".join(kept), depth, stated, exif)


def _is_needed(kind: bytes, body: bytes, crc: bytes) -> bool:
    if kind[:1].isupper() or not kind:  # critical: a decoder must understand these
        return True
    is_exif = kind == b"eXIf" or (kind in (b"zTXt", b"tEXt") and body.startswith(_RAW_EXIF))
    return (kind == b"tRNS" or is_exif) and _is_right(kind, body, crc)


def _is_right(kind: bytes, body: bytes, crc: bytes) -> bool:
    return zlib.crc32(kind + body) == int.from_bytes(crc, "big")


def jpeg(data: bytes, name: str) -> Jpeg:
    """Read the segments of a JPEG.

    Raises ImageError for more segments, scans or EXIF than any camera writes, or another file after the end.
    """
    place, scans, exif, pixels, end = 2, 0, b"", len(data), None
    frame = Jpeg()
    for _ in range(MAX_PARTS):
        found = _MARKER.match(data, place)
        if found is None:
            end = min(place, pixels)
            break
        kind, start = data[found.end() - 1], found.end()
        if kind == 0xD9:
            frame, end = frame._replace(is_whole=True), start
            break
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers without a length
            place = start
            continue
        place = start + int.from_bytes(data[start : start + 2], "big")
        if is_frame_header(kind) and frame.process == 0 and start + 8 <= len(data):
            precision, height, width, components = struct.unpack_from(">BHHB", data, start + 2)
            frame = Jpeg(precision, kind, width, height, components)
        if kind == 0xE1 and data[start + 2 : start + 6] == b"Exif":
            exif += data[start + 2 : place]
        if kind == 0xDA:
            scans, pixels = scans + 1, min(pixels, place)
            after = _AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
        if scans > MAX_SCANS:
            raise _too_many(name, "scans")
        check_exif(exif, name)
    else:
        raise _too_many(name, "segments")
    _check_tail(data[end:], name)
    return frame._replace(exif=exif)


def is_frame_header(marker: int) -> bool:
    """Whether a JPEG marker begins a frame header, SOF0 to SOF15 (ITU-T T.81, table B.1)."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def check_webp(data: bytes, name: str) -> None:
    """Raise ImageError if another file follows a WebP's end."""
    _check_tail(data[8 + int.from_bytes(data[4:8], "little") :], name)


def check_exif(exif: bytes, name: str) -> None:
    """Raise ImageError for more EXIF than any camera writes."""
    if len(exif) > MAX_EXIF:
        raise _too_many(name, "bytes of EXIF")


def _check_tail(tail: bytes, name: str) -> None:
    if tail and (kind := stowaway(tail)):
        raise ImageError(
            f"{name} carries another file after the image's end ({kind}); open it in an image viewer, "
            "save it again as PNG and use that."
        )


def _too_many(name: str, what: str) -> ImageError:
    return ImageError(
        f"{name} has more {what} than any X-ray; open it in an image viewer and save it as PNG."
    )
