"""What visitors leave behind is deleted: uploads by age, sessions and answers too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.state_holder import StateHolder

from xray_hf.demo import cleanup

pytestmark = pytest.mark.slow


def queue(**messages: asyncio.Queue[str]) -> SimpleNamespace:
    """What Gradio's queue holds for each session."""
    return SimpleNamespace(
        event_ids_to_events={}, pending_messages_per_session=messages, pending_event_ids_session={}
    )


def page() -> SimpleNamespace:
    return SimpleNamespace(upload_file_set=set(), _queue=queue(), state_holder=StateHolder())


def upload(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    file = folder / name / "scan.png"
    file.write_bytes(b"scan")
    return file


async def soon(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_old_uploads_go_and_those_that_are_written_and_the_examples_stay(tmp_path: Path) -> None:
    example, whole, broken_off = upload(tmp_path, "a"), upload(tmp_path, "b"), tmp_path / "tmp1"

    async def visit() -> None:
        whole.unlink()
        async with cleanup.swept(page(), tmp_path, every=0.05, age=0.5):
            whole.write_bytes(b"scan")
            broken_off.write_bytes(b"sc")
            with (tmp_path / "tmp2").open("wb", buffering=0) as written:
                while whole.exists() or broken_off.exists() or whole.parent.exists():
                    written.write(b"more")
                    await asyncio.sleep(0.02)
            assert (tmp_path / "tmp2").exists()
            assert example.exists()

    asyncio.run(asyncio.wait_for(visit(), 60))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [example]


def test_a_file_that_cannot_be_deleted_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, refused = Path.unlink, []

    def refuse_once(path: Path, missing_ok: bool = False) -> None:
        if not refused:
            refused.append(path)
            raise PermissionError(13, "in use")
        unlink(path, missing_ok)

    async def visit() -> None:
        async with cleanup.swept(page(), tmp_path, every=0.01, age=0):
            file = upload(tmp_path, "a")
            await soon(lambda: not file.exists())

    monkeypatch.setattr(Path, "unlink", refuse_once)
    asyncio.run(visit())
    assert refused


def test_uploads_while_it_looks_do_not_end_it(tmp_path: Path) -> None:
    """What ended Gradio's: its set of uploads grew while it was looked through."""
    blocks = page()

    async def visit() -> None:
        async with cleanup.swept(blocks, tmp_path, every=0.001, age=0.2):
            for number in range(200):
                blocks.upload_file_set.add(str(upload(tmp_path, str(number))))
                await asyncio.sleep(0)
            await soon(lambda: not any(tmp_path.iterdir()))
        assert not blocks.upload_file_set

    asyncio.run(visit())


def test_no_session_is_kept(tmp_path: Path) -> None:
    async def visit() -> None:  # outside a loop, Gradio leaves loops open
        with gr.Blocks(analytics_enabled=False) as blocks:
            shown = gr.HTML()
        blocks.queue()
        sessions = StateHolder()
        sessions.set_blocks(blocks)
        sessions["visitor"]._update_value_in_config(shown._id, "the answer")
        assert "the answer" in str(list(sessions["visitor"].components))
        async with cleanup.swept(blocks, tmp_path, every=0.01):
            await soon(lambda: not sessions.session_data)
        assert "the answer" not in str(list(sessions["visitor"].components))

    asyncio.run(visit())


def test_answers_that_nobody_fetches_are_dropped_and_no_others() -> None:
    held = queue(finished=asyncio.Queue(), running=asyncio.Queue(), fetched=asyncio.Queue())
    held.pending_messages_per_session["finished"].put_nowait("answer")
    held.pending_messages_per_session["running"].put_nowait("place in the queue")
    held.event_ids_to_events["2"] = SimpleNamespace(session_hash="running")
    held.pending_event_ids_session.update(finished={"1"}, running={"2"})
    unfetched = cleanup.forget_unfetched(held, set())
    assert set(held.pending_messages_per_session) == {"finished", "running", "fetched"}
    cleanup.forget_unfetched(held, unfetched)
    assert set(held.pending_messages_per_session) == {"running", "fetched"}
    assert set(held.pending_event_ids_session) == {"running"}
