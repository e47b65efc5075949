"""The configuration of a run: what wins over what, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import ROOT

from xray_hf import options
from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.training.config import GROUPS, AugmentationConfig, Config, parse, preset_values, presets, resolve


def config_of(*arguments: str) -> Config:
    return parse(["--data-dir", "DATA", *arguments])


def yaml_of(folder: Path, text: str) -> str:
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What train.py would say to these arguments: one line, and exit code 2."""

    def run() -> None:
        parse(arguments)

    assert exit_on_error(run) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True], lines
    return lines[0]


def test_defaults_are_the_honest_protocol() -> None:
    config = config_of()
    assert config.preset == "robust"
    assert (config.data.protocol, config.data.fold, config.optimization.balance) == ("grouped", 0, "sampling")
    assert config.out == Path("runs/xray-resnet18")
    assert config_of("--model", "timm:resnet50").out == Path("runs/timm-resnet50")


@pytest.mark.parametrize(("model", "decay"), [("xray-resnet18", 1e-3), ("xray-cnn", 1e-4)])
def test_the_paper_preset_is_the_papers_training(model: str, decay: float) -> None:
    config = config_of("--preset", "paper", "--model", model)
    options = config.optimization
    assert config.data.protocol == "paper"
    assert (options.optimizer, options.learning_rate, options.weight_decay) == ("adam", 1e-4, decay)
    assert (options.epochs, options.batch_size, options.balance) == (8, 32, "none")
    assert (options.schedule, options.warmup, options.keep) == ("constant", 0, "last")
    assert (options.decay_all, options.label_smoothing, options.ema) == (True, 0, 0)
    assert config.augmentation == AugmentationConfig(flip=True)


def test_every_preset_resolves_for_every_model() -> None:
    for preset in presets():
        for model in ("xray-resnet18", "xray-cnn", "timm:resnet50"):
            assert config_of("--preset", preset, "--model", model).preset == preset


def test_an_unknown_preset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ConfigError, match="unknown preset 'best'; expected one of multisource, paper, robust, smoke"
    ):
        preset_values("best", "xray-cnn")
    assert "unknown preset 'best'" in refusal(capsys, "--config", yaml_of(tmp_path, "preset: best"))


def test_command_line_wins_over_yaml_over_preset_over_defaults(tmp_path: Path) -> None:
    path = yaml_of(tmp_path, "preset: paper\ndata-dir: FROM_YAML\nepochs: 5\nbatch_size: 16\n")
    config = parse(["--config", path, "--batch-size", "64"])
    assert config.preset == "paper"
    assert config.optimization.batch_size == 64  # command line
    assert (config.optimization.epochs, config.data.source) == (5, ("coronahack=FROM_YAML",))  # YAML
    assert config.optimization.optimizer == "adam"  # preset
    assert config.optimization.ema == 0  # default


def test_the_model_of_the_yaml_file_decides_what_the_preset_gives(tmp_path: Path) -> None:
    path = yaml_of(tmp_path, "preset: paper\nmodel: xray-cnn\n")
    assert config_of("--config", path).optimization.weight_decay == 1e-4
    assert config_of("--config", path, "--model", "xray-resnet18").optimization.weight_decay == 1e-3


def test_a_preset_on_the_command_line_wins_over_the_files(tmp_path: Path) -> None:
    path = yaml_of(tmp_path, "preset: paper\n")
    assert config_of("--config", path, "--preset", "smoke").preset == "smoke"


def test_groups_hyphens_and_underscores_are_understood_in_yaml(tmp_path: Path) -> None:
    path = yaml_of(
        tmp_path, "optimization: {weight-decay: 0.5}\naugmentation: {flip: yes}\nrun:\n  watch_test: true\n"
    )
    config = config_of("--config", path)
    assert (config.optimization.weight_decay, config.augmentation.flip, config.run.watch_test) == (
        0.5,
        True,
        True,
    )


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001"])
def test_small_numbers_are_understood_in_yaml_however_written(tmp_path: Path, text: str) -> None:
    path = yaml_of(tmp_path, f"learning_rate: {text}\n")
    assert config_of("--config", path).optimization.learning_rate == 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--preset", "paper", "--model", "xray-cnn"],
        [
            "--preset",
            "smoke",
            "--no-flip",
            "--seed",
            "7",
            "--covid-metadata",
            "M.csv",
            "--track",
            "tensorboard",
        ],
        ["--learning-rate", "1e-5", "--weight-decay", "2e-7"],
    ],
    ids=["defaults", "paper", "smoke", "tiny numbers"],
)
def test_a_saved_configuration_given_back_resolves_the_same(tmp_path: Path, arguments: list[str]) -> None:
    config = config_of(*arguments)
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(config.as_dict(), indent=2))  # as train.py writes it
    assert parse(["--config", str(saved)]) == config


