"""The Xet storage of the Hub of the tests, as far as the unmodified hf_xet needs it.

A file is a row of terms, a term some chunks of a xorb, and a xorb chunks of up to 64 MiB, each packed alone.
The docstrings name pages of the specification at huggingface.co/docs/xet, or functions of hf_xet that an
answer is made for (in xet_client/src/cas_client of huggingface/xet-core). Hashes are believed as they are
told: a file counts by its SHA-256 alone, in Repo.lfs_blob.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from itertools import islice
from struct import unpack_from
from typing import NamedTuple

import pyarrow
from hub_store import HubError, Repo, Store, Term, XetFile, XorbGrant
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

HEADER = 8  # bytes of a chunk's
ROW = 48  # bytes of a shard's header, and of each entry after it
BOOKEND = b"\xff" * 32
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30


# What the client packs


class Chunk(NamedTuple):
    """Where a chunk lies in its xorb, header included, how it is packed, and its bytes unpacked."""

    start: int
    end: int
    packing: int
    size: int


def chunks(xorb: bytes) -> Iterator[Chunk]:
    """Chunk Format (xorb.md). All versions are 0 as yet, and what follows the last chunk begins otherwise."""
    start = 0
    while start < len(xorb) and xorb[start] == 0:
        packed, size = (int.from_bytes(xorb[start + at : start + at + 3], "little") for at in (1, 5))
        chunk = Chunk(start, start + HEADER + packed, xorb[start + 4], size)
        yield chunk
        start = chunk.end


def unpacked(xorb: bytes, chunk: Chunk) -> bytes:
    """Chunk Compression Schemes (xorb.md): none, LZ4's frames, or these over bytes grouped by fours."""
    packed = xorb[chunk.start + HEADER : chunk.end]
    if chunk.packing == 0:
        return packed
    content: bytes = pyarrow.decompress(packed, chunk.size, codec="lz4", asbytes=True)
    if chunk.packing == 1:
        return content
    ungrouped, start = bytearray(chunk.size), 0
    for place in range(4):
        end = start + len(range(place, chunk.size, 4))
        ungrouped[place::4] = content[start:end]
        start = end
    return bytes(ungrouped)


def files(shard: bytes) -> Iterator[tuple[str, XetFile]]:
    """File Info Section (shard.md): each file, and its SHA-256."""
    rows = (shard[at : at + ROW] for at in range(ROW, len(shard), ROW))
    for head in rows:
        if head.startswith(BOOKEND):
            return
        flags, count = unpack_from("<2I", head, 32)
        terms = [Term(_hex(row), *unpack_from("<3I", row, 36)) for row in islice(rows, count)]
        if flags & WITH_VERIFICATION:
            list(islice(rows, count))
        if not flags & WITH_METADATA:
            raise HubError(400, "a file of a repository needs its SHA-256")
        yield _hex(next(rows)), XetFile(_hex(head), terms)


def _hex(row: bytes) -> str:
    """Converting Hashes to Strings (api.md)."""
    return "".join(f"{number:016x}" for number in unpack_from("<4Q", row))


# Uploading


async def grant_xorb(request: Request) -> Response:
    """RemoteClient::upload_xorb (remote_client.rs), its first step: where to put a xorb that is new."""
    store, hash_ = _store(request), request.path_params["hash"]
    _repo(request, write=True)
    if hash_ in store.xorbs:
        return JSONResponse({})
    id_ = secrets.token_hex(8)
    store.xorb_grants[id_] = XorbGrant((await request.json())["length"])
    url = f"{store.cdn_url}/cdn/xorb-uploads/{id_}"
    return JSONResponse({"id": id_, "method": "PUT", "url": url, "headers": {}}, 201)


async def put_xorb(request: Request) -> Response:
    """Its second step, at another host, which sees no token; a xorb counts when it has come whole."""
    grant, xorb = _store(request).xorb_grants[request.path_params["id"]], await request.body()
    if "authorization" in request.headers or len(xorb) != grant.size:
        raise HubError(400, "not what was granted")
    grant.xorb = xorb
    return Response()


