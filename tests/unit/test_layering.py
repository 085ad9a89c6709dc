"""The layers of the architecture: who may import whom, and what the run time may load."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from child_environment import child_environment
from onnx_models import save_convolution

import heatnet_ros

ROOT = Path(heatnet_ros.__file__).parent

BASE = {
    *("errors", "types", "config", "options", "resources", "files", "ply", "mesh"),
    "keypoint_sampling",
}
SHAPES = BASE | {"geometry", "objects"}
PARTS = SHAPES | {"manifest", "engines"}
RUN_TIME = PARTS | {
    *("estimators", "refiners", "gate", "instances", "following", "filtering", "pipeline"),
    "uncertainty",
    "doubles",
    "consistency",
}
OFFLINE = RUN_TIME | {
    *(
        "datasets",
        "rendering",
        "metrics",
        "overlay",
        "label_layout",
        "evaluate",
        "progress",
        "machine",
    ),
}
# layer -> what it may import of the package, besides itself; a file that is not named here is a
# command: it wires the rest together and nothing below imports it
LAYERS = {
    "errors": set(),
    "types": {"errors"},
    "config": {"errors", "types"},
    "files": {"errors"},
    "options": set(),
    "resources": {"errors"},
    "machine": set(),
    "progress": set(),
    "ply": {"errors", "files"},
    "mesh": {"errors", "types", "files", "ply"},
    "keypoint_sampling": {"errors", "types"},
    "mesh_topology": {"errors", "types"},
    "geometry": BASE,
    "objects": BASE | {"geometry"},
    "manifest": SHAPES,
    "engines": BASE,
    "estimators": PARTS,
    "refiners": SHAPES,
    "consistency": SHAPES | {"manifest"},
    "gate": SHAPES,
    "doubles": SHAPES | {"gate"},
    "instances": SHAPES,
    "following": PARTS | {"estimators", "instances"},
    "filtering": SHAPES | {"instances"},
    "uncertainty": {"types"},
    "pipeline": RUN_TIME,
    "metrics": SHAPES,
    "label_layout": {"types"},
    "overlay": SHAPES | {"label_layout"},
    "datasets": OFFLINE - {"evaluate"},
    "rendering": SHAPES | {"metrics", "mesh_topology"},
    "evaluate": OFFLINE,
    "bench": OFFLINE | {"params_file", "predict_inputs"},
    "training": OFFLINE | {"bench"},
    "bags": BASE | {"geometry", "ros"},  # only its conversions and pairing, which need no rclpy
    "params_file": BASE | {"ros"},  # only its config dataclass, which needs no rclpy
    "checks": RUN_TIME | {"params_file", "ros"},  # of ros only its config dataclass
    "ros": OFFLINE | {"params_file", "bags", "checks", "predict_inputs", "image_inputs"},
}
# third-party packages that belong to some folders only, at any depth of import
HOMES = {
    "torch": {"training"},
    "torchvision": {"training"},
    "ultralytics": {"training"},
    "openvino": {"engines"},
    "onnxruntime": {"engines", "training"},
    "tensorrt": {"engines"},
    "pycuda": {"engines"},
    "onnx": {"training"},
    "nncf": {"training"},
    "trimesh": {"rendering", "training", "mesh_import", "mesh_formats"},
    "manifold3d": {"rendering"},
    "moderngl": {"rendering"},
    "rclpy": {"ros"},
    "rosbags": {"bags"},
    "cv_bridge": {"ros"},
    "launch": set(),
    "scipy": {"rendering", "training"},
}
THIRD_PARTY_OF_RUN_TIME = {"numpy", "cv2", "yaml"} | {
    "openvino",
    "onnxruntime",
    "tensorrt",
    "pycuda",
}
MODULES = sorted(ROOT.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(source: str, path: Path) -> set[str]:
    """Full names of all modules a file imports, also inside functions; relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["heatnet_ros", *path.relative_to(ROOT).parts[: -node.level]]
                base = ".".join([*package, base]).rstrip(".")
            # `from heatnet_ros import x` may name a module as well
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_the_layers_below_it(path: Path) -> None:
    layer = layer_of(path)
    names = imports(path.read_text(), path)
    used = {name.split(".")[1] for name in names if name.startswith("heatnet_ros.")}
    used -= {layer, "__version__"}
    if layer in LAYERS:
        assert used <= LAYERS[layer], f"{layer} must not import {used - LAYERS[layer]}"
    for name in sorted({name.split(".")[0] for name in names}):
        is_message = name.endswith(("_msgs", "_srvs", "_interfaces"))
        homes = {"ros"} if is_message else HOMES.get(name)
        assert homes is None or layer in homes, f"{layer} must not import {name}"
        if layer in RUN_TIME and name not in sys.stdlib_module_names | {"heatnet_ros"}:
            assert name in THIRD_PARTY_OF_RUN_TIME, f"the run time must not need {name}"


