"""``python -m heatnet_ros keypoints``: meshes -> object library.

Meshes are checked and, where the run time could not read them, written as PLY beside the library.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatnet_ros.datasets.bop import ModelInfo, load_models_info, object_name, read_object_names
from heatnet_ros.errors import ConfigError
from heatnet_ros.keypoint_sampling import KEYPOINT_COUNT, METHODS
from heatnet_ros.mesh_formats import MESH_SUFFIXES
from heatnet_ros.mesh_import import ImportedMesh, import_mesh, normalize
from heatnet_ros.objects import describe_object, load_objects, save_objects
from heatnet_ros.symmetry_proposal import propose_symmetries

# names that mesh files share, so that their folder's name says more
_NAMELESS = ("textured", "textured_simple", "nontextured", "model", "mesh", "object")


@dataclass(frozen=True)
class _Source:
    """A mesh file, the name its object gets, and what BOP knows about it."""

    mesh_path: Path
    name: str
    info: ModelInfo | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "meshes", nargs="+", type=Path, help="PLY, OBJ, STL or GLB files, one object each"
    )
    parser.add_argument("--name", required=True, help="name of the set")
    parser.add_argument("--out", required=True, type=Path, help="the library to write (.yaml)")
    parser.add_argument(
        "--count", type=int, default=KEYPOINT_COUNT, help=f"keypoints per object ({KEYPOINT_COUNT})"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="fps",
        help="farthest points, or points of high curvature (fps)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the surface samples (0)")
    parser.add_argument(
        "--unit", choices=("auto", "m", "mm"), default="auto", help="of the meshes (auto: by size)"
    )
    parser.add_argument(
        "--accept-symmetries",
        action="store_true",
        help="take the proposed symmetries whose colours agree (--symmetry goes first); look at "
        "what it says: a mark on less than 2 %% of the surface is not seen",
    )
    parser.add_argument(
        "--ignore-colors",
        action="store_true",
        help="with --accept-symmetries: also take those that a label or print breaks",
    )
    parser.add_argument(
        "--symmetry",
        action="append",
        default=[],
        metavar="OBJECT:axis=X,Y,Z:fold=N",
        help="a symmetry: OBJECT:axis=0,0,1:fold=2 or OBJECT:axis=0,0,1:continuous, optionally "
        ":point_m=X,Y,Z (a point on the axis); may be repeated",
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="FILE=NAME",
        help="name of an object whose file is called otherwise, e.g. obj_000005=can",
    )
    parser.add_argument(
        "--bop-models-info",
        type=Path,
        metavar="models_info.json",
        help="take symmetries and names from a BOP data set (its key 'name', which synthesize "
        "writes; LINEMOD's are known without)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing library; networks trained for its keypoints become useless",
    )


def run(args: argparse.Namespace) -> int:
    """Write the library, read it back as a check, and print its objects. Raises HeatnetError."""
    out: Path = args.out
    if out.exists() and not args.force:
        raise ConfigError(
            f"Object library {out} exists. Networks are trained for its keypoints, so it is not "
            "replaced; give another --out, or --force if no network needs it."
        )
    if args.count < 4:
        raise ConfigError(f"--count: at least 4 keypoints are needed for a pose, got {args.count}.")
    if args.seed < 0:
        raise ConfigError(f"--seed: expected a whole number from 0, got {args.seed}.")
    if args.ignore_colors and not args.accept_symmetries:
        raise ConfigError("--ignore-colors says which proposals --accept-symmetries takes: add it.")
    sources = name_meshes(args.meshes, parse_renames(args.rename), args.bop_models_info)
    symmetries = parse_symmetries(args.symmetry, [source.name for source in sources])
    entries = []
    for source in sources:
        imported = import_mesh(source.mesh_path, args.unit, notify=_say)
        _check_diameter(imported.report.diameter_m, source, imported.report.unit)
        _say(f"{source.name}: {imported.report.describe()}")
        chosen = symmetries.get(source.name)
        if chosen is None and source.info is not None:
            chosen = source.info.symmetries
        if chosen is None:
            chosen = _propose(source.name, imported, args)
        entries.append(_describe(source, imported, chosen, args))
    _save_checked(out, args.name, entries)
    print(f"wrote {out}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _describe(
    source: _Source, imported: ImportedMesh, symmetries: list[dict[str, Any]], args: Any
) -> dict[str, Any]:
    """The library's entry; the mesh is written beside the library where it has to be."""
    path, unit = source.mesh_path.resolve(), imported.report.unit
    if imported.report.rewritten:
        path, unit = args.out.resolve().parent / args.name / f"{source.name}.ply", "m"
        if path == source.mesh_path.resolve():
            raise ConfigError(
                f"Mesh {path} must be rewritten, but it lies where the result goes. Keep the "
                "original elsewhere."
            )
        normalize(imported, path)
        _say(f"  written as {path}")
    entry = describe_object(
        source.name, path, unit, symmetries, args.count, args.seed, method=args.method
    )
    entry["mesh"] = os.path.relpath(path, args.out.resolve().parent)
    _say(f"  {args.count} keypoints by {args.method.upper()}, {len(symmetries)} symmetries")
    return entry


