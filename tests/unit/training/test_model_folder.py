"""A model folder under kill -9 and on a full disk: one whole model, the old or the new."""

import subprocess
import sys
from pathlib import Path

import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.manifest import load_manifest
from heatnet_ros.training.model_folder import staging_folder, write_model_folder

ENTRIES = {
    "estimator": "yolo", "objects": ["a"], "objects_hash": "", "input_hw": [64, 64], "stride": 0,
    "keypoints": 0, "crop_margin": 1.0, "inputs": {"image": "image"}, "accuracy": {},
    "outputs": {"detections": "detections"}, "training": {},
}  # fmt: skip
OLD, NEW = b"old" * 4000, b"new" * 5000

# one real process is killed at each of its steps on the file system, one after the other
_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_model_folder import ENTRIES, NEW, OLD, export_as_the_command
from heatnet_ros.manifest import load_manifest
base = Path(sys.argv[1])
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
seen, step = [], 0
while True:
    out = base / f"killed_{step}"
    export_as_the_command(out, OLD)
    if (child := os.fork()) == 0:
        left = step
        def hook(event, arguments):
            global left
            if event in EVENTS and str(base) in str(arguments[0]):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
        sys.addaudithook(hook)
        export_as_the_command(out, NEW)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    seen.append(load_manifest(out).onnx_path.read_bytes())  # raises on a mixed pair
    assert seen[-1] in (OLD, NEW)
    export_as_the_command(out, NEW)
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(["manifest.yaml", load_manifest(out).onnx_file]), names
    assert load_manifest(out).onnx_path.read_bytes() == NEW
    assert not list(base.glob(".killed*")), list(base.iterdir())
    if not killed:
        break
    step += 1
print(step, seen.count(OLD), seen.count(NEW))
"""

_FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_model_folder import NEW, export_as_the_command
from heatnet_ros.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    export_as_the_command(Path(sys.argv[1]), NEW)
except DataError as error:
    print(error)
"""


def export_as_the_command(out: Path, network: bytes) -> None:
    with staging_folder(out) as folder:
        (folder / "model.onnx").write_bytes(b"draft")
        write_model_folder(out, network, dict(ENTRIES))


def run_script(script: str, *arguments: str) -> str:
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, arguments[0], str(here), *arguments[1:]]
    done = subprocess.run(command, cwd=here.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_at_any_step_one_model_is_whole_and_the_command_repairs(tmp_path):
    steps, old, new = map(int, run_script(_KILLED, str(tmp_path)).split())
    assert steps >= 8 and old >= 4 and new >= 2


@pytest.mark.parametrize("limit", [10_000, 100])
def test_a_full_disk_is_named_and_leaves_the_old_model(tmp_path, limit):
    out = tmp_path / "model"
    export_as_the_command(out, OLD)
    said = run_script(_FULL_DISK, str(out), str(limit))
    assert "cannot be written: File too large" in said and "Make room" in said
    assert load_manifest(out).onnx_path.read_bytes() == OLD
    assert len(list(out.iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_no_new_folder(tmp_path):
    assert "cannot be written" in run_script(_FULL_DISK, str(tmp_path / "model"), "10000")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_cannot_be_written_leaves_the_old_model(tmp_path):
    out = tmp_path / "model"
    export_as_the_command(out, OLD)
    (out / "manifest.yaml.part").mkdir()  # stands in the way
    with pytest.raises(DataError, match=r"manifest\.yaml cannot be written"):
        write_model_folder(out, NEW, dict(ENTRIES))
    assert load_manifest(out).onnx_path.read_bytes() == OLD
    assert len(list(out.glob("*.onnx"))) == 1


def test_the_users_own_files_stay_and_an_old_style_network_goes(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "model.onnx").write_bytes(OLD)
    (out / "notes.txt").write_text("mine")
    export_as_the_command(out, NEW)
    assert sorted(p.suffix for p in out.iterdir()) == [".onnx", ".txt", ".yaml"]
    assert load_manifest(out).onnx_path.read_bytes() == NEW


def test_what_was_measured_of_a_network_stays_with_it_alone(tmp_path):
    out = tmp_path / "model"
    scales = {ENTRIES["objects"][0]: 0.4}
    write_model_folder(out, OLD, ENTRIES | {"covariance_scale": scales})
    export_as_the_command(out, OLD)
    assert load_manifest(out).covariance_scale == scales
    export_as_the_command(out, NEW)
    assert load_manifest(out).covariance_scale == {}
    assert load_manifest(out).unmeasured == ENTRIES["objects"]
