"""Training sees every row once, can be stopped anywhere, and continues to the very same weights."""

import copy
import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from xray_hf.data.dataset import open_data, split_data
from xray_hf.data.splits import Split
from xray_hf.errors import CheckpointError, ConfigError, DivergedError
from xray_hf.models import Network, create_model
from xray_hf.models.configuration_xray_cnn import XrayCnnConfig
from xray_hf.models.create import logits_of
from xray_hf.models.modeling_xray_cnn import XrayCnnForImageClassification
from xray_hf.training import checkpoints, run
from xray_hf.training.batches import epoch_batches, load_ahead, share_of
from xray_hf.training.config import TRACKERS, Config, resolve
from xray_hf.training.loop import Trainer, learning_rate_factor
from xray_hf.training.processes import make_accelerator

SIDE, ROWS = 64, 36


class ToyPixels:
    """Images in memory whose brightness tells the class; sends a signal at the n-th batch if told so."""

    def __init__(self, labels: np.ndarray, signal_at: int = 0) -> None:
        noise = np.random.default_rng(0).integers(0, 60, (len(labels), SIDE, SIDE))
        self.images = (noise + 90 * labels[:, None, None]).astype(np.uint8)
        self.signal_at, self.batches = signal_at, 0

    def gather(self, rows: np.ndarray) -> np.ndarray:
        self.batches += 1
        if self.batches == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.images[rows]


LABELS = np.arange(ROWS + 12) % 3
SOURCES = np.full(len(LABELS), "toy")
SPLIT = Split("grouped", 0, np.arange(ROWS), np.arange(ROWS, ROWS + 6), np.arange(ROWS + 6, ROWS + 12))


def small_network(model: str = "xray-cnn") -> Network:
    torch.manual_seed(0)
    network = create_model(model, pretrained=False)
    return dataclasses.replace(network, preprocessing=dataclasses.replace(network.preprocessing, side=SIDE))