def _propose(name: str, imported: ImportedMesh, args: Any) -> list[dict[str, Any]]:
    """Print the symmetries the geometry suggests; return those that the user's flags accept."""
    _say("  looking for symmetries")
    accepted = []
    for proposal in propose_symmetries(imported.mesh):
        take = args.accept_symmetries and (proposal.colors_agree or args.ignore_colors)
        _say(f"  {'taken' if take else 'proposed'}: {proposal.describe()}")
        if take:
            accepted.append(proposal.to_entry())
        else:
            _say(f"    to take it: --symmetry {proposal.to_flag(name)}")
    return accepted


def _save_checked(out: Path, name: str, entries: list[dict[str, Any]]) -> None:
    """Write beside ``out``, read it as the pipeline would, and only then put it in place."""
    draft = out.with_name(f".{out.stem}.draft.yaml")
    try:
        save_objects(draft, name, entries)
        load_objects(draft)
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)


def parse_renames(texts: Sequence[str]) -> dict[str, str]:
    """``FILE=NAME`` texts -> file stem to name. Raises ConfigError."""
    renames = {}
    for text in texts:
        stem, equals, name = text.partition("=")
        if not (stem and equals and name):
            raise ConfigError(f"--rename '{text}': expected FILE=NAME such as obj_000005=can.")
        renames[Path(stem).stem if Path(stem).suffix in MESH_SUFFIXES else stem] = name
    return renames


def name_meshes(
    meshes: Sequence[Path], renames: dict[str, str], info_path: Path | None
) -> list[_Source]:
    """Names come from --rename, else from the BOP data set, else from the file."""
    infos = load_models_info(info_path) if info_path is not None else {}
    known_names = read_object_names(info_path) if info_path is not None else {}
    # <data set>/models/models_info.json
    dataset = info_path.resolve().parent.parent.name if info_path is not None else ""
    stems = {path: _stem(path) for path in meshes}
    unused = set(renames) - set(stems.values())
    if unused:
        raise ConfigError(
            f"--rename names {', '.join(sorted(unused))}, which is none of the meshes "
            f"{', '.join(stems.values())}."
        )
    sources = []
    for path in meshes:
        number = stems[path].removeprefix("obj_")
        obj_id = int(number) if number != stems[path] and number.isdigit() else None
        if info_path is not None and obj_id not in infos:
            raise ConfigError(
                f"{info_path} knows nothing about {path.name}; it describes obj_id "
                f"{', '.join(map(str, infos))}. Name the mesh obj_000001.ply and so on."
            )
        name = stems[path] if obj_id is None else object_name(obj_id, dataset, known_names)
        info = infos.get(obj_id) if obj_id is not None else None
        sources.append(_Source(path, renames.get(stems[path], name), info))
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"The set defines '{twice[0]}' twice. Rename one with --rename FILE=NAME, or its file."
        )
    return sources


def _stem(path: Path) -> str:
    """Name of the file, or of its folder where many files are called alike (textured.obj)."""
    return path.resolve().parent.name if path.stem in _NAMELESS else path.stem


def parse_symmetries(texts: Sequence[str], names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Object name -> entries as the library stores them. Raises ConfigError."""
    parsed: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        name, *parts = text.split(":")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Objects: {', '.join(names)}."
            raise ConfigError(f"--symmetry '{text}': no object is called '{name}'.{hint}")
        options = dict(part.partition("=")[::2] for part in parts)
        kinds = {"fold", "continuous"} & set(options)
        if "axis" not in options or len(kinds) != 1 or set(options) - {"axis", "point_m", *kinds}:
            raise _symmetry_error(text)
        try:
            entry: dict[str, Any] = {"axis": _numbers(options["axis"])}
            if "point_m" in options:
                entry["point_m"] = _numbers(options["point_m"])
            if "fold" in options:
                entry["fold"] = int(options["fold"])
            else:
                entry["continuous"] = True
        except ValueError as error:
            raise _symmetry_error(text) from error
        if not any(entry["axis"]) or entry.get("fold", 2) < 2:
            raise _symmetry_error(text)
        parsed.setdefault(name, []).append(entry)
    return parsed


def _symmetry_error(text: str) -> ConfigError:
    return ConfigError(
        f"--symmetry '{text}' is not understood; expected OBJECT:axis=0,0,1:fold=2 (2 or more) or "
        "OBJECT:axis=0,0,1:continuous, optionally :point_m=0,0,0."
    )


def _numbers(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if len(values) != 3:
        raise ValueError(f"expected 3 numbers, got {len(values)}")
    return values


def _check_diameter(measured_m: float, source: _Source, unit: str) -> None:
    if source.info is None:
        return
    ratio = measured_m / source.info.diameter_m
    if 0.9 < ratio < 1.1:
        return
    other = {"m": "mm", "mm": "m"}[unit]
    scale = 1e-3 if unit == "m" else 1e3
    fits = 0.9 < ratio * scale < 1.1
    raise ConfigError(
        f"{source.mesh_path} read as '{unit}' has a diameter of {measured_m:g} m, "
        f"models_info.json says {source.info.diameter_m:g} m. "
        + (f"Give --unit {other}." if fits else "The mesh is not the one it describes.")
    )
