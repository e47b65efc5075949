"""Chest X-ray classification: data, training, prediction, evaluation, the demo and the Hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click import Choice, IntRange, argument, option

from xray_hf import __version__, manifest, options
from xray_hf.data.source_options import SourceOptions
from xray_hf.errors import BundleError, ConfigError, DataError, exit_on_error
from xray_hf.task import PROTOCOLS

if TYPE_CHECKING:
    from xray_hf.data.dataset import XrayData

DEFAULT_SIDE = 224  # pixels; what xray-resnet18 and xray-cnn take
# Options of push that apply to only one kind of repository.
_OF_KIND = {
    **dict.fromkeys(("data_set", "no_names"), "model"),
    **dict.fromkeys(("all_images", *(spec.name for spec in fields(SourceOptions))), "dataset"),
}

a_folder = click.Path(path_type=Path)
new_folder = option("--out", type=a_folder, required=True, help="output folder; must be new or empty")
bundle = argument("bundle", type=a_folder)
sources = options.packed(SourceOptions, "data")
sources_of_bundle = options.packed(SourceOptions, "data", without="classes")  # a bundle has its own
side = option(
    "--side",
    type=IntRange(1, manifest.MAX_SIDE),
    default=DEFAULT_SIDE,
    help="height and width of the decoded images, in pixels",
)
side_of_bundle = option("--side", type=IntRange(1), hidden=True)  # of version 0.1: a bundle has its own
seed = option("--seed", type=IntRange(0), default=0, help="seed of the random numbers")
protocol = option(
    "--protocol", type=Choice(PROTOCOLS), default=PROTOCOLS[0], help="how to split; `paper` leaks"
)
backend = option("--backend", default="onnxruntime", help="onnxruntime, openvino or torch")
hold_out = option(
    "--hold-out", multiple=True, metavar="NAME", help="hold a source out for external validation; repeatable"
)
# Commands that parse their own options, --help included.
parsed_later = {"add_help_option": False, "context_settings": {"ignore_unknown_options": True}}
arguments = argument("arguments", nargs=-1, type=click.UNPROCESSED)
of_data_set = option("--data-set", metavar="OWNER/NAME", help="the Hub's data set it was trained on")


def console() -> None:
    """The console script."""
    sys.exit(exit_on_error(main))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Heavy imports happen in the commands, so that --help is quick."""
    options.run(commands, arguments)


@click.group("xray-hf", help=__doc__, no_args_is_help=False, context_settings=options.LOOK)
@click.version_option(__version__, message="%(version)s")
def commands() -> None:
    """All commands; each is a function below."""


@commands.command(help="fetch CoronaHack from Kaggle")
@new_folder
def download(out: Path) -> None:
    from xray_hf.data.download import download

    download(out)
    print(f"data set: {out}")


@commands.command(help="write synthetic patients in Kaggle's layout")
@new_folder
@option("--patients", type=int, default=600, help="number of patients")
@seed
def atlas(out: Path, patients: int, seed: int) -> None:
    from xray_hf.data.synthetic import write_synthetic

    for (split, name), images in write_synthetic(out, patients, seed).items():
        print(f"{split:<6} {name:<10} {images:>5}")
    print(f"{patients} synthetic patients in {out}; they show no real person.")


@commands.command(
    help="write the synthetic X-rays that the demo offers, to try a model with",
    short_help="write six synthetic X-rays to try a model with",
)
@new_folder
def examples(out: Path) -> None:
    from xray_hf.demo.examples import synthetic
    from xray_hf.files import atomic_folder, require_new_folder

    require_new_folder(out)
    with atomic_folder(out) as folder:
        for name, caption, png in synthetic():
            (folder / name).write_bytes(png)
            print(f"{out / name}: {caption}")


@commands.command(
    "sources",
    help="describe the supported collections, or only KIND: origin, hospital, labels, licence, known errors",
    short_help="describe the supported collections",
)
@argument("kind", required=False)
def about_sources(kind: str | None) -> None:
    from xray_hf.data.sources import describe

    print(describe(kind))