def make_trainer(
    out: Path, pixels: ToyPixels | None = None, network: Network | None = None, **options: Any
) -> Trainer:
    AcceleratorState._reset_state(reset_partial_state=True)
    out.mkdir(exist_ok=True)
    defaults = {
        "data_dir": "toy", "model": "xray-cnn", "epochs": 3, "batch_size": 8, "learning_rate": 1e-3,
        "flip": True, "device": "cpu", "precision": "fp32", "out": str(out),
    }  # fmt: skip
    config: Config = resolve({**defaults, **options})
    accelerator = make_accelerator(config)
    pixels = pixels or ToyPixels(LABELS)
    network = network or small_network(config.model.model)
    return Trainer(network, pixels, LABELS, SOURCES, SPLIT, config, accelerator, config.identity())


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.network.module.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """On so little work more threads only wait for each other, and their number changes the rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("n", "batch"), [(9910, 32), (100, 7), (5, 32), (33, 32)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_comes_once_an_epoch_and_none_twice(n: int, batch: int, world: int) -> None:
    rows = np.arange(1000, 1000 + n)
    batches = epoch_batches(rows, rows % 3, rows % 1, batch_size=batch, balanced=False, seed=0, epoch=1)
    seen = [share_of(b, rank, world) for rank in range(world) for b in batches]
    assert sorted(np.concatenate(seen).tolist()) == rows.tolist()
    assert max(map(len, batches)) <= batch
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        rows = np.arange(50)
        return np.concatenate(
            epoch_batches(rows, rows % 3, rows % 1, batch_size=8, balanced=False, seed=seed, epoch=epoch)
        ).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_balanced_sampling_draws_every_class_as_often() -> None:
    labels = np.repeat([0, 1, 2], [100, 250, 10])
    rows = np.arange(360)
    one = np.zeros(360)
    drawn = np.concatenate(epoch_batches(rows, labels, one, batch_size=32, balanced=True, seed=0, epoch=0))
    assert np.bincount(labels[drawn]).tolist() == [120, 120, 120]
    per_row = np.bincount(drawn[labels[drawn] == 2])[350:]
    assert per_row.tolist() == [12] * 10  # rare rows repeat equally often


def test_balanced_sampling_draws_every_source_as_often_within_a_class() -> None:
    labels = np.repeat([0, 1], [300, 60])
    sources = np.asarray(["clinic"] * 280 + ["web"] * 20 + ["web"] * 60)
    rows = np.arange(360)
    drawn = np.concatenate(
        epoch_batches(rows, labels, sources, batch_size=32, balanced=True, seed=0, epoch=0)
    )
    counts = {
        (k, name): int(((labels == k) & (sources == name))[drawn].sum())
        for k in (0, 1)
        for name in ("clinic", "web")
    }
    assert counts == {(0, "clinic"): 90, (0, "web"): 90, (1, "clinic"): 0, (1, "web"): 180}


def test_more_processes_than_rows_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--batch-size"):
        share_of(np.arange(2), 0, 3)


def test_batches_come_in_order() -> None:
    pixels = ToyPixels(LABELS)
    batches = [np.array([3, 1]), np.array([0]), np.array([5, 5])]
    for rows, loaded in zip(batches, load_ahead(pixels, batches), strict=True):
        assert np.array_equal(loaded.numpy(), pixels.images[rows])


def test_learning_rate_schedules() -> None:
    assert learning_rate_factor("constant", 0, 0) == learning_rate_factor("constant", 0, 0.99) == 1
    assert learning_rate_factor("linear", 0, 0.25) == pytest.approx(0.75)
    assert learning_rate_factor("cosine", 0, 0.5) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 0.2, 0.1) == pytest.approx(0.5, abs=0.01)
    assert learning_rate_factor("cosine", 0.2, 0.2) == pytest.approx(1)
    assert learning_rate_factor("cosine", 0.2, 1.0) == pytest.approx(0)
    assert 0 < learning_rate_factor("linear", 1.0, 0.0) < 0.01


def test_a_toy_problem_is_learnt(tmp_path: Path) -> None:
    history = make_trainer(tmp_path, epochs=8, warmup=0.1, learning_rate=3e-3).fit()
    assert history[-1]["train_accuracy"] > 0.9
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"ema": 0.9},
        {"accumulate": 2},
        {"balance": "none", "keep": "last"},
        {"rotate": 10.0, "gamma": 1.5, "noise": 0.5, "erase": 0.5, "mixup": 0.4, "cutmix": 1.0},
    ],
)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[dict[str, float]]]:
    """Options of a run that nothing stopped, its weights and its history."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), **request.param)
    history = trainer.fit()
    return request.param, weights(trainer), history


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 7, 10])
def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path, whole: Any, stop_at: int) -> None:
    options, expected, history = whole
    stopped = make_trainer(tmp_path / "parts", ToyPixels(LABELS, signal_at=stop_at), **options)
    with pytest.raises(SystemExit) as stop:
        stopped.fit()
    assert stop.value.code == 128 + signal.SIGTERM
    resumed = make_trainer(tmp_path / "parts", resume=True, **options)
    continued = resumed.fit()

    assert equal(expected, weights(resumed))
    keys = ("epoch", "train_loss", "train_accuracy", "validation_loss")
    assert [[row[k] for k in keys] for row in history] == [[row[k] for k in keys] for row in continued]


