"""Do the installed packages fit together? Needs nothing but Python, since NumPy may be broken."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

from heatnet_ros.checks.finding import Finding, error, ok, warning

# all of them write cv2/: the last one installed wins, removing one breaks the others
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")
# compiled against NumPy: they fail on import where they were built for another one
_COMPILED = ("cv2", "cv_bridge")
_BACKENDS = ("onnxruntime", "openvino")
# how it is loaded here, where not by its own name
_LOADED_BY = {"openvino": "heatnet_ros.engines.openvino_package"}
# what an import raises in a package that was compiled for another NumPy or has lost a library
_FAULTS = (ImportError, AttributeError, RuntimeError, SystemError, OSError, TypeError, ValueError)


def check_environment(backends: bool = True) -> list[Finding]:
    """NumPy, OpenCV and the compiled packages: conflicts as findings, else one that is OK.

    What is not installed is no finding; loading a network says when no backend is there.
    ``backends``: load all that are installed, which takes memory.
    """
    modules = _COMPILED + _BACKENDS if backends else _COMPILED
    faults = [*_check_doubles(), *_check_imports(modules)]
    if faults:
        return faults
    import cv2
    import numpy as np

    return [ok("packages", f"NumPy {np.__version__}, OpenCV {cv2.__version__}, no conflicts")]


def _check_doubles() -> Iterator[Finding]:
    for names, module in ((_OPENCV, "cv2"), (_ONNXRUNTIME, "onnxruntime")):
        versions = {name: version for name in names if (version := _version(name))}
        # OpenCVs of one version bring the same files; onnxruntime-gpu's are others
        alike = module == "cv2" and len(set(versions.values())) == 1
        if len(versions) > 1 and not alike:
            found = [f"{name} {version}" for name, version in versions.items()]
            plain = " ".join(versions)
            keep = "opencv-python-headless" if module == "cv2" else "the one you want"
            yield warning(
                module,
                f"{' and '.join(found)} are installed and write over one another's {module}",
                f"pip uninstall {plain}, then pip install {keep}.",
            )


def _check_imports(modules: tuple[str, ...]) -> Iterator[Finding]:
    try:
        numpy = importlib.import_module("numpy")
    except _FAULTS as fault:
        yield error("numpy", f"does not load: {_one_line(fault)}", "pip install 'numpy>=1.26,<3'.")
        return
    for module in modules:
        if importlib.util.find_spec(module) is None:
            if module == "cv2":
                yield error("cv2", "OpenCV is not installed", "pip install opencv-python-headless.")
            continue
        try:
            importlib.import_module(_LOADED_BY.get(module, module))
        except _FAULTS as fault:
            yield _describe_import(module, str(numpy.__version__), fault)


def _describe_import(module: str, numpy_version: str, fault: BaseException) -> Finding:
    text = f"does not load with NumPy {numpy_version}: {_one_line(fault)}"
    if module == "cv_bridge":
        remedy = (
            "ROS's own packages are compiled for the NumPy of the system: pip install 'numpy<2' in "
            "this environment. Without cv_bridge only the usual image encodings are understood."
        )
        return warning(module, text, remedy)
    numpy_wanted = "numpy<2" if os.environ.get("ROS_DISTRO") else "numpy>=1.26,<3"
    package = "opencv-python-headless" if module == "cv2" else module
    return error(
        module, text, f"Install both anew: pip install --upgrade '{numpy_wanted}' {package}."
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(fault: BaseException) -> str:
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return (lines[0] if lines else type(fault).__name__).rstrip(".")
