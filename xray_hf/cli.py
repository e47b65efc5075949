"""`xray-hf`: what can be done with data and bundles from the command line; training is `train.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from xray_hf import __version__, manifest
from xray_hf.data.sources.coronahack import HELP_ON_COVID_METADATA
from xray_hf.errors import BundleError, ConfigError, DataError, OptionParser, exit_on_error
from xray_hf.task import LABELS

DEFAULT_SIDE = 224  # pixels; what xray-resnet18 and xray-cnn take
# Options of push that only one kind of repository has.
_OF_KIND = {
    **dict.fromkeys(("data_set", "no_names"), "model"),
    **dict.fromkeys(("covid_metadata", "drop_bad", "all_images"), "dataset"),
}


def console() -> None:
    """The console script."""
    sys.exit(exit_on_error(main))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Heavy imports happen in the commands, so that --help is quick."""
    options = build_parser().parse_args(arguments)
    for name, lowest in (("seed", 0), ("side", 1)):
        value = getattr(options, name, lowest)
        if value < lowest:
            raise ConfigError(f"--{name} is {value}; expected {lowest} or more.")
    options.run(options)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = OptionParser(prog="xray-hf", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("download", help="fetch CoronaHack from Kaggle")
    command.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    command.set_defaults(run=_download)

    command = commands.add_parser("atlas", help="write synthetic patients in Kaggle's layout")
    command.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    command.add_argument("--patients", type=int, default=600, help="how many (default %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="default %(default)s")
    command.set_defaults(run=_atlas)

    command = commands.add_parser("examine", help="the paper's tables and figures of the data set")
    _add_data_options(command)
    command.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    command.add_argument("--seed", type=int, default=0, help="of the rebalancing (default %(default)s)")
    command.set_defaults(run=_examine)

    command = commands.add_parser("splits", help="show a protocol's splits, and what they share")
    _add_data_options(command)
    _add_split_options(command)
    command.add_argument("--out", type=Path, help="write splits.json here")
    command.set_defaults(run=_splits)

    command = commands.add_parser("prepare", help="decode all images into the cache; write the DatasetDict")
    _add_data_options(command)
    _add_split_options(command)
    command.add_argument("--out", type=Path, help="save the datasets.DatasetDict here")
    command.set_defaults(run=_prepare)

    command = commands.add_parser(
        "evaluate", help="draw a bundle's metrics and figures anew, without its model; or test it elsewhere"
    )
    _add_bundle(command)
    command.add_argument("--external", action="store_true", help="first classify the images of --data-dir")
    command.add_argument("--data-dir", type=Path, help="images, and labels.csv with file_name and label")
    command.add_argument(
        "--name",
        help="of the record, which replaces none of other images (default: the folder's name)",
    )
    command.add_argument(
        "--patient",
        metavar="REGEX",
        help="the part of file_name that names the patient, where labels.csv has no patient_id: '^[0-9]+'",
    )
    command.add_argument("--drop-bad", action="store_true", help="go on without rows that cannot be used")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser(
        "report", help="controls that could prove a bundle wrong: views, subgroups, source, labels"
    )
    _add_bundle(command)
    _add_data_options(command)
    command.add_argument(
        "--sheets",
        type=Path,
        metavar="DIR",
        help="draw the X-rays whose labels are believed least, in private",
    )
    command.set_defaults(run=_report)

    command = commands.add_parser("export", help="write a bundle's model.onnx, which the engine runs")
    _add_bundle(command)
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "calibrate", help="fit what a bundle counts as unsure, and with the data as foreign input"
    )
    _add_bundle(command)
    command.add_argument(
        "--risk", type=float, default=0.02, help="share of wrong answers to allow (default %(default)s)"
    )
    _add_data_options(command, is_required=False)
    command.add_argument(
        "--foreign-dir",
        type=Path,
        help="folders of images that are no frontal chest X-rays, one per kind; every second one is held out",
    )
    command.set_defaults(run=_calibrate)

    command = commands.add_parser("predict", help="classify any number of images into one table")
    command.add_argument("bundle", help="a bundle, the run's folder around it, or owner/name on the Hub")
    command.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files, folders, patterns, Parquet files, hf://datasets/owner/name[@revision]",
    )
    command.add_argument("--out", type=Path, required=True, help="a new .parquet, .csv or .jsonl")
    command.add_argument("--heatmaps", type=Path, metavar="DIR", help="new folder of one picture per image")
    command.add_argument("--resume", action="store_true", help="go on with a run that was stopped, or begin")
    command.add_argument("--batch-size", type=int, default=8, help="images in one call (default %(default)s)")
    command.add_argument(
        "--backend", default="onnxruntime", help="onnxruntime, openvino or torch (default %(default)s)"
    )
    command.add_argument("--split", help="of data sets of the Hub (default: the only one)")
    command.add_argument(
        "--image-column", help="of Parquet and data sets (default: the first of type Image, else `image`)"
    )
    command.set_defaults(run=_predict)

    command = commands.add_parser("card", help="write a bundle's model card, README.md")
    _add_bundle(command)
    _add_hub_options(command, "where it will be loaded from (default: where it lies)", is_required=False)
    command.set_defaults(run=_card)

    command = commands.add_parser("push", help="bring a bundle, the data set or the demo to the Hub")
    command.add_argument(
        "source",
        nargs="+",
        help="a bundle; the data set in Kaggle's layout; or, of a Space, its models, owner/name",
    )
    command.add_argument(
        "--kind",
        choices=("model", "dataset", "space"),
        default="model",
        help="of repository (default %(default)s)",
    )
    _add_hub_options(command, "the repository")
    command.add_argument("--dry-run", action="store_true", help="only show what would go; asks no network")
    command.add_argument("--public", action="store_true", help="open the repository (default: private)")
    command.add_argument("--force", action="store_true", help="overwrite what someone else changed there")
    command.add_argument("--tag", action="append", default=[], help="of the commit, besides its version")
    command.add_argument("--collection", metavar="TITLE", help="add the repository to your collection")
    command.add_argument("--covid-metadata", type=Path, help="as of prepare; it has their licences, too")
    command.add_argument("--drop-bad", action="store_true", help="of a data set: go on without bad rows")
    command.add_argument(
        "--no-names", action="store_true", help="of a model: names of files and patients stay here"
    )
    command.add_argument(
        "--all-images",
        action="store_true",
        help="of a data set: send also images that state no licence; never with --public",
    )
    command.set_defaults(run=_push)
    return parser


