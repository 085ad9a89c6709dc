"""HeatNet in torch: shapes, what flows into what, the losses' closed forms."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.estimators.heatnet import decode_heatmaps, encode_heatmaps  # noqa: E402
from heatnet_ros.training.heatnet import (  # noqa: E402
    ACTIVATIONS,
    PRESETS,
    DeployedHeatNet,
    HeatNet,
    HeatNetConfig,
    focal_loss,
    gaussian_targets,
    heatmap_loss,
    heatmaps_from_logits,
)

pytestmark = pytest.mark.train


def tiny(rgbd: bool = True, **changes) -> HeatNetConfig:
    shape = {**PRESETS["lite"], "width": 8, "decoder": 16, "crop_px": 64, **changes}
    return HeatNetConfig(objects=2, keypoints=5, rgbd=rgbd, **shape)


def inputs(config: HeatNetConfig, n: int = 2):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(n, 3, config.crop_px, config.crop_px, generator=generator) * 2 - 1
    depth = torch.rand(n, 2, config.crop_px, config.crop_px, generator=generator)
    return rgb, depth, torch.tensor([0, 1][:n])


@pytest.mark.parametrize("rgbd", [True, False])
@pytest.mark.parametrize("lateral", [True, False])
def test_output_shape(rgbd, lateral):
    config = tiny(rgbd, lateral=lateral)
    rgb, depth, index = inputs(config)
    assert HeatNet(config)(rgb, depth, index).shape == (2, 5, 16, 16)


def test_full_preset_is_the_published_network():
    config = HeatNetConfig(objects=1, keypoints=50, **PRESETS["full"])
    net = HeatNet(config).eval()
    with torch.no_grad():
        out = net(torch.zeros(1, 3, 256, 256), torch.zeros(1, 2, 256, 256), torch.tensor([0]))
    assert out.shape == (1, 50, 64, 64)
    assert config.sigma == 2.0 and config.loss == "focal" and config.activation == "relu"
    assert len(net.up) == 3 and len(net.lateral) == 0
    # torchvision's ResNet-18 has 11,176,512 weights without its classifier
    assert sum(p.numel() for p in net.rgb.parameters()) == 11_176_512


def test_both_streams_and_the_object_reach_the_output():
    config = tiny()
    net = HeatNet(config).eval()
    rgb, depth, index = inputs(config)
    with torch.no_grad():
        base = net(rgb, depth, index)
        assert not torch.allclose(base, net(rgb + 0.5, depth, index))
        assert not torch.allclose(base, net(rgb, depth + 0.5, index))
        swapped = net(rgb, depth, 1 - index)
    assert not torch.allclose(base, swapped)


def test_activations_are_replaced_everywhere():
    for name, kind in ACTIVATIONS.items():
        net = HeatNet(tiny(activation=name))
        kinds = {type(m) for m in net.modules()} & set(ACTIVATIONS.values())
        assert kinds == {kind}


@pytest.mark.parametrize("loss", ["focal", "softmax"])
def test_loss_is_smallest_at_the_truth(loss):
    config = tiny(loss=loss)
    points = torch.tensor([[[20.3, 31.9], [40.0, 12.2]]])
    targets = gaussian_targets(points, config)

    def at(shift: int) -> float:
        logits = torch.logit(targets.roll(shift, dims=3).clamp(1e-4, 1 - 1e-4))
        if loss == "softmax":
            logits = torch.log(targets.roll(shift, dims=3).clamp_min(1e-6))
        return float(heatmap_loss(logits, points, config))

    assert at(0) < at(1) < at(3)


def test_softmax_loss_at_the_truth_is_the_gaussians_entropy():
    config = tiny(crop_px=128)
    points = torch.tensor([[[63.5, 63.5]]])
    targets = gaussian_targets(points, config)
    entropy = np.log(2 * np.pi * np.e * config.sigma**2)
    value = float(heatmap_loss(torch.log(targets.clamp_min(1e-30)), points, config))
    assert value == pytest.approx(entropy, rel=1e-3)


def test_keypoints_outside_the_crop_have_no_softmax_target():
    config = tiny()
    logits = torch.zeros(1, 2, 16, 16, requires_grad=True)
    points = torch.tensor([[[20.0, 20.0], [-30.0, 20.0]]])
    heatmap_loss(logits, points, config).backward()
    assert logits.grad[0, 0].abs().sum() > 0 and logits.grad[0, 1].abs().sum() == 0


def test_focal_loss_of_a_hand_worked_case():
    logits = torch.logit(torch.tensor([[[[0.8, 0.3]]]]))
    targets = torch.tensor([[[[1.0, 0.5]]]])
    hit = 0.2**2 * np.log(0.8)
    miss = 0.5**4 * 0.3**2 * np.log(0.7)
    assert float(focal_loss(logits, targets)) == pytest.approx(-(hit + miss) / 2, rel=1e-5)


def test_targets_equal_the_run_times_encoding_and_decode_back():
    config = tiny()
    points = np.array([[10.2, 50.7], [33.3, 8.1], [60.0, 60.0], [5.5, 5.0], [29.5, 29.5]])
    targets = gaussian_targets(torch.from_numpy(points)[None].float(), config).numpy()
    expected = encode_heatmaps(points, (16, 16), config.stride, config.sigma)
    np.testing.assert_allclose(targets[0], expected, atol=1e-5)
    logits = torch.log(torch.from_numpy(targets).clamp_min(1e-12))
    heatmaps = heatmaps_from_logits(logits, config).numpy()
    decoded, confidence = decode_heatmaps(heatmaps, config.stride, "dark")
    np.testing.assert_allclose(decoded[0], points, atol=0.05)
    assert confidence[0, 4] == pytest.approx(1.0, abs=0.05)


def test_deployed_takes_uint8_images():
    config = tiny()
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    _, depth, index = inputs(config)
    out = DeployedHeatNet(HeatNet(config)).eval()(image, index, depth)
    assert out.shape == (2, 5, 16, 16) and float(out.min()) >= 0
