"""What ``predict`` runs on when it is given a bag."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from heatnet_ros.bags.choice import Wanted, choose_topics
from heatnet_ros.bags.frames import BagFrames
from heatnet_ros.bags.reader import Bag
from heatnet_ros.evaluate import TruePose
from heatnet_ros.predict_inputs import InputImage, InputSet
from heatnet_ros.ros.node_config import NodeConfig


def list_bag_inputs(path: Path, wanted: Wanted, config: NodeConfig) -> InputSet:
    """Frames of a bag, paired, rectified or not, as ``pose_node`` with this config takes them.

    Truth is what the bag's topics ``.../truth/<object>`` hold. Raises DataError.
    """
    bag = Bag(path)
    topics = choose_topics(bag, wanted)
    print(
        f"{path}: colour {topics.color}, {topics.camera_info}, depth {topics.depth or 'none'}",
        file=sys.stderr,
    )
    frames = BagFrames(bag, topics, config)
    if frames.unpaired:
        print(
            f"note: {frames.unpaired} colour images have no depth within {config.sync_slop_s:g} s "
            "and are left out, as pose_node leaves them",
            file=sys.stderr,
        )
    truth = frames.read_truth()
    images = []
    for number, frame in enumerate(frames.frames):
        poses = truth.get(frame.stamp_ns, {})
        images.append(
            InputImage(
                name=f"{number:06d}",
                path=path,
                scene_id=0,
                image_id=number,
                has_depth=frame.depth_ns is not None,
                load_frame=partial(frames.load, frame),
                truths=tuple(TruePose(name, T) for name, T in poses.items()),
                stamp_ns=frame.stamp_ns,
            )
        )
    return InputSet(tuple(images), has_truth=bool(truth))
