"""What happens to the node in ``chaos.py``: every event begins, lasts, and ends with good data."""

from __future__ import annotations

import abc
import random
import time
from collections.abc import Callable
from typing import Any

from chaos_event import Event
from chaos_options import TRANSPORTS
from chaos_storms import ParameterStorm, ServiceStorm
from chaos_watchers import HungWatcher, Watchers
from chaos_world import World


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


class InfoChanged(Camera):
    """CameraInfo of another resolution than the images, all the time or every other one."""

    name = "camera_info changed"

    def choose(self) -> dict[str, Any]:
        scale, flaps = self.rng.choice([0.5, 2.0]), self.rng.random() < 0.5
        images = 1 / scale if self.rng.random() < 0.3 else 1.0  # as before, but of other images
        return {"info_scale": scale, "info_flaps": flaps, "scale": images}


class SecondPublisher(Camera):
    """Of each topic, with the same messages: the same stamps, a little older or newer, far off."""

    name = "second publisher"

    def choose(self) -> dict[str, Any]:
        return {"second_s": self.rng.choice([0.0, -0.004, 0.004, -0.05, 0.05, -3600.0, 3600.0])}


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
        self.world.listener.set_parameters({"use_sim_time": True})
        self.world.camera.send(sim_s=1000.0)
        time.sleep(self.lasts_s / 2)
        self.world.camera.send(sim_s=self.rng.choice([0.0, 5.0, 990.0]))

    def end(self) -> None:
        self.world.listener.set_parameters({"use_sim_time": False})


class LifecycleCycle(Event):
    """Down to unconfigured and up again, with transitions in between that there are not.

    It comes up with the defaults, but for the transports of colour and depth. Now and then it goes
    down to inactive only.
    """

    name = "lifecycle cycle"

    def __init__(self, world: World, rng: random.Random, whole: bool = False) -> None:
        super().__init__(world, rng)
        self.lasts_s = rng.uniform(0.0, 0.5)
        self._whole = whole or rng.random() < 0.8
        self._failed: list[str] = []

    def begin(self) -> None:
        self._wrongly()
        self._change("deactivate")
        if self._whole:
            self._change("cleanup")
            self.world.rest()

    def end(self) -> None:
        self._wrongly()
        self.detail = self._configure() if self._whole else "inactive only"
        self._change("activate")
        self.detail += f", FAILED: {', '.join(self._failed)}" if self._failed else ""

    def _configure(self) -> str:
        transports = {name: self.rng.choice(kinds) for name, kinds in TRANSPORTS.items()}
        # what a storm has left that nobody refuses while the node is unconfigured
        if not self.world.listener.set_parameters(self.world.defaults | transports):
            self._failed.append("the defaults were refused")
        self._change("configure")
        return ", ".join(transports.values())

    def _change(self, label: str) -> None:
        if not self.world.listener.change_state(label=label):
            self._failed.append(f"{label} in {self.world.listener.state()}")

    def _wrongly(self) -> None:
        """None of these is there in any state this is called in."""
        wrong: dict[str, Any] = self.rng.choice([{"label": "fly"}, {"id": 250}, {"id": 10}, {}])
        if wrong and self.world.listener.change_state(**wrong):
            self._failed.append(f"{wrong} was accepted")


KINDS: tuple[Callable[[World, random.Random], Event], ...] = (
    CameraKilled, DepthLost, ColorLost, StampsJump, QosChanged, FormatChanged, InfoChanged,
    SecondPublisher, Damaged, ClockReset, ParameterStorm, ServiceStorm, Watchers, HungWatcher,
)  # fmt: skip
