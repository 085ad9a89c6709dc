"""The training loop: what a kill, a full disk and several processes do to a run."""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

import small_task  # noqa: E402
from child_environment import child_environment  # noqa: E402

from heatnet_ros.errors import ConfigError, DataError, ModelError  # noqa: E402
from heatnet_ros.training import loop  # noqa: E402
from heatnet_ros.training.run_config import list_changes  # noqa: E402
from heatnet_ros.training.weights import Average  # noqa: E402

pytestmark = pytest.mark.train
SCRIPT = Path(small_task.__file__)


def environment() -> dict[str, str]:
    return child_environment(OMP_NUM_THREADS=str(torch.get_num_threads()))


def same_weights(a: dict, b: dict) -> bool:
    return a["net"].keys() == b["net"].keys() and all(
        torch.equal(a["net"][key], b["net"][key]) for key in a["net"]
    )


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_learns_and_says_so(tmp_path, capsys):
    final = small_task.train(tmp_path, samples=3200, learning_rate=1e-2)
    said = capsys.readouterr().out
    assert "100.0 %  3200 samples" in said and "held out: error" in said
    entries = log_of(tmp_path)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    assert entries[-1]["held_out"]["error"] < 0.5
    assert final["seen"] == 3200 and "optimizer" not in final
    assert final["config"]["samples"] == 3200 and final["commit"]


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    wanted = small_task.train(tmp_path / "whole", ema=0.9, workers=1)
    killed = tmp_path / "killed"
    command = [sys.executable, str(SCRIPT), str(killed), "ema=0.9", "workers=1", "checkpoint_s=0.2"]
    with subprocess.Popen([*command, "pause_s=0.03"], env=environment()) as process:
        deadline = time.monotonic() + 60
        while not (killed / "log.jsonl").exists() or not (killed / "checkpoint.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        process.kill()
    assert not (killed / "final.pt").exists()
    reached = torch.load(killed / "checkpoint.pt", weights_only=True)["seen"]
    assert 0 < reached < 640
    with (killed / "log.jsonl").open("a") as file:
        file.write('{"seen": 639, "loss": 7}\n{"seen": 6')  # written after the checkpoint, cut off
    found = small_task.train(killed, ema=0.9, workers=1, pause_s=0.03)
    assert found["seen"] == wanted["seen"] == 640
    assert same_weights(found, wanted)
    seen = [entry["seen"] for entry in log_of(killed)]
    assert 639 not in seen and seen == sorted(seen)


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path, capsys):
    small_task.train(tmp_path, samples=160)
    capsys.readouterr()
    assert small_task.train(tmp_path, samples=320)["seen"] == 320
    assert "continuing after 160 samples" in capsys.readouterr().out
    before = (tmp_path / "checkpoint.pt").stat().st_size
    assert small_task.train(tmp_path, samples=320)["seen"] == 320
    assert (tmp_path / "checkpoint.pt").stat().st_size == before