@commands.command(help="draw the paper's tables and figures of a data set")
@sources
@side
@new_folder
@seed
def examine(data: SourceOptions, side: int, out: Path, seed: int) -> None:
    from xray_hf.files import require_new_folder
    from xray_hf.report.examine import examine

    require_new_folder(out)  # before minutes are spent on decoding
    print(examine(_open(data, side), out, seed))
    print(f"tables and figures: {out}")


@commands.command(help="show a protocol's splits and the overlap between them")
@sources
@side
@protocol
@seed
@hold_out
@option("--out", type=a_folder, help="write splits.json here")
def splits(data: SourceOptions, side: int, out: Path | None, **asked: Any) -> None:
    from xray_hf.data import splits
    from xray_hf.data.dataset import split_data
    from xray_hf.files import write_json

    data.check(asked["hold_out"])
    if out and out.is_dir():  # before minutes are spent on decoding
        raise ConfigError(
            f"{out} is a folder; expected the name of the file to write, as {out / 'splits.json'}."
        )
    opened = _open(data, side)
    split = split_data(opened, **asked)
    shown = (split, opened.samples, opened.classes, opened.groups)
    print(splits.as_table(splits.describe(*shown)))
    if out:
        write_json(out, splits.as_dict(*shown))
        print(f"\nwritten: {out}")


@commands.command(help="decode all images into the cache; with --out, save a DatasetDict")
@sources
@side
@protocol
@seed
@hold_out
@option("--out", type=a_folder, help="save the datasets.DatasetDict here")
def prepare(data: SourceOptions, side: int, out: Path | None, **asked: Any) -> None:
    from xray_hf.data.dataset import split_data, to_dataset_dict
    from xray_hf.files import atomic_folder, require_new_folder

    data.check(asked["hold_out"])
    if out:
        require_new_folder(out)  # before minutes are spent on decoding
    opened = _open(data, side)
    print(f"{len(opened.samples):,} images of {side}×{side} pixels are in the cache")
    if out:
        split = split_data(opened, **asked)
        with atomic_folder(out) as temporary:
            to_dataset_dict(opened, split).save_to_disk(temporary)
        print(f"DatasetDict with the classes {', '.join(opened.classes)}: {out}")


@commands.command(help="train a classifier", **parsed_later)
@arguments
def train(arguments: tuple[str, ...]) -> None:
    from xray_hf.training import config

    parsed = config.parse(arguments)  # before the import below, which takes seconds
    from xray_hf.training.run import train

    train(parsed)


@commands.command(help="serve the demo", **parsed_later)
@arguments
def demo(arguments: tuple[str, ...]) -> None:
    from xray_hf.demo import settings

    chosen = settings.parse(arguments)  # before the import below, which takes seconds
    from xray_hf.demo.launch import launch

    launch(chosen)


@commands.command(
    help="recompute the metrics and figures of bundles from their predictions, without the models; with "
    "--source, first test the models on these sources (external validation)",
    short_help="recompute metrics and figures; with --source, external validation",
)
@argument("bundles", nargs=-1, required=True, type=a_folder, metavar="BUNDLE...")
@sources_of_bundle
@option("--external", is_flag=True, hidden=True)
@option("--name", hidden=True)
def evaluate(bundles: tuple[Path, ...], data: SourceOptions, external: bool, name: str | None) -> None:
    if external:
        data = _as_folder(data, name)
    elif name is not None:
        raise ConfigError("--name belongs to the old --external; pass --source folder:NAME=DIR.")
    elif not data.source and replace(data, cache_dir=None) != SourceOptions():
        raise ConfigError("--map, --patient and --drop-bad go with --source; without it no data are read.")
    folders = [_local(each) for each in bundles]
    for folder in folders:
        if data.source:
            _validate(folder, data)
        print(_redrawn(folder, "external" if data.source else "splits"))
    if len(folders) > 1:
        from xray_hf.report import terminal
        from xray_hf.report.report import Report

        print(terminal.leave_one_source_out([Report.read(folder) for folder in folders]))