def test_estimators_see_the_protocol_never_a_backend() -> None:
    for path in (ROOT / "estimators").glob("*.py"):
        assert not {
            n for n in imports(path.read_text(), path) if n.count(".") > 2 and ".engines." in n
        } - {
            "heatnet_ros.engines.Engine",
            "heatnet_ros.engines.TensorSpec",
        }


def test_parameter_files_are_read_without_ros() -> None:
    for path in (ROOT / "params_file.py", *(ROOT / "checks").glob("*.py")):
        used = {n for n in imports(path.read_text(), path) if n.startswith("heatnet_ros.ros.")}
        assert used <= {"heatnet_ros.ros.node_config.NodeConfig"}
    path = ROOT / "ros" / "node_config.py"
    assert {n.split(".")[0] for n in imports(path.read_text(), path)} <= {
        "heatnet_ros",
        *sys.stdlib_module_names,
    }


def test_engines_are_imported_when_they_are_used() -> None:
    tree = ast.parse((ROOT / "engines" / "__init__.py").read_text())
    at_the_top = {ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)}
    assert at_the_top
    assert not [line for line in at_the_top if "openvino" in line or "onnxruntime" in line]


def test_openvino_is_imported_in_one_place_which_keeps_its_telemetry_out() -> None:
    users = {
        path.name
        for path in MODULES
        if any(name.split(".")[0] == "openvino" for name in imports(path.read_text(), path))
    }
    assert users == {"openvino_package.py"}


_CHECK = """
import sys
from heatnet_ros.checks.environment import check_environment
check_environment()
assert "openvino" in sys.modules and "onnxruntime" in sys.modules
print(*sorted(n for n in ("openvino.tools.ovc", "openvino_telemetry") if n in sys.modules))
"""


def test_the_check_of_the_packages_keeps_it_out_too() -> None:
    command = [sys.executable, "-c", _CHECK]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_check_sees_relative_and_late_imports() -> None:
    source = "def f():\n    from ..pipeline import Pipeline\n    import torch.nn as nn\n"
    found = imports(source, ROOT / "geometry" / "x.py")
    assert found == {"heatnet_ros.pipeline.Pipeline", "torch.nn"}


_PROGRAM = """
import sys
from fakes import World, pose
world = World(("wedge", pose(0, 0, 0.6)))
result = world.pipeline().run(world.frame())
assert len(result.poses) == 1, result
from pathlib import Path
from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import load_engine
for backend in ("openvino", "onnxruntime"):
    load_engine(Path(sys.argv[1]), EngineConfig(backend=backend))
banned = ["torch", "torchvision", "rclpy", "tensorrt", "trimesh", "ultralytics", "moderngl",
          "scipy", "onnx", "pandas", "matplotlib", "openvino.tools.ovc", "openvino_telemetry"]
print(",".join(name for name in banned if name in sys.modules))
"""


def test_a_running_pipeline_loads_nothing_heavy(tmp_path: Path) -> None:
    path = save_convolution(tmp_path / "conv.onnx", np.ones((8, 3, 3, 3)))
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(path)],
        env=child_environment(tests),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
