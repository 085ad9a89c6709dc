"""``~/overlay``: the colour image with the poses in it, drawn in a thread beside the poses."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.overlay import draw_poses
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.messages import array_to_image, ns_to_stamp
from heatnet_ros.types import Frame, PipelineResult

# after a picture the thread rests so long, in pictures: drawing and poses share Python's lock
REST = 2.0


class OverlayDrawer:
    """Draws the newest result while somebody subscribes; frames in between are left out."""

    def __init__(
        self, node: LifecycleNode, library: ObjectLibrary, say: Callable[[str], None]
    ) -> None:
        """The thread starts with the first subscriber. say: gets what goes wrong, once."""
        self._node, self._library, self._say = node, library, say
        self._publisher = node.create_lifecycle_publisher(Image, "~/overlay", 1)
        self._mailbox: Mailbox[tuple[PipelineResult, Frame]] = Mailbox()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def offer(self, result: PipelineResult, frame: Frame) -> None:
        """Let this be drawn if anybody looks; returns at once."""
        if not self._publisher.get_subscription_count():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pose_overlay", daemon=True)
            self._thread.start()
        self._mailbox.put((result, frame))

    def destroy(self) -> None:
        """End the thread and take the topic out of the graph."""
        self._mailbox.close()
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _run(self) -> None:
        said = False
        while (item := self._mailbox.take()) is not None:
            start_s = time.monotonic()
            try:
                self._draw(*item)
            except Exception:  # a picture must not end the node
                if not said and self._node.context.ok():
                    self._say(f"~/overlay cannot be drawn: {traceback.format_exc()}")
                said = True
            self._ended.wait(REST * (time.monotonic() - start_s))

    def _draw(self, result: PipelineResult, frame: Frame) -> None:
        rgb = draw_poses(
            frame.rgb, frame.K, frame.distortion, result.poses, self._library,
            rejections=result.rejected,
        )  # fmt: skip
        message = array_to_image(rgb, "rgb8")
        message.header = Header(stamp=ns_to_stamp(frame.stamp_ns), frame_id=frame.frame_id)
        if self._node.context.ok():
            self._publisher.publish(message)