def test_identity_leaves_out_only_what_may_change_between_parts_of_a_run() -> None:
    config = config_of("--epochs", "3")
    left_out = {"out", "resume", "track", "cache_dir", "covid_metadata", "splits", "initial_weights"}
    names = {spec.name for group in GROUPS.values() for spec in fields(group)}
    assert config.identity().keys() == names - left_out
    moved = parse(["--source", "coronahack=MOVED", "--epochs", "3", "--out", "elsewhere", "--resume"])
    assert config.identity() == moved.identity()
    assert config.identity() != config_of("--epochs", "3", "--source", "nih=N").identity()
    assert config.identity() != config_of("--epochs", "4").identity()


def test_a_missing_source_says_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    text = refusal(capsys)
    assert "no source is given; pass --source KIND[:NAME]=PLACE, or --data-dir DIR" in text
    assert "xray-hf atlas --out data/synthetic" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epoch", "3"], "--epoch"),
        (["--learningrate", "3"], "--learningrate"),
        (["--epochs", "three"], "three"),
        (["--epochs", "2.5"], "2.5"),
        (["--protocol", "random"], "random"),
        (["--preset", "best"], "best"),
        (["--seed"], "--seed"),
    ],
)
def test_what_is_no_option_or_of_the_wrong_type_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, "--data-dir", "DATA", *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", "0"], "'--epochs': 0 is not in the range x>=1."),
        (["--batch-size", "-1"], "'--batch-size': -1 is not in the range x>=1."),
        (["--warmup", "1.5"], "'--warmup': 1.5 is not in the range 0<=x<=1."),
        (["--learning-rate", "nan"], "'--learning-rate': nan is not a finite number."),
        (["--learning-rate", "-1"], "'--learning-rate': -1.0 is not in the range x>=0."),
        (["--learning-rate", "inf"], "'--learning-rate': inf is not a finite number."),
        (["--seed", "-1"], "'--seed': -1 is not in the range 0<=x<=4294967295."),
        (["--seed", "4294967296"], "'--seed': 4294967296 is not in the range 0<=x<=4294967295."),
    ],
)
def test_values_out_of_range_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, "--data-dir", "DATA", *arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: three", "'--epochs': 'three' is not a valid integer range."),
        ("epochs: 2.5", "'--epochs': '2.5' is not a valid integer range."),
        ("epochs: true", "'--epochs': 'True' is not a valid integer range."),
        ("epochs: [3, 4]", "'--epochs': '3,4' is not a valid integer range."),
        ("flip: 3", "'--flip': '3' is not a valid boolean."),
        ("learning_rate: fast", "'--learning-rate': 'fast' is not a valid number."),
        ("balance: loose", "'--balance': 'loose' is not one of 'none', 'sampling', 'loss', 'logits'."),
        ("out: {folder: x}", "out holds {'folder': 'x'}; expected one value or a list"),
        ("batchsize: 3", "unknown option 'batchsize'; `xray-hf train --help` lists them all"),
        ("optimisation: {epochs: 3}", "unknown option 'optimisation'"),
        ("just text", "holds str; expected lines of `option: value`"),
        ("- epochs: 3", "holds list; expected lines of `option: value`"),
        ("epochs: [3", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_in_a_yaml_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    assert expected in refusal(capsys, "--data-dir", "DATA", "--config", yaml_of(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "run.yaml does not exist; expected a file of"), (b"\xff\xfe\x00", "cannot be read as YAML")],
    ids=["missing", "binary"],
)
def test_a_config_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "run.yaml").write_bytes(content)
    assert expected in refusal(capsys, "--data-dir", "DATA", "--config", str(tmp_path / "run.yaml"))


def test_an_empty_yaml_file_changes_nothing(tmp_path: Path) -> None:
    assert config_of("--config", yaml_of(tmp_path, "")) == config_of()


