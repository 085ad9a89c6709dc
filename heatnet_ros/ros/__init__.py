"""The ROS 2 side: the only importer of rclpy and of message packages."""

import os

# NumPy's OpenBLAS starts a worker for each further core with the first large product, minutes into
# a run, and keeps it: it would take that core from the networks. Read when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
