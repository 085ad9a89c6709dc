"""Which objects a checkpoint was trained for: their names, order, keypoints and symmetries.

An object library may be written again with as many keypoints as before; a network trained for the
old ones then fits in shape and means other points. So a checkpoint says what it was trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatnet_ros.errors import ModelError
from heatnet_ros.objects import ObjectLibrary

NAMES, HASH = "objects", "objects_hash"


def describe_objects(library: ObjectLibrary, keypoints: bool) -> dict[str, Any]:
    """Entries of a checkpoint: the objects in the network's order and, with ``keypoints``, a hash.

    The hash covers keypoints and symmetries; a detector knows neither.
    """
    names = list(library.objects)
    entries: dict[str, Any] = {NAMES: names}
    return entries | {HASH: library.keypoints_hash(names)} if keypoints else entries


def check_trained_objects(
    state: Mapping[str, Any], expected: Mapping[str, Any], path: Path, objects_file: str
) -> None:
    """Raise ModelError unless a checkpoint was trained for the objects of a library.

    state: the checkpoint in ``path``. expected: ``describe_objects`` of the library in
    ``objects_file``; other entries are left alone.
    """
    again = (
        f"train again in another folder ('init: {path}' in the training file starts from these "
        "weights)"
    )
    for key in (NAMES, HASH):
        if key not in expected or state.get(key) == expected[key]:
            continue
        if key not in state:
            raise ModelError(
                f"Checkpoint {path} does not say which objects it was trained for: expected the "
                f"entry '{key}', got none, as in files of older versions. Whether its keypoints "
                f"are those of {objects_file} cannot be known: {again}."
            )
        if key == NAMES:
            found = (
                f"was trained for {', '.join(state[key])} in this order, {objects_file} now "
                f"defines {', '.join(expected[key])}"
            )
        else:
            found = (
                f"was trained for other keypoints or symmetries than {objects_file} now defines "
                f"(hash {str(state[key])[:12]}, got {expected[key][:12]})"
            )
        raise ModelError(f"Checkpoint {path} {found}. Restore that file as it was, or {again}.")
