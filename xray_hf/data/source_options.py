"""Which collections a command reads, as the command line and YAML files name them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xray_hf.data.sources import KINDS, ReadOptions, SourceSpec, check_hold_out, parse_maps, parse_specs
from xray_hf.errors import ConfigError
from xray_hf.options import Names, option
from xray_hf.task import check_classes

if TYPE_CHECKING:
    from xray_hf.data.dataset import XrayData


@dataclass(frozen=True)
class SourceOptions:
    """Sources."""

    source: tuple[str, ...] = option(
        (),
        f"a collection to read; repeatable. KIND is {', '.join(KINDS)}. --data-dir DIR is short for "
        "--source coronahack=DIR",
        metavar="KIND[:NAME]=PLACE",
    )
    map: tuple[str, ...] = option(
        (),
        "assign a source's finding to a class; with an empty CLASS its images are left out; repeatable",
        metavar="[KIND:]NAME:FINDING=CLASS",
    )
    classes: tuple[str, ...] | None = option(
        None, "the classes, in order (default: all that the sources have)", Names()
    )
    patient: str | None = option(
        None,
        "for `folder`: regular expression for the part of a file name that identifies the patient, such as "
        "'^[0-9]+'",
        metavar="REGEX",
    )
    covid_metadata: str | None = option(
        None,
        "CSV that names the patients of CoronaHack's COVID-19 images (default: covid_chestxray_metadata.csv "
        "or metadata.csv in the data's folder or its parent, if present)",
        metavar="CSV",
    )
    drop_bad: bool = option(False, "skip rows without a file, a label or a decodable image")
    cache_dir: str | None = option(
        None,
        "cache of decoded pixels and of the Hub's images (default $XRAY_HF_CACHE, else ~/.cache/xray_hf)",
        metavar="DIR",
    )

    @property
    def specs(self) -> tuple[SourceSpec, ...]:
        """The sources, one at least; raises ConfigError."""
        if not self.source:
            raise ConfigError(
                "no source is given; pass --source KIND[:NAME]=PLACE, or --data-dir DIR for CoronaHack in "
                "Kaggle's layout. Synthetic patients to try with: `xray-hf atlas --out data/synthetic`."
            )
        return parse_specs(self.source)

    @property
    def read_options(self) -> ReadOptions:
        """Options that only some readers use."""
        return ReadOptions(_path(self.covid_metadata), self.patient, _path(self.cache_dir))

    def check(self, hold_out: tuple[str, ...] = ()) -> None:
        """Raise ConfigError for mistakes that show before data are read or torch is imported."""
        parse_maps(self.map, self.specs)
        if self.classes:
            check_classes(self.classes)
        check_hold_out(hold_out, [spec.name for spec in self.specs])

    def open(self, side: int) -> XrayData:
        """Read and decode all sources at `side` pixels; raises ConfigError, DataError, OutputError."""
        from xray_hf.data.dataset import open_data  # imports numpy; --help need not wait for it

        return open_data(
            self.specs,
            side,
            classes=self.classes,
            label_map=self.map,
            options=self.read_options,
            drop_bad=self.drop_bad,
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
