"""ImageNet weights in torchvision's names, and files that are something else."""

import pickle

import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")
models = pytest.importorskip("torchvision.models", reason="torchvision is in the train extra")

from torch import nn  # noqa: E402

from heatnet_ros.errors import ModelError  # noqa: E402
from heatnet_ros.training.heatnet import ResNet18, normalize  # noqa: E402
from heatnet_ros.training.pretrained import IMAGENET_MEAN, IMAGENET_STD, start_from  # noqa: E402

pytestmark = pytest.mark.train


class Streams(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.rgb, self.depth = ResNet18(3, width, nn.ReLU), ResNet18(2, width, nn.ReLU)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A ResNet-18 of torchvision with statistics as after a training, and its file."""
    torch.manual_seed(0)
    net = models.resnet18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(net.state_dict(), path)
    return net.eval(), path


def test_the_colour_stream_computes_what_imagenet_computes(imagenet, capsys):
    reference, path = imagenet
    net = Streams()
    start_from(net, str(path))
    assert "rgb and depth stream" in capsys.readouterr().out
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    theirs = (image.permute(0, 3, 1, 2) / 255 - IMAGENET_MEAN.view(3, 1, 1)) / (
        IMAGENET_STD.view(3, 1, 1)
    )
    stream = net.rgb.eval()
    with torch.no_grad():
        wanted = reference.relu(reference.bn1(reference.conv1(theirs)))
        found = stream.act(stream.bn1(stream.conv1(normalize(image))))
        # behind the first layer both are torchvision's modules with torchvision's weights
        deep = reference.layer4(reference.layer3(reference.layer2(reference.layer1(wanted))))
        found_deep = wanted
        for i in range(4):
            found_deep = getattr(stream, f"layer{i + 1}")(found_deep)
    torch.testing.assert_close(found[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], atol=1e-4, rtol=0)
    assert not torch.allclose(found, wanted, atol=1e-2)  # zero padding is another grey
    torch.testing.assert_close(found_deep, deep, atol=1e-3, rtol=1e-3)


def test_the_depth_stream_answers_a_grey_edge_as_colour_does(imagenet):
    reference, path = imagenet
    net = Streams()
    start_from(net, str(path))
    edge = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        wanted = reference.conv1(edge.repeat(1, 3, 1, 1))
        found = net.depth.conv1(edge.repeat(1, 2, 1, 1))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    only_rgb = Streams()
    before = only_rgb.depth.conv1.weight.clone()
    start_from(only_rgb, str(path), depth_too=False)
    assert torch.equal(only_rgb.depth.conv1.weight, before)


def test_a_narrower_network_is_refused_and_left_alone(imagenet):
    net = Streams(width=32)
    before = net.rgb.conv1.weight.clone()
    with pytest.raises(ModelError, match=r"conv1 is \(64, 3, 7, 7\).*\(32, 3, 7, 7\).*width 64"):
        start_from(net, str(imagenet[1]))
    assert torch.equal(net.rgb.conv1.weight, before)
    with pytest.raises(ModelError, match="Only HeatNet"):
        start_from(nn.Linear(2, 2), str(imagenet[1]))


class _Attack:
    def __reduce__(self):
        return (print, ("code was run",))


def test_other_files_are_refused(tmp_path, capsys):
    net = Streams(width=8)
    with pytest.raises(ModelError, match=r"missing\.pth.*resnet18-f37072fd\.pth"):
        start_from(net, str(tmp_path / "missing.pth"))
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, other)
    with pytest.raises(ModelError, match=r"neither a checkpoint.*nor torchvision's.*features\.0"):
        start_from(net, str(other))
    torch.save({"net": {"a.weight": torch.zeros(3)}}, other)
    with pytest.raises(ModelError, match=r"no weight of .* fits"):
        start_from(net, str(other))
    other.write_bytes(pickle.dumps(_Attack()))
    with pytest.raises(ModelError, match=r"refused|cannot be read"):
        start_from(net, str(other))
    assert "code was run" not in capsys.readouterr().out


def test_a_checkpoint_gives_the_weights_that_fit(tmp_path, capsys):
    source, net = Streams(width=8), Streams(width=8)
    state = source.state_dict()
    state["rgb.conv1.weight"] = torch.zeros(4, 3, 7, 7)
    torch.save({"net": state}, tmp_path / "final.pt")
    before = net.rgb.conv1.weight.clone()
    start_from(net, str(tmp_path / "final.pt"))
    assert torch.equal(net.rgb.conv1.weight, before)
    assert torch.equal(net.depth.conv1.weight, source.depth.conv1.weight)
    assert f"{len(state) - 1} of {len(state)} tensors fit" in capsys.readouterr().out
