"""`xray-hf`: what can be done with data and bundles from the command line; training is `train.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from xray_hf import __version__
from xray_hf.errors import ConfigError, OptionParser, exit_on_error
from xray_hf.labels import LABELS, SYNTHETIC_MARK

DEFAULT_SIDE = 224  # pixels; what xray-resnet18 and xray-cnn take


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
    command.add_argument("--out", type=Path, required=True, help="folder of tables and figures")
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
        "evaluate", help="draw a bundle's metrics and figures anew, without its model"
    )
    command.add_argument("bundle", type=Path, help="a bundle, or the run's folder around it")
    command.set_defaults(run=_evaluate)
    return parser


def _add_data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", type=Path, required=True, help="the data set in Kaggle's layout")
    command.add_argument("--covid-metadata", type=Path, help="CSV with the patients of the COVID-19 images")
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
    from xray_hf.data.atlas import write_synthetic

    summary = write_synthetic(options.out, options.patients, options.seed)
    for (split, name), images in summary.counts.items():
        print(f"{split:<6} {name:<10} {images:>5}")
    print(f"{summary.patients} synthetic patients in {options.out}; they show no real person.")


def _examine(options: argparse.Namespace) -> None:
    from xray_hf.data.examine import examine

    print(examine(_open(options), options.out, options.seed))
    print(f"tables and figures: {options.out}")


def _splits(options: argparse.Namespace) -> None:
    from xray_hf.data import splits
    from xray_hf.data.dataset import split_data
    from xray_hf.files import write_json

    data = _open(options)
    split = split_data(data, options.protocol, options.seed)
    print(splits.as_table(splits.describe(split, data.records, data.groups)))
    if options.out:
        write_json(options.out, splits.as_dict(split, data.records, data.groups))
        print(f"\nwritten: {options.out}")


def _prepare(options: argparse.Namespace) -> None:
    from xray_hf.data.dataset import split_data, to_dataset_dict

    data = _open(options)
    print(
        f"{data.pixels.count:,} images of {data.pixels.side}×{data.pixels.side} pixels: {data.pixels.folder}"
    )
    if options.out:
        from xray_hf.files import atomic_folder, require_new_folder

        require_new_folder(options.out)
        split = split_data(data, options.protocol, options.seed)
        with atomic_folder(options.out) as temporary:
            to_dataset_dict(data.records, split).save_to_disk(temporary)
        print(f"DatasetDict with the classes {', '.join(LABELS)}: {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    from xray_hf import bundle
    from xray_hf.evaluation import metrics

    folder = options.bundle / "bundle" if (options.bundle / "bundle").is_dir() else options.bundle
    summary = bundle.draw_views(folder)
    mark = SYNTHETIC_MARK if bundle.read_json(folder / bundle.TRAINING).get("is_synthetic") else ""
    print(metrics.as_table(summary, mark))


if __name__ == "__main__":
    console()