def _add_hub_options(command: argparse.ArgumentParser, repo_id: str, *, is_required: bool = True) -> None:
    command.add_argument("--repo-id", required=is_required, metavar="OWNER/NAME", help=repo_id)
    command.add_argument("--data-set", metavar="OWNER/NAME", help="the Hub's data set it was trained on")


def _add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, help="a bundle, or the run's folder around it")


def _add_data_options(command: argparse.ArgumentParser, is_required: bool = True) -> None:
    command.add_argument(
        "--data-dir", type=Path, required=is_required, help="the data set in Kaggle's layout"
    )
    command.add_argument("--covid-metadata", type=Path, help=HELP_ON_COVID_METADATA)
    command.add_argument("--drop-bad", action="store_true", help="go on without rows that cannot be used")
    command.add_argument("--side", type=int, default=DEFAULT_SIDE, help="pixels (default %(default)s)")
    command.add_argument("--cache-dir", type=Path, help="where pixels are kept (default $XRAY_HF_CACHE)")


def _add_split_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--protocol", choices=("grouped", "paper"), default="grouped", help="default grouped"
    )
    command.add_argument("--seed", type=int, default=0, help="default %(default)s")


def _open(options: argparse.Namespace):  # type: ignore[no-untyped-def]  # naming the type would import numpy
    from xray_hf.data.dataset import open_coronahack

    data = open_coronahack(
        options.data_dir,
        options.side,
        covid_metadata=options.covid_metadata,
        drop_bad=options.drop_bad,
        cache_dir=options.cache_dir,
    )
    print(data.report.as_table(), end="\n\n")
    return data


def _download(options: argparse.Namespace) -> None:
    from xray_hf.data.download import download

    download(options.out)
    print(f"data set: {options.out}")


def _atlas(options: argparse.Namespace) -> None:
    from xray_hf.data.synthetic import write_synthetic

    summary = write_synthetic(options.out, options.patients, options.seed)
    for (split, name), images in summary.counts.items():
        print(f"{split:<6} {name:<10} {images:>5}")
    print(f"{summary.patients} synthetic patients in {options.out}; they show no real person.")


