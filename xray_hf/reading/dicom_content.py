"""The content of a DICOM file by its header; anything but a frontal X-ray of the chest is refused.

Errors name what the file is in this module's own words, and quote nothing.
"""

from __future__ import annotations

import re

from xray_hf.errors import ImageError
from xray_hf.reading.dicom_header import Header

RADIOGRAPHY = ("CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC")  # OT, SC: digitised films and screenshots
MODALITIES = {
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "US": "ultrasound",
    "NM": "nuclear medicine",
    "PT": "positron emission tomography",
    "MG": "mammography",
    "SR": "a report",
}
# SOP classes (PS3.6, A) without a picture of their own: how the UID begins, what it is, what to do.
_CLASS = "1.2.840.10008.5.1.4."
NO_PICTURES = (
    ("1.2.840.10008.1.3.10", "a DICOMDIR, the list of a disc's files; choose the file with the X-ray"),
    (f"{_CLASS}1.1.104.", "a document (PDF or other) in DICOM; export the page with the X-ray as PNG"),
    (f"{_CLASS}1.1.88.", "a structured report; choose the file with the X-ray"),
    (f"{_CLASS}1.1.11.", "a presentation state, which says how to show another file; choose that one"),
    (f"{_CLASS}1.1.9.", "a waveform; choose the file with the X-ray"),
)

# Words of views and regions, in capitals: whole words, unless they also occur in compounds.
LATERAL = re.compile(
    r"\b([LR]?LAT|LATL|LATERAL|LATERALE|LATERAUX|LATEROLATERAL|CHESTLAT|LL|SAGITTAL|SIDE VIEW|PROFIL|PERFIL"
    r"|SEITL|SEITLICHE?)\b"
)
NOT_LATERAL = re.compile(r"DECUB|DEKUB|OBLIQUE|\bBILAT")  # lying on the side is a frontal view
FRONTAL = re.compile(r"\b(PA|AP|FRONTAL|POSTERO ?ANTERIOR|ANTERO ?POSTERIOR|FACE)\b")
CHEST = re.compile(
    r"CHEST|THORAX|TORAX|LUNG|PULMO|HEART|CARDIAC|MEDIASTIN|BRONCH|TRACHEA|STERNUM|DIAPHRAGM|\b(RIBS?|CXR)\b"
)
OTHER_REGION = re.compile(
    r"ABDOM|PELVI|SPINE|CERVICAL|LUMBAR|SACR[UO]|COCCYX|SKULL|BRAIN|FACIAL|ORBIT|SINUS|NASAL|MANDIB|MAXILL|DENT|TOOTH"
    r"|TEETH|ZYGOMA|MASTOID|SHOULDER|SCAPULA|CLAVIC|ACROMIO|HUMER|ELBOW|FOREARM|WRIST|FINGER|THUMB|FEMUR|THIGH|KNEE"
    r"|PATELLA|TIBIA|FIBULA|ANKLE|CALCAN|TARSAL|BREAST|KIDNEY|URETER|URETHRA|URINARY|BLADDER|COLON|STOMACH|DUODEN"
    r"|RECTUM|BOWEL|INTESTINE|BILIARY|EXTREMIT|\b(UPPER|LOWER) ?(LIMB|ARM|LEG)"
    r"|\b(ARMS?|LEGS?|[LR]?HANDS?|HIPS?|FOOT|FEET|TOES?|HEADS?|NECK|JAW|EYES?|HEEL|ILIUM|ILEUM|KUB|ABD|BECKEN|[BLH]WS|KNIE|GENOU)\b"
)
DESCRIPTIONS = ("BodyPartExamined", "SeriesDescription", "ProtocolName")  # best first
VIEWS, REGIONS = "CID4010", "CID4009"  # of PS3.16: DX view; DX anatomy imaged

