"""Muon: momentum whose matrices are made orthogonal (Jordan et al., 2024), for convolutions.

A step of Adam or of plain momentum has few strong directions; Muon gives all directions of a weight
matrix the same length, by five Newton-Schulz iterations. Networks without pretrained weights then
learn from less than half the crops (``docs/training.md``). Everything that is no convolution
(normalisation, biases, heads) is trained by AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# quintic whose iteration drives every singular value to about 1 in five steps
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
MOMENTUM = 0.95
RATE_RATIO = 10.0  # Muon's rate over AdamW's
# Muon's weight decay over AdamW's, each times its own rate: 0.01 at the default of 1e-4. Orthogonal
# steps are as long for every weight, only decay bounds how far they add up.
DECAY_RATIO = 100.0
_BETAS, _EPS = (0.9, 0.999), 1e-8


def orthogonalize(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """MxN -> about the nearest matrix with all singular values 1 (0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    x = matrix.to(dtype)
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weights of four dimensions, AdamW for all others.

    learning_rate: AdamW's; Muon's is ``RATE_RATIO`` times it, so one schedule serves both.
    weight_decay: AdamW's; Muon's is ``DECAY_RATIO`` times it, so 0 switches both off. dtype:
    arithmetic of the iterations, bfloat16 where the machine computes in it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        everything = [p for p in parameters if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in everything if p.ndim == 4], "muon": True},
            {"params": [p for p in everything if p.ndim != 4], "muon": False},
        ]
        super().__init__(
            [group for group in groups if group["params"]],
            {"lr": learning_rate, "weight_decay": weight_decay},
        )
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step of every parameter that has a gradient; ``closure`` is not used."""
        for group in self.param_groups:
            update = self._step_muon if group["muon"] else self._step_adam
            for weight in group["params"]:
                if weight.grad is not None:
                    update(weight, group)

    def _step_muon(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, grad = self.state[weight], weight.grad
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        looking_ahead = grad.lerp(momentum, MOMENTUM).reshape(len(grad), -1)
        direction = orthogonalize(looking_ahead, self._dtype)
        rows, columns = direction.shape
        rate = RATE_RATIO * group["lr"]
        weight.mul_(1 - rate * (DECAY_RATIO * group["weight_decay"]))
        weight.add_(direction.reshape(weight.shape), alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _step_adam(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, grad = self.state[weight], weight.grad
        if "step" not in state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
        state["step"] += 1
        mean = state["mean"].lerp_(grad, 1 - _BETAS[0])
        square = state["square"].mul_(_BETAS[1]).addcmul_(grad, grad, value=1 - _BETAS[1])
        unbiased = (square / (1 - _BETAS[1] ** state["step"])).sqrt_().add_(_EPS)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(mean, unbiased, value=-group["lr"] / (1 - _BETAS[0] ** state["step"]))
