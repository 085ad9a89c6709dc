"""The lifecycle node ``pose_node``: wiring only.

Topics in (relative, remappable): ``color/image_raw`` (or ``color/image_raw/compressed``),
``depth/image_raw`` (or ``depth/image_raw/compressedDepth``), ``color/camera_info``. Out: see
``publishers.py``, and ``/diagnostics``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import (
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from heatnet_ros.checks.environment import check_environment
from heatnet_ros.checks.finding import Level
from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import ConfigError, HeatnetError
from heatnet_ros.manifest import describe_unmeasured
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.ros.diagnostics import build_diagnostics
from heatnet_ros.ros.frames import ImageSet, Topics
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.memory import give_back
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.params import NodeParameters
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.publishers import ResultPublishers
from heatnet_ros.ros.request_guard import guard_clock, guard_services
from heatnet_ros.ros.services import create_services
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.ros.transforms import check_tf_installed
from heatnet_ros.ros.watch import Watch
from heatnet_ros.ros.worker import Settings, Worker
from heatnet_ros.types import Frame, PipelineResult

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_QOS_OVERRIDES = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)


@dataclass
class _Configured:
    """What exists from configure to cleanup."""

    settings: Settings
    pipeline: Pipeline
    topics: Topics
    publishers: ResultPublishers


@dataclass
class _Active:
    """What exists from activate to deactivate."""

    mailbox: Mailbox[ImageSet]
    worker: Worker
    intake: Intake
    subscriptions: list[Subscription]
    watch: Watch


class PoseNode(LifecycleNode):  # type: ignore[misc]
    """6D poses of known objects. ``pipeline_loader`` builds the pipeline when configuring."""

    def __init__(
        self, pipeline_loader: Callable[[PipelineConfig], Pipeline] = load_pipeline, **options: Any
    ) -> None:
        super().__init__(
            "pose_node", automatically_declare_parameters_from_overrides=True, **options
        )
        self._load = pipeline_loader
        self._configured: _Configured | None = None
        self._active: _Active | None = None
        self._statistics, self._announced = Statistics(), set[str]()
        self._problems = Problems(self.get_logger().error, self.get_logger().info)
        self._options = NodeParameters(self)
        poor = [f.text for f in check_environment(backends=False) if f.level is not Level.OK]
        for warning in self._options.warnings + poor:
            self.get_logger().warning(warning)
        create_services(self, self._forget_instances)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # not the ROS clock: a simulation that stands still must not silence the diagnostics
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)
        self._start_timer = self.create_timer(0.0, self._autostart, clock=steady)
        guard_services(self)
        guard_clock(self)

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        try:
            if self.get_parameter("autostart").value and self.trigger_configure() == SUCCESS:
                self.trigger_activate()
        except RuntimeError:  # RCLError: the transition is over already
            self.get_logger().info("A lifecycle manager was quicker than autostart.")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the pipeline; FAILURE with a message leaves the node unconfigured."""
        started_s = time.monotonic()
        self._problems.forget()
        try:
            self._configured = self._build()
        except HeatnetError as error:
            self._problems.report(
                Source.CONFIGURATION,
                f"Cannot configure: {error} The node waits unconfigured: mend it, then start the "
                "node again or configure it (ros2 lifecycle set).",
            )
        except Exception:  # whatever it is, the node stays alive and says it
            self._problems.report(
                Source.CONFIGURATION, f"Cannot configure, unexpectedly: {traceback.format_exc()}"
            )
        if self._configured is None:
            self._report()
            return FAILURE
        pipeline, topics = self._configured.pipeline, self._configured.topics
        objects_file = self._configured.settings.pipeline.objects_file
        engines = ", ".join(f"{role}: {text}" for role, text in pipeline.engines.items())
        self.get_logger().info(
            f"Configured in {time.monotonic() - started_s:.1f} s. {engines}. Objects of "
            f"{objects_file}: {', '.join(pipeline.library.objects)}. "
            f"Colour: {topics.color}. Depth: {topics.depth or 'not used'}."
        )
        if pipeline.unmeasured:
            self.get_logger().info(f"Note: {describe_unmeasured(pipeline.unmeasured)}.")
        return super().on_configure(state)

    def _build(self) -> _Configured:
        self._options.raise_errors()
        config, pipeline_config = self._options.read()
        pipeline = self._load(pipeline_config)
        if pipeline.needs_depth and config.use_depth == "false":
            raise ConfigError(
                f"use_depth is false, but the model {pipeline_config.estimator.model} needs depth. "
                "Set use_depth to auto, or take a model without depth."
            )
        if config.publish_tf:
            check_tf_installed()
        use_depth = pipeline.needs_depth or config.use_depth == "true"
        color = self.resolve_topic_name("color/image_raw")
        depth = self.resolve_topic_name("depth/image_raw")
        # as image_transport names them: below the remapped base topic
        if config.color_transport != "raw":
            color = f"{color}/{config.color_transport}"
        if config.depth_transport != "raw":
            depth = f"{depth}/{config.depth_transport}"
        camera_info = self.resolve_topic_name("color/camera_info")
        topics = Topics(color, camera_info, depth if use_depth else None)
        pipeline.warm_up(with_depth=use_depth)
        settings = Settings(config, pipeline_config)
        publishers = ResultPublishers(self, pipeline.library, self.get_logger().error)
        return _Configured(settings, pipeline, topics, publishers)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        assert self._configured is not None  # the state machine sees to it
        super().on_activate(state)  # publishers first: the first frame's poses must get out
        self._statistics, self._announced = Statistics(), set()
        try:
            self._active = self._start(self._configured)
            self._subscribe(self._active, self._configured)
        except Exception as error:  # a wrong QoS override raises what it likes
            self._stop()
            super().on_deactivate(state)
            self._problems.report(Source.CONFIGURATION, f"Cannot subscribe: {error}")
            return FAILURE
        self._problems.clear(Source.CONFIGURATION)
        return SUCCESS

    def _start(self, configured: _Configured) -> _Active:
        mailbox: Mailbox[ImageSet] = Mailbox()
        worker = Worker(
            configured.pipeline,
            mailbox,
            configured.topics,
            configured.settings,
            self._publish,
            self._now_ns,
            self._problems,
            self._statistics,
        )
        intake = Intake(
            configured.topics,
            configured.settings.node,
            mailbox,
            self._problems,
            self._statistics,
            self.count_publishers,
            self._now_ns,
        )
        subscriptions: list[Subscription] = []
        watch = Watch(self, configured.topics, intake, self._problems, subscriptions)
        worker.start()
        return _Active(mailbox, worker, intake, subscriptions, watch)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _publish(self, result: PipelineResult, frame: Frame, config: NodeConfig) -> None:
        """In the worker's thread, which has ended before what is configured is taken down."""
        assert self._configured is not None
        try:
            self._configured.publishers.publish(result, frame, config)
        except RuntimeError:  # RCLError
            if not self.context.ok():  # Ctrl-C came while the frame was in work
                return
            raise
        for pose in result.poses:
            if pose.object_id not in self._announced:
                self._announced.add(pose.object_id)
                away_m = pose.T_camera_object[2, 3]
                self.get_logger().info(f"First pose of {pose.object_id}, {away_m:.2f} m away.")

    def _subscribe(self, active: _Active, configured: _Configured) -> None:
        intake, topics = active.intake, configured.topics
        topics.check_distinct()
        config = configured.settings.node
        kinds = {"raw": Image, "compressed": CompressedImage, "compressedDepth": CompressedImage}
        wanted = [
            ("info", CameraInfo, topics.camera_info, intake.on_camera_info),
            ("color", kinds[config.color_transport], topics.color, intake.on_color),
        ]
        if topics.depth is not None:
            kind = kinds[config.depth_transport]
            wanted.append(("depth", kind, topics.depth, intake.on_depth))
        for stream, kind, topic, callback in wanted:
            # best effort matches every publisher; a slow worker never makes this queue grow
            qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
            events = self._event_callbacks(intake, stream, topic)
            active.subscriptions.append(
                self.create_subscription(
                    kind,
                    topic,
                    callback,
                    qos,
                    event_callbacks=events,
                    qos_overriding_options=_QOS_OVERRIDES,
                )
            )

    def _event_callbacks(
        self, intake: Intake, stream: str, topic: str
    ) -> SubscriptionEventCallbacks:
        return SubscriptionEventCallbacks(
            incompatible_qos=lambda event: intake.on_incompatible_qos(
                stream, topic, qos_policy_name_from_kind(event.last_policy_kind)
            ),
            message_lost=lambda event: intake.on_lost(topic, event.total_count_change),
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the frame in work, take the markers away."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the pipeline and the output topics."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: leave no thread, no subscription, no output topic."""
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, whatever went wrong in a transition."""
        self._release()
        return super().on_error(state)

    def _stop(self) -> None:
        active, self._active = self._active, None
        if active is None:
            return
        for subscription in active.subscriptions:
            self.destroy_subscription(subscription)
        active.watch.close()
        active.worker.stop()
        self._problems.forget()
        if self._configured is not None and self.context.ok():
            self._configured.publishers.clear()

    def _release(self) -> None:
        self._stop()
        configured, self._configured = self._configured, None
        if configured is not None:
            configured.publishers.destroy()
            configured.pipeline.close()
            del configured  # with it the networks go
            give_back()

    def destroy_node(self) -> None:
        """Stop the worker first: it must not publish through what is gone."""
        self._release()
        super().destroy_node()

    def _forget_instances(self) -> str:
        """What ``~/reset`` does: ids, following and filters start anew with the next frame."""
        if self._active is None:
            return "Not active: there is nothing to forget."
        self._active.worker.forget()
        return "Instances, following and filters start anew with the next frame."

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        result = self._options.check_changes(parameters, self._configured is not None)
        if not result.successful or self._configured is None:
            return result
        try:
            for parameter in parameters:
                if parameter.name == "objects":
                    self._configured.pipeline.check_wanted(parameter.value)
                elif parameter.name == "publish_tf" and parameter.value:
                    check_tf_installed()
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return result

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        """All of them were accepted and are stored; the worker takes them with the next frame."""
        changed, configured = self._options.note_changes(parameters), self._configured
        if not changed or configured is None:
            return
        configured.settings = Settings(*self._options.read())
        if self._active is not None:
            self._active.worker.settings = configured.settings
            self._active.intake.config = configured.settings.node

    def _report(self) -> None:
        """Publish diagnostics; once a second, and when configuring fails."""
        active, configured = self._active, self._configured
        if active is not None:
            active.watch.look()
            active.intake.check()
        state = "active" if active else "inactive" if configured else "unconfigured"
        values = self._statistics.values()
        values["dropped"] = str(active.mailbox.dropped if active else 0)
        if configured is not None:
            config = configured.settings.node
            values["sync_slop_s"] = f"{config.sync_slop_s:g}"
            values["rectified"] = str(config.rectified).lower()
        topics = configured.topics.by_stream if configured else {}
        warnings: list[str] = []
        if active is not None and configured is not None:
            values |= active.intake.values()
            told = values | {f"topic.{stream}": topic for stream, topic in topics.items()}
            warnings = active.watch.judge(told, configured.settings.node.rectified)
        self._diagnostics.publish(
            build_diagnostics(
                self.get_fully_qualified_name().lstrip("/"),
                self.get_clock().now().to_msg(),
                state,
                self._problems,
                values,
                configured.pipeline.engines if configured else {},
                topics,
                warnings,
            )
        )


def run(args: list[str] | None = None) -> None:
    """Spin a PoseNode until Ctrl-C; ``args`` are the command line's (None: the process's own)."""
    start_ros("pose_node", "6D poses of known objects from a camera's images", args)
    node = PoseNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # rclpy's signal handler may end the context while the executor builds its wait set
        if rclpy.ok():
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
