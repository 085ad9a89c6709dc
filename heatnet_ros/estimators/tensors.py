"""Does a network have the tensors that its manifest and its estimator speak of?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heatnet_ros.engines import Engine, TensorSpec
from heatnet_ros.errors import ModelError
from heatnet_ros.manifest import Manifest

# role -> type and shape that the estimator works with; None is any size
Contract = Mapping[str, tuple[str, tuple[int | None, ...]]]


def check_tensors(engine: Engine, manifest: Manifest, inputs: Contract, outputs: Contract) -> None:
    """Raise ModelError unless the manifest names, and the network has, exactly these tensors.

    A dimension that the network leaves open fits every size.
    """
    _check("input", engine.inputs, manifest, manifest.inputs, inputs)
    _check("output", engine.outputs, manifest, manifest.outputs, outputs)


def _check(
    kind: str,
    specs: Sequence[TensorSpec],
    manifest: Manifest,
    names: Mapping[str, str],
    contract: Contract,
) -> None:
    where = f"Model '{manifest.name}' ({manifest.folder / 'manifest.yaml'})"
    if set(names) != set(contract):
        raise ModelError(
            f"{where}: expected {kind}s {', '.join(sorted(contract))} for the estimator "
            f"'{manifest.estimator}', the manifest names {', '.join(sorted(names)) or 'none'}. "
            "Export the model again."
        )
    by_name = {spec.name: spec for spec in specs}
    if kind == "input" and set(by_name) != set(names.values()):
        raise ModelError(
            f"{where}: {manifest.onnx_path} has {kind}s {', '.join(map(str, specs))}, the "
            f"manifest names {', '.join(names.values())}. Restore both files or export again."
        )
    for role, (dtype, shape) in contract.items():
        expected, spec = TensorSpec(names[role], shape, np.dtype(dtype)), by_name.get(names[role])
        if spec is None or not _fits(spec, expected):
            raise ModelError(
                f"{where}: {kind} '{role}' should be {expected}, {manifest.onnx_path} has "
                f"{spec or ', '.join(map(str, specs))}. Restore both files or export again."
            )


def _fits(spec: TensorSpec, expected: TensorSpec) -> bool:
    return (
        spec.dtype == expected.dtype
        and len(spec.shape) == len(expected.shape)
        and all(
            got is None or want is None or got == want
            for got, want in zip(spec.shape, expected.shape, strict=True)
        )
    )
