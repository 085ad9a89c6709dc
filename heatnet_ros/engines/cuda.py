"""One NVIDIA GPU through pycuda: primary context, pinned buffers, CUDA graphs.

Not run on hardware so far; docs/engines.md tells what was checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from heatnet_ros.errors import EngineError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may use the GPU meanwhile


class CaptureError(Exception):
    """CUDA cannot make a graph of this work."""


class Gpu:
    """The first GPU, its primary context and one stream. Raises EngineError when CUDA fails.

    A CUDA context is current in one thread at a time, and the thread that loads a network is not
    the one that runs it: everything that touches the GPU stands in ``with gpu.active():``. The
    primary context is the one that TensorRT uses.
    """

    def __init__(self) -> None:
        try:
            cuda.init()
            device = cuda.Device(0)
            self._context = device.retain_primary_context()
            self.name = str(device.name())
            self.capability: tuple[int, int] = tuple(device.compute_capability())
        except cuda.Error as error:
            raise _cuda_error(error) from error
        with self.active():
            self.stream = cuda.Stream()

    def __str__(self) -> str:
        """Name and compute capability, as a plan's key has them."""
        return f"{self.name} {self.capability[0]}.{self.capability[1]}"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current in this thread. Errors of CUDA become EngineError."""
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except cuda.Error as error:
            raise _cuda_error(error) from error


class Buffer:
    """Memory for one tensor, in the host (pinned, so that copies are asynchronous) and the GPU."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.host: NDArray[Any] = cuda.pagelocked_empty(shape, dtype)
        self._device = cuda.mem_alloc(max(self.host.nbytes, 1))

    @property
    def address(self) -> int:
        """Of the GPU's memory."""
        return int(self._device)

    def upload(self, stream: Any) -> None:
        """Host to GPU, asynchronously."""
        cuda.memcpy_htod_async(self._device, self.host, stream)

    def download(self, stream: Any) -> None:
        """GPU to host, asynchronously."""
        cuda.memcpy_dtoh_async(self.host, self._device, stream)


class Graph:
    """What ``enqueue`` puts on a stream, recorded: one launch instead of many.

    pycuda has no graphs, so the driver is called directly; its stream handles are the driver's.
    Raises CaptureError.
    """

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream, self._runnable = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            enqueue()
        except (EngineError, cuda.Error) as error:
            raise CaptureError(str(error)) from error
        finally:  # also a failed capture must end, else the stream stays unusable
            ended = self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        if ended or not graph:
            raise CaptureError(f"cuStreamEndCapture gives error {ended}")
        try:
            self._call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(self._runnable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put the recorded work on the stream. Raises EngineError."""
        status = self._driver.cuGraphLaunch(self._runnable, self._stream)
        if status:
            raise EngineError(
                f"The GPU could not run the network: cuGraphLaunch gives CUDA error {status}. "
                "Configure the node again; see the driver's messages (dmesg) if it comes back."
            )

    def destroy(self) -> None:
        """Free it; the context must be current."""
        self._driver.cuGraphExecDestroy(self._runnable)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise CaptureError(f"{name} gives CUDA error {status}")


def allocate(size_bytes: int) -> Any:
    """Memory of the GPU; it is freed with the object."""
    return cuda.mem_alloc(max(size_bytes, 1))


def copy_to(buffer: Buffer, array: NDArray[Any]) -> None:
    """Fill a buffer in the GPU and wait until it is there."""
    np.copyto(buffer.host, array, casting="no")
    cuda.memcpy_htod(buffer.address, buffer.host)


def _cuda_error(error: Exception) -> EngineError:
    return EngineError(
        f"CUDA failed: {' '.join(str(error).split())}. Check the driver (nvidia-smi, on a Jetson "
        "tegrastats) and the GPU's free memory, or set engine.device to cpu."
    )
