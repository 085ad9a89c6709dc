"""What can be wrong with the camera's topics, in words: the node and the doctor say the same."""

from __future__ import annotations

from heatnet_ros.checks.finding import Finding, error
from heatnet_ros.types import ALIGN_DEPTH

# more than this share lost on the way is no accident
MAX_LOST = 0.1
LARGE_FRAMES = (
    "Images larger than the sender's shared memory (Fast DDS: 0.5 MB) get lost: start the camera "
    "with FASTRTPS_DEFAULT_PROFILES_FILE (Fast DDS 3: FASTDDS_DEFAULT_PROFILES_FILE) set to "
    "heatnet_ros' config/fastdds_large_frames.xml."
)


def is_lossy(lost: int, sent: int) -> bool:
    """Whether so many of the messages sent are missing that something is wrong."""
    return lost > max(2, MAX_LOST * sent)


def describe_losses(topic: str, lost: int, sent: int, large: bool = True) -> Finding:
    """Messages got lost between camera and node. ``large``: they may not fit shared memory."""
    remedy = LARGE_FRAMES if large else (
        "Too much for the network or the camera's machine: lower the camera's rate or size, take "
        "compressed images, use a cable."
    )  # fmt: skip
    return error(topic, f"{lost} of the last {sent} messages were lost on their way", remedy)


def describe_silence(topic: str, publishers: int, limit_s: float, large: bool = True) -> Finding:
    """No message came for ``limit_s`` seconds. ``large``: they may not fit shared memory."""
    if publishers == 0:
        return error(
            topic,
            f"nobody publishes, nothing came for {limit_s:g} s",
            "Start the camera or remap the topic (see `ros2 topic list`).",
        )
    tail = f" {LARGE_FRAMES}" if large else ""
    return error(
        topic,
        f"{publishers} publisher(s), but nothing came for {limit_s:g} s",
        f"Is the camera at work (its log, `ros2 topic hz {topic}`)?{tail}",
    )


def describe_no_info(topic: str, publishers: int, limit_s: float) -> Finding:
    """Images come and no CameraInfo."""
    return error(
        topic,
        f"no CameraInfo for {limit_s:g} s while images come; {publishers} publisher(s)",
        "Without calibration there is no pose: remap camera_info to the topic beside the colour "
        "image.",
    )


def describe_no_depth(topic: str, color: str, publishers: int, limit_s: float) -> Finding:
    """Depth is needed and does not come."""
    return error(
        topic,
        f"no depth image for {limit_s:g} s, {publishers} publisher(s); expected depth aligned to "
        f"{color}",
        f"{ALIGN_DEPTH} Or use a model without depth and use_depth: false. No pose until then.",
    )


def describe_no_pairs(color: str, depth: str, slop_s: float, offset_s: float) -> Finding:
    """Both images come and none belong together. ``offset_s``: between the newest stamps."""
    return error(
        f"{color} and {depth}",
        f"both come, but no two stamps are within {slop_s:g} s; the newest differ by "
        f"{offset_s:.3f} s",
        "Synchronise the camera's streams (RealSense: enable_sync:=true) or raise sync_slop_s.",
    )


def describe_slop(color: str, period_s: float, slop_s: float) -> Finding:
    """The slop lets images of different moments pair."""
    return error(
        color,
        f"comes every {period_s * 1e3:.1f} ms, sync_slop_s {slop_s:g} is half of that or more: "
        "after one lost image, colour is paired with the depth of the next or the last one and "
        "poses are wrong where anything moves",
        f"Set sync_slop_s below {period_s / 2:.4f}.",
    )


def describe_incompatible_qos(topic: str, policy: str, publisher: str = "a publisher") -> Finding:
    """A publisher offers less than the node asks for. ``policy``: as rclpy names it."""
    return error(
        topic,
        f"{publisher}'s QoS is incompatible in {policy}, nothing from it arrives",
        f"Set the parameter 'qos_overrides.{topic}.subscription.{policy.lower()}' to what it "
        "offers (reliability: best_effort and durability: volatile match every publisher).",
    )
