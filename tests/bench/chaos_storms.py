"""Storms of requests in ``chaos.py``: parameters and services, hundreds a second, none awaited."""

from __future__ import annotations

import abc
import random
import threading
import time
from typing import Any

from chaos_event import Event
from chaos_options import LIVE, OPTIONS, right_values, wrong_values
from chaos_world import World
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.task import Future

from heatnet_ros.errors import ConfigError
from heatnet_ros.ros.services import TRACK_PARAMETER
from heatnet_ros.ros.transforms import check_tf_installed

# parameters that are not the node's, and values that they must not get
_STRANGE = {"no.such.parameter": (1, "x"), "": (1,), "use_sim_time": (3, "yes")}
_NO_TYPE = 99
_HZ, _IN_FLIGHT, _PATIENCE_S, _DRAIN_S = 400.0, 40, 1.0, 3.0
_SERVICES_HZ = 100.0


def is_tf_installed() -> bool:
    try:
        check_tf_installed()
    except ConfigError:
        return False
    return True


class Storm(Event, abc.ABC):
    """Requests from a thread of its own, from ``begin`` to ``end``.

    outer: it begins before and ends after all others of its round, so also during the transitions
    of the lifecycle.
    """

    hz = _HZ

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._blow, daemon=True)
        self.sent = self.answered = 0

    @abc.abstractmethod
    def draw(self) -> tuple[str, Any]:
        """The client's name and its request."""

    @abc.abstractmethod
    def restore(self) -> bool:
        """Set what may have been changed to what it was; whether that was accepted."""

    def begin(self) -> None:
        self._going.set()
        self._thread.start()

    def end(self) -> None:
        blew = self._thread.is_alive()
        self._going.clear()
        self._thread.join()
        self.detail = f"{self.sent} requests, {self.answered} answers"
        self.detail += "" if blew else ", FAILED: the storm ended by itself"
        self.detail += "" if self.restore() else ", NOT RESTORED"

    def _blow(self) -> None:
        clients: dict[str, Client] = self.world.listener.clients
        waiting: list[tuple[float, Client, Future]] = []
        while self._going.is_set():
            waiting = self._forget_answered(waiting, _PATIENCE_S)
            if len(waiting) < _IN_FLIGHT:
                name, request = self.draw()
                future = clients[name].call_async(request)
                waiting.append((time.monotonic(), clients[name], future))
                self.sent += 1
            time.sleep(1 / self.hz)
        deadline_s = time.monotonic() + _DRAIN_S
        while waiting and time.monotonic() < deadline_s:
            waiting = self._forget_answered(waiting, _PATIENCE_S)
            time.sleep(0.01)
        self._forget_answered(waiting, 0.0)

    def _forget_answered(
        self, waiting: list[tuple[float, Client, Future]], patience_s: float
    ) -> list[tuple[float, Client, Future]]:
        """Those that still wait; a service's queue is short: some requests get no answer."""
        left = []
        for sent_s, client, future in waiting:
            if future.done():
                self.answered += 1
            elif time.monotonic() - sent_s >= patience_s:
                client.remove_pending_request(future)
            else:
                left.append((sent_s, client, future))
        return left


class ParameterStorm(Storm):
    """Right and wrong values for every option, one or several a request, atomically or not.

    Where it is the outer one it leaves out what only a configured node can refuse, and what it
    refuses then: the next ``configure`` would fail, and should.
    """

    name = "parameter storm"

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world, rng)
        self.outer = rng.random() < 0.5
        self._known = world.objects
        self._has_tf = is_tf_installed()

    def draw(self) -> tuple[str, Any]:
        chosen = [self._draw_one() for _ in range(self.rng.choice([1, 1, 1, 3]))]
        if self.rng.random() < 0.2:
            request = SetParametersAtomically.Request(parameters=chosen)
            return "set_parameters_atomically", request
        return "set_parameters", SetParameters.Request(parameters=chosen)

    def restore(self) -> bool:
        live = {name: self.world.defaults[name] for name in LIVE}
        return self.world.listener.set_parameters(live)

    def _draw_one(self) -> ParameterMessage:
        kind = self.rng.random()
        if kind < 0.05:
            name = self.rng.choice([*OPTIONS, *_STRANGE])
            return ParameterMessage(name=name, value=ParameterValue(type=_NO_TYPE))
        if kind < 0.1:
            name = self.rng.choice(list(_STRANGE))
            return Parameter(name, value=self.rng.choice(_STRANGE[name])).to_parameter_msg()
        fixed = not self.outer and kind < 0.3
        name = self.rng.choice(list(OPTIONS) if fixed else LIVE)
        return Parameter(name, value=self._draw_value(name)).to_parameter_msg()

    def _draw_value(self, name: str) -> Any:
        option = OPTIONS[name]
        if self.rng.random() < 0.4:
            wrong = wrong_values(option)
            if name == "objects" and not self.outer:
                wrong.append(["no such object"])
            return self.rng.choice(wrong)
        if name == "publish_tf" and self.outer and not self._has_tf:
            return False
        return self.rng.choice(right_values(option, self._known))


class ServiceStorm(Storm):
    """``~/reset`` and ``~/track`` in the middle of frames and of transitions."""

    name = "reset and track"
    outer = True
    hz = _SERVICES_HZ

    def draw(self) -> tuple[str, Any]:
        if self.rng.random() < 0.5:
            return "reset", self.world.listener.requests["reset"]()
        return "track", self.world.listener.requests["track"](data=self.rng.random() < 0.5)

    def restore(self) -> bool:
        listener, wanted = self.world.listener, self.world.defaults[TRACK_PARAMETER]
        answer = listener.call("track", listener.requests["track"](data=wanted))
        return answer is not None and bool(answer.success)
