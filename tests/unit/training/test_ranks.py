"""The arithmetic that a run gets on a given machine."""

import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.training.ranks import choose_precision  # noqa: E402

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16),
     ((8, 9), torch.bfloat16), ((9, 0), torch.bfloat16)],
)  # fmt: skip
def test_gpus_that_only_emulate_bf16_get_fp16(capability, expected, monkeypatch):
    # torch's own answer counts emulation, and older versions cannot be asked not to
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert choose_precision("auto", torch.device("cuda", 0)) == expected


def test_what_is_asked_for_is_given():
    assert choose_precision("bf16", torch.device("cuda", 0)) == torch.bfloat16
    assert choose_precision("fp32", torch.device("cpu")) is None
