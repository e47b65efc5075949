"""The Xet storage of the Hub of the tests, as far as the unmodified hf_xet needs it.

A file is a row of terms, a term some chunks of a xorb, and a xorb chunks of up to 64 MiB, each packed alone.
The docstrings name pages of the specification at huggingface.co/docs/xet, or functions of hf_xet that an
answer is made for (in xet_client/src/cas_client of huggingface/xet-core). Hashes are believed as they are
told: a file counts by its SHA-256 alone, in Store.lfs_blob.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from struct import unpack_from
from typing import TYPE_CHECKING, NamedTuple

import pyarrow
from hub_store import UnknownError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from hub_endpoints import Call

HEADER = 8  # bytes of a chunk's
ROW = 48  # bytes of a shard's header, and of each entry after it
BOOKEND = b"\xff" * 32
WITH_VERIFICATION = 1 << 31


# What the client packs


class Chunk(NamedTuple):
    """Where a chunk lies in its xorb, its header before it, how it is packed, and its bytes unpacked."""

    start: int
    end: int
    packing: int
    size: int

    def unpacked(self, xorb: bytes) -> bytes:
        """Chunk Compression Schemes (xorb.md): none, LZ4's frames, or these over bytes grouped by fours."""
        packed = xorb[self.start : self.end]
        if self.packing == 0:
            return packed
        plain: bytes = pyarrow.decompress(packed, self.size, codec="lz4", asbytes=True)
        if self.packing == 1:
            return plain
        ungrouped, start = bytearray(self.size), 0
        for place in range(4):
            end = start + len(range(place, self.size, 4))
            ungrouped[place::4] = plain[start:end]
            start = end
        return bytes(ungrouped)


def chunks(xorb: bytes) -> Iterator[Chunk]:
    """Chunk Format (xorb.md). All versions are 0 as yet, and what follows the last chunk begins otherwise."""
    start = 0
    while start < len(xorb) and xorb[start] == 0:
        packed, size = (int.from_bytes(xorb[start + at : start + at + 3], "little") for at in (1, 5))
        chunk = Chunk(start + HEADER, start + HEADER + packed, xorb[start + 4], size)
        yield chunk
        start = chunk.end


class Term(NamedTuple):
    """A piece of a file: chunks start to end of a xorb, with so many bytes unpacked."""

    xorb: str
    size: int
    start: int
    end: int

    def chunks(self, cdn: Mapping[str, bytes]) -> list[Chunk]:
        return list(islice(chunks(cdn[f"xorbs/{self.xorb}"]), self.start, self.end))


class XetFile(NamedTuple):
    """What a file is made of, and its name in Xet storage."""

    hash: str
    terms: list[Term]

    def content(self, cdn: Mapping[str, bytes]) -> bytes:
        pieces = [(chunk, term) for term in self.terms for chunk in term.chunks(cdn)]
        return b"".join(chunk.unpacked(cdn[f"xorbs/{term.xorb}"]) for chunk, term in pieces)


def files(shard: bytes) -> Iterator[tuple[str, XetFile]]:
    """File Info Section (shard.md): each file, and its SHA-256, which every file of a repository has."""
    rows = (shard[at : at + ROW] for at in range(ROW, len(shard), ROW))
    for head in rows:
        if head.startswith(BOOKEND):
            return
        flags, count = unpack_from("<2I", head, 32)
        terms = [Term(_hex(row), *unpack_from("<3I", row, 36)) for row in islice(rows, count)]
        if flags & WITH_VERIFICATION:
            list(islice(rows, count))
        yield _hex(next(rows)), XetFile(_hex(head), terms)


def _hex(row: bytes) -> str:
    """Converting Hashes to Strings (api.md)."""
    return "".join(f"{number:016x}" for number in unpack_from("<4Q", row))


# What is answered


def answer(call: Call) -> object:
    """As hub_endpoints.answer."""
    scope = "read" if call.method == "GET" or call.path[-1] == "telemetry" else "write"
    if call.hub.xet_tokens.get(call.token()) not in (scope, "write"):  # Token Scope (auth.md)
        raise HTTPException(401, "refresh the token")
    cdn, key = call.hub.cdn, f"xorbs/{call.path[-1]}"
    match call.method, call.path:
        # RemoteClient::upload_xorb (remote_client.rs): where to put a xorb that is new; then it is put there.
        case "POST", ["v1", "xorb-grants", "default", _]:
            grant = {"id": "any", "method": "PUT", "url": f"{call.hub.cdn_url}/cdn/{key}", "headers": {}}
            return JSONResponse(grant, 201)
        case "POST", ["v1", "xorb-commits", "default", hash_, "grant", "any"]:
            return {"was_inserted": f"xorbs/{hash_}" in cdn}
        case "POST", ["v1", "xorbs", "default", _]:  # Upload Xorb (api.md), if a grant was answered by 404
            cdn[key] = call.body
            return {"was_inserted": True}
        case "POST", ["v2", "shards"]:  # Upload Shard V2 (api.md): its files are in the LFS storage now
            for sha256, file in files(call.body):
                cdn[f"lfs/{sha256}"], call.hub.xet[sha256] = file.content(cdn), file
            return Response('{"type": "result"}', media_type="application/x-ndjson")
        case "GET", ["v2", "reconstructions", hash_]:
            return _reconstruction(call, hash_)
        case "POST", ["v1", "telemetry"]:  # TransferTelemetry (telemetry/mod.rs)
            return Response(status_code=204)
    raise UnknownError(404)


def _reconstruction(call: Call, hash_: str) -> object:
    """Get File Reconstruction V2 (api.md): the chunks that a range of a file is made of."""
    [file] = [file for file in call.hub.xet.values() if file.hash == hash_]
    first, last = map(int, re.findall(r"\d+", call.headers["range"]))
    place, skipped = 0, 0
    terms: list[object] = []
    fetches: dict[str, list[object]] = {}
    for term in file.terms:
        if place <= last and place + term.size > first:
            skipped = skipped if terms else first - place
            span = {"start": term.start, "end": term.end}
            terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": span})
            lie = term.chunks(call.hub.cdn)
            ranges = [{"chunks": span, "bytes": {"start": lie[0].start - HEADER, "end": lie[-1].end - 1}}]
            url = f"{call.hub.cdn_url}/cdn/xorbs/{term.xorb}"
            fetches.setdefault(term.xorb, []).append({"url": url, "ranges": ranges})
        place += term.size
    return {"offset_into_first_range": skipped, "terms": terms, "xorbs": fetches}
