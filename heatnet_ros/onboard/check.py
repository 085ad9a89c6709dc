"""The first look at the user's meshes: what they are, and which symmetries have to be decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heatnet_ros.keypoints_command import name_meshes, parse_renames, parse_symmetries
from heatnet_ros.mesh_import import ImportedMesh, import_mesh, normalize
from heatnet_ros.onboard.options import Options, Places
from heatnet_ros.symmetry_proposal import SymmetryProposal, propose_symmetries

Notify = Callable[[str], None]
ONE_COLOR = "one colour"


@dataclass(frozen=True)
class CheckedObject:
    """A mesh that was found good, and what was decided about its symmetries.

    colors: as in ``MeshReport``. about: the report in a few lines. symmetries: what is given to
    ``keypoints --symmetry``. decisions: sentences, one for each symmetry that was seen.
    """

    name: str
    source: str
    diameter_m: float
    size_m: tuple[float, float, float]
    colors: str
    about: str
    warnings: tuple[str, ...]
    symmetries: tuple[str, ...]
    decisions: tuple[str, ...]

    @staticmethod
    def from_plain(entry: dict[str, Any]) -> CheckedObject:
        """Back from JSON."""
        lists = ("size_m", "warnings", "symmetries", "decisions")
        fields: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in entry.items()}
        return CheckedObject(**fields)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Check:
    """Objects with their meshes; ``open_flags``: symmetries that the user has to decide upon."""

    objects: tuple[CheckedObject, ...]
    imported: tuple[ImportedMesh, ...]
    open_flags: tuple[str, ...]


def check_meshes(options: Options, notify: Notify) -> Check:
    """Read every mesh, tell what it is, and propose symmetries; writes nothing.

    Raises ConfigError and DataError as ``import_mesh`` does.
    """
    sources = name_meshes(
        [Path(path) for path in options.meshes], parse_renames(options.rename), None
    )
    given = parse_symmetries(options.symmetry, [source.name for source in sources])
    found: list[tuple[CheckedObject, ImportedMesh]] = []
    undecided: list[str] = []
    for source in sources:
        notify(f"reading {source.mesh_path}")
        imported = import_mesh(source.mesh_path, options.unit, notify=notify)
        notify(f"{source.name}: {imported.report.describe()}")
        if source.name in given:
            flags = [f for f in options.symmetry if f.split(":")[0] == source.name]
            decisions = [f"as told: {flag}" for flag in flags]
        else:
            notify(f"  looking for symmetries of {source.name}")
            proposals = propose_symmetries(imported.mesh)
            flags, decisions, asked = decide(source.name, proposals, options)
            undecided += asked
        for text in decisions:
            notify(f"  symmetry {text}")
        found.append((_describe(source.name, imported, flags, decisions), imported))
    objects, meshes = zip(*found, strict=True)
    return Check(objects, meshes, tuple(undecided))


def write_meshes(check: Check, places: Places) -> None:
    """Write the meshes as the node reads them. Raises DataError when they cannot be written."""
    for item, imported in zip(check.objects, check.imported, strict=True):
        normalize(imported, places.mesh(item.name))


def decide(
    name: str, proposals: Sequence[SymmetryProposal], options: Options
) -> tuple[list[str], list[str], list[str]]:
    """(flags taken, a sentence for each proposal, flags that the user has to decide upon).

    A symmetry that the colours contradict is none for a camera, unless the user says so; one that
    they do not contradict makes training fail silently if it is ignored, and gives poses that are
    wrong by a turn if it is taken by mistake: the user decides.
    """
    taken, sentences, asked = [], [], []
    for proposal in proposals:
        flag = proposal.to_flag(name)
        if options.accept_symmetries and (proposal.colors_agree or options.ignore_colors):
            taken.append(flag)
            verdict = "taken"
        elif options.no_symmetries:
            verdict = "not taken, as told"
        elif not proposal.colors_agree:
            verdict = f"not taken, as the colours tell it apart (to take it: --symmetry {flag})"
        else:
            asked.append(flag)
            verdict = "TO DECIDE"
        sentences.append(f"{verdict}: {proposal.describe()}")
    return taken, sentences, asked


def explain_choice(options: Options, open_flags: Sequence[str]) -> str:
    """What the user has to decide, with the command lines to type."""
    given = [f"--symmetry {flag}" for flag in options.symmetry]
    some = " ".join([*given, *(f"--symmetry {flag}" for flag in open_flags)])
    lines = [
        "",
        "Decide about the symmetries above; nothing was rendered or trained yet. A part that looks",
        "the same after a turn must have that symmetry, else no network can learn its pose; a part",
        "that does not look the same must not have it, else poses come out turned. Add to the same",
        "command one of:",
        "  --accept-symmetries   (all of those TO DECIDE)",
        f"  {some}   (these, or some of them with --no-symmetries)",
        "  --no-symmetries       (none but those given by --symmetry)",
    ]
    return "\n".join(lines)


def _describe(
    name: str, imported: ImportedMesh, flags: Sequence[str], decisions: Sequence[str]
) -> CheckedObject:
    report = imported.report
    return CheckedObject(
        name=name,
        source=str(report.path),
        diameter_m=report.diameter_m,
        size_m=report.size_m,
        colors=report.colors,
        about=report.describe(),
        warnings=report.warnings,
        symmetries=tuple(flags),
        decisions=tuple(decisions),
    )
