"""The package's types as its users see them: mypy checks a program against the installed package."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).with_name("typed_user.py")
# Of other packages, only those whose types ours show to users are read: torch alone takes minutes.
SETTINGS = """\
[mypy]
strict = True
follow_imports = skip
[mypy-xray_hf.*,numpy.*,PIL.*]
follow_imports = normal
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with this package, as `pip install` leaves it, and all others of ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "xray_hf").symlink_to(ROOT / "xray_hf")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(ours), encoding="utf-8")
    return folder / "bin" / "python"


@pytest.mark.exhaustive
def test_a_users_program_type_checks(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS, encoding="utf-8")
    options = [f"--python-executable={python}", f"--config-file={settings}", "--cache-dir=/dev/null"]
    command = [sys.executable, "-m", "mypy", *options, str(program)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "Success: no issues found in 1 source file\n", run.stdout + run.stderr
