"""Muon: orthogonal steps for convolutions, AdamW for the rest, and a state that comes back."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from torch import nn  # noqa: E402

from heatnet_ros.training.muon import RATE_RATIO, Muon, orthogonalize  # noqa: E402

pytestmark = pytest.mark.train


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_become_about_one(shape, dtype):
    # singular values from 1 down to 1/20: a matrix with few strong directions
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -1.3, min(shape))) @ v
    found = torch.linalg.svdvals(orthogonalize(matrix, dtype))
    assert float(found.min()) > 0.6 and float(found.max()) < 1.3
    # directions stay: the result is u v^T but for the lengths
    assert torch.trace(orthogonalize(matrix, dtype).T @ (u @ v)).item() > 0.85 * min(shape)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(4, 3, 8, 8, generator=generator)
        loss = (net(x) - x[:, :2, 1:-1, 1:-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_what_is_no_convolution_takes_adamws_steps():
    ours, theirs = network(), network()
    mine = Muon(ours.parameters(), 1e-2, 0.1)
    others = [p for p in theirs.parameters() if p.ndim != 4]
    reference = torch.optim.AdamW(others, 1e-2, weight_decay=0.1)
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6) == (a.ndim != 4)


def test_a_convolutions_first_step_is_orthogonal_and_as_long_as_the_rate_says():
    net = nn.Conv2d(4, 4, 1, bias=False)
    before = net.weight.detach().clone()
    net.weight.grad = torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(2))
    optimizer = Muon(net.parameters(), 1e-3, 0.0)
    optimizer.step()
    rate = RATE_RATIO * 1e-3
    step = (before - net.weight.detach()).reshape(4, 4) / rate
    found = torch.linalg.svdvals(step)
    assert float(found.min()) > 0.6 and float(found.max()) < 1.3
    assert float((step * net.weight.grad.reshape(4, 4)).sum()) > 0  # downhill


@pytest.mark.parametrize(("weight_decay", "share"), [(0.0, 0.0), (1e-4, 0.01), (1e-3, 0.1)])
def test_weight_decay_shrinks_convolutions(weight_decay, share):
    net = nn.Conv2d(4, 4, 1, bias=False)
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)  # nothing but decay moves it
    Muon(net.parameters(), 1e-3, weight_decay).step()
    torch.testing.assert_close(net.weight.detach(), before * (1 - RATE_RATIO * 1e-3 * share))


def test_a_loss_falls_and_a_restored_state_continues_the_same():
    whole, broken = network(), network()
    one = Muon(whole.parameters(), 3e-3, 1e-4)
    steps(whole, one, range(6))
    first = Muon(broken.parameters(), 3e-3, 1e-4)
    steps(broken, first, range(3))
    saved, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(broken.state_dict())
    continued = network()
    continued.load_state_dict(weights)
    second = Muon(continued.parameters(), 3e-3, 1e-4)
    second.load_state_dict(saved)
    steps(continued, second, range(3, 6))
    for a, b in zip(whole.parameters(), continued.parameters(), strict=True):
        torch.testing.assert_close(a, b)