LATERAL_VIEW = "is a lateral view; choose the frontal one (PA or AP)."
OTHER_PART = "shows a part of the body other than the chest, by its header; choose a chest X-ray."
TURNED = (
    "The file says that the picture is mirrored, turned or upside down; it is shown as it is stored, "
    "so turn it upright first."
)
BURNED_IN = "The file says that text is burned into the picture; it may name the patient."


def check_kind(sop_class: str, name: str) -> None:
    """Raise ImageError for DICOM files that are not pictures by the UID of their SOP class; "" is unknown."""
    for start, advice in NO_PICTURES:
        if sop_class.startswith(start):
            raise ImageError(f"{name} is {advice}.")


def check(header: Header, name: str) -> tuple[str, ...]:
    """Raise ImageError if the header says that this is not a frontal X-ray of the chest; return warnings."""
    modality = header.text("Modality")
    if modality and modality not in RADIOGRAPHY:
        kind = MODALITIES.get(modality, "not radiography")
        raise ImageError(
            f"{name} is {kind} by its modality; expected a chest radiograph ({', '.join(RADIOGRAPHY)})."
        )
    directions = [direction[:1] for direction in header.texts("PatientOrientation")]
    is_from_the_side = len(directions) == 2 and bool({"A", "P"} & set(directions)) and not _is_frontal(header)
    if _is_lateral(header) or is_from_the_side:
        raise ImageError(f"{name} {LATERAL_VIEW}")
    if _is_other_region(header):
        raise ImageError(f"{name} {OTHER_PART}")
    is_turned = len(directions) == 2 and set(directions) <= set("LRHF") and directions != ["L", "F"]
    is_burned_in = header.text("BurnedInAnnotation") == "YES"
    return (*((TURNED,) if is_turned else ()), *((BURNED_IN,) if is_burned_in else ()))


def _is_lateral(header: Header) -> bool:
    """Whether the header names a lateral view: by its own attributes, else by a description."""
    position = header.text("ViewPosition")
    if position in ("LL", "RL") or ("LAT" in position and "DEC" not in position):  # LLD, RLD: decubitus
        return True
    if any(map(_says_lateral, _views(header))):
        return True
    if _is_frontal(header):
        return False
    words = (_words(header.text(keyword)) for keyword in DESCRIPTIONS)
    told = next((each for each in words if LATERAL.search(each) or FRONTAL.search(each)), "")
    return _says_lateral(told)


def _is_frontal(header: Header) -> bool:
    """Whether the view's own attributes name a frontal view."""
    return any(map(FRONTAL.search, _views(header)))


def _views(header: Header) -> tuple[str, str]:
    return _words(header.text("ViewPosition")), _meanings(header, "ViewCodeSequence", VIEWS)


def _says_lateral(words: str) -> bool:
    """One view, not "PA and lateral"."""
    return bool(LATERAL.search(words)) and not NOT_LATERAL.search(words) and not FRONTAL.search(words)


def _is_other_region(header: Header) -> bool:
    words = (
        f"{_words(header.text('BodyPartExamined'))} {_meanings(header, 'AnatomicRegionSequence', REGIONS)}"
    )
    return bool(OTHER_REGION.search(words)) and not CHEST.search(words)


def _words(text: str) -> str:
    """In capitals, "P.A." as "PA", every other character as a blank."""
    return re.sub(r"[^A-Z]+", " ", text.upper().replace(".", ""))


def _meanings(header: Header, keyword: str, group: str) -> str:
    """The meanings of codes, in the file's words and the standard's: the file's may be in any language.

    group: the context group of PS3.16 whose codes are known, of SNOMED CT and RT.
    """
    items = header.items(keyword)
    if not items:
        return ""
    from pydicom.sr.codedict import Collection  # here, because few files have codes
    from pydicom.sr.coding import Code

    codes = [Code(item.text("CodeValue"), item.text("CodingSchemeDesignator"), "") for item in items]
    known = [concept.meaning for concept in Collection(group).concepts.values() if concept in codes]
    return _words(" ".join([*(item.text("CodeMeaning") for item in items), *known]))