def test_a_signal_in_the_last_evaluation_is_not_lost(tmp_path: Path) -> None:
    batches = 2 * (5 + 1)  # of two epochs: 36 rows in batches of 8, then the validation rows
    trainer = make_trainer(tmp_path, ToyPixels(LABELS, signal_at=batches), epochs=2)
    with pytest.raises(SystemExit):
        trainer.fit()
    resumed = make_trainer(tmp_path, resume=True, epochs=2)
    assert len(resumed.fit()) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"balance": "loss"},
        {"balance": "logits"},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"label_smoothing": 0.1},
        {"mixup": 0.2},
    ],
)
def test_every_optimiser_and_balance_trains(tmp_path: Path, options: dict[str, Any]) -> None:
    history = make_trainer(tmp_path, epochs=1, **options).fit()
    assert np.isfinite(history[0]["train_loss"])


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_trackers_get_the_epochs(tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trainer = make_trainer(tmp_path, epochs=1, track=tracker)
    trainer.accelerator.init_trackers("xray_hf", {"epochs": 1})
    trainer.fit()
    trainer.accelerator.end_training()
    written = [path for path in tmp_path.rglob("*") if "tfevents" in path.name or path.suffix == ".db"]
    assert written


def test_every_tracker_of_accelerate_is_known_and_one_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(TRACKERS) == set(LOGGER_TYPE_TO_CLASS)
    monkeypatch.setattr("xray_hf.training.processes.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="--track wandb needs the package wandb; run `pip install wandb`"):
        make_trainer(tmp_path, track="wandb")


def test_every_process_needs_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started on a machine with 1 GPU, and each needs"):
        make_trainer(tmp_path, device="auto")
    assert make_trainer(tmp_path, device="cpu").accelerator.device.type == "cpu"


def test_the_scale_of_half_precision_is_resumed(tmp_path: Path) -> None:
    """Only a GPU trains in fp16; its scaler is put in place of none here."""
    first, second = make_trainer(tmp_path), make_trainer(tmp_path)
    first.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    second.accelerator.scaler = torch.amp.GradScaler("cpu")
    first._save()
    second._restore()
    assert second.accelerator.scaler.get_scale() == 8.0


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--precision fp16 needs an NVIDIA GPU; use bf16 or fp32"):
        make_trainer(tmp_path, precision="fp16")


@pytest.mark.exhaustive
def test_a_compiled_network_trains(tmp_path: Path) -> None:
    one_block = XrayCnnConfig(hidden_sizes=(8,), num_labels=3)  # each takes seconds to compile
    network = dataclasses.replace(small_network(), module=XrayCnnForImageClassification(one_block))
    trainer = make_trainer(tmp_path, network=network, epochs=1, compile=True)
    assert np.isfinite(trainer.fit()[0]["train_loss"])
    assert np.isfinite(trainer.predict(np.arange(3))).all()


def test_predictions_are_in_float32_whatever_the_training(tmp_path: Path) -> None:
    """They are what a bundle gives to others, who load it without autocast."""
    trainer = make_trainer(tmp_path, epochs=1, precision="bf16")
    trainer.fit()
    rows = np.arange(6)
    plain = copy.deepcopy(small_network())
    plain.module.load_state_dict(trainer.network.module.state_dict())
    with torch.inference_mode():
        grey = torch.from_numpy(trainer.pixels.gather(rows))
        expected = logits_of(plain.module.eval()(plain.preprocessing.normalise(grey)))
    np.testing.assert_allclose(trainer.predict(rows), expected.numpy(), atol=1e-5)


def test_validation_and_test_images_are_never_augmented(tmp_path: Path) -> None:
    """A wild augmentation of training changes nothing in what an untrained network predicts."""
    options = {"rotate": 90.0, "noise": 1.0, "erase": 1.0, "mixup": 1.0}
    plain, wild = make_trainer(tmp_path / "plain"), make_trainer(tmp_path / "wild", **options)
    rows = np.arange(6)
    assert np.array_equal(plain.predict(rows), wild.predict(rows))


def test_logit_adjustment_asks_more_of_rare_classes(tmp_path: Path) -> None:
    """With equal logits the loss of a row is -log of its class's share of the training rows."""
    labels = np.repeat([0, 1, 2], [24, 9, 3]).tolist() + [0, 1, 2] * 4
    trainer = make_trainer(tmp_path, balance="logits")
    trainer.labels = np.asarray(labels)
    trainer.shift = trainer._class_shares().log()
    losses = trainer._losses(torch.zeros(3, 3), torch.arange(3))
    torch.testing.assert_close(losses.exp(), torch.tensor([36 / 24, 36 / 9, 36 / 3]))


@pytest.mark.parametrize("balance", ["none", "loss", "logits"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_lowest_loss_calls_every_row_by_its_own_class(
    tmp_path: Path, balance: str, smoothing: float
) -> None:
    """However rare a class is: with smoothing, weights or shifts could ask for the rare one everywhere."""
    trainer = make_trainer(tmp_path, balance=balance, label_smoothing=smoothing)
    shares = torch.tensor([0.25, 0.74, 0.01])
    if balance == "loss":
        trainer.class_weights = 1 / (3 * shares)
    if balance == "logits":
        trainer.shift = shares.log()
    logits = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def step() -> float:
        optimizer.zero_grad()
        loss = trainer._losses(logits, torch.arange(3)).sum()
        loss.backward()
        return loss.item()

    optimizer.step(step)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]
    assert logits.softmax(dim=1).diagonal().min() > 0.85


def test_biases_and_normalisation_are_not_decayed_unless_asked(tmp_path: Path) -> None:
    def decayed(trainer: Trainer) -> set[int]:
        groups = trainer.optimizer.param_groups
        return {id(p) for group in groups if group["weight_decay"] for p in group["params"]}

    trainer = make_trainer(tmp_path / "matrices", weight_decay=0.1)
    parameters = list(trainer.network.module.parameters())
    assert decayed(trainer) == {id(p) for p in parameters if p.ndim > 1}
    trainer = make_trainer(tmp_path / "all", weight_decay=0.1, decay_all=True)
    assert decayed(trainer) == {id(p) for p in trainer.network.module.parameters()}


def test_weights_that_turn_nan_at_the_end_of_an_epoch_are_noticed(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=ROWS, learning_rate=1e38, warmup=0.0, schedule="constant")
    with pytest.raises(DivergedError, match="epoch 1"):
        trainer.fit()
    assert not (tmp_path / checkpoints.CHECKPOINT_NAME).exists()


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = make_trainer(tmp_path)
    first.fit()
    again = make_trainer(tmp_path, resume=True)
    again.fit()
    assert equal(weights(first), weights(again))


def test_accumulation_changes_only_batch_norms_view(tmp_path: Path) -> None:
    """Frozen batch norm: the gradient of a batch in parts is the gradient of the batch."""
    results = []
    for accumulate in (1, 4):
        trainer = make_trainer(tmp_path / str(accumulate), accumulate=accumulate, flip=False)
        trainer.network.module.eval()
        rows = np.arange(8)
        trainer._train_step(torch.from_numpy(trainer.pixels.gather(rows)), rows, len(rows))
        results.append(weights(trainer))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=0, atol=1e-5, msg=name)


def test_a_loss_that_is_not_finite_stops_with_step_and_batch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, learning_rate=1e30, warmup=0.0, schedule="constant", epochs=5)
    with pytest.raises(DivergedError, match=r"epoch \d+, step \d+.*rows \d+") as error:
        trainer.fit()
    assert "--learning-rate" in str(error.value)


def test_early_stopping_ends_and_keeps_the_best(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=30, patience=2, learning_rate=0.0)
    history = trainer.fit()
    assert len(history) == 3  # with no learning the first epoch stays the best


@pytest.mark.parametrize("changed", [{"learning_rate": 5e-3}, {"seed": 1}, {"batch_size": 4}])
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    make_trainer(tmp_path, epochs=1).fit()
    with pytest.raises(CheckpointError, match=next(iter(changed))):
        make_trainer(tmp_path, epochs=1, resume=True, **changed).fit()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).fit()
    path = tmp_path / checkpoints.CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        make_trainer(tmp_path, epochs=1, resume=True).fit()


