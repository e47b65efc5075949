"""The command line of xray-hf: every command explains itself, old spellings work for one version."""

from __future__ import annotations

from pathlib import Path

import pytest

from xray_hf import cli
from xray_hf.data.source_options import SourceOptions
from xray_hf.errors import ConfigError


def evaluated(monkeypatch: pytest.MonkeyPatch, bundle: Path, *options: str) -> list[SourceOptions]:
    """The sources on which `evaluate` would test the bundle."""
    asked: list[SourceOptions] = []
    monkeypatch.setattr(cli, "_validate", lambda _, data: asked.append(data))
    monkeypatch.setattr(cli, "_redrawn", lambda *_: "")
    cli.main(["evaluate", str(bundle), *options])
    return asked


@pytest.mark.parametrize("command", cli.commands.commands)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    words = capsys.readouterr().out
    assert words.startswith(f"Usage: xray-hf {command} ")
    for option in cli.commands.commands[command].params:
        assert option.opts[0] in words or option.param_type_name == "argument" or option.hidden


def test_a_test_on_several_sources_is_external_validation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--source", "folder:clinic=C", "--source", "nih=N"]
    options += ["--map", "nih:Mass=", "--patient", "^[0-9]+"]
    (asked,) = evaluated(monkeypatch, tmp_path, *options)
    assert asked == SourceOptions(("folder:clinic=C", "nih=N"), ("nih:Mass=",), patient="^[0-9]+")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "expected"), [((), "folder:scans=DIR/scans"), (("--name", "n"), "folder:n=DIR/scans")]
)
def test_evaluate_external_of_the_version_before_is_a_folder(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: tuple[str, ...],
    expected: str,
) -> None:
    options = ["--external", "--data-dir", "DIR/scans", *name, "--patient", "x", "--drop-bad"]
    (asked,) = evaluated(monkeypatch, tmp_path, *options)
    assert asked == SourceOptions((expected,), patient="x", drop_bad=True)
    said = "--external is now --source folder:NAME=DIR; the next version drops the old spelling.\n"
    assert capsys.readouterr().err == said


def test_without_a_source_each_bundle_is_drawn_from_its_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    assert evaluated(monkeypatch, tmp_path, str(tmp_path / "other")) == []


@pytest.mark.parametrize(("old", "new"), [("--foreign-dir", "--ood-dir")])
def test_an_old_name_says_the_new_one(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="fitted with both --source and --ood-dir; pass both or neither"):
        cli.main(["calibrate", "BUNDLE", old, "DIR"])
    assert capsys.readouterr().err == f"{old} is now {new}; the next version drops the old spelling.\n"


def test_sources_prints_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["sources"])
    assert "coronahack" in capsys.readouterr().out
    cli.main(["sources", "nih"])
    assert "ChestX-ray14" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no kind of source 'mnist'"):
        cli.main(["sources", "mnist"])