def _as_folder(data: SourceOptions, name: str | None) -> SourceOptions:
    """The --source that replaces the previous version's --external --data-dir DIR --name NAME."""
    if not data.source:
        raise ConfigError("--external is now --source folder:NAME=DIR; pass that.")
    options.notice("--external", "--source folder:NAME=DIR")
    place = data.specs[0].place
    return replace(data, source=(f"folder:{Path(place).resolve().name if name is None else name}={place}",))


def _validate(folder: Path, data: SourceOptions) -> None:
    """Test a bundle on sources and write the predictions of each to external/."""
    from xray_hf.data.dataset import read_samples
    from xray_hf.inference.evaluate import evaluate

    classes = manifest.read(folder).labels
    samples, _, reports = read_samples(
        data.specs, classes=classes, label_map=data.map, options=data.read_options
    )
    for report in reports:
        report.require_clean(data.drop_bad)  # before minutes are spent on decoding
    for report in reports:
        own = [sample for sample in samples if sample.source == report.source]
        report.add_undecodable(evaluate(folder, own, report.source, drop_bad=data.drop_bad))
        print(report.as_table(), end="\n\n")


@commands.command(
    help="run the shortcut controls of a bundle: ablated inputs, subgroups, duplicates, where its class "
    "activation maps lie, the site within one class, likely label errors",
    short_help="run the shortcut controls of a bundle",
)
@bundle
@sources_of_bundle
@side_of_bundle
@option(
    "--sheets", type=a_folder, metavar="DIR", help="draw the likely label errors here; these are real X-rays"
)
def report(bundle: Path, data: SourceOptions, side: int | None, sheets: Path | None) -> None:
    folder = _local(bundle)
    from xray_hf.inference.report import report

    report(folder, _open(data, side, folder), sheets)
    print(_redrawn(folder, "controls"))
    print(f"written: {folder / manifest.CONTROLS}")


@commands.command(
    help="write a bundle's model.onnx, which the engine runs, and its reference predictions; with --whole, "
    "engine.onnx instead",
    short_help="write a bundle's ONNX graph",
)
@bundle
@option(
    "--whole",
    is_flag=True,
    help="write engine.onnx: the whole engine as one graph, from an image of any size to the decision",
)
def export(bundle: Path, whole: bool) -> None:
    folder = _local(bundle)
    if whole:
        from xray_hf import engine_graph

        file = engine_graph.export(folder)
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB beside the weights")
        return
    _hide_loading()
    from xray_hf.export import export
    from xray_hf.inference import reference

    found = export(folder)
    reference.write(folder)
    _update_engine_graph(folder)
    print(
        f"{folder / manifest.GRAPH}: {found['bytes'] / 1e3:.0f} kB beside the weights; "
        f"{', '.join(found['outputs'])}; logits within {found['max_logit_difference']:.1e} of torch"
    )


@commands.command(
    help="re-run a bundle's reference images and compare the results with its reference.json",
    short_help="compare a bundle's answers with its reference",
)
@bundle
@backend
@option(
    "--tolerance",
    type=options.Number(0),
    default=1e-3,
    help="largest difference to accept; bfloat16 needs 0.05",
)
def check(bundle: Path, backend: str, tolerance: float) -> None:
    folder = _local(bundle)
    if backend == "torch":
        _hide_loading()
    from xray_hf.inference import reference

    manifest.require_current_engine(folder)
    found = reference.check(folder, backend, tolerance)
    print(f"{folder}: within {found:.1e} of {manifest.REFERENCE} on {backend}")


