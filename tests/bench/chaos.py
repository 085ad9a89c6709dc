"""Everything that goes wrong around ``pose_node``, at random, and whether poses come back.

    python tests/bench/chaos.py --seconds 600 --seed 0 --json chaos.json

A camera that publishes recorded frames, the node with its networks, and this listener are
processes over DDS. One event after the other (a third of them two or three at once, see
``chaos_events.py``): the camera is killed, streams stop, stamps, QoS, formats and CameraInfo
change, a second publisher speaks between, images are cut, a simulation's clock is reset, every
parameter that the node has is set hundreds of times a second, ``~/reset`` and ``~/track`` are
called, watchers of the overlay come and go, hang and die, and every ``--cycle`` seconds the
lifecycle goes down to unconfigured and up, with raw or compressed images. After each, good data
come again and the time from the first good frame that the middleware has a reader for (from the
answer to ``activate``, where that is later) to the next right pose is taken: ADD(-S) below a tenth
of the diameter, of an image not older than that frame.

Fails (exit status 1) unless the node lives, each event is over within ``--limit`` seconds, no
pose comes of a damaged frame, its memory grows by 5 % at most after the warm-up (a fifth of the
time), it has no more threads at the end than in the warm-up, nothing unexpected is in its log, and
SIGINT ends it within 5 s with status 0 and nobody left behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from chaos_event import Event
from chaos_events import KINDS, LifecycleCycle
from chaos_process import Sample
from chaos_report import EXIT_LIMIT_S, Outcome, format_report, judge
from chaos_world import Seen, World

from heatnet_ros.files import write_json
from heatnet_ros.ros.status_line import StatusLine

START_LIMIT_S, STUCK_S = 60.0, 15.0
# when this process itself gets no time, its clock says nothing about the node
WATCH_S, STALL_S, SAMPLE_S = 0.05, 0.5, 0.5
# at the end of a run nothing more happens for this long: threads and memory settle
SETTLE_S = 3.0


class Run:
    """Plays the events; ``outcomes`` and ``samples`` are what came of it."""

    def __init__(self, world: World, seconds: float, seed: int, cycle_s: float) -> None:
        self.world, self.seconds, self.cycle_s = world, seconds, cycle_s
        self.rng, self.cycles = random.Random(seed), 0
        self.outcomes: list[Outcome] = []
        self.samples: list[Sample] = []
        self.stalls: list[tuple[float, float]] = []
        self.threads_at_start: list[str] = []
        self.threads_at_end: list[str] = []
        self._over = threading.Event()

    def play(self, status: StatusLine) -> None:
        """Until the time is over or the node is dead."""
        self._wait_for_first_pose()
        threading.Thread(target=self._watch, daemon=True).start()
        began_s = time.monotonic()
        while self.world.node.alive:
            passed_s = time.monotonic() - began_s
            if passed_s >= self.seconds:
                break
            events = self._choose(passed_s)
            self.outcomes.append(self._round(events))
            last = self.outcomes[-1]
            back = "NOT BACK" if last.back_s is None else f"back in {last.back_s:.2f} s"
            text = f"{passed_s:.0f} s  {len(self.outcomes)} rounds  {' + '.join(last.events)}: "
            status.show_bar(passed_s / self.seconds, text + back)
        if self.world.node.alive:  # as it was at the start: what is more now was left behind
            self.outcomes.append(self._round([LifecycleCycle(self.world, self.rng, True)]))
        time.sleep(SETTLE_S)
        self.threads_at_end = self.world.threads()
        self._over.set()

    def _wait_for_first_pose(self) -> None:
        listener = self.world.listener
        right = lambda: any(s.right for s in listener.seen)  # noqa: E731
        if not listener.wait_for(right, START_LIMIT_S):
            raise SystemExit(f"No right pose in {START_LIMIT_S:.0f} s: see {self.world.node_log}")
        time.sleep(2.0)  # every thread that a good frame needs is there
        self.threads_at_start = self.world.threads()

    def _watch(self) -> None:
        last_s = sampled_s = time.monotonic()
        while not self._over.wait(WATCH_S):
            now_s = time.monotonic()
            if now_s - last_s > STALL_S:
                self.stalls.append((last_s, now_s))
            last_s = now_s
            if now_s - sampled_s >= SAMPLE_S:
                sampled_s, taken = now_s, self.world.sample()
                self.samples += [] if taken is None else [taken]

    def _stalled_s(self, begin_s: float, end_s: float) -> float:
        """How much of an interval this process did not run: the whole machine was held."""
        time.sleep(2 * WATCH_S)  # the watch may only be about to note it
        held = [min(b, end_s) - max(a, begin_s) for a, b in self.stalls]
        return sum(seconds for seconds in held if seconds > 0)

    def _choose(self, passed_s: float) -> list[Event]:
        kinds: list[Any] = []
        if passed_s >= self.cycle_s * self.cycles:
            kinds.append(LifecycleCycle)
            self.cycles += 1
        number = self.rng.choice([0, 0, 1, 2]) if kinds else self.rng.choice([1, 1, 2, 3])
        kinds += self.rng.sample(KINDS, number)
        return [kind(self.world, self.rng) for kind in kinds]

    def _round(self, events: list[Event]) -> Outcome:
        camera = self.world.camera
        events = sorted(events, key=lambda event: not event.outer)
        for event in events:
            event.begin()
        time.sleep(max(event.lasts_s for event in events))
        for event in reversed(events):  # of the inner ones the lifecycle comes up last
            event.end()
        camera.send(reset=True)
        good = camera.wait_until_good()
        back_s = self._time_back(time.monotonic(), good)
        detail = "; ".join(event.detail for event in events if event.detail)
        return Outcome([event.name for event in events], detail, back_s, good["unheard_s"])

    def _time_back(self, ready_s: float, good: dict[str, Any]) -> float | None:
        """Until a right pose arrives of an image that was taken from then on."""
        good_s, read = max(ready_s, good["good_s"]), 0
        found: list[Seen] = []

        def is_back() -> bool:
            nonlocal read
            new = self.world.listener.seen[read:]
            read += len(new)
            latest_ns = time.time_ns() + 10**9  # some faults are in the future
            stamps = range(good["stamp_ns"], latest_ns)
            found.extend(s for s in new if s.right and s.stamp_ns in stamps)
            return bool(found) or not self.world.node.alive

        self.world.listener.wait_for(is_back, STUCK_S)
        if not found:
            return None
        end_s = found[0].time_s
        return max(end_s - good_s - self._stalled_s(good_s, end_s), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    parser.add_argument("--seed", type=int, default=0, help="the events follow from it (0)")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second (10)")
    parser.add_argument(
        "--cycle", type=float, default=11.5, help="seconds between lifecycle cycles"
    )
    parser.add_argument("--limit", type=float, default=2.0, help="seconds until poses are back (2)")
    parser.add_argument("--params", default="config/pose_demo.yaml", help="of the node")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--out", type=Path, help="folder for film and logs (a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos_") as temporary:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        world = World(args.params, out, args.rate, args.seed)
        try:
            run = Run(world, args.seconds, args.seed, args.cycle)
            with StatusLine(sys.stderr) as status:
                run.play(status)
            report = judge(run, world.stop_node(EXIT_LIMIT_S), args.limit)
        finally:
            world.close()
    if args.json:
        write_json(args.json, report)
    print(format_report(report))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
