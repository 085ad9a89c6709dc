"""How steady the poses are, and whether their covariance tells the truth: raw and filtered.

    python tests/bench/measure_stability.py --seed 7 --out out/stability
    python tests/bench/measure_stability.py --seed 101 102 103 --calibrate --write

Three films per seed (see stability_film.py) with the shipped networks; what the pipeline said is
kept in --out, so that another run only filters and counts. Printed per film: jitter (standard
deviation of an object's pose while nothing moves, after half a second), lag behind the truth in
frames, error, and NEES, the squared error normalised by the covariance. --calibrate measures what
describes an estimator's errors, ``covariance_scale`` of each object (--write enters it into the
manifest) and ``filter.noise_share``; give it other seeds than the ones you report.

A pose more than half a diameter off is no pose of that object but of something else: such runs are
counted and left out, no covariance speaks of them. The turn about a continuous axis of symmetry is
left out of NEES: the error is projected onto the five directions that a turn does not move.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import stability_film as film
import yaml

from heatnet_ros.config import FilterConfig, load_yaml
from heatnet_ros.files import make_folder, write_json, write_whole
from heatnet_ros.filtering import FilterBank, chi_square_bound
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import nearest_equivalent
from heatnet_ros.manifest import load_manifest
from heatnet_ros.objects import ObjectLibrary, ObjectModel, load_objects
from heatnet_ros.params_file import load_params
from heatnet_ros.pipeline import load_pipeline
from heatnet_ros.resources import find_resource
from heatnet_ros.types import FloatArray, PoseEstimate

SETTLE = 15  # frames at 30 Hz until a filter has settled
LEAST = 25  # shorter runs say nothing about jitter or lag
FALSE_DIAMETERS = 0.5


@dataclass(frozen=True, eq=False)
class Run:
    """One instance on one table. errors, steps: (N, 6) and (N, 3), the truth's way per frame."""

    name: str
    errors: FloatArray
    steps_m: FloatArray
    whitened: FloatArray  # (N, 6 or 5), unit covariance where the covariance is true


def pose_error(T: FloatArray, truth: FloatArray, model: ObjectModel) -> FloatArray:
    """(6,): the step (dt, w) from a pose to the true one, of the equivalent ones the nearest."""
    if model.symmetries.any:
        truth = nearest_equivalent(truth, T, model.symmetries)
    return np.concatenate([truth[:3, 3] - T[:3, 3], se3.log_so3(truth[:3, :3] @ T[:3, :3].T)])


def seen_directions(T: FloatArray, model: ObjectModel) -> FloatArray:
    """(6, 6), or (5, 6): rows that a turn about a continuous axis of symmetry does not move."""
    axis, point = model.symmetries.axis, model.symmetries.point_m
    if axis is None or point is None:
        return np.eye(6)
    w, arm = T[:3, :3] @ axis, T[:3, :3] @ point
    free = np.concatenate([np.cross(arm, w), w])  # the origin turns about a line through `arm`
    return np.asarray(np.linalg.svd(free[None])[2][1:])


def measure(seen: list[film.Seen], poses: Iterable[PoseEstimate], model: ObjectModel) -> Run:
    """Errors of the poses of one run against the truth."""
    errors, whitened = [], []
    for item, pose in zip(seen, poses, strict=True):
        error = pose_error(pose.T_camera_object, item.truth, model)
        B = seen_directions(pose.T_camera_object, model)
        assert pose.covariance is not None  # the shipped estimators always know one
        L = np.linalg.cholesky(B @ pose.covariance @ B.T)
        errors.append(error)
        whitened.append(np.linalg.solve(L, B @ error))
    way = np.array([item.truth[:3, 3] for item in seen])
    return Run(model.name, np.array(errors), np.gradient(way, axis=0), np.array(whitened))


def split_runs(seen: list[film.Seen]) -> list[list[film.Seen]]:
    """What each filter follows, in the order of frames."""
    runs: dict[tuple[object, ...], list[film.Seen]] = defaultdict(list)
    for item in seen:
        runs[item.run].append(item)
    return list(runs.values())


def is_false(seen: list[film.Seen], model: ObjectModel) -> bool:
    """Whether any pose of a run is of something else."""
    away = [
        np.linalg.norm(pose_error(s.pose.T_camera_object, s.truth, model)[:3]) / model.diameter_m
        for s in seen
    ]
    return max(away) > FALSE_DIAMETERS


def filter_run(
    seen: list[film.Seen], library: ObjectLibrary, config: FilterConfig
) -> list[PoseEstimate]:
    """The filtered poses of one run."""
    bank = FilterBank(library)
    return [bank.update([s.pose], s.stamp_ns, config)[0] for s in seen]


