"""The page that needs no server (web/, built by `make web`) as a static Space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from xray_hf import manifest
from xray_hf.errors import ConfigError
from xray_hf.hub import cards
from xray_hf.hub.publish import Plan, require_repo_id
from xray_hf.project import project_file

TITLE = "Chest X-ray classifier in your browser"
WHAT = "Chest X-rays, classified on your own computer"  # at most 60 characters
FILES = "files.json"  # of the page: the addresses of all its files
# What the Space answers with: only then do browsers let WebAssembly use threads.
HEADERS = {
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}


def plan(page: Path, models: Sequence[str], repo_id: str) -> Plan:
    """The files of the repository of a static Space.

    page: the folder that `make web` wrote. models: Hub ids, owner/name, of the models in it, for the Space's
    card. Raises ConfigError if `page` is not such a folder or is incomplete, and for any other text as an id.
    """
    for name in (repo_id, *models):
        require_repo_id(name)
    card = cards.fill(
        "static_space.md", Path(), title=TITLE, short_description=WHAT, models=models, headers=HEADERS
    )
    files: dict[str, Path | bytes] = {
        **{name: page / name for name in _listed(page)},
        "LICENSE": project_file("LICENSE"),
        manifest.CARD: card.encode(),
    }
    return Plan("space", "static-space", repo_id, files, sdk="static")


def _listed(page: Path) -> list[str]:
    try:
        listed = json.loads((page / FILES).read_text(encoding="utf-8"))
        names = [name for name in listed if name != "./"] + [FILES, "sw.js"]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{page} is not a page that `make web` wrote; run that first.") from error
    if missing := [name for name in names if not (page / name).is_file()]:
        raise ConfigError(f"{page / missing[0]} is missing; run `make web` again.")
    return names
