"""The kind of a file by its first bytes, and advice for files that are often mistaken for X-rays."""

from __future__ import annotations

import re

KINDS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DICOM")  # what is read
_EXPECTED = f"expected one of {', '.join(KINDS)}"
STARTS = tuple(
    (kind, re.compile(start, re.DOTALL))
    for kind, start in (
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("JPEG", rb"\xff\xd8\xff(?!\xf7)"),
        ("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("BMP", rb"BM.{4}\0{4}"),
        # Without a preamble: the file meta group, or a data set that begins with its identifying group.
        ("DICOM", rb"DICM|\x02\0[\0-\x16]\0|\x08\0[\0-\x18]\0|\0\x08\0[\0-\x18]"),
    )
)
# First bytes of files that are often mistaken for X-rays, what these are and what to do with them.
STRANGERS = tuple(
    (re.compile(start, re.DOTALL), advice)
    for start, advice in (
        (rb"PK[\x03\x05\x07]", "a ZIP archive; unpack it and choose an image in it"),
        (rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|\xfd7zXZ|BZh", "an archive; unpack it and choose an image in it"),
        (rb"\x1f\x8b", "compressed with gzip; unpack it, and export a slice of a NIfTI volume as PNG"),
        (rb".{344}(n\+1|ni1|n\+2|ni2)\0|.{4}(n\+2|ni2)\0", "a NIfTI volume; export the X-ray as PNG"),
        (rb"%PDF", "a PDF; export the page with the X-ray as PNG"),
        (rb"GIF8", "a GIF; save the X-ray as PNG"),
        (rb".{4}ftyp(hei|hev|mif|msf|avi)", "HEIC or AVIF; save the photo as JPEG or PNG"),
        (rb".{4}ftyp", "a video; save one picture of it as PNG"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image without DICOM; save it as PNG"),
        (rb"\xff\xd8\xff\xf7", "a JPEG-LS image without DICOM; save it as PNG"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image; save it as PNG"),
        (
            rb"(\xef\xbb\xbf)?[\t-\r ]*(?i:<\?xml|<svg|<!doctype|<html|<\?php)",
            "a web page or drawing; export a PNG",
        ),
        (rb"MZ|\x7fELF|#!|[\xce\xcf]\xfa\xed\xfe", "a program and will not be opened; choose an image"),
        (
            rb"Salted__|-----BEGIN (PGP|CMS|PKCS7)|age-encryption\.org|[\x84\x85\xc1].{1,2}\x03"
            rb"|\x30.{1,5}\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07",
            "encrypted; decrypt it first",
        ),
    )
)
TWO_KINDS = "is DICOM and, by its first bytes, another kind of file too; export the X-ray as PNG."
# Must not follow an image: another reader would open the file as one of these.
STOWAWAYS = re.compile(
    rb"(?P<ZIP>PK(\x03\x04|\x05\x06|\x01\x02))|(?P<PDF>%PDF-)|(?P<RAR>Rar!\x1a\x07)|(?P<a7z>7z\xbc\xaf\x27\x1c)"
    rb"|(?P<script>(?i:<\?php|<script|<html|<!doctype|<svg)|^[\0\t-\r ]*#!)"
    rb"|(?P<program>\x7fELF|This program cannot be run|^\0*MZ)"
)


def kind_of(data: bytes) -> str | None:
    """The one of KINDS whose signature a file begins with; None if there is none."""
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((kind for kind, start in STARTS if start.match(data)), None)


def is_also_another_kind(data: bytes) -> bool:
    """Whether a DICOM file's preamble begins as something else.

    Not TIFF: the standard (PS3.10, 7.1) lets the preamble hold one's header, and common writers do that.
    """
    start = data[:128]
    is_image = kind_of(start) not in (None, "TIFF", "DICOM")
    return data[128:132] == b"DICM" and (is_image or any(each.match(start) for each, _ in STRANGERS))


def why_not_read(data: bytes, name: str) -> str:
    """A sentence about a file that is none of KINDS, with what to do next."""
    for pattern, advice in STRANGERS:
        if pattern.match(data[:512]):
            return f"{name} is not a readable image ({_EXPECTED}): it is {advice}."
    return f"{name} is not a readable image; {_EXPECTED}. Export the X-ray as PNG."


def stowaway(tail: bytes) -> str | None:
    """The kind of file that another reader would find after an image's end; None if there is none."""
    found = STOWAWAYS.search(tail)
    if found is None:
        return None
    return "7z" if found.lastgroup == "a7z" else found.lastgroup