def jitter(runs: list[Run]) -> tuple[float, float]:
    """Standard deviation of the position in mm, and of the rotation in degrees, over all runs."""
    variances = np.mean([run.errors[SETTLE:].var(axis=0) for run in runs], axis=0)
    return 1e3 * variances[:3].sum() ** 0.5, np.degrees(variances[3:].sum() ** 0.5)


def lags(raw: list[Run], filtered: list[Run]) -> FloatArray:
    """Frames that each run is behind the raw poses, which have no memory and so no lag.

    Their difference, projected onto the true way per frame: errors of the network fall out.
    """
    out = []
    for before, after in zip(raw, filtered, strict=True):
        late = (after.errors - before.errors)[SETTLE:, :3]
        step = before.steps_m[SETTLE:]
        out.append(float((late * step).sum() / (step**2).sum()))
    return np.array(out)


def summarize(motion: str, raw: list[Run], filtered: list[Run]) -> dict[str, object]:
    """The numbers of one film."""
    report: dict[str, object] = {"motion": motion, "runs": len(raw)}
    for kind, runs in (("raw", raw), ("filtered", filtered)):
        squared = np.concatenate([(run.whitened**2).sum(axis=1) for run in runs])
        freedom = np.concatenate([np.full(len(r.whitened), r.whitened.shape[1]) for r in runs])
        inside = [s < chi_square_bound(0.95, int(f)) for s, f in zip(squared, freedom, strict=True)]
        errors = np.concatenate([run.errors for run in runs])
        entry = {
            "frames": len(squared),
            "rms_mm": 1e3 * float((errors[:, :3] ** 2).sum(axis=1).mean() ** 0.5),
            "rms_deg": float(np.degrees((errors[:, 3:] ** 2).sum(axis=1).mean() ** 0.5)),
            "nees": 6 * float((squared / freedom).mean()),
            "nees_median": 6 * float(np.median(squared / freedom)),
            "inside_95": float(np.mean(inside)),
        }
        if motion == "static":
            entry["jitter_mm"], entry["jitter_deg"] = jitter(runs)
        else:
            late = lags(raw, runs)
            entry["lag_mean"], entry["lag_max"] = float(late.mean()), float(late.max())
        report[kind] = entry
    return report


def nees_interval(runs: int) -> tuple[float, float]:
    """95 % interval of the mean NEES (6 expected) of so many independent errors."""
    freedom = 6 * runs
    return chi_square_bound(0.025, freedom) / runs, chi_square_bound(0.975, freedom) / runs


def calibrate(runs: list[tuple[str, Run]]) -> tuple[float, dict[str, float]]:
    """filter.noise_share, and for each object by how much its covariance is too small.

    The factors over all films; the share where the camera stands still, so that all that changes
    from frame to frame is noise (half the mean squared difference of neighbours).
    """
    squares: dict[str, list[float]] = defaultdict(list)
    for _, run in runs:
        squares[run.name].append(float(np.mean(run.whitened**2)))
    factors = {name: float(np.mean(values)) for name, values in sorted(squares.items())}
    still = [np.mean(np.diff(run.whitened[SETTLE:], axis=0) ** 2) / 2 / factors[run.name]
             for motion, run in runs if motion == "static"]  # fmt: skip
    return float(np.mean(still)), factors


def tell_calibration(runs: list[tuple[str, Run]], model: Path, write: bool) -> None:
    """Print what was measured; with ``write`` enter the objects' factors into the manifest."""
    share, factors = calibrate(runs)
    scales = load_manifest(model).covariance_scale
    new = {n: round(scales.get(n, 1.0) * factor, 3) for n, factor in factors.items()}
    print(f"filter.noise_share: {share:.3f}   covariance_scale: {new}")
    if write:
        path = model / "manifest.yaml"
        header = path.read_text().splitlines()[0]
        content = load_yaml(path, "Manifest") | {"covariance_scale": scales | new}
        write_whole(path, f"{header}\n{yaml.safe_dump(content, sort_keys=False)}")
        print(f"entered into {path}")


def tell_sigmas(seen: list[film.Seen]) -> None:
    """Print what each object's poses tell of themselves: largest sigma of any direction, median."""
    told: dict[str, list[FloatArray]] = defaultdict(list)
    for pose in (item.pose for item in seen):
        if pose.covariance is not None:
            told[pose.object_id].append(
                np.stack([pose.covariance[:3, :3], pose.covariance[3:, 3:]])
            )
    for name, blocks in sorted(told.items()):
        sigmas = np.sqrt(np.linalg.eigvalsh(np.array(blocks))[..., -1])
        mm, deg = 1e3 * sigmas[:, 0], np.degrees(sigmas[:, 1])
        print(
            f"{name:<12} told sigma {np.median(mm):.2f} mm {np.median(deg):.2f} deg (median), 95 % "
            f"below {np.percentile(mm, 95):.2f} mm {np.percentile(deg, 95):.2f} deg"
        )


