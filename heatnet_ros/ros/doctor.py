"""The doctor's part that needs ROS: the camera's topics and the running ``pose_node``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import rclpy
from sensor_msgs.msg import Image

from heatnet_ros.checks import streams
from heatnet_ros.checks.calibration import check_frame_id
from heatnet_ros.checks.depth import check_depth, measure_depth
from heatnet_ros.checks.files import ParameterSet
from heatnet_ros.checks.finding import Finding, Level, error, from_error, ok, warning
from heatnet_ros.checks.node_values import check_node
from heatnet_ros.errors import ConfigError, DataError, HeatnetError
from heatnet_ros.manifest import load_manifest
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.camera_checks import judge_calibration, judge_depth_camera, judge_rectified
from heatnet_ros.ros.cameras import CAMERAS
from heatnet_ros.ros.frames import ImageSet, Topics, build_frame, encoding_of
from heatnet_ros.ros.messages import image_to_depth_m
from heatnet_ros.ros.probe import Listener, Probe, header_stamp_ns

# Fast DDS announces a process anew every 3 s, should the first announcements be lost, as happens
# on a busy machine; the node reports once a second
_FIND_NODE_S, _LIMIT_S, _DISCOVER_LIMIT_S = 4.2, 6.0, 4.0


@dataclass(frozen=True)
class Request:
    """What to look at. Empty topics are the node's, else the camera's; empty node: any."""

    camera: str
    color: str
    camera_info: str
    depth: str
    node: str
    seconds: float
    use_sim_time: bool
    parts: Sequence[str]


def examine(request: Request, parameters: ParameterSet) -> Iterator[Finding]:
    """Listen, then yield findings about camera and node, as ``request.parts`` says."""
    rclpy.init(args=[])
    try:
        probe = Probe(request.use_sim_time)
        # without a name or a camera the node tells the topics
        asks_node = "node" in request.parts or not (request.camera or request.color)
        if asks_node:
            probe.find_nodes(request.node, _FIND_NODE_S, _LIMIT_S)
        if "camera" in request.parts:
            yield from _examine_camera(probe, request, parameters)
        if "node" in request.parts:
            # a second node's camera was not looked at
            with_input = "camera" not in request.parts or len(probe.nodes) > 1
            yield from _examine_nodes(probe, request.node, with_input)
    finally:
        rclpy.try_shutdown()


def _pick_node(probe: Probe, request: Request) -> str | None:
    """The node that is meant: the one named, else the only one; of several the first.

    Not where options name the camera: it may be that of another one.
    """
    if request.node:
        return request.node if request.node in probe.nodes else None
    if len(probe.nodes) > 1 and (request.camera or request.color):
        return None
    return min(probe.nodes, default=None)


def _examine_camera(probe: Probe, request: Request, parameters: ParameterSet) -> Iterator[Finding]:
    node = _pick_node(probe, request)
    topics, source = _choose_topics(probe, request, parameters, node)
    values = probe.nodes.get(node or "", {})
    # a running node may have been told otherwise than the file says
    slop_s = float(values.get("sync_slop_s", parameters.node.sync_slop_s))
    rectified = parameters.node.rectified or CAMERAS[request.camera or "realsense"].rectified
    if "rectified" in values:
        rectified = values["rectified"] == "true"
    if node is not None and len(probe.nodes) > 1 and not request.node:
        others = ", ".join(sorted(set(probe.nodes) - {node}))
        yield ok("topics", f"only those of {node} are judged, --node names another: {others}")
    yield ok("topics", f"{', '.join(topics.by_stream.values())} ({source})")
    try:
        topics.check_distinct()
    except ConfigError as fault:
        yield from_error(fault)
        return
    probe.subscribe(topics)
    probe.wait_for_publishers(_DISCOVER_LIMIT_S)
    probe.listen(request.seconds)
    probe.describe_graph(node, parameters.qos)
    listeners = probe.listeners
    color, info, depth = (listeners.get(role) for role in ("color", "info", "depth"))
    assert color is not None and info is not None  # subscribe has made them
    color.stream.lost = max(color.stream.lost, streams.count_lost(color.stream, info.stream))
    if depth is not None:
        depth.stream.lost = max(depth.stream.lost, streams.count_lost(depth.stream, info.stream))
    for listener in (color, info, depth):
        if listener is not None:
            yield from streams.check_publishers(listener.stream)
            aligned_to = color.stream if listener is depth else None
            yield from streams.check_arrival(listener.stream, aligned_to)
            yield from streams.check_stamps(listener.stream)
    if depth is not None:
        yield from streams.check_pairs(color.stream, depth.stream, slop_s)
    yield from _examine_images(listeners, topics, rectified)


def _choose_topics(
    probe: Probe, request: Request, parameters: ParameterSet, node: str | None
) -> tuple[Topics, str]:
    """Topics, and why these."""
    values = probe.nodes.get(node or "", {})
    if not request.camera and "topic.color" in values:
        color, info = values["topic.color"], values["topic.camera_info"]
        depth, source = values.get("topic.depth", ""), f"those of {node}"
    else:
        color, info, depth = CAMERAS[request.camera or "realsense"].topics().values()
        source = (
            f"--camera {request.camera}" if request.camera else "--camera realsense, the default"
        )
        color = _add_transport(color, parameters.node.color_transport)
        wanted = depth if _wants_depth(parameters) else ""
        depth = _add_transport(wanted, parameters.node.depth_transport)
    given = [request.color, request.camera_info, request.depth]
    if any(given):
        source = "as given" if all(given) else f"as given, else {source}"
    return Topics(
        _add_transport(request.color, parameters.node.color_transport) or color,
        request.camera_info or info,
        _add_transport(request.depth, parameters.node.depth_transport) or depth or None,
    ), source


def _add_transport(topic: str, transport: str) -> str:
    """As image_transport names it, where it is not named so already."""
    known = topic.endswith(("/compressed", "/compressedDepth"))
    return topic if not topic or known or transport == "raw" else f"{topic}/{transport}"


def _wants_depth(parameters: ParameterSet) -> bool:
    """Whether the node would subscribe to depth."""
    wanted = parameters.node.use_depth
    if wanted != "auto":
        return wanted == "true"
    try:
        folder = find_resource(parameters.pipeline.estimator.model, "Estimator model")
        return "depth" in load_manifest(folder).inputs
    except HeatnetError:  # the part `files` says it; most models take depth
        return True


def _examine_images(
    listeners: dict[str, Listener], topics: Topics, rectified: bool
) -> Iterator[Finding]:
    """Decode images of one moment as the node does; each fault is said once."""
    info, color = listeners["info"].newest(), listeners["color"].newest()
    depth = None
    if color is not None and "depth" in listeners:
        depth = listeners["depth"].newest(header_stamp_ns(color))
    said: set[str] = set()
    for finding in _judge_images(info, color, depth, topics, rectified):
        if finding.text not in said:
            said.add(finding.text)
            yield finding
    depth_info = listeners["depth_info"].newest() if "depth_info" in listeners else None
    if info is not None and depth_info is not None and topics.depth is not None:
        aligned = judge_depth_camera(info, depth_info, topics, rectified)
        if aligned is not None:
            yield aligned


def _judge_images(
    info: Any, color: Any, depth: Any, topics: Topics, rectified: bool
) -> Iterator[Finding]:
    if info is not None:
        try:
            yield judge_calibration(info, topics, rectified)
        except DataError as fault:
            yield from_error(fault)
        named = check_frame_id(topics.camera_info, info.header.frame_id)
        if named is not None:
            yield named
        called = judge_rectified(info, topics, rectified)
        if called is not None:
            yield called
    if info is None or color is None:
        return
    try:
        frame = build_frame(ImageSet(color, None, info, 0.0), topics, rectified)
        height, width = frame.size_hw
        yield ok(topics.color, f"{width}x{height} {encoding_of(color)} in frame '{frame.frame_id}'")
        if depth is not None:
            frame = build_frame(ImageSet(color, depth, info, 0.0), topics, rectified)
    except DataError as fault:
        yield from_error(fault)
    else:
        if frame.depth_m is not None:
            text = f"aligned to colour: {width}x{height}, frame '{frame.frame_id}'"
            yield ok(str(topics.depth), text)
            yield check_depth(str(topics.depth), measure_depth(encoding_of(depth), frame.depth_m))
        return
    if isinstance(depth, Image):  # what else is wrong with it
        try:
            depth_m = image_to_depth_m(depth, str(topics.depth))
            yield check_depth(str(topics.depth), measure_depth(depth.encoding, depth_m))
        except DataError as fault:
            yield from_error(fault)


def _examine_nodes(probe: Probe, wanted: str, with_input: bool) -> Iterator[Finding]:
    names = [wanted] if wanted else sorted(probe.nodes)
    if not names:
        yield warning(
            "pose_node",
            "none reports on /diagnostics",
            "Start it: ros2 launch heatnet_ros pose.launch.py, or `pose_node --ros-args "
            "--params-file FILE`; mind ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE.",
        )
    for name in names:
        if name not in probe.nodes:
            yield _describe_absence(probe, name)
            continue
        yield from (
            from_error(message, f"{name} {part}")
            for part, message in probe.problems[name].items()
            if message
        )
        said = " ".join(probe.problems[name].values())
        found = check_node(name, probe.nodes[name], with_input)
        yield from (finding for finding in found if finding.text not in said)


def _describe_absence(probe: Probe, name: str) -> Finding:
    running = {
        f"{space.rstrip('/')}/{node}" for node, space in probe.get_node_names_and_namespaces()
    }
    if name in running:
        return error(name, "runs, but says nothing on /diagnostics", "Look at its log; it hangs.")
    known = ", ".join(sorted(probe.nodes)) or "none"
    return Finding(
        Level.ERROR,
        name,
        f"does not run; pose nodes that do: {known}",
        "Start it, or give --node its full name; mind ROS_DOMAIN_ID.",
    )
