"""Cut a data set's images into crops: ``python -m heatnet_ros.onboard.crops``.

``train`` does it by itself; here it comes first, so that two trainings side by side find it done
instead of both doing it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from heatnet_ros.datasets.crop_cache import CacheOptions, ensure_cache
from heatnet_ros.errors import HeatnetError
from heatnet_ros.objects import load_objects


def main(arguments: list[str] | None = None) -> int:
    """Command line; the options of the crops are those of a training file's defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=Path, required=True, help="the object library")
    parser.add_argument("--dataset", type=Path, required=True, help="a BOP data set")
    parser.add_argument("--split", default="train", help="its split (train)")
    args = parser.parse_args(arguments)
    try:
        folder = ensure_cache(args.dataset, args.split, load_objects(args.objects), CacheOptions())
    except HeatnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"crops in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
