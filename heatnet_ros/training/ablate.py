"""What each part of a training gains: the same data, seeds and crops, one change at a time.

``python -m heatnet_ros.training.ablate --config config/train/linemod_rgbd.yaml --arms
config/train/ablation.yaml --out runs/ablation --samples 20000``. The arms' file maps a name to the
keys it changes in the training file, nested as there; an empty mapping is the training file itself.
Interrupted, the same command continues. Prints a table and writes it as ``arms.json`` too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatnet_ros.config import build_config, load_yaml
from heatnet_ros.errors import ConfigError
from heatnet_ros.files import write_json
from heatnet_ros.training.prepare import prepare_data
from heatnet_ros.training.ranks import Place, choose_device
from heatnet_ros.training.run_config import NETWORK_KEY
from heatnet_ros.training.train_heatnet import TrainConfig, train


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; mappings inside are merged as well."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            merged[key] = merge(inner, value)
        else:
            merged[key] = value
    return merged


def build_arms(base_path: Path, arms_path: Path, samples: int | None) -> dict[str, TrainConfig]:
    """Name -> training of each arm. Raises ConfigError when a file or a key is wrong."""
    base, arms = load_yaml(base_path, "Training file"), load_yaml(arms_path, "Arms' file")
    base.pop(NETWORK_KEY, None)
    built = {}
    for name, changes in arms.items():
        if not isinstance(changes, Mapping):
            raise ConfigError(
                f"Arms' file {arms_path}: '{name}' must be a mapping of changed keys, got "
                f"{changes!r}. Write '{name}: {{}}' for the training file itself."
            )
        config = build_config(TrainConfig, merge(base, changes), f"{arms_path}: {name}")
        built[str(name)] = config if samples is None else replace(config, samples=samples, epochs=0)
    return built


def read_result(folder: Path, target: float) -> dict[str, Any]:
    """Numbers of a finished run from its log.

    ``crops_to_target``: crops after which the recall on the way first reached ``target``, None
    where it never did.
    """
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "seconds" in entry]
    scores = [entry for entry in entries if "held_out" in entry]
    reached = [e["seen"] for e in scores if e["held_out"].get("mean_recall", 0.0) >= target]
    seen, seconds = steps[-1]["seen"], steps[-1]["seconds"]
    return {
        "crops": seen,
        "seconds": seconds,
        "crops_per_s": round(seen / max(seconds, 1e-9), 1),
        "keypoint_px": scores[-1]["held_out"]["mean_px"],
        "recall": scores[-1]["held_out"]["mean_recall"],
        "crops_to_target": reached[0] if reached else None,
        "held_out": scores[-1]["held_out"],
    }


def format_table(results: Mapping[str, Mapping[str, Any]], target: float) -> str:
    """Markdown: one row per arm, the gain against the first one."""
    head = f"| arm | crops | crops/s | keypoint px | recall | gain | crops to {target:.0%} |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    first = next(iter(results.values()), None)
    for name, r in results.items():
        gain = 100 * (r["recall"] - first["recall"]) if first else 0.0
        reached = "-" if r["crops_to_target"] is None else str(r["crops_to_target"])
        rows.append(
            f"| {name} | {r['crops']} | {r['crops_per_s']:.0f} | {r['keypoint_px']:.2f} | "
            f"{r['recall']:.3f} | {gain:+.1f} | {reached} |"
        )
    return "\n".join(rows)


def run_arms(arms: Mapping[str, TrainConfig], out: Path, target: float) -> dict[str, Any]:
    """Train what is not trained yet; name -> numbers. Writes ``arms.json`` after every arm."""
    results: dict[str, Any] = {}
    for name, config in arms.items():
        folder = out / name
        if not (folder / "final.pt").exists():
            print(f"== {name}", flush=True)
            train(prepare_data(config, Place(choose_device(config.device))), folder)
        results[name] = read_result(folder, target)
        write_json(out / "arms.json", results)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the training file")
    parser.add_argument("--arms", type=Path, required=True, help="YAML: name -> changed keys")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--samples", type=int, help="crops of each arm, instead of the file's")
    parser.add_argument(
        "--target", type=float, default=0.5, help="recall whose cost in crops is told (0.5)"
    )
    args = parser.parse_args(arguments)
    arms = build_arms(args.config, args.arms, args.samples)
    print(format_table(run_arms(arms, args.out, args.target), args.target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
