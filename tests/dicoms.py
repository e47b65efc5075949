"""DICOM files made in memory, in every encoding the reader knows, with a patient's name planted in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

SECRET = "Zebedee^Quixote"  # the patient's name and number: to appear nowhere
HEIGHT, WIDTH = 48, 64


def values(bits: int = 12, signed: bool = False) -> np.ndarray:
    """(H, W) uint8, uint16 or int16: a smooth slope over the whole range of that many bits."""
    share = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    offset = 2 ** (bits - 1) if signed else 0
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return (np.rint(share * (2**bits - 1)) - offset).astype(kind)


def dataset(pixels: np.ndarray, bits: int, **tags: Any) -> Dataset:
    """A chest X-ray with those stored values; `tags` are added, or removed where None."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.PatientName = made.PatientID = made.StudyDescription = made.InstitutionName = SECRET
    made.Modality, made.ViewPosition = "CR", "PA"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    if pixels.ndim == 3:
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in tags.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def written(made: Dataset, syntax: str, pixels: bytes) -> bytes:
    """The file's bytes; `pixels` is native, or encapsulated if the syntax is compressed."""
    made.file_meta.TransferSyntaxUID = uid.UID(syntax)
    made.PixelData = pixels
    made["PixelData"].VR = "OB" if uid.UID(syntax).is_encapsulated or made.BitsAllocated == 8 else "OW"
    made["PixelData"].is_undefined_length = uid.UID(syntax).is_encapsulated
    stream = io.BytesIO()
    dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


def fragments(data: bytes) -> list[bytes]:
    """A frame cut in three, of even lengths."""
    third = len(data) // 6 * 2
    parts = [data[:third], data[third : 2 * third], data[2 * third :]]
    return [part + b"\0" * (len(part) % 2) for part in parts]


def native(
    pixels: np.ndarray | None = None,
    bits: int = 12,
    syntax: str = uid.ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """An uncompressed file."""
    pixels = values(bits) if pixels is None else pixels
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    raw = pixels.astype(order + pixels.dtype.str[1:]).tobytes()
    return written(dataset(pixels, bits, **tags), syntax, raw + b"\0" * (len(raw) % 2))


def compressed(
    syntax: str, frame: Callable[[np.ndarray], bytes], pixels: np.ndarray, bits: int, **tags: Any
) -> bytes:
    """A file with one compressed frame."""
    return written(dataset(pixels, bits, **tags), syntax, encapsulate([frame(pixels)]))


def rle(pixels: np.ndarray) -> bytes:
    """One frame of RLE by pydicom."""
    made = dataset(pixels, pixels.dtype.itemsize * 8)
    written(made, uid.ExplicitVRLittleEndian, pixels.tobytes())
    made.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return bytes(get_frame(made.PixelData, 0, number_of_frames=1))


def pillow(kind: str, **options: Any) -> Callable[[np.ndarray], bytes]:
    """An encoder of one frame by Pillow."""

    def frame(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        return stream.getvalue()

    return frame


def jpeg(**options: Any) -> Callable[[np.ndarray], bytes]:
    """An encoder of one frame of JPEG with 8 to 16 bits, lossy or lossless, by libjpeg-turbo."""
    return lambda pixels: bytes(imagecodecs.jpeg8_encode(pixels, **options))


def jpeg_ls(level: int = 0) -> Callable[[np.ndarray], bytes]:
    """An encoder of one frame of JPEG-LS; level: the largest error of a pixel."""
    return lambda pixels: bytes(imagecodecs.jpegls_encode(pixels, level=level))


def j2k(reversible: bool = True) -> Callable[[np.ndarray], bytes]:
    """An encoder of one frame of JPEG 2000."""
    return lambda pixels: bytes(
        imagecodecs.jpeg2k_encode(
            pixels, level=None if reversible else 60, reversible=reversible, codecformat="J2K"
        )
    )


# name: syntax, encoder of a frame, bits, largest error of a stored value
COMPRESSED: dict[str, tuple[str, Callable[[np.ndarray], bytes], int, int]] = {
    "rle8": (uid.RLELossless, rle, 8, 0),
    "rle12": (uid.RLELossless, rle, 12, 0),
    "jpeg8": (uid.JPEGBaseline8Bit, pillow("JPEG", quality=98), 8, 3),
    "extended8": (uid.JPEGExtended12Bit, pillow("JPEG", quality=98), 8, 3),
    "extended12": (uid.JPEGExtended12Bit, jpeg(bitspersample=12, level=98), 12, 12),
    "lossless8": (uid.JPEGLosslessSV1, jpeg(lossless=True, predictor=1), 8, 0),
    "lossless12": (uid.JPEGLossless, jpeg(lossless=True, predictor=6, bitspersample=12), 12, 0),
    "lossless16": (uid.JPEGLosslessSV1, jpeg(lossless=True, predictor=1, bitspersample=16), 16, 0),
    "jpegls8": (uid.JPEGLSLossless, jpeg_ls(), 8, 0),
    "jpegls12": (uid.JPEGLSNearLossless, jpeg_ls(2), 12, 2),
    "jpegls16": (uid.JPEGLSLossless, jpeg_ls(), 16, 0),
    "j2k8": (uid.JPEG2000Lossless, j2k(), 8, 0),
    "j2k12": (uid.JPEG2000Lossless, j2k(), 12, 0),
    "j2k16": (uid.JPEG2000, j2k(reversible=False), 16, 400),
}


def example(kind: str, **tags: Any) -> bytes:
    """One of COMPRESSED, filled with `values`."""
    syntax, frame, bits, _ = COMPRESSED[kind]
    return compressed(syntax, frame, values(bits), bits, **tags)


def bare(data: bytes) -> bytes:
    """A file without preamble and file meta information."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


def table(
    first: int, entries: np.ndarray, bits: int, count: int | None = None, packed: bool = False
) -> Sequence:
    """A modality or VOI lookup table.

    count: how many entries it announces, instead of those it has. packed: two entries of 8 bits in a word.
    """
    item = Dataset()
    announced = (len(entries) if count is None else count) % 2**16
    item.add_new("LUTDescriptor", "US", [announced, first % 2**16, bits])
    raw = entries.astype("u1" if packed else "<u2").tobytes()
    item.add_new("LUTData", "OW", raw + b"\0" * (len(raw) % 2))
    item.LUTExplanation = SECRET
    return Sequence([item])


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """A coded entry."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])
