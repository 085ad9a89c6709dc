"""Long jobs in processes of their own, with progress; what happens to them is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from heatnet_ros.errors import DataError
from heatnet_ros.progress import Progress


def run_in_workers(
    task: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    progress: Progress,
    remedy: str,
) -> None:
    """Call ``task`` with each job's arguments; its result is shown as the step's note.

    remedy: what to do when a process is killed from outside. Raises DataError then, and what a
    task raises.
    """
    # spawn: an OpenGL context must not be inherited
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(task, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                progress.step(str(future.result()))
        except BrokenProcessPool as error:
            raise DataError(
                f"One of {workers} worker processes was killed; most often the memory is full "
                f"(dmesg tells). {remedy}"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