def test_predictions_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.fit()
    rows = np.array([5, 3, 5, 40])
    together = trainer.predict(rows)
    assert together.shape == (4, 3)
    assert np.array_equal(together[0], together[2])
    np.testing.assert_allclose(together[1:2], trainer.predict(rows[1:2]), atol=1e-5)


def test_a_bundle_does_not_say_where_the_data_lie(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the table of the patients lies, which may be another folder."""
    owner = tmp_path / "owner"
    owner.mkdir()
    (owner / "data").symlink_to(synthetic)
    (owner / "metadata.csv").write_text("patientid,filename\n1,x.png\n")
    monkeypatch.chdir(owner)
    for place, more in (("data", {"covid_metadata": str(owner / "metadata.csv")}), (f"{owner}/data", {})):
        config = resolve({"source": [f"coronahack={place}"], "out": str(owner / "run"), **more})
        data = open_data(config.data.specs, 32, options=config.data.read_options)
        said = [run.describe_source(report, data, split_data(data, "grouped", 0)) for report in data.reports]
        text = json.dumps([said, run.public(config)])
        assert "owner" not in text
        assert str(tmp_path) not in text
        assert said[0]["report"]["root"] == "data"
    hub = resolve({"source": ["hub=owner/name@main", "hub:two=owner/other"]})
    assert run.public(hub)["data"]["source"] == ("hub=owner/name@main", "hub:two=owner/other")


def test_training_json_says_which_source_is_synthetic(synthetic: Path) -> None:
    data = open_data(resolve({"source": [f"coronahack={synthetic}"]}).data.specs, 32)
    split = split_data(data, "grouped", 0)
    assert run.describe_source(data.reports[0], data, split)["is_synthetic"] is True
    data.samples[:] = [dataclasses.replace(sample, site="") for sample in data.samples]
    assert run.describe_source(data.reports[0], data, split)["is_synthetic"] is False


def test_the_average_of_the_weights_forgets_those_that_the_run_began_with(tmp_path: Path) -> None:
    """After 15 steps; a decay of 0.995 without warm-up would still hold 93 % of the first weights."""
    trainer = make_trainer(tmp_path, ema=0.995)
    assert trainer.average is not None
    for parameter in trainer.average.module.parameters():
        parameter.data.fill_(1e6)
    trainer.fit()
    largest = max(p.abs().max().item() for p in trainer.average.module.parameters())
    assert largest < 10
