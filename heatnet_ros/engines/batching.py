"""Batches of a network whose first dimension is open: check, split, join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.engines import Tensors, TensorSpec
from heatnet_ros.errors import EngineError, ModelError

# objects in one call: at least, where a plan is tuned, at most; more are run one after the other
BATCHES = (1, 4, 16)
MAX_BATCH = BATCHES[-1]


def check_batch(specs: Sequence[TensorSpec], tensors: Tensors) -> int | None:
    """The batch size that all tensors share; None for a network whose sizes are all fixed.

    Raises EngineError when names, types, shapes or batch sizes do not fit.
    """
    names = sorted(spec.name for spec in specs)
    if sorted(tensors) != names:
        raise EngineError(
            f"TensorRT could not run the network: it takes the inputs {', '.join(names)}, got "
            f"{', '.join(sorted(tensors)) or 'none'}. Correct the manifest's tensor names."
        )
    batches = set()
    for spec in specs:
        array = tensors[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != spec.dtype:
            raise EngineError(
                f"TensorRT could not run the network: expected {spec}, got {array.dtype}"
                f"{list(array.shape)}. Correct what is fed to it, or export the model again."
            )
        if None in spec.shape:
            batches.add(array.shape[0])
    if len(batches) > 1 or 0 in batches:
        raise EngineError(
            "TensorRT could not run the network: expected one batch size of 1 or more for all "
            f"inputs, got {sorted(batches)}. Correct what is fed to it."
        )
    return batches.pop() if batches else None


def split_batch(
    specs: Sequence[TensorSpec], tensors: Tensors, batch: int | None
) -> list[dict[str, NDArray[Any]]]:
    """Parts of at most ``MAX_BATCH``; inputs of a fixed size go into each."""
    if batch is None or batch <= MAX_BATCH:
        return [dict(tensors)]
    is_open = {spec.name: None in spec.shape for spec in specs}
    return [
        {
            name: array[start : start + MAX_BATCH] if is_open[name] else array
            for name, array in tensors.items()
        }
        for start in range(0, batch, MAX_BATCH)
    ]


def join_batch(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Outputs of the parts, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def choose_shapes(
    name: str, shape: Sequence[int], batches: Sequence[int] = BATCHES
) -> list[tuple[int, ...]]:
    """Shapes of a network's input for each batch size; -1 in ``shape`` is an open dimension.

    Raises ModelError when another dimension than the first is open.
    """
    if any(size < 0 for size in shape[1:]):
        raise ModelError(
            f"Input '{name}' has shape {list(shape)}; only the first dimension may be open for "
            "TensorRT. Export the model with a fixed input size."
        )
    return [tuple([batch, *shape[1:]] if shape[0] < 0 else shape) for batch in batches]
