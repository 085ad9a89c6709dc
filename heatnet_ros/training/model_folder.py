"""Writing ``models/<name>/`` so that a reader never sees one export's network with another's words.

The network's file carries its sha256 in its name, and the manifest names it: replacing the manifest
is the one step that changes a model. Killed before it, the old model stands whole; killed after
it, the new one does, and what is left over is removed by the next export.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros.config import load_yaml
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.files import make_folder, write_whole

ROOM_FOR_MODEL = (
    "Expected a writable folder with room for the model (twice its size). Make room or give "
    "another --out, and run the same command again."
)
HEADER = "# Written by `python -m heatnet_ros export` or `quantize`; do not edit.\n"
# what an export may leave in a model folder; everything else there is the user's
_OWN_FILES = ("model.onnx", "model-" + "[0-9a-f]" * 12 + ".onnx", "*.part")


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` for files that are not yet accepted; removed at the end.

    Raises DataError when it cannot be made.
    """
    folder = out.absolute().with_name(f".{out.absolute().name}.part")
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    make_folder(folder, ROOM_FOR_MODEL)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_model_folder(out: Path, network: bytes, entries: dict[str, Any]) -> Path:
    """Make ``out`` hold this network and manifest; returns the network's path.

    entries: the manifest's, but for ``onnx_file`` and ``onnx_sha256``. What was measured of this
    network's covariance stays. Raises DataError when the files cannot be written; the folder then
    holds the model that it held before.
    """
    digest = hashlib.sha256(network).hexdigest()
    name = f"model-{digest[:12]}.onnx"
    entries = _keep_covariance_scale(out, digest) | entries
    text = HEADER + yaml.safe_dump(
        entries | {"onnx_file": name, "onnx_sha256": digest}, sort_keys=False
    )
    existed = out.exists()
    make_folder(out, ROOM_FOR_MODEL)
    same_network = (out / name).exists()
    try:
        write_whole(out / name, network, ROOM_FOR_MODEL)
        write_whole(out / "manifest.yaml", text, ROOM_FOR_MODEL)
    except DataError:
        if not same_network:
            (out / name).unlink(missing_ok=True)
        if not existed:
            out.rmdir()
        raise
    for pattern in _OWN_FILES:
        for path in out.glob(pattern):
            if path.name != name:
                with suppress(OSError):  # what stays is in nobody's way: the manifest is written
                    path.unlink()
    return out / name


def _keep_covariance_scale(out: Path, digest: str) -> dict[str, Any]:
    """What was entered after the last export of this very network."""
    with suppress(ConfigError):  # no model there, or a damaged one
        old = load_yaml(out / "manifest.yaml", "Manifest")
        if old.get("onnx_sha256") == digest and "covariance_scale" in old:
            return {"covariance_scale": old["covariance_scale"]}
    return {}
