"""Reading a checkpoint: tensors and plain values only, never code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from heatnet_ros.errors import ModelError


def load_checkpoint(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a file of ``torch.save``. ``keys``: entries that it must have.

    A pickle may name any function to be called when it is read; ``weights_only`` refuses all but
    tensors, numbers, strings, lists and dicts. Raises ModelError on such a file, on a damaged one
    and on a missing entry.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"Checkpoint {path} is refused: expected tensors and plain values only, got a file "
            f"that asks for code to be run or is damaged ({_first_line(error)}). Do not use files "
            "of strangers; train again or restore the file."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"Checkpoint {path} cannot be read: {_first_line(error)}. It is missing or damaged; "
            "restore it or train again."
        ) from error
    missing = [key for key in keys if not isinstance(state, dict) or key not in state]
    if missing:
        raise ModelError(
            f"Checkpoint {path} has no entry {', '.join(missing)}; expected a file written by this "
            "package's training. Train again."
        )
    return dict(state)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
