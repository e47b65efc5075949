"""Deletes uploads, sessions and unfetched answers of visitors.

Gradio's `delete_cache` stops for good when a file is uploaded while it runs, and misses broken-off uploads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.state_holder import StateHolder

EVERY_SECONDS = 60  # between two sweeps
MAX_SECONDS = 300  # that a file may stay unchanged
MINUTES = (MAX_SECONDS + EVERY_SECONDS) // 60  # within which an upload is normally deleted


@asynccontextmanager
async def swept(
    page: gr.Blocks, uploads: Path, every: float = EVERY_SECONDS, age: float = MAX_SECONDS
) -> AsyncIterator[None]:
    """Delete old files meanwhile and all files at the end, except those from before: they are the page's."""
    kept = frozenset(_files(uploads))
    sweeping = asyncio.create_task(_sweep(page, uploads, kept, every, age))
    try:
        yield
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        forget_sessions(page.state_holder)
        delete_old(uploads, 0, kept)


async def _sweep(page: gr.Blocks, uploads: Path, kept: Collection[Path], every: float, age: float) -> None:
    unfetched: set[str] = set()
    while True:
        await asyncio.sleep(every)
        page.upload_file_set.clear()  # names of files, which only delete_cache would read
        forget_sessions(page.state_holder)
        unfetched = forget_unfetched(page._queue, unfetched)
        await asyncio.to_thread(delete_old, uploads, age, kept)


def forget_sessions(sessions: StateHolder) -> None:
    """Drop each visitor's last answer with its X-ray, which Gradio keeps and no function needs."""
    with sessions.lock:
        sessions.session_data.clear()
        sessions.time_last_used.clear()


def forget_unfetched(queue: Any, before: set[str]) -> set[str]:
    """Drop answers that were unfetched `before` and still are; returns the sessions with unfetched ones.

    Gradio keeps the answers of 2,000 sessions.
    """
    busy = {event.session_hash for event in queue.event_ids_to_events.values()}
    held = queue.pending_messages_per_session
    unfetched = {session for session, messages in held.items() if not messages.empty()} - busy
    for session in unfetched & before:
        del held[session]
        queue.pending_event_ids_session.pop(session, None)
    return unfetched - before


def delete_old(folder: Path, age: float, kept: Collection[Path]) -> None:
    """Delete all but `kept` that last changed `age` seconds ago or earlier, and empty folders of that age.

    An upload that is being written changes all the time. Files that cannot be deleted are tried again later.
    """
    for path in _files(folder):
        if path not in kept:
            with suppress(OSError):  # in use, or gone
                if time.time() - path.lstat().st_ctime >= age:
                    path.unlink()
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            if Path(root) != folder and time.time() - Path(root).stat().st_ctime >= age:
                Path(root).rmdir()


def _files(folder: Path) -> Iterator[Path]:
    return (Path(root, name) for root, _, names in os.walk(folder) for name in names)
