"""Jobs in processes of their own: all are done, and one that is killed is told."""

import io
import os

import pytest

from heatnet_ros.datasets.worker_pool import run_in_workers
from heatnet_ros.errors import DataError
from heatnet_ros.progress import Progress


def test_every_job_is_done_and_a_killed_process_is_told(tmp_path):
    stream = io.StringIO()
    jobs = [(str(tmp_path / name),) for name in "ab"]
    run_in_workers(os.mkdir, jobs, 1, Progress("folders", 2, stream), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert "folders 2/2" in stream.getvalue()
    # a process that is gone without a word is what the kernel leaves when the memory is full
    with pytest.raises(DataError, match=r"One of 1 worker processes was killed.*Take fewer\."):
        run_in_workers(os._exit, [(9,)], 1, Progress("jobs", 1, stream), "Take fewer.")
    with pytest.raises(FileExistsError):
        run_in_workers(os.mkdir, jobs[:1], 1, Progress("folders", 1, stream), "")