def record_films(args: argparse.Namespace, model: Path) -> dict[str, list[film.Seen]]:
    """Films of all seeds by motion; what is in --out already is read."""
    make_folder(args.out)
    pipeline, scales = None, load_manifest(model).covariance_scale
    films: dict[str, list[film.Seen]] = {motion: [] for motion in film.MOTIONS}
    for motion, seed in itertools.product(film.MOTIONS, args.seed):
        path = args.out / f"{motion}_{seed}_{args.tables}x{args.frames}.npz"
        if not path.exists():
            if pipeline is None:
                pipeline = load_pipeline(load_params(args.params))
                film.forget_calibration(pipeline)
                pipeline.warm_up()
            film.save(path, film.record(pipeline, motion, seed, args.tables, args.frames))
        films[motion] += film.load(path, scales)
    if pipeline is not None:
        pipeline.close()
    return films


def show(report: dict[str, object], runs: int) -> None:
    """Print the numbers of one film."""
    low, high = nees_interval(runs)
    for kind in ("raw", "filtered"):
        e = report[kind]
        assert isinstance(e, dict)
        still = "jitter_mm" in e
        steady = (
            f"jitter {e['jitter_mm']:.3f} mm {e['jitter_deg']:.3f} deg"
            if still else f"lag {e['lag_mean']:+.2f} frames, at most {e['lag_max']:+.2f}"
        )  # fmt: skip
        verdict = "in" if low <= e["nees"] <= high else "OUTSIDE"
        print(
            f"{report['motion']!s:<8}{kind:<9} {runs:3d} runs {e['frames']:5d} frames  {steady}  "
            f"rms {e['rms_mm']:.2f} mm {e['rms_deg']:.2f} deg  NEES {e['nees']:.2f} "
            f"(median {e['nees_median']:.2f}; {verdict} {low:.2f}..{high:.2f}), "
            f"{100 * e['inside_95']:.1f} % inside the 95 % bound"
        )


def main() -> int:
    """Record, filter, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("config/pose_demo.yaml"))
    parser.add_argument("--seed", type=int, nargs="+", default=[7], help="films (7)")
    parser.add_argument("--tables", type=int, default=12, help="tables per film (12)")
    parser.add_argument("--frames", type=int, default=60, help="frames per table, 30 Hz (60)")
    parser.add_argument("--out", type=Path, default=Path("out/stability"))
    parser.add_argument("--calibrate", action="store_true", help="measure the model's errors")
    parser.add_argument("--write", action="store_true", help="enter them into its manifest")
    args = parser.parse_args()
    config = load_params(args.params)
    library = load_objects(find_resource(config.objects_file, "Object library"))
    model_folder = find_resource(config.estimator.model, "Estimator model")
    films, reports, every = record_films(args, model_folder), [], []
    totals: dict[str, list[Run]] = {"raw": [], "filtered": []}
    for motion, seen in films.items():
        raw, filtered, false = [], [], 0
        for run in split_runs(seen):
            model = library[run[0].pose.object_id]
            if is_false(run, model):
                false += 1
            elif len(run) >= LEAST:
                raw.append(measure(run, [s.pose for s in run], model))
                poses = filter_run(run, library, config.filter)
                filtered.append(measure(run, poses, model))
        reports.append(summarize(motion, raw, filtered) | {"false_runs": false})
        show(reports[-1], len(raw))
        if false:
            print(f"{motion:<8}left out: {false} runs of something else")
        every += [(motion, run) for run in raw]
        totals["raw"] += raw
        totals["filtered"] += filtered
    low, high = nees_interval(len(every))
    for kind, runs in totals.items():
        nees = 6 * float(np.mean([np.mean(run.whitened**2) for run in runs]))
        verdict = "in" if low <= nees <= high else "OUTSIDE"
        print(f"all     {kind:<9} {len(runs):3d} runs  NEES {nees:.2f} ({verdict} {low:.2f}.."
              f"{high:.2f}: one error per run, as errors of one run go together)")  # fmt: skip
    tell_sigmas([item for seen in films.values() for item in seen])
    if args.calibrate:
        tell_calibration(every, model_folder, args.write)
    write_json(args.out / "report.json", {"films": reports})
    return 0


if __name__ == "__main__":
    sys.exit(main())
