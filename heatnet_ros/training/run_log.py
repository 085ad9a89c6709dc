"""What a run says: progress lines, ``log.jsonl``, and TensorBoard's curves if installed."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from heatnet_ros.errors import ModelError
from heatnet_ros.files import reporting, write_whole

SAY_EVERY_S = 5.0
_MEAN_OF = 50


class RunLog:
    """Numbers of a run; made by the first process only.

    ``log.jsonl`` has one JSON object per line, with ``seen`` and either ``loss, learning_rate,
    seconds`` or ``held_out``. What a killed run wrote after its last checkpoint is taken out, since
    it is trained again.
    """

    def __init__(self, out: Path, seen: int, tensorboard: bool) -> None:
        self._path, self._started_at, self._started_s = out / "log.jsonl", seen, time.monotonic()
        self._losses: deque[torch.Tensor] = deque(maxlen=_MEAN_OF)
        self._said_s = -math.inf
        _keep_until(self._path, seen)
        self._writer = _open_tensorboard(out / "tensorboard", seen) if tensorboard else None

    def step(
        self,
        seen: int,
        loss: torch.Tensor,
        rate: float,
        progress: float,
        spent_s: float,
        last: bool,
    ) -> None:
        """Note a step; now and then say it. Raises ModelError when the loss is no number any more.

        loss: detached, on any device: it is read only when it is said, as reading waits for a GPU.
        """
        self._losses.append(loss)
        if not last and time.monotonic() - self._said_s < SAY_EVERY_S:
            return
        self._said_s = time.monotonic()
        mean = self.check_loss(seen)
        per_s = (seen - self._started_at) / max(self._said_s - self._started_s, 1e-9)
        left_min = spent_s * (1 - progress) / max(progress, 1e-9) / 60
        said = f"{100 * progress:5.1f} %  {seen} samples  loss {mean:.4f}"
        print(f"{said}  {per_s:.0f} samples/s  {left_min:.0f} min left", flush=True)
        self._write({"seen": seen, "seconds": round(spent_s, 1), "loss": mean,
                     "learning_rate": rate})  # fmt: skip
        self._curves(seen, {"loss": mean, "learning_rate": rate, "samples_per_s": per_s})

    def check_loss(self, seen: int) -> float:
        """Mean of the last losses. Raises ModelError when it is no number any more."""
        mean = float(torch.stack(list(self._losses)).float().mean()) if self._losses else 0.0
        if not math.isfinite(mean):
            raise ModelError(
                f"Training diverged: the loss is {mean} after {seen} samples. The last checkpoint "
                f"in {self._path.parent} is from before. Lower learning_rate or raise warmup; with "
                "precision: fp16 try bf16 or fp32."
            )
        return mean

    def score(self, seen: int, found: str | Mapping[str, Any]) -> None:
        """Say what held-out samples gave: a line, or names and numbers."""
        is_text = isinstance(found, str)
        said = found if is_text else "  ".join(f"{k} {v}" for k, v in found.items())
        print(f"  held out: {said}", flush=True)
        self._write({"seen": seen, "held_out": found if is_text else dict(found)})
        if is_text and self._writer:
            self._writer.add_text("held_out", found, seen)
        elif self._writer:
            numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
            self._curves(seen, {f"held_out/{k}": v for k, v in numbers.items()})

    def close(self) -> None:
        """Write out what TensorBoard holds back."""
        if self._writer:
            self._writer.close()

    def _curves(self, seen: int, values: Mapping[str, float]) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, seen)

    def _write(self, entry: dict[str, Any]) -> None:
        with reporting(self._path), self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _keep_until(path: Path, seen: int) -> None:
    """Drop lines that are newer than the checkpoint, and a line that a kill cut in two."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["seen"] <= seen:
            kept.append(line + "\n")
    write_whole(path, "".join(kept))


def _open_tensorboard(folder: Path, seen: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(
            "no TensorBoard curves: pip install tensorboard (log.jsonl has the same numbers)",
            flush=True,
        )
        return None
    return SummaryWriter(str(folder), purge_step=seen + 1)