@commands.command(
    help="fit temperature, abstention, operating points; with --source and --ood-dir, also the OOD detector",
    short_help="fit temperature, abstention, OOD detection",
)
@bundle
@option("--risk", type=float, default=0.02, help="highest selective risk to allow on validation")
@sources_of_bundle
@side_of_bundle
@option(
    "--ood-dir",
    type=a_folder,
    help="OOD images (anything but frontal chest X-rays), one folder per kind; every second is held out",
)
def calibrate(bundle: Path, risk: float, data: SourceOptions, side: int | None, ood_dir: Path | None) -> None:
    if bool(data.source) != bool(ood_dir):
        raise ConfigError(
            "the OOD detector is fitted with both --source and --ood-dir; pass both or neither."
        )
    folder = _local(bundle)
    from xray_hf.calibration import fit, fit_ood
    from xray_hf.folders import in_words
    from xray_hf.inference import backends, reference

    if ood_dir:
        _, left_out = fit_ood.find(ood_dir)  # before minutes are spent on decoding
        if left_out:
            print(f"files in {ood_dir} that are not OOD images: {in_words(left_out)}", end="\n\n")
        embed = backends.load_embedder(folder)
        fit_ood.fit_bundle(folder, _open(data, side, folder), ood_dir, embed)
        _update_engine_graph(folder)
        print(_redrawn(folder, "ood"), end="\n\n")  # should the other half fail, this one is done
    fit.fit_bundle(folder, risk)
    _update_engine_graph(folder)
    print(_redrawn(folder, "calibration"))
    if (folder / manifest.REFERENCE).exists():  # its probabilities are calibrated
        reference.write(folder)
    print(f"written: {folder / manifest.CALIBRATION}")


@commands.command(
    help="classify any number of images into one table. BUNDLE is a bundle, the run's folder around it, or "
    "owner/name on the Hub; PATH a file, folder, pattern, Parquet file or hf://datasets/owner/name[@revision]",
    short_help="classify any number of images into one table",
)
@argument("bundle")
@argument("paths", nargs=-1, required=True, metavar="PATH...")
@option("--out", type=a_folder, required=True, help="a new .parquet, .csv or .jsonl")
@option(
    "--cams",
    "heatmaps",
    type=a_folder,
    metavar="DIR",
    help="new folder of class activation maps, one per image",
)
@option("--resume", is_flag=True, help="continue a stopped run, or start one")
@option("--batch-size", type=int, default=8, help="images per forward pass")
@backend
@option("--split", help="split to read from a data set on the Hub (default: its only split)")
@option(
    "--image-column",
    help="image column of a Parquet file or data set (default: the first of type Image, else `image`)",
)
def predict(
    bundle: str, paths: tuple[str, ...], out: Path, heatmaps: Path | None, backend: str, **more: Any
) -> None:
    if backend == "torch":
        _hide_loading()
    from xray_hf.inference import bulk, inputs

    of_data = {name: more.pop(name) for name in ("split", "image_column")}
    if bulk.is_finished(out, resume=more["resume"]):
        print(f"{out} is finished already; nothing was done. Delete it to start over.")
        return
    found = inputs.find(paths, **of_data, besides=heatmaps)
    summary = bulk.predict_in_bulk(bundle, found, out, heatmaps=heatmaps, backend=backend, **more)
    if summary is None:  # of several processes, only the first gets a summary
        return
    print(summary)
    if summary.errors == summary.images:
        raise DataError(f"no image got an answer; the column `error` of {out} says why.")


@commands.command(help="write a bundle's model card, README.md")
@bundle
@option(
    "--repo-id",
    metavar="OWNER/NAME",
    help="repository that the card's code loads from (default: the bundle's folder)",
)
@of_data_set
@option(
    "--no-names",
    is_flag=True,
    help="write the card for `push --no-names`, which leaves out splits and predictions",
)
def card(bundle: Path, repo_id: str | None, data_set: str | None, no_names: bool) -> None:
    from xray_hf.files import write_text
    from xray_hf.hub import cards, publish

    if repo_id:
        publish.require_repo_id(repo_id)
    folder = _local(bundle)
    text = cards.render(folder, repo_id, data_set=data_set, with_names=not no_names)
    write_text(folder / manifest.CARD, text)
    print(f"written: {folder / manifest.CARD}")


