"""Where objects are in a frame: where their last poses lead, else where the detector finds them.

The detector is the slowest network. Once an object has a pose, its next crop is where that pose
will be; the detector then only looks for what is new or lost, in a thread beside the poses.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from heatnet_ros.config import FollowConfig
from heatnet_ros.estimators import Detector
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.boxes import box_overlaps
from heatnet_ros.geometry.camera import project
from heatnet_ros.instances import InstanceMemory
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import Detection, FloatArray, Frame, PoseEstimate

# how long the place of an object is looked at that gave no pose: something may stand before it
PATIENCE_NS = 300_000_000
# less of an object's box than this in the image is no crop for a pose
MIN_IN_VIEW = 0.25
# a detection that overlaps a followed box so much is that object
SAME_IOU = 0.3
# the detector rests so long after a run, in runs, but not longer than so many seconds: it takes
# cores from the poses
REST, LONGEST_REST_S = 3.0, 0.5
# Its thread is nicer than the poses' by so much (Linux); the threads that OpenVINO shares among its
# networks are not. Where all cores are busy a quarter of one is left to it. At 19 it starved, and
# an object that came back was found after a second.
NICE, NICEST = 5, 19
# a box that the detector found and that gave no pose is tried on so many frames, then not before
# the next look
TRIES = 5
# how long what was lost is looked for without a pause: it often comes back where it was
SEARCH_NS = 5_000_000_000
# Where one new object is others may be: the next look comes so soon after it, then each after twice
# the time, up to follow.redetect_s. Looks at a scene that stays as it is only delay poses.
SOON_S = 0.25


class Follower:
    """Boxes of each frame. Frames come in the order of their stamps; ``close`` ends the thread."""

    def __init__(self, detector: Detector, memory: InstanceMemory, library: ObjectLibrary) -> None:
        self._detector, self._memory, self._library = detector, memory, library
        self._pool = ThreadPoolExecutor(1, "detector", _stand_back)
        self._search: Future[tuple[list[Detection], float]] | None = None
        self._now: list[Detection] = []  # followed in this frame
        self._followed: list[Detection] = []  # in the frame that is or was searched
        self._looked_ns: int | None = None
        self._looked_s = 0.0  # monotonic
        self._pause_s = SOON_S  # from the last look to the next
        self._rest_until_s, self._lost = 0.0, False
        self._pending: list[Detection] = []
        self._tries = 0
        # instances without a pose, and when they had their last one; those of the last frame
        self._missing: dict[tuple[str, int], int] = {}
        self._seen: set[tuple[str, int]] = set()

    def locate(
        self, frame: Frame, config: FollowConfig, wanted: Collection[str] = ()
    ) -> list[Detection]:
        """Boxes of wanted objects (empty: all) to look at, the followed ones first.

        Raises what the detector raises.
        """
        followed = self._now = self._follow(frame, wanted) if config.enabled else []
        if not followed:
            return self.detect_now(frame, wanted)
        self._collect()
        limit = self._detector.config.max_detections
        pending = [d for d in self._pending if not wanted or d.object_id in wanted]
        new = [d for d in pending if not _is_among(d, followed)]
        return [*followed, *new][:limit]

    def look_beside(self, frame: Frame, config: FollowConfig, wanted: Collection[str] = ()) -> None:
        """Let the detector look at a frame, if it is due, in its thread; to be called at its end.

        The poses of this frame are done then, and a camera leaves a pause before the next one.
        """
        if self._now and self._is_due(frame.stamp_ns, config):
            self._search = self._pool.submit(self._detect, frame, wanted)
            self._followed = self._now
            self._looked_ns, self._looked_s = frame.stamp_ns, time.monotonic()
            self._pause_s = max(SOON_S, min(2 * self._pause_s, config.redetect_s))

    def detect_now(self, frame: Frame, wanted: Collection[str] = ()) -> list[Detection]:
        """Boxes of the detector in this very frame. Raises what the detector raises."""
        self._tries, self._now = 0, []
        self._wait()  # a network is not for two threads at once
        self._looked_ns, self._looked_s = frame.stamp_ns, time.monotonic()
        return self._detector.detect(frame, wanted)

    def note(
        self, detections: Sequence[Detection], poses: Sequence[PoseEstimate], stamp_ns: int
    ) -> None:
        """Which of the boxes gave a pose; to be called when the memory knows the poses.

        Where a followed one did not, and for 5 s after an instance was lost, the detector looks
        again at once; soon where a new one was found. Its own boxes without a pose are tried on
        the next few frames: what is no object must not cost a crop on every frame for ever.
        """
        given = {id(pose.detection) for pose in poses}
        without = [d for d in detections if id(d) not in given]
        known = self._seen | self._missing.keys()
        self._note_missing(poses, stamp_ns)
        if self._seen - known:
            self._pause_s = SOON_S
        self._lost = bool(self._missing) or any(d.followed for d in without)
        self._tries += 1
        new = [d for d in without if not d.followed]
        self._pending = new if self._tries < TRIES else []

    def _note_missing(self, poses: Sequence[PoseEstimate], stamp_ns: int) -> None:
        for pose in poses:  # an object that comes back after a second has another id
            mine = (pose.object_id, pose.instance)
            same = [key for key in self._missing if key[0] == pose.object_id]
            if mine in same:
                del self._missing[mine]
            elif same and mine not in self._seen:
                del self._missing[same[0]]
        self._seen = {(pose.object_id, pose.instance) for pose in poses}
        for track in self._memory.tracks:
            if track.stamp_ns != stamp_ns:
                self._missing[track.object_id, track.instance] = track.stamp_ns
        self._missing = {
            key: seen_ns
            for key, seen_ns in self._missing.items()
            if 0 <= stamp_ns - seen_ns <= SEARCH_NS
        }

    def reset(self) -> None:
        """Forget what is being searched; the memory is reset by its owner."""
        self._wait()
        self._looked_ns, self._rest_until_s, self._lost = None, 0.0, False
        self._pause_s = SOON_S
        self._pending, self._missing, self._seen, self._tries = [], {}, set(), 0

    def look_soon(self) -> None:
        """Let the next look come with the next frame: what is looked for has changed."""
        self._wait()  # it looks for what was wanted before
        self._looked_ns, self._pause_s, self._rest_until_s = None, SOON_S, 0.0

    def forget_others(self, objects: Collection[str]) -> None:
        """Look no more for what was lost, and at no box, of other objects than these."""
        self._missing = {k: seen_ns for k, seen_ns in self._missing.items() if k[0] in objects}
        self._seen = {key for key in self._seen if key[0] in objects}
        self._lost = False  # the next frame says what is

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _follow(self, frame: Frame, wanted: Collection[str]) -> list[Detection]:
        self._memory.forget_old(frame.stamp_ns)
        boxes = []
        for track in self._memory.tracks:
            if wanted and track.object_id not in wanted:
                continue
            if not 0 <= frame.stamp_ns - track.stamp_ns <= PATIENCE_NS:
                continue
            model = self._library[track.object_id]
            T = track.predict(frame.stamp_ns, model)
            box = enclose(T, model, frame)
            if box is not None:
                boxes.append(Detection(track.object_id, box, track.score, T))
        return boxes

    def _detect(self, frame: Frame, wanted: Collection[str]) -> tuple[list[Detection], float]:
        start_s = time.monotonic()
        return self._detector.detect(frame, wanted), time.monotonic() - start_s

    def _collect(self) -> None:
        """Take what the thread has found since the last frame, if it has looked."""
        if self._search is None or not self._search.done():
            return
        search, self._search = self._search, None
        self._rest_until_s = time.monotonic() + LONGEST_REST_S  # also after an error
        found, took_s = search.result()
        self._rest_until_s = time.monotonic() + min(REST * took_s, LONGEST_REST_S)
        # compared in the frame that was searched: until now things have moved on
        self._pending = [d for d in found if not _is_among(d, self._followed)]
        self._tries = 0

    def _is_due(self, stamp_ns: int, config: FollowConfig) -> bool:
        if self._search is not None or time.monotonic() < self._rest_until_s:
            return False
        since_s = np.inf if self._looked_ns is None else (stamp_ns - self._looked_ns) / 1e9
        if since_s == 0.0:  # a camera whose stamps stand still
            since_s = time.monotonic() - self._looked_s
        return self._lost or since_s < 0 or since_s >= min(self._pause_s, config.redetect_s)

    def _wait(self) -> None:
        search, self._search = self._search, None
        if search is not None and not search.cancel():
            search.exception()


def _stand_back() -> None:
    """Lower this thread's priority: poses first. Where the system has no such thing, nothing."""
    with contextlib.suppress(AttributeError, OSError):
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICE
        os.setpriority(os.PRIO_PROCESS, thread, min(niceness, NICEST))