def help_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The text of --help on a terminal so wide that no word is broken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        patch.setitem(options.LOOK, "max_content_width", 1000)
        with pytest.raises(SystemExit) as caught:
            parse(["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_option_under_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    for group in GROUPS.values():
        assert f"\n{(group.__doc__ or '').rstrip('.')}:\n" in text
        for spec in fields(group):
            assert re.search(rf"^  --{spec.name.replace('_', '-')} ", text, re.MULTILINE), spec.name
    assert "[multisource|paper|robust|smoke]" in text


def test_the_defaults_that_help_shows_are_those_of_a_plain_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for lines in re.split(r"\n  (?=--)", help_of(capsys)):
        entry = " ".join(lines.split())
        if found := re.search(r"\[default: \(?([\w.-]+)(?:, for xray-cnn ([\w.]+)\))?[;\]]", entry):
            usual, own = found.groups()
            shown[entry.split()[0]] = (usual, own or usual)
    taken = [config_of("--model", model) for model in ("xray-resnet18", "xray-cnn")]
    for key, group in GROUPS.items():
        for spec in fields(group):
            values = tuple(str(getattr(getattr(config, key), spec.name)) for config in taken)
            flag = f"--{spec.name.replace('_', '-')}"
            if spec.default in ((), "", None) or spec.name == "model":
                continue
            if isinstance(spec.default, bool):
                assert shown[flag] == (flag[2:] if values == ("True", "True") else f"no-{flag[2:]}",) * 2
            else:
                assert shown[flag] == values
    assert shown["--epochs"] == ("12", "20")


def test_help_says_what_presets_there_are_and_where_their_values_stand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = " ".join(help_of(capsys).split())
    assert all(f"{name}: {what}" in words for name, what in presets().items())
    assert "the defaults above are those of robust" in words
    folder = ROOT / re.findall(r"values are in (\S+);", words)[0]
    assert {path.stem for path in folder.iterdir()} == set(presets())


def test_resolve_takes_flat_values_from_python() -> None:
    config = resolve({"data_dir": "DATA", "epochs": 2, "learning_rate": 1})
    assert (config.optimization.epochs, config.optimization.learning_rate) == (2, 1)
    with pytest.raises(ConfigError, match="unknown option 'lr'"):
        resolve({"data_dir": "DATA", "lr": 1})


# --- sources


def test_data_dir_is_short_for_coronahack() -> None:
    for words in (["--data-dir", "D"], ["--data-dir=D"], ["--source", "coronahack=D"]):
        assert parse(words).data.source == ("coronahack=D",)
    both = parse(["--source", "folder:clinic=C", "--data-dir", "D"])
    assert [(spec.kind, spec.name, spec.place) for spec in both.data.specs] == [
        ("folder", "clinic", "C"), ("coronahack", "coronahack", "D"),
    ]  # fmt: skip


def test_sources_on_the_command_line_take_the_place_of_those_in_yaml(tmp_path: Path) -> None:
    path = yaml_of(tmp_path, "source: [nih=N, cohen=C]\nhold-out: [cohen]\nclasses: [Normal, Pneumonia]\n")
    data = parse(["--config", path]).data
    assert (data.source, data.hold_out) == (("nih=N", "cohen=C"), ("cohen",))
    assert data.classes == parse(["--config", path, "--classes", "Normal, Pneumonia"]).data.classes
    assert parse(["--config", path, "--source", "rsna=R", "--source", "cohen=C"]).data.source == (
        "rsna=R", "cohen=C",
    )  # fmt: skip


def test_a_saved_configuration_keeps_sources_maps_and_classes(tmp_path: Path) -> None:
    words = ["--source", "folder:clinic=C", "--source", "nih=N", "--hold-out", "nih", "--patient", "^[0-9]+"]
    words += ["--map", "folder:clinic:a=", "--map", "nih:Mass=A", "--classes", "A,B"]
    config = parse(words)
    assert (config.data.map, config.data.classes) == (("folder:clinic:a=", "nih:Mass=A"), ("A", "B"))
    (tmp_path / "config.json").write_text(json.dumps(config.as_dict()))
    assert parse(["--config", str(tmp_path / "config.json")]) == config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--source", "mnist=D"],
            "is of an unknown kind 'mnist'; expected KIND[:NAME]=PLACE with one of cohen, coro",
        ),
        (["--source", "nih"], "names no place"),
        (["--data-dir", ""], "names no place"),
        (["--data-dir"], "names no place"),
        (["--source", "nih=A", "--source", "nih=B"], "2 sources are called 'nih'; give each its own name"),
        (
            ["--source", "nih=A", "--hold-out", "cohen"],
            "--hold-out cohen is not one of the sources; expected nih.",
        ),
        (["--source", "nih=A", "--hold-out", "nih"], "--hold-out nih leaves no source"),
        (["--source", "nih=A", "--map", "cohen:x=y"], "--map 'cohen:x=y' fits no source"),
        (["--source", "nih=A", "--classes", "Normal"], "there is one class only (Normal)"),
        (["--source", "nih=A", "--classes", "A,A"], "expected different names"),
    ],
)
def test_wrong_sources_are_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, *arguments)


# --- options of the version before


def test_an_option_of_the_version_before_still_works_and_says_its_name_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(options.RENAMED, "--rounds", "--epochs")
    for words in (["--rounds", "3"], ["--rounds=3"]):
        assert config_of(*words).optimization.epochs == 3
        said = capsys.readouterr().err
        assert said == "--rounds is now --epochs; the next version drops the old spelling.\n"
    assert config_of("--epochs", "3").optimization.epochs == 3
    assert capsys.readouterr().err == ""


def test_help_of_training_imports_nothing_that_takes_long() -> None:
    code = "import sys; sys.argv = ['train.py', '--help']\n"
    code += "try: runpy.run_path('train.py', run_name='__main__')\n"
    code += "finally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy; {code}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "scipy", "datasets", "transformers", "accelerate"} & set(done.stdout.split())