def test_two_processes_average_their_gradients_and_one_writes(tmp_path):
    # the mean over both halves of a batch is the mean over the batch
    alone = small_task.train(tmp_path / "alone", samples=160, plain=True, noise=0.0)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(SCRIPT), str(tmp_path / "two"), "plain=1", "noise=0.0"]
    command += ["samples=160"]
    done = subprocess.run(
        command, env=environment() | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    assert two["seen"] == alone["seen"]
    start = small_task.build_net(small_task.SmallConfig(plain=True)).state_dict()
    for key, value in alone["net"].items():
        torch.testing.assert_close(two["net"][key], value, atol=1e-5, rtol=1e-4)
        assert (value - start[key]).abs().max() > 1e-3
    assert done.stdout.count("held out") == 1
    seen = [entry["seen"] for entry in log_of(tmp_path / "two") if "loss" in entry]
    assert len(seen) == len(set(seen))


def test_a_batch_that_cannot_be_shared_is_refused():
    config = small_task.SmallConfig(batch=15)
    place = loop.Place(torch.device("cpu"), rank=0, world=2)
    with pytest.raises(ConfigError, match="multiple of the 2 processes, got 15"):
        loop.check_shares(config, place)


def test_minutes_end_a_run_and_count_across_interruptions(tmp_path):
    began = time.monotonic()
    final = small_task.train(tmp_path, samples=10**9, minutes=1 / 60, pause_s=0.002)
    assert 1.0 <= time.monotonic() - began < 20
    assert 16 <= final["seen"] < 10**9 and final["seconds"] >= 1.0
    again = small_task.train(tmp_path, samples=10**9, minutes=1 / 60, pause_s=0.002)
    assert again["seen"] == final["seen"]


def test_the_rate_follows_whichever_limit_is_nearer(tmp_path):
    options = {"schedule": "polynomial", "learning_rate": 1e-3}
    small_task.train(tmp_path, samples=160, **options)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(state | {"seconds": 3599.0}, tmp_path / "checkpoint.pt")
    small_task.train(tmp_path, samples=10**9, minutes=60.0, **options)
    first = next(entry for entry in log_of(tmp_path) if entry["seen"] == 176)
    assert 0 <= first["learning_rate"] <= 1e-3 * (1 / 3600) ** 2 * 1.001
    (tmp_path / "checkpoint.pt").unlink()
    small_task.train(tmp_path, samples=32, minutes=60.0, **options)
    rates = [entry["learning_rate"] for entry in log_of(tmp_path) if "loss" in entry]
    assert rates == pytest.approx([1e-3, 1e-3 / 4], rel=1e-2)


def test_a_full_disk_is_an_error_and_the_checkpoint_before_stays_whole(tmp_path):
    options = {"hidden": 4096, "schedule": "none"}
    small_task.train(tmp_path, samples=64, **options)
    size = (tmp_path / "checkpoint.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(
            DataError, match=r"checkpoint\.pt cannot be written.*same command again"
        ):
            small_task.train(tmp_path, samples=128, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["seen"] == 64
    assert not list(tmp_path.glob("*.part"))
    found = small_task.train(tmp_path, samples=128, **options)
    assert same_weights(found, small_task.train(tmp_path / "whole", samples=128, **options))


def test_a_long_gradient_is_shortened_unless_clip_is_off(tmp_path):
    lengths = {}
    for clip in (0.0, 1e-3):
        config = small_task.SmallConfig(samples=16, clip=clip)
        task = small_task.build_task(config)
        loop.run(task, config, tmp_path / str(clip))
        lengths[clip] = float(torch.stack([p.grad.norm() for p in task.net.parameters()]).norm())
    assert lengths[0.0] > 0.1 and lengths[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_no_number_stops_before_the_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"diverged.*Lower learning_rate"):
        small_task.train(tmp_path, spoil_at=64, checkpoint_s=0.0)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["seen"] == 64
    assert all(torch.isfinite(value).all() for value in state["net"].values())


def test_a_folder_with_another_network_is_refused(tmp_path):
    small_task.train(tmp_path, samples=16)
    with pytest.raises(ConfigError, match=r"another network: its 'network' is .*24.*Give another"):
        small_task.train(tmp_path, samples=32, hidden=25)


def test_a_run_is_not_continued_with_other_settings(tmp_path):
    small_task.train(tmp_path, samples=16, learning_rate=2e-3)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ConfigError) as caught:
        small_task.train(tmp_path, samples=32, learning_rate=1e-3, optimizer="adam")
    said = str(caught.value)
    assert "learning_rate (was 0.002, is 0.001)" in said and "optimizer (was 'adamw'" in said
    assert "samples" not in said and "give another --out, or the old values" in said
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    free = {"workers": 1, "device": "cpu", "checkpoint_s": 1.0, "score_s": 1.0, "minutes": 9.0}
    small_task.train(tmp_path, samples=32, learning_rate=2e-3, init="a.pt", **free)
    assert small_task.train(tmp_path, epochs=1.0, learning_rate=2e-3)["seen"] == 64


def test_a_checkpoint_older_than_a_key_is_continued(tmp_path):
    small_task.train(tmp_path, samples=16)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["config"]["clip"]
    torch.save(state, path)
    assert small_task.train(tmp_path, samples=32, clip=1.0)["seen"] == 32


def test_a_finished_run_called_again_stays_as_it_was(tmp_path, monkeypatch):
    small_task.train(tmp_path, samples=16)
    files = [tmp_path / "checkpoint.pt", tmp_path / "final.pt"]
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr(sys, "argv", ["another command"])
    small_task.train(tmp_path, samples=16)
    assert [path.read_bytes() for path in files] == before
    # killed between the last checkpoint and final.pt, or before a longer run's final.pt
    for spoil in (files[1].unlink, lambda: torch.save({"seen": 8}, files[1])):
        spoil()
        assert small_task.train(tmp_path, samples=16)["seen"] == 16


def test_settings_differ_by_their_inner_keys_and_data_by_what_was_written():
    old = {"batch": 8, "augment": {"zoom": 0.1, "gone": 1}, "data": "d/crops/a", "samples": 1}
    new = {"batch": 8, "augment": {"zoom": 0.2, "new": 1}, "data": "d/crops/b", "samples": 2}
    zoom, data = "augment.zoom (was 0.1, is 0.2)", "data (was 'd/crops/a', is 'd/crops/b')"
    assert list_changes(old, new) == [zoom, data]
    given = {"data_given": "d"}
    assert list_changes(old | given, new | given) == [zoom]
    assert list_changes(old | given, new | {"data_given": "e"}) == [zoom, data]
    # another way to the same shards
    assert list_changes(old | given, old | {"data_given": "e"}) == []


def test_a_damaged_checkpoint_is_named(tmp_path):
    small_task.train(tmp_path, samples=16)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"checkpoint\.pt"):
        small_task.train(tmp_path, samples=32)