@commands.command(
    help="publish a bundle, a data set or the demo on the Hub. WHAT depends on --kind. model: a bundle. "
    "dataset: the folder of CoronaHack, or --source instead. space: the models to serve, as owner/name. "
    "static-space: the folder that `make web` wrote, then its models as owner/name.",
    short_help="publish a bundle, a data set or the demo",
)
@argument("what", nargs=-1, metavar="[WHAT]...")
@option(
    "--kind",
    type=Choice(("model", "dataset", "space", "static-space")),
    default="model",
    help="kind of repository; a static Space runs the models in the visitor's browser",
)
@option("--repo-id", required=True, metavar="OWNER/NAME", help="repository to publish to")
@of_data_set
@option("--dry-run", is_flag=True, help="only show what would be sent; uses no network")
@option("--public", "is_public", is_flag=True, help="make the repository public (default: private)")
@option("--force", "is_forced", is_flag=True, help="overwrite changes made by others")
@option("--tag", "tags", multiple=True, help="extra tag for the commit, in addition to its content's version")
@option("--collection", metavar="TITLE", help="add the repository to your collection")
@option("--no-names", is_flag=True, help="for a model: leave out everything that names files or patients")
@option(
    "--all-images",
    is_flag=True,
    help="for a data set: also send images without a stated licence; never with --public",
)
@sources
def push(
    what: tuple[str, ...], kind: str, repo_id: str, data: SourceOptions, dry_run: bool, **more: Any
) -> None:
    from xray_hf.hub import publish

    for name, of_kind in _OF_KIND.items():
        if click.get_current_context().params[name] and kind != of_kind:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is for --kind {of_kind}, not {kind}; leave it out.")
    of_model = {"data_set": more.pop("data_set"), "with_names": not more.pop("no_names")}
    with_all = more.pop("all_images")
    if with_all and more["is_public"]:
        raise ConfigError(
            "--all-images sends images that only their owner may share; leave it or --public out."
        )
    with TemporaryDirectory(prefix="xray_hf-push-") as folder:
        if kind == "space":
            from xray_hf.hub import space

            plan = space.plan(what, repo_id)
        elif kind == "static-space":
            from xray_hf.hub import static_space

            page, *models = what or ("",)
            plan = static_space.plan(Path(page), models, repo_id)
        elif kind == "model":
            plan = publish.of_bundle(_local(Path(_one(what))), repo_id, **of_model)
        else:
            from xray_hf.hub import data_set

            publish.require_repo_id(repo_id)  # before all images are read
            if what or not data.source:
                data = replace(data, source=(f"coronahack={_one(what)}", *data.source))
            plan = data_set.plan(_open(data, DEFAULT_SIDE), repo_id, Path(folder), with_all=with_all)
        print(plan.as_table())
        if dry_run:
            print("nothing was sent.")
            return
        done = publish.push(plan, **more)
    print(f"{done.url} {'now holds' if done.is_new else 'already held'} it, commit {done.commit}")


def _one(what: Sequence[str]) -> str:
    if len(what) != 1:
        raise ConfigError(f"expected one WHAT, a bundle or a data set; got {', '.join(what) or 'none'}.")
    return what[0]


def _open(data: SourceOptions, side: int | None, bundle: Path | None = None) -> XrayData:
    """Read and decode the sources; for a bundle, at its input size and with its classes in their order."""
    if bundle:
        own = manifest.read(bundle)
        data, side = replace(data, classes=own.labels), side or own.side
    opened = data.open(side or DEFAULT_SIDE)
    print(opened.reading, end="\n\n")
    return opened


def _redrawn(folder: Path, what: str) -> str:
    """Recompute a bundle's metrics and figures; return one of terminal.PARTS of its report."""
    from xray_hf import evidence
    from xray_hf.report import terminal
    from xray_hf.report.report import Report

    evidence.draw(folder)
    return terminal.part(Report.read(folder), what)


def _update_engine_graph(folder: Path) -> None:
    """Write engine.onnx again if the bundle has one: it holds the network and the calibration."""
    if (folder / manifest.ENGINE).exists():
        from xray_hf import engine_graph

        engine_graph.export(folder)


def _hide_loading() -> None:
    """Turn off transformers' progress bar for loading weights. Imports transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _local(bundle: Path) -> Path:
    """The folder of a local bundle, which a command may change; raises BundleError if there is none."""
    if not bundle.is_dir():
        raise BundleError(f"{bundle} is not a folder; expected a bundle that `xray-hf train` wrote.")
    return manifest.locate(bundle)


if __name__ == "__main__":
    console()
