"""Message packages that PyPI lacks, built from their definitions by the generators rclpy brings.

The definitions are those of tf2_msgs and of vision_msgs 4 (Humble and later), as far as the node
uses them, field by field in their order: the types on the wire are the real ones.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DEFINITIONS = {
    "tf2_msgs": {"TFMessage": "geometry_msgs/TransformStamped[] transforms\n"},
    "vision_msgs": {
        "ObjectHypothesis": "string class_id\nfloat64 score\n",
        "ObjectHypothesisWithPose": (
            "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
        ),
        "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
        "Detection3D": (
            "std_msgs/Header header\nObjectHypothesisWithPose[] results\n"
            "BoundingBox3D bbox\nstring id\n"
        ),
        "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections\n",
    },
}
NEEDED = ("geometry_msgs", "std_msgs", "builtin_interfaces")
# in the order in which their libraries need each other
GENERATORS = (
    "rosidl_generator_c",
    "rosidl_typesupport_introspection_c",
    "rosidl_typesupport_fastrtps_c",
    "rosidl_typesupport_c",
    "rosidl_generator_py",
)
RUN_TIME = (
    "rosidl_runtime_c",
    "rosidl_typesupport_interface",
    "rosidl_typesupport_c",
    "rosidl_typesupport_fastrtps_c",
    "rosidl_typesupport_fastrtps_cpp",
    "rosidl_typesupport_introspection_c",
)


def build(package: str, folder: Path) -> None:
    """Generate and compile a package below ``folder``; ``folder/python`` is then importable."""
    prefix, before = Path(sys.prefix), os.environ.get("AMENT_PREFIX_PATH")
    os.environ["AMENT_PREFIX_PATH"] = str(prefix)  # where the generators look for their templates
    try:
        sources = _generate(package, folder, prefix / "share")
    finally:
        del os.environ["AMENT_PREFIX_PATH"]
        if before is not None:
            os.environ["AMENT_PREFIX_PATH"] = before
    libraries = folder / "lib"
    libraries.mkdir(exist_ok=True)
    for generator in GENERATORS:
        _link(package, generator, sources, libraries)
    python = folder / "python" / package
    python.mkdir(parents=True, exist_ok=True)
    generated = sources["rosidl_generator_py"]
    (python / "__init__.py").touch()
    (python / "msg").mkdir(exist_ok=True)
    for file in (generated / "msg").glob("*.py"):
        (python / "msg" / file.name).write_bytes(file.read_bytes())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda c: _link_module(package, c, sources, folder), generated.glob("*.c")))


def load(package: str, folder: Path) -> None:
    """Load the libraries, so that the middleware finds them by name."""
    for generator in GENERATORS:
        ctypes.CDLL(str(folder / "lib" / f"lib{package}__{generator}.so"), ctypes.RTLD_GLOBAL)


def _generate(package: str, folder: Path, share: Path) -> dict[str, Path]:
    """Run the generators, each into a folder of its own; returns these."""
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_type_description.cli import HashTypeDescription

    source, idl = folder / "source" / package, folder / "idl" / package
    for path in (source / "msg", idl / "msg"):
        path.mkdir(parents=True, exist_ok=True)
    names = DEFINITIONS[package]
    for name, text in names.items():
        (source / "msg" / f"{name}.msg").write_text(text)
        convert_msg_to_idl(source, package, Path("msg") / f"{name}.msg", idl / "msg")
    files = [f"{idl}:msg/{name}.idl" for name in names]
    hashes = HashTypeDescription("hash").generate_type_hashes(package, files, [share], idl)
    folders = {}
    for generator in GENERATORS:
        folders[generator] = folder / "generated" / generator / package
        module = importlib.import_module(f"{generator}.cli")
        (command,) = (
            c for _, c in inspect.getmembers(module, inspect.isclass)
            if c.__module__ == module.__name__
        )  # fmt: skip
        wants = inspect.signature(command.generate).parameters
        more = {"type_description_files": hashes} if "type_description_files" in wants else {}
        command(generator).generate(package, files, [share], folders[generator], **more)
    return folders


def _flags(sources: dict[str, Path]) -> list[str]:
    include = Path(sys.prefix) / "include"
    folders = [path.parent for path in sources.values()]
    folders += [include, *(path for path in include.iterdir() if path.is_dir())]
    folders.append(Path(sysconfig.get_path("include")))
    folders.append(Path(importlib.import_module("numpy").get_include()))
    return ["-fPIC", "-O0", "-w", *(f"-I{path}" for path in folders)]


def _libraries(package: str, folder: Path, generators: tuple[str, ...]) -> list[str]:
    prefix = Path(sys.prefix) / "lib"
    out = [f"-L{folder}", f"-L{prefix}", f"-Wl,-rpath,{prefix}:{folder}"]
    out += [f"-l{package}__{generator}" for generator in generators]
    for name in (*NEEDED, *RUN_TIME):
        for generator in ("", *(f"__{g}" for g in GENERATORS)):
            if (prefix / f"lib{name}{generator}.so").exists():
                out.append(f"-l{name}{generator}")
    return [*out, *(str(path) for path in sorted(prefix.glob("libfastcdr.so.*"))[:1])]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-3000:]}"


def _link(package: str, generator: str, sources: dict[str, Path], folder: Path) -> None:
    files = [f for kind in ("*.c", "*.cpp") for f in (sources[generator] / "msg").rglob(kind)]
    name = f"lib{package}__{generator}.so"
    before = GENERATORS[: GENERATORS.index(generator)]
    _run([
        "g++" if any(f.suffix == ".cpp" for f in files) else "gcc", "-shared",
        *_flags(sources), *map(str, files), f"-Wl,-soname,{name}", "-o", str(folder / name),
        *_libraries(package, folder, before),
    ])  # fmt: skip


def _link_module(package: str, file: Path, sources: dict[str, Path], folder: Path) -> None:
    support = file.name.split(".")[2]  # _PACKAGE_s.ep.SUPPORT.c
    out = folder / "python" / package / f"{package}_s__{support}.so"
    _run([
        "gcc", "-shared", *_flags(sources), str(file), "-o", str(out),
        *_libraries(package, folder / "lib", GENERATORS),
    ])  # fmt: skip