def test_fp16_and_a_missing_gpu_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="fp16 needs a CUDA GPU"):
        small_task.train(tmp_path, precision="fp16", device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="found 0"):
            small_task.train(tmp_path, device="cuda")


def test_bf16_computes_in_bf16_and_still_learns(tmp_path):
    exact = small_task.train(tmp_path / "fp32", samples=160)
    coarse = small_task.train(tmp_path / "bf16", samples=160, precision="bf16")
    assert not same_weights(exact, coarse)
    difference = (exact["net"]["0.weight"] - coarse["net"]["0.weight"]).abs().max()
    assert difference < 0.05


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_scores_are_taken_in_the_precision_of_the_run(precision, expected, tmp_path):
    config = small_task.SmallConfig(precision=precision, samples=16)
    task = small_task.build_task(config)
    computed = []

    def score(count: int):
        with torch.no_grad():
            computed.append(task.net(torch.zeros(2, 8)).dtype)
        return {}

    loop.run(dataclasses.replace(task, score=score), config, tmp_path)
    assert computed == [expected]


def test_epochs_are_passes_over_the_data(tmp_path):
    assert small_task.train(tmp_path, epochs=2.0, batch=12)["seen"] == 2 * small_task.SIZE
    with pytest.raises(ConfigError, match="data of known size"):
        small_task.SmallConfig(epochs=2.0).count_samples(0)


def test_the_moving_average_of_a_hand_worked_case():
    net = torch.nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    average = Average(net, 0.5)
    net.weight.data.fill_(1.0)
    average.update(net)  # decay min(0.5, 2 / 11)
    assert average.state["weight"].item() == pytest.approx(9 / 11)
    average.update(net)  # decay 3 / 12
    assert average.state["weight"].item() == pytest.approx(1 - 2 / 11 / 4)
    with average.applied(net):
        assert net.weight.item() == pytest.approx(1 - 2 / 11 / 4)
    assert net.weight.item() == 1.0


def test_tensorboard_gets_the_curves_or_the_reader_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    small_task.train(tmp_path / "without", samples=32, tensorboard=True)
    assert capsys.readouterr().out.count("pip install tensorboard") == 1
    monkeypatch.undo()
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small_task.train(tmp_path / "with", samples=32, tensorboard=True)
    curves = EventAccumulator(str(tmp_path / "with" / "tensorboard"))
    curves.Reload()
    assert curves.Scalars("loss")[-1].step == 32
    assert "held_out/error" in curves.Tags()["scalars"]
