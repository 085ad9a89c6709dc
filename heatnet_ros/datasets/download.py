"""``python -m heatnet_ros download``: public BOP data sets, continued after any interruption.

The archives are those of https://bop.felk.cvut.cz/datasets, hosted at
https://huggingface.co/datasets/bop-benchmark. Their names were looked up in the hosts' listings and
in published download instructions. None was downloaded for real while this was written: the
machinery is tested against a local server, the addresses are not. Sets whose archives are split
into several volumes (.z01) are not listed, zipfile cannot read them. Linemod_preprocessed has no
stable public address; BOP's ``lm`` with part test_all holds the same images.
"""

from __future__ import annotations

import argparse
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from heatnet_ros.datasets.archives import extract
from heatnet_ros.datasets.transfer import Patience, fetch
from heatnet_ros.errors import ConfigError
from heatnet_ros.files import write_whole

DEFAULT_MIRROR = "https://huggingface.co/datasets/bop-benchmark/{dataset}/resolve/main/{file}"
DEFAULT_PARTS = "base,models,test"

# data set -> part -> archive. "test" is the selection that the BOP challenge is scored on.
ARCHIVES: dict[str, dict[str, str]] = {
    "lm": {
        "base": "lm_base.zip",
        "models": "lm_models.zip",
        "test": "lm_test_bop19.zip",
        "test_all": "lm_test_all.zip",
        "train_pbr": "lm_train_pbr.zip",
    },
    "lmo": {
        "base": "lmo_base.zip",
        "models": "lmo_models.zip",
        "test": "lmo_test_bop19.zip",
        "test_all": "lmo_test_all.zip",
    },
    "ycbv": {
        "base": "ycbv_base.zip",
        "models": "ycbv_models.zip",
        "test": "ycbv_test_bop19.zip",
        "test_all": "ycbv_test_all.zip",
        "train_pbr": "ycbv_train_pbr.zip",
    },
    "tless": {
        "base": "tless_base.zip",
        "models": "tless_models.zip",
        "test": "tless_test_primesense_bop19.zip",
        "test_all": "tless_test_primesense_all.zip",
        "train_pbr": "tless_train_pbr.zip",
    },
    "itodd": {
        "base": "itodd_base.zip",
        "models": "itodd_models.zip",
        "test": "itodd_test_bop19.zip",
        "test_all": "itodd_test_all.zip",
        "val": "itodd_val.zip",
        "train_pbr": "itodd_train_pbr.zip",
    },
    "hb": {
        "base": "hb_base.zip",
        "models": "hb_models.zip",
        "test": "hb_test_primesense_bop19.zip",
        "test_all": "hb_test_primesense_all.zip",
        "val": "hb_val_primesense.zip",
        "train_pbr": "hb_train_pbr.zip",
    },
    "hope": {
        "base": "hope_base.zip",
        "models": "hope_models.zip",
        "test": "hope_test_bop24.zip",
        "val": "hope_val_realsense.zip",
    },
}


@dataclass(frozen=True)
class Job:
    """One archive: of which data set, its file name, its address, its SHA-256 if the user knows."""

    dataset: str
    file: str
    url: str
    sha256: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument("datasets", nargs="*", help="such as lmo; --list shows all")
    parser.add_argument("--out", type=Path, default=Path("data/bop"), help="folder (data/bop)")
    parser.add_argument(
        "--parts",
        default=DEFAULT_PARTS,
        help=f"comma-separated ({DEFAULT_PARTS}); test is the selection of the BOP challenge, "
        "test_all every image, train_pbr rendered ones (about 20 GB)",
    )
    parser.add_argument(
        "--mirror",
        default=DEFAULT_MIRROR,
        metavar="URL",
        help="another server: an address with {file} and, where it needs it, {dataset}; without "
        f"them the file's name is appended ({DEFAULT_MIRROR.replace('%', '%%')})",
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="FILE=HEX",
        help="expected checksum of an archive (else the one the server states); may be repeated",
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep the zip files")
    parser.add_argument("--list", action="store_true", help="show the data sets and their parts")


def run(args: argparse.Namespace, patience: Patience | None = None) -> int:
    """Run the subcommand. Raises HeatnetError with address, expected, got and remedy."""
    if args.list:
        for dataset, parts in ARCHIVES.items():
            print(f"{dataset:6} {', '.join(parts)}")
        return 0
    if not args.datasets:
        raise ConfigError(f"Name a data set to download: {', '.join(ARCHIVES)}.")
    jobs = plan(args.datasets, args.parts, args.mirror, args.sha256)
    for job in jobs:
        _install(job, args.out, args.keep_archives, patience)
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        print(f"{dataset}: complete in {args.out / dataset}")
    return 0


def plan(datasets: list[str], parts: str, mirror: str, sha256: list[str]) -> list[Job]:
    """List the archives to get. Raises ConfigError for an unknown name or a malformed option."""
    checksums = dict(_parse_checksum(text) for text in sha256)
    if not re.match(r"https?://", mirror):
        raise ConfigError(
            f"--mirror: expected an address with http:// or https://, got '{mirror}'."
        )
    pattern = mirror if "{file}" in mirror else mirror.rstrip("/") + "/{file}"
    wanted = [part for part in (p.strip() for p in parts.split(",")) if part]
    jobs = []
    for dataset in datasets:
        archives = ARCHIVES[_known(dataset, list(ARCHIVES), "Data set")]
        for part in wanted:
            file = archives[_known(part, list(archives), f"Part of {dataset}")]
            url = pattern.replace("{dataset}", dataset).replace("{file}", file)
            jobs.append(Job(dataset, file, url, checksums.pop(file, None)))
    if checksums:
        raise ConfigError(
            f"--sha256 names {', '.join(checksums)}, which is not downloaded. Its files are "
            f"{', '.join(job.file for job in jobs)}."
        )
    return jobs


def _install(job: Job, out: Path, keep: bool, patience: Patience | None) -> None:
    """Download and unpack one archive; done already, it does nothing."""
    folder = out / job.dataset
    done, archive = folder / ".downloaded" / job.file, out / job.file
    if done.exists():
        print(f"{job.file}: already there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if archive.exists():  # whole, because it has its name; a kill came before it was unpacked
        print(f"{job.file}: already downloaded")
    else:
        print(f"{job.file}: from {job.url}", flush=True)
        print(f"{job.file}: {fetch(job.url, archive, job.sha256, patience)}", flush=True)
    count = extract(archive, folder, prefix=job.dataset)
    write_whole(done, f"{job.url}\n{count} files\n")
    if not keep:
        archive.unlink()


def _known(name: str, names: list[str], what: str) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{what} '{name}' is not known; expected {', '.join(names)}.{hint}")
    return name


def _parse_checksum(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+)=([0-9a-fA-F]{64})", text)
    if match is None:
        raise ConfigError(f"--sha256: expected FILE=64 hexadecimal digits, got '{text}'.")
    return match.group(1), match.group(2).lower()