def _examine(options: argparse.Namespace) -> None:
    from xray_hf.data.examine import examine
    from xray_hf.files import require_new_folder

    require_new_folder(options.out)  # before minutes are spent on decoding
    print(examine(_open(options), options.out, options.seed))
    print(f"tables and figures: {options.out}")


def _splits(options: argparse.Namespace) -> None:
    from xray_hf.data import splits
    from xray_hf.data.dataset import split_data
    from xray_hf.files import write_json

    data = _open(options)
    split = split_data(data, options.protocol, options.seed)
    print(splits.as_table(splits.describe(split, data.samples, data.groups)))
    if options.out:
        write_json(options.out, splits.as_dict(split, data.samples, data.groups))
        print(f"\nwritten: {options.out}")


def _prepare(options: argparse.Namespace) -> None:
    from xray_hf.data.dataset import split_data, to_dataset_dict
    from xray_hf.files import atomic_folder, require_new_folder

    if options.out:
        require_new_folder(options.out)  # before minutes are spent on decoding
    data = _open(options)
    print(
        f"{data.pixels.count:,} images of {data.pixels.side}×{data.pixels.side} pixels: {data.pixels.folder}"
    )
    if options.out:
        split = split_data(data, options.protocol, options.seed)
        with atomic_folder(options.out) as temporary:
            to_dataset_dict(data.samples, split).save_to_disk(temporary)
        print(f"DatasetDict with the classes {', '.join(LABELS)}: {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    from xray_hf import evidence
    from xray_hf.evaluation import metrics

    if options.external:
        _evaluate_elsewhere(options)
        return
    if options.data_dir or options.name is not None or options.patient is not None or options.drop_bad:
        raise ConfigError(
            "--data-dir, --name, --patient and --drop-bad go with --external; the record needs no data."
        )
    folder = _bundle(options)
    print(metrics.as_table(metrics.of_splits(evidence.draw(folder)), _mark(folder)))


def _evaluate_elsewhere(options: argparse.Namespace) -> None:
    import numpy as np

    from xray_hf import evidence
    from xray_hf.data.sample import labels_of
    from xray_hf.data.sources import folder as image_folder
    from xray_hf.evaluation import decisions, metrics
    from xray_hf.inference.evaluate import evaluate

    if not options.data_dir:
        raise ConfigError("--external needs --data-dir, the folder of images with labels.csv.")
    folder = _bundle(options)
    name = options.data_dir.resolve().name if options.name is None else options.name
    samples, read = image_folder.read(options.data_dir, options.patient)
    read.require_clean(options.drop_bad)  # before minutes are spent on decoding
    labels = np.asarray(labels_of(samples), np.int64)
    read.add_undecodable(evaluate(folder, samples, labels, name, drop_bad=options.drop_bad))
    print(read.as_table(), end="\n\n")
    numbers = evidence.draw(folder)["external"][name]
    print(metrics.as_table({name: numbers}, _mark(folder)))
    print(decisions.as_line(numbers["decisions"]))  # just made, hence under today's calibration


def _report(options: argparse.Namespace) -> None:
    folder = _bundle(options)
    from xray_hf import evidence
    from xray_hf.evaluation import controls, metrics
    from xray_hf.inference.report import report

    report(folder, _open(options), options.sheets)
    summary = evidence.draw(folder)
    print(metrics.as_table({"test": summary["test"], **summary["controls"]}, _mark(folder)))
    print(controls.as_table(summary))
    print(f"written: {folder / manifest.CONTROLS}")


def _mark(folder: Path) -> str:
    """What stands in front of numbers that mean nothing."""
    return manifest.mark_of(manifest.read_json(folder / manifest.TRAINING))


def _export(options: argparse.Namespace) -> None:
    folder = _bundle(options)
    _hide_loading()
    from xray_hf.export import export

    found = export(folder)
    print(
        f"{folder / manifest.GRAPH}: {found['bytes'] / 1e6:.1f} MB, weights in {found['precision']} "
        f"precision; {', '.join(found['outputs'])}\n"
        f"logits within {found['max_logit_difference']:.1e} of torch; "
        f"half precision moves a probability by {found['max_probability_change']:.1e} at most"
    )


def _calibrate(options: argparse.Namespace) -> None:
    if (options.data_dir is None) != (options.foreign_dir is None):
        raise ConfigError(
            "what is foreign is fitted with both --data-dir and --foreign-dir; pass both or none."
        )
    folder = _bundle(options)
    from xray_hf import evidence
    from xray_hf.evaluation import confidence, metrics
    from xray_hf.inference import calibrate_confidence, calibrate_foreign

    if options.foreign_dir:
        calibrate_foreign.find(options.foreign_dir)  # before minutes are spent on decoding
        report = calibrate_foreign.calibrate(folder, _open(options), options.foreign_dir)
        evidence.draw(folder)  # should the other half fail, this one is done
        print(calibrate_foreign.as_table(report), end="\n\n")
    fitted = calibrate_confidence.calibrate(folder, options.risk)
    print(confidence.as_table(metrics.of_splits(evidence.draw(folder)), _mark(folder)))
    print(f"temperature {fitted.temperature:.3f}, unsure below {fitted.unsure_below:.3f}")
    print(f"written: {folder / manifest.CALIBRATION}")


def _predict(options: argparse.Namespace) -> None:
    if options.backend == "torch":
        _hide_loading()
    from xray_hf.inference import bulk, inputs

    if bulk.is_finished(options.out, resume=options.resume):
        print(f"{options.out} is finished already; nothing was done. Delete it to begin anew.")
        return
    found = inputs.find(
        options.paths, split=options.split, image_column=options.image_column, besides=options.heatmaps
    )
    summary = bulk.predict_in_bulk(
        options.bundle,
        found,
        options.out,
        heatmaps=options.heatmaps,
        resume=options.resume,
        batch_size=options.batch_size,
        backend=options.backend,
    )
    if summary is None:  # of several processes the first has it
        return
    print(summary)
    if summary.errors == summary.images:
        raise DataError(f"no image got an answer; the column `error` of {options.out} says why.")


def _card(options: argparse.Namespace) -> None:
    from xray_hf.files import write_text
    from xray_hf.hub import cards, publish

    if options.repo_id:
        publish.require_repo_id(options.repo_id)
    folder = _bundle(options)
    write_text(folder / manifest.CARD, cards.render(folder, options.repo_id, data_set=options.data_set))
    print(f"written: {folder / manifest.CARD}")


def _push(options: argparse.Namespace) -> None:
    from xray_hf.hub import publish

    with TemporaryDirectory(prefix="xray_hf-push-") as folder:
        plan = _plan(options, Path(folder))
        print(plan.as_table())
        if options.dry_run:
            print("nothing was sent.")
            return
        done = publish.push(
            plan,
            is_public=options.public,
            is_forced=options.force,
            tags=tuple(options.tag),
            collection=options.collection,
        )
    print(f"{done.url} {'now holds' if done.is_new else 'already held'} it, commit {done.commit}")


def _plan(options: argparse.Namespace, folder: Path):  # type: ignore[no-untyped-def]  # as _open
    from xray_hf.hub import data_set, publish, space

    for option, kind in _OF_KIND.items():
        if getattr(options, option) and options.kind != kind:
            words = f"--{option.replace('_', '-')} is of --kind {kind}, not of {options.kind}"
            raise ConfigError(f"{words}; leave it out.")
    if options.kind == "space":
        return space.plan(options.source, options.repo_id)
    if len(options.source) > 1:
        raise ConfigError(f"one source at a time; got {', '.join(options.source)}.")
    if options.kind == "dataset":
        if options.all_images and options.public:
            raise ConfigError("--all-images sends what nobody but its owner may share; leave --public out.")
        publish.require_repo_id(options.repo_id)  # before all images are read
        options.data_dir, options.side, options.cache_dir = Path(options.source[0]), DEFAULT_SIDE, None
        return data_set.plan(_open(options), options.repo_id, folder, with_all=options.all_images)
    options.bundle = Path(options.source[0])
    return publish.of_bundle(
        _bundle(options), options.repo_id, data_set=options.data_set, with_names=not options.no_names
    )


def _hide_loading() -> None:
    """Have transformers show no bar of loading weights, which takes a moment; imports it."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _bundle(options: argparse.Namespace) -> Path:
    """A local bundle that a command changes."""
    if not options.bundle.is_dir():
        raise BundleError(f"{options.bundle} is no folder; expected a bundle that train.py wrote.")
    return manifest.locate(options.bundle, weights=True)


if __name__ == "__main__":
    console()