async def commit_xorb(request: Request) -> Response:
    """Its last step; 404 has the client ask for another grant."""
    store = _store(request)
    _repo(request, write=True)
    grant = store.xorb_grants.get(request.path_params["id"])
    if not grant or not grant.xorb:
        raise HubError(404, "no data was uploaded for the grant")
    store.xorbs[request.path_params["hash"]] = grant.xorb
    return JSONResponse({"was_inserted": True})


async def upload_xorb(request: Request) -> Response:
    """Upload Xorb (api.md), all in one step, where a server answers 404 for grants."""
    _repo(request, write=True)
    _store(request).xorbs[request.path_params["hash"]] = await request.body()
    return JSONResponse({"was_inserted": True})


async def upload_shard(request: Request) -> Response:
    """Upload Shard V2 (api.md): its files are in the repository's LFS storage from now on.

    They are put together from their chunks; Repo.lfs_blob then sees whether that gave what was claimed.
    """
    store, repo = _store(request), _repo(request, write=True)
    for sha256, file in files(await request.body()):
        if missing := {term.xorb for term in file.terms} - store.xorbs.keys():
            raise HubError(400, f"xorbs are missing: {', '.join(sorted(missing))}")
        content = b"".join(
            unpacked(store.xorbs[term.xorb], chunk)
            for term in file.terms
            for chunk in islice(chunks(store.xorbs[term.xorb]), term.start, term.end)
        )
        repo.objects[sha256] = content
        repo.xet[sha256] = file
    return Response(json.dumps({"type": "result"}), media_type="application/x-ndjson")


async def query_chunk(request: Request) -> Response:
    """Query Chunk Deduplication (api.md): nothing here is told of others' chunks."""
    _repo(request)
    raise HubError(404, "not tracked")


# Downloading


async def reconstruction(request: Request) -> Response:
    """Get File Reconstruction V2 (api.md): the chunks that a range of a file is made of."""
    store, repo, hash_ = _store(request), _repo(request), request.path_params["hash"]
    file = next((one for one in repo.xet.values() if one.hash == hash_), None)
    if not file:
        raise HubError(404, "the file does not exist")
    first, last = map(int, re.findall(r"\d+", request.headers["range"]))
    place, skipped = 0, 0
    terms, xorbs = [], {}
    for term in file.terms:
        if place <= last and place + term.size > first:
            skipped = skipped if terms else first - place
            span = {"start": term.start, "end": term.end}
            terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": span})
            lie = list(islice(chunks(store.xorbs[term.xorb]), term.start, term.end))
            ranges = [{"chunks": span, "bytes": {"start": lie[0].start, "end": lie[-1].end - 1}}]
            fetch = {"url": f"{store.cdn_url}/cdn/xorbs/{term.xorb}", "ranges": ranges}
            xorbs.setdefault(term.xorb, []).append(fetch)
        place += term.size
    if not terms:
        raise HubError(416, "beyond the end of the file")
    return JSONResponse({"offset_into_first_range": skipped, "terms": terms, "xorbs": xorbs})


async def telemetry(request: Request) -> Response:
    """TransferTelemetry (telemetry/mod.rs)."""
    _repo(request)
    await request.body()
    return Response(status_code=204)


# The routes


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _repo(request: Request, *, write: bool = False) -> Repo:
    """What the token is for: Token Scope (auth.md)."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in (known := _store(request).xet_tokens):
        raise HubError(401, "refresh the token")
    repo, may_write = known[token]
    if write and not may_write:
        raise HubError(403, "the token is for reading")
    return repo


ROUTES = [
    Route("/v1/xorb-grants/default/{hash}", grant_xorb, methods=["POST"]),
    Route("/cdn/xorb-uploads/{id}", put_xorb, methods=["PUT"]),
    Route("/v1/xorb-commits/default/{hash}/grant/{id}", commit_xorb, methods=["POST"]),
    Route("/v1/xorbs/default/{hash}", upload_xorb, methods=["POST"]),
    Route("/v2/shards", upload_shard, methods=["POST"]),
    Route("/v1/chunks/default/{hash}", query_chunk, methods=["GET"]),
    Route("/v2/reconstructions/{hash}", reconstruction, methods=["GET"]),
    Route("/v1/telemetry", telemetry, methods=["POST"]),
]
