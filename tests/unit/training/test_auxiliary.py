"""Losses beside the heatmaps' and the heads they teach."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.errors import ConfigError  # noqa: E402
from heatnet_ros.training.auxiliary import (  # noqa: E402
    CONFIDENCE_SCALE_PX,
    COORDINATE_BEND,
    LossWeights,
    Targets,
    confidence_targets,
    coordinate_loss,
    local_positions,
    mask_loss,
    position_loss,
    training_loss,
)
from heatnet_ros.training.heatnet import (  # noqa: E402
    PRESETS,
    DeployedHeatNet,
    HeatNet,
    HeatNetConfig,
    gaussian_targets,
    heatmap_loss,
)

pytestmark = pytest.mark.train


def tiny(**changes) -> HeatNetConfig:
    shape = {**PRESETS["lite"], "width": 8, "decoder": 16, "crop_px": 64, **changes}
    return HeatNetConfig(objects=2, keypoints=5, **shape)


EVERYTHING = {
    "condition": "all", "stem": "light", "lateral_place": "inside", "decoder_fine": 8,
    "dense_head": True, "deep_head": True, "confidence": True,
}  # fmt: skip
ALL_LOSSES = LossWeights(mask=1, coordinates=2, deep=0.5, position=0.1, confidence=1)


def inputs(n: int = 2):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(n, 3, 64, 64, generator=generator) * 2 - 1
    depth = torch.rand(n, 2, 64, 64, generator=generator)
    return rgb, depth, torch.tensor([0, 1][:n])


def targets(n: int = 2) -> Targets:
    generator = torch.Generator().manual_seed(1)
    coordinates = torch.rand(n, 3, 16, 16, generator=generator)
    coordinates[:, :, :4] = torch.nan
    return Targets(
        torch.rand(n, 5, 2, generator=generator) * 60,
        (torch.rand(n, 16, 16, generator=generator) > 0.5).float(),
        coordinates,
    )


def test_softmax_loss_is_the_cross_entropy_with_the_normalised_gaussian():
    config = tiny()
    logits = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(3))
    points = targets().points_px
    wanted = gaussian_targets(points, config).flatten(2)
    wanted = wanted / wanted.sum(dim=2, keepdim=True)
    expected = -(wanted * torch.log_softmax(logits.flatten(2), dim=2)).sum(dim=2).mean()
    assert float(heatmap_loss(logits, points, config)) == pytest.approx(float(expected), rel=1e-5)


def test_coarse_heatmaps_are_judged_at_their_own_stride():
    config = tiny()
    points = torch.tensor([[[27.5, 43.5]]])  # the centre of pixel (3, 5) at stride 8
    coarse = torch.full((1, 1, 8, 8), -9.0)
    losses = {}
    for x in range(8):
        peaked = coarse.clone()
        peaked[0, 0, 5, x] = 3.0
        losses[x] = float(heatmap_loss(peaked, points, config))
    assert min(losses, key=losses.get) == 3


def test_coordinate_loss_of_a_hand_worked_case():
    wanted = torch.full((1, 3, 1, 2), torch.nan)
    wanted[0, :, 0, 0] = torch.tensor([0.0, 0.5, 1.0])
    found = torch.tensor([0.05, 0.5, 0.0]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    value = coordinate_loss(found, wanted)
    bend = COORDINATE_BEND
    expected = (0.5 * 0.05**2 / bend + 0.0 + (1.0 - 0.5 * bend)) / 3
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert torch.isfinite(found.grad).all() and found.grad[0, :, 0, 1].abs().sum() == 0


def test_coordinate_loss_without_any_known_pixel_is_zero():
    wanted = torch.full((1, 3, 4, 4), torch.nan)
    assert float(coordinate_loss(torch.ones(1, 3, 4, 4), wanted)) == 0.0


def test_mask_loss_of_an_undecided_head_is_log_2():
    assert float(mask_loss(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))) == pytest.approx(np.log(2))


def test_position_loss_is_the_distance_of_the_peaks():
    config = tiny()
    logits = torch.full((1, 1, 16, 16), -50.0)
    logits[0, 0, 5, 9] = 50.0
    center = torch.tensor([[[9.5 * 4 - 0.5, 5.5 * 4 - 0.5]]])
    assert float(position_loss(logits, center, config)) == pytest.approx(0.0, abs=1e-5)
    moved = center + torch.tensor([8.0, -4.0])  # 2 and 1 of 16 heatmap pixels
    assert float(position_loss(logits, moved, config)) == pytest.approx(3 / 16, rel=1e-4)


def test_confidence_target_falls_with_the_error_and_ends_at_the_border():
    config = tiny()
    points = torch.tensor([[[30.0, 21.7]]])
    logits = torch.log(gaussian_targets(points, config).clamp_min(1e-12))
    np.testing.assert_allclose(local_positions(logits, config), points, atol=0.3)
    exact = float(confidence_targets(logits, points, config))
    assert exact > 0.9
    moved = points + torch.tensor([6.0, 0.0])
    error = float((local_positions(logits, config) - moved).norm())
    expected = np.exp(-error / CONFIDENCE_SCALE_PX)
    assert float(confidence_targets(logits, moved, config)) == pytest.approx(expected, rel=1e-5)
    outside = torch.tensor([[[-1.0, 21.7]]])
    assert float(confidence_targets(logits, outside, config)) == 0.0


@pytest.mark.parametrize("rgbd", [True, False])
def test_every_parameter_learns_from_the_sum_of_all_losses(rgbd):
    net = HeatNet(tiny(rgbd=rgbd, **EVERYTHING))
    rgb, depth, index = inputs()
    found = net.predict_all(rgb, depth if rgbd else None, index)
    training_loss(found, targets(), ALL_LOSSES, net.config).backward()
    lazy = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert lazy == []


def test_each_weight_switches_its_own_part():
    net = HeatNet(tiny(**EVERYTHING))
    found = net.predict_all(*inputs())
    none = training_loss(found, targets(), LossWeights(), net.config).item()
    assert none == pytest.approx(
        heatmap_loss(found.logits, targets().points_px, net.config).item(), rel=1e-5
    )
    for name in ("mask", "coordinates", "deep", "position", "confidence"):
        with_one = training_loss(found, targets(), LossWeights(**{name: 1.0}), net.config)
        assert with_one.item() > none + 1e-4, name


def test_confidence_teaches_nothing_but_its_head():
    net = HeatNet(tiny(confidence=True))
    found = net.predict_all(*inputs())
    found.confidence.sum().backward()
    moved = {n.split(".")[0] for n, p in net.named_parameters() if p.grad is not None}
    assert moved == {"confidence"}


def test_conditioning_starts_as_nothing_and_is_per_object():
    plain, conditioned = (HeatNet(tiny(condition=c)).eval() for c in ("head", "all"))
    missing, unexpected = conditioned.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all("scale" in key for key in missing)
    rgb, depth, index = inputs()
    with torch.no_grad():
        before = conditioned(rgb, depth, index)
        torch.testing.assert_close(before, plain(rgb, depth, index))
        for scale in [conditioned.deep_scale, *conditioned.scales]:
            scale.scale[1] += 0.5
        after = conditioned(rgb, depth, index)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


def test_deployed_gives_confidence_and_drops_what_only_teaches():
    net = HeatNet(tiny(**EVERYTHING))
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    _, depth, index = inputs()
    heatmaps, confidence = DeployedHeatNet(net).eval()(image, index, depth)
    assert heatmaps.shape == (2, 5, 16, 16) and confidence.shape == (2, 5)
    assert float(confidence.min()) >= 0 and float(confidence.max()) <= 1
    calls = []
    for part in (net.dense, net.coarse):
        part.register_forward_hook(lambda *_: calls.append(1))
    DeployedHeatNet(net)(image, index, depth)
    assert calls == []


def test_defaults_are_the_networks_of_older_checkpoints():
    old = {"objects": 2, "keypoints": 5, "rgbd": True, "width": 8, "crop_px": 64, "decoder": 16,
           "lateral": True, "activation": "relu", "loss": "softmax", "sigma": 1.2}  # fmt: skip
    config = HeatNetConfig(**old)
    assert {k: v for k, v in dataclasses.asdict(config).items() if k in old} == old
    parts = {key.split(".")[0] for key in HeatNet(config).state_dict()}
    assert parts == {"rgb", "depth", "fusion", "up", "lateral", "head", "head_bias"}
    net = HeatNet(config)
    assert isinstance(net.rgb.maxpool, torch.nn.MaxPool2d) and net.rgb.conv1.kernel_size == (7, 7)


def test_unknown_options_are_named():
    with pytest.raises(ConfigError, match=r"'condition': expected one of head, decoder, all"):
        tiny(condition="film")
    with pytest.raises(ConfigError, match="no multiple of 32"):
        tiny(crop_px=100)
