"""The full state of an interrupted run in one file, written atomically.

It holds tensors and plain values only, so it is read without unpickling code (`weights_only`).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from xray_hf.errors import CheckpointError
from xray_hf.files import atomic_file

CHECKPOINT_NAME = "checkpoint.pt"
_KEYS = {"identity", "network", "optimizer", "average", "best", "progress", "rng"}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the run's checkpoint; the one before stays until this one is whole."""
    with atomic_file(folder / CHECKPOINT_NAME) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # torch's writer fails once more while it gives up, which hides the disk's own error.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read the run's checkpoint, on the CPU.

    identity: what the run about to continue was configured with. Raises CheckpointError if the file is
    damaged or was written for another model, configuration or data set.
    """
    path = folder / CHECKPOINT_NAME
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        # Not torch's own text: it is long, and advises running the file's code.
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); remove it to start over."
        ) from error
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise CheckpointError(f"{path} is not a checkpoint of this program; remove it to start over.")
    saved = state["identity"]
    changed = [
        f"{key} was {saved.get(key)!r} and is now {identity.get(key)!r}"
        for key in sorted(saved.keys() | identity.keys())
        if saved.get(key) != identity.get(key)
    ]
    if changed:
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(changed)}. "
            "Resume with the same options, or choose another --out."
        )
    return state