def enclose(
    T_camera_object: FloatArray, model: ObjectModel, frame: Frame
) -> tuple[float, float, float, float] | None:
    """Box of an object in the image, cut at its borders; None where too little of it is in view."""
    # the keypoints are the farthest points, the surface samples fill up
    points = np.vstack([model.keypoints_m, model.surface[:, :3]])
    pixels = project(se3.transform(T_camera_object, points), frame.K, frame.distortion)
    if not np.all(np.isfinite(pixels)):  # a part of it is behind the camera
        return None
    height, width = frame.size_hw
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    inside = np.clip([low, high], -0.5, [width - 0.5, height - 0.5])
    size = inside[1] - inside[0]
    if np.any(size < 1.0) or np.prod(size) < MIN_IN_VIEW * np.prod(high - low):
        return None
    (x0, y0), (x1, y1) = inside.tolist()
    return x0, y0, x1, y1


def _is_among(detection: Detection, others: Sequence[Detection]) -> bool:
    """Whether one of the others is the same object, by name and box."""
    same = [d.bbox_xyxy_px for d in others if d.object_id == detection.object_id]
    if not same:
        return False
    box = np.array(detection.bbox_xyxy_px, np.float64)[None]
    return bool((box_overlaps(box, np.array(same, np.float64)) > SAME_IOU).any())
