"""The demo as a Space: app.py, the package, its requirements, and a README that names the models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xray_hf import manifest
from xray_hf.errors import ConfigError
from xray_hf.hub import cards
from xray_hf.hub.publish import SDK, Plan, require_repo_id

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
TITLE = "Chest X-ray classifier"
WHAT = "Chest X-rays, and what the answers are worth"  # at most 60 characters
_PACKAGE = ("*.py", "*.css", "*.js", "*.json", "*.html", "*.npz", "*.onnx", "*.png", "*.svg")


def plan(models: Sequence[str], repo_id: str) -> Plan:
    """The files of the repository of a Space with these models.

    models: Hub ids, owner/name. Raises ConfigError for any other text, or without a checkout of the project.
    """
    for name in (repo_id, *models):
        require_repo_id(name)
        if Path(name).is_dir():
            raise ConfigError(f"{name} is a folder here; push it first, and name it as the Hub does.")
    requirements = ROOT / "requirements-demo.txt"
    if not requirements.is_file():
        raise ConfigError(f"{requirements} is missing; a Space is made in a checkout of the project.")
    package = [path for pattern in _PACKAGE for path in (ROOT / "xray_hf").rglob(pattern)]
    files: dict[str, Path | bytes] = {
        path.relative_to(ROOT).as_posix(): path for path in [ROOT / "app.py", ROOT / "LICENSE", *package]
    }
    files["requirements.txt"] = requirements
    card = cards.fill(
        "space.md",
        ROOT,
        title=TITLE,
        short_description=WHAT,
        sdk=SDK,
        sdk_version=_pinned("gradio", requirements),
        python_version=PYTHON,
        models=models,
    )
    return Plan("space", "space", repo_id, {**files, manifest.CARD: card.encode()})


def _pinned(package: str, requirements: Path) -> str:
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
