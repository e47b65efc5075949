"""What is compared and reported can be run: every variant of the ablations, every recipe of the results."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import ablate
import numpy as np
import pytest
import reproduce
from opening import open_coronahack

from xray_hf.data.cache import Joined
from xray_hf.data.dataset import split_data
from xray_hf.errors import ConfigError
from xray_hf.files import write_json
from xray_hf.training.config import parse, resolve

VARIANTS = [
    (name, change) for variants in ablate.VARIANTS.values() for name, change in variants.items() if change
]

PARTS = ("clean", "stressed", "with_mirror")


@pytest.mark.parametrize(("name", "change"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_every_variant_is_understood_and_differs_from_the_recipe(name: str, change: dict[str, Any]) -> None:
    base = {**ablate.START, **ablate.PROXY, "data_dir": "d", "model": "xray-cnn"}
    assert resolve({**base, **change}) != resolve(base)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["xray-cnn", "xray-resnet18"])
def test_the_preset_is_one_of_the_variants_and_named_in_the_table(model: str) -> None:
    runs = [
        {
            "model": model,
            "variant": name,
            "fold": fold,
            "seconds": 60,
            "config": ablate.settings(ablate.configure(Path("any"), model, fold, change, "any")),
            **{part: dict.fromkeys(("accuracy", "balanced_accuracy"), score) for part in PARTS},
        }
        for fold in (0, 1)
        for name, change in [("base", {}), *VARIANTS]
        for score in [0.5 + 0.1 * fold + 0.1 * (name != "base")]
    ]
    lines = ablate.of_model(runs, model).splitlines()
    (chosen,) = (line for line in lines if "the preset" in line)
    assert chosen.count("| 65.0 ± 7.1 ") == len(PARTS) + 1
    assert "| 10.0 ± 0.0 |" in chosen  # the gain over the base of the same fold


@pytest.mark.parametrize("name", ablate.STRESSES)
def test_every_stress_changes_the_image_and_not_its_size(name: str) -> None:
    blocks = np.random.default_rng(0).integers(60, 180, (28, 28), np.uint8)
    image = blocks.repeat(4, axis=0).repeat(4, axis=1)[None]
    changed = ablate.stressed(image, name)
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert abs(changed.astype(int) - image).mean() > 0.5


def test_ablations_never_see_a_test_row(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    gather = Joined.gather

    def watched(cache: Joined, rows: np.ndarray) -> np.ndarray:
        seen.update(rows.tolist())
        return gather(cache, rows)

    monkeypatch.setattr(Joined, "gather", watched)
    ablate.run(synthetic, "xray-cnn", 0, {"side": 32, "epochs": 1}, str(tmp_path))
    split = split_data(open_coronahack(synthetic, 32), "grouped", 0)
    assert set(split.validation.tolist()) <= seen
    assert not seen & set(split.test.tolist())


@pytest.mark.parametrize("recipe", reproduce.RECIPES)
def test_every_recipe_is_understood_by_training(recipe: str) -> None:
    config = parse(["--data-dir", "d", *reproduce.Job(recipe, "xray-resnet18", 0).options])
    assert not config.model.pretrained  # as docs/results.md says
    assert config.data.protocol == ("paper" if recipe == "paper" else "grouped")
    assert config.run.watch_test == (config.preset == "paper")  # ours looks at test once, at the end


GIVEN = Namespace(
    data_dir="d",
    source=["folder:adults=a", "rsna=r"],
    hold_out=["rsna"],
    initial_weights="far/start.safetensors",
)


@pytest.mark.parametrize("recipe", ["robust", "multisource"])
@pytest.mark.parametrize("model", reproduce.MODELS)
def test_a_run_gets_the_sources_of_its_recipe_and_only_resnet_its_start(recipe: str, model: str) -> None:
    config = parse(reproduce.Job(recipe, model, 1).command(GIVEN, ["--side", "64"]))
    others = ["folder:adults=a", "rsna=r"] if recipe == "multisource" else []
    assert [str(spec) for spec in config.data.specs] == ["coronahack=d", *others]
    assert config.data.hold_out == (("rsna",) if others else ())
    assert config.preset == recipe
    assert config.model.initial_weights == (GIVEN.initial_weights if model == "xray-resnet18" else None)
    assert (config.model.side, config.run.seed) == (64, 1)


def test_a_finished_run_is_known_by_its_options_and_the_name_of_its_start(tmp_path: Path) -> None:
    job = reproduce.Job("multisource", "xray-resnet18", 0)
    config = parse(job.command(GIVEN, [])).as_dict()
    config["model"]["initial_weights"] = "start.safetensors"  # as train.py saves it
    write_json(job.folder(tmp_path) / "bundle" / "training.json", {"config": config})
    job.require_same(tmp_path, job.command(GIVEN, []))
    for changed in (["--epochs", "99"], ["--initial-weights", "other.safetensors"]):
        with pytest.raises(ConfigError, match="trained with other options than multisource has now"):
            job.require_same(tmp_path, job.command(GIVEN, changed))


@pytest.mark.parametrize("recipes", [[], ["--recipes", "robust", "multisource"]])
def test_a_recipe_without_its_sources_is_one_clear_error(tmp_path: Path, recipes: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"multisource trains on several sources, .* pass --source KIND\[:NAME\]"
    ):
        reproduce.main(["--data-dir", "d", "--out", str(tmp_path), *recipes])


def test_time_left_is_that_of_runs_alike(tmp_path: Path) -> None:
    jobs = [reproduce.Job("robust", model, seed) for model in reproduce.MODELS for seed in (0, 1, 2)]
    bundle = jobs[0].folder(tmp_path) / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "training.json").write_text('{"seconds": 600}')
    (bundle / "metrics.json").write_text("{}")
    text = reproduce.left(jobs, tmp_path)
    assert text.startswith("about 20 minutes left and 3 runs")
    assert reproduce.left(jobs[:1], tmp_path) == "about 0 minutes left"
