"""Limits, patterns, words and sentences of this reader for its counterpart in the browser, web/reading/."""

from __future__ import annotations

import re
from typing import Any

from pydicom import uid
from pydicom.datadict import keyword_for_tag
from pydicom.sr.codedict import Collection
from pydicom.sr.coding import snomed_mapping

from xray_hf.reading import (
    containers,
    dicom,
    dicom_content,
    dicom_display,
    dicom_header,
    dicom_pixels,
    kinds,
    levels,
    limits,
)


def tables() -> dict[str, Any]:
    """All of them, ready for JSON.

    Patterns are sources of JavaScript's regular expressions with the flag s;
    those for bytes expect a text with one character a byte.
    """
    return {
        "kinds": [[kind, _javascript(start)] for kind, start in kinds.STARTS],
        "strangers": [[_javascript(start), advice] for start, advice in kinds.STRANGERS],
        "stowaways": _javascript(kinds.STOWAWAYS),
        "limits": {
            "bytes": limits.MAX_BYTES,
            "side": limits.MIN_SIDE,
            "pixels": limits.MAX_PIXELS,
            "aspect": limits.MAX_ASPECT,
            "exif": containers.MAX_EXIF,
            "parts": containers.MAX_PARTS,
            "scans": containers.MAX_SCANS,
        },
        "levels": {
            "bits": levels.BITS,
            "beyond": levels.BEYOND,
            "gap": levels.GAP,
            "narrow": levels.NARROW,
        },
        "refusals": {
            "several": limits.SEVERAL,
            "apple": containers.APPLE,
            "twoKinds": kinds.TWO_KINDS,
            "floats": dicom.FLOATS,
            "noPicture": dicom.NO_PICTURE,
            "noSyntax": dicom.NO_SYNTAX,
            "noPhotometric": dicom.NO_PHOTOMETRIC,
            "palette": dicom.PALETTE,
            "lateral": dicom_content.LATERAL_VIEW,
            "otherPart": dicom_content.OTHER_PART,
            "noRescale": dicom_display.NO_RESCALE,
        },
        "header": {
            "tags": {keyword_for_tag(tag): f"x{tag:08x}" for tag in _tags()},
            "reads": dicom_header.MAX_READS,
            "longest": dicom_header.MAX_VALUE,
        },
        "content": {
            "radiography": dicom_content.RADIOGRAPHY,
            "modalities": dicom_content.MODALITIES,
            "noPictures": dicom_content.NO_PICTURES,
            "lateral": dicom_content.LATERAL.pattern,
            "notLateral": dicom_content.NOT_LATERAL.pattern,
            "frontal": dicom_content.FRONTAL.pattern,
            "chest": dicom_content.CHEST.pattern,
            "otherRegion": dicom_content.OTHER_REGION.pattern,
            "descriptions": dicom_content.DESCRIPTIONS,
            "views": _meanings(dicom_content.VIEWS),
            "regions": _meanings(dicom_content.REGIONS),
            "turned": dicom_content.TURNED,
            "burnedIn": dicom_content.BURNED_IN,
        },
        "pixels": {
            "syntaxes": _syntaxes(),
            "supported": dicom_pixels.SYNTAXES,
            "native": dicom_pixels.NATIVE,
            "jpeg2000": dicom_pixels.JPEG_2000,
            "jpeg": dicom_pixels.FRAMES_ARE_JPEG,
            "exact": dicom_pixels.EXACT,
            "losslessNumbers": dicom_pixels.LOSSLESS_NUMBERS,
            "spacings": dicom.SPACINGS,
            "square": dicom.SQUARE,
            "longest": dicom.LONGEST,
            "spacing": dicom.SPACING,
        },
        "display": {
            "tried": dicom_display.MAX_TRIED,
            "noSlope": dicom_display.NO_SLOPE,
            "nextWindow": dicom_display.NEXT_WINDOW,
            "noWindow": dicom_display.NO_WINDOW,
            "shape": dicom_display.SHAPE,
        },
    }


def _javascript(pattern: re.Pattern[bytes]) -> str:
    """The same pattern as JavaScript writes it.

    No browser of before 2025 knows `(?i:…)`, so each of its letters stands there in both cases.
    """
    source = re.sub(r"(?<=\(\?)i(:[^)]*)", _in_both_cases, pattern.pattern.decode("latin-1"))
    return source.replace("(?P<", "(?<")


def _in_both_cases(found: re.Match[str]) -> str:
    return re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", found[1])


def _tags() -> list[int]:
    inside = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning", "LUTDescriptor", "LUTData")
    meta = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
    return [*dicom_header.WANTED, *map(dicom_header.Tag, (*inside, *meta))]


def _syntaxes() -> dict[str, str]:
    """The names of all transfer syntaxes by their UIDs."""
    known = map(uid.UID, uid.UID_dictionary)
    return {str(each): each.name for each in known if each.is_transfer_syntax}


def _meanings(group: str) -> dict[str, dict[str, str]]:
    """The meanings of a context group of PS3.16, by scheme (SNOMED CT; RT, its forerunner) and code."""
    meanings = {concept.value: concept.meaning for concept in Collection(group).concepts.values()}
    newer = snomed_mapping["SRT"]
    return {
        "SCT": meanings,
        "SRT": {code: meanings[newer[code]] for code in newer if newer[code] in meanings},
    }
