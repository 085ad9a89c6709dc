"""What happens to the node in ``chaos.py``: every event begins, lasts, and ends with good data."""

from __future__ import annotations

import abc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from chaos_world import World
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

# name -> values: right ones, wrong ones, of another type, and of options that cannot change now
_STORM = {
    "gate.min_score": (0.0, 0.9, -1.0, float("nan"), "high", True),
    "gate.min_inliers": (8, 12, 3, 2.5, 2**40),
    "detector.score_threshold": (0.1, 0.5, 7.0, float("inf"), [1, 2]),
    "detector.max_detections": (1, 16, 0, -5),
    "refiner.iterations": (1, 10, 0, "many"),
    "follow.enabled": (True, False, 1, "yes"),
    "follow.redetect_s": (0.0, 2.0, -0.1),
    "rectified": (False, 3, "no"),
    "marker_lifetime_s": (0.0, 1.0, 1e9),
    "engine.precision": ("auto", "fp64", 32),
    "sync_queue": (10, 0, "long"),
    "no.such.parameter": (1, "x"),
    "": (1,),
}
_DEFAULTS = {
    "gate__min_score": 0.2,
    "gate__min_inliers": 8,
    "detector__score_threshold": 0.25,
    "detector__max_detections": 16,
    "refiner__iterations": 10,
    "follow__enabled": True,
    "follow__redetect_s": 2.0,
    "rectified": False,
    "marker_lifetime_s": 1.0,
}
_STORM_HZ, _IN_FLIGHT = 400.0, 40


class Event:
    """``begin``, then ``lasts_s``, then ``end``; ``detail`` says which kind it was."""

    name = "event"

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.lasts_s = rng.uniform(0.3, 2.5)
        self.detail = ""

    def begin(self) -> None:
        """Nothing happens: good data go on."""

    def end(self) -> None:
        """The camera is reset, and awaited, by the caller."""


class Camera(Event, abc.ABC):
    """A fault that the camera is told to have."""

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self._change: dict[str, Any] = self.choose()
        self.detail = ", ".join(f"{k}={v}" for k, v in self._change.items())

    @abc.abstractmethod
    def choose(self) -> dict[str, Any]:
        """Options of the camera and their wrong values."""

    def begin(self) -> None:
        self.world.camera.send(**self._change)


class DepthLost(Camera):
    name = "depth lost"

    def choose(self) -> dict[str, Any]:
        return {"depth": False}


class ColorLost(Camera):
    name = "colour or camera_info lost"

    def choose(self) -> dict[str, Any]:
        return {self.rng.choice(["color", "info"]): False}


class StampsJump(Camera):
    name = "stamps jump"

    def choose(self) -> dict[str, Any]:
        far_s = self.rng.choice([0.3, 2.0, 60.0, 3600.0, 86400.0 * 365])
        return self.rng.choice(
            [
                {"offset_s": far_s}, {"offset_s": -far_s}, {"stamps": "zero"},
                {"stamps": "freeze"}, {"depth_offset_s": far_s}, {"depth_offset_s": -far_s},
                {"depth_offset_s": 0.02},
            ]
        )  # fmt: skip


class QosChanged(Camera):
    name = "QoS changed"

    def choose(self) -> dict[str, Any]:
        return {"qos": self.rng.choice(["best_effort", "transient_local"])}


class FormatChanged(Camera):
    name = "format changed"

    def choose(self) -> dict[str, Any]:
        return self.rng.choice(
            [
                {"color_encoding": "bgr8"}, {"color_encoding": "rgba8"},
                {"color_encoding": "mono8"}, {"depth_encoding": "32FC1"},
                {"depth_encoding": "mono16"}, {"scale": 0.5}, {"scale": 2.0},
                {"scale": 0.05}, {"depth_scale": 0.5},
            ]
        )  # fmt: skip


class Damaged(Camera):
    name = "data damaged"

    def choose(self) -> dict[str, Any]:
        return {"damaged": True}


class CameraKilled(Event):
    """As a USB cable that is pulled: no good-bye to anybody."""

    name = "camera killed"

    def begin(self) -> None:
        self.world.camera.kill()

    def end(self) -> None:
        self.world.camera.start()


class ClockReset(Event):
    """A simulation that starts, is reset and ends."""

    name = "clock reset"

    def begin(self) -> None:
        self.world.listener.set_parameters(use_sim_time=True)
        self.world.camera.send(sim_s=1000.0)
        time.sleep(self.lasts_s / 2)
        self.world.camera.send(sim_s=self.rng.choice([0.0, 5.0, 990.0]))

    def end(self) -> None:
        self.world.listener.set_parameters(use_sim_time=False)


class ParameterStorm(Event):
    """Hundreds of changes a second, right and wrong ones, not one of them awaited."""

    name = "parameter storm"

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._blow, daemon=True)
        self.sent = 0

    def begin(self) -> None:
        self._going.set()
        self._thread.start()

    def end(self) -> None:
        self._going.clear()
        self._thread.join()
        self.detail = f"{self.sent} requests"
        # whatever was accepted last
        restored = self.world.listener.set_parameters(**_DEFAULTS)
        self.detail += "" if restored else ", NOT RESTORED"

    def _blow(self) -> None:
        client, waiting = self.world.listener.clients["set_parameters"], []
        while self._going.is_set():
            waiting = [future for future in waiting if not future.done()]
            if len(waiting) < _IN_FLIGHT:
                waiting.append(client.call_async(self._request()))
                self.sent += 1
            time.sleep(1 / _STORM_HZ)
        deadline_s = time.monotonic() + 3.0
        while any(not f.done() for f in waiting) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        for future in waiting:
            client.remove_pending_request(future)

    def _request(self) -> SetParameters.Request:
        name = self.rng.choice(list(_STORM))
        value = self.rng.choice(_STORM[name])
        message = Parameter(name, value=value).to_parameter_msg()
        if self.rng.random() < 0.05:  # a type that there is not
            message = ParameterMessage(name=name, value=ParameterValue(type=99))
        return SetParameters.Request(parameters=[message])


class LifecycleCycle(Event):
    """Down to unconfigured and up again, with transitions in between that there are not."""

    name = "lifecycle cycle"

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self.lasts_s = rng.uniform(0.0, 0.5)
        self._failed: list[str] = []

    def begin(self) -> None:
        self._wrongly()
        for label in ("deactivate", "cleanup"):
            self._change(label)

    def end(self) -> None:
        self._wrongly()
        for label in ("configure", "activate"):
            self._change(label)
        self.detail = f"FAILED: {', '.join(self._failed)}" if self._failed else ""

    def _change(self, label: str) -> None:
        if not self.world.listener.change_state(label=label):
            self._failed.append(f"{label} in {self.world.listener.state()}")

    def _wrongly(self) -> None:
        """None of these is there in any state this is called in."""
        wrong: dict[str, Any] = self.rng.choice([{"label": "fly"}, {"id": 250}, {"id": 10}, {}])
        if wrong and self.world.listener.change_state(**wrong):
            self._failed.append(f"{wrong} was accepted")


KINDS: tuple[Callable[[World, random.Random], Event], ...] = (
    CameraKilled, DepthLost, ColorLost, StampsJump, QosChanged, FormatChanged, Damaged, ClockReset,
    ParameterStorm,
)  # fmt: skip
