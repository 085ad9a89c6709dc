"""The arithmetic of ``replay``: when messages are due, and which stamps they get."""

import math

from heatnet_ros.ros.player import Pace, Restamp

MS = 1_000_000


def test_the_rate_stretches_the_intervals():
    pace = Pace(5 * 10**9, 0.5, now_s=100.0)
    assert pace.due_s(5 * 10**9) == 100.0 and pace.due_s(6 * 10**9) == 102.0
    assert pace.recorded_ns(90.0) == 5 * 10**9  # the clock stands before the beginning
    assert pace.recorded_ns(102.0) == 6 * 10**9


def test_a_delay_moves_what_follows():
    pace = Pace(0, 1.0, now_s=10.0)
    pace.delay(0.5)
    assert pace.due_s(10**9) == 11.5 and pace.recorded_ns(11.5) == 10**9


def test_one_frame_moves_as_a_whole_and_the_next_with_its_own_time():
    restamp, now = Restamp(), 10**18
    color, depth = restamp.move(0, now), restamp.move(5 * MS, now + 9 * MS)
    assert color == now and depth == now + 5 * MS
    assert restamp.move(33 * MS, now + 40 * MS) == now + 40 * MS
    assert restamp.move(31 * MS, now + 41 * MS) == now + 38 * MS


def test_the_clock_waits_for_what_is_late_and_never_steps_back():
    pace = Pace(0, 1.0, now_s=10.0)
    assert pace.recorded_ns(10.3) == 300 * MS  # and then a message due at 10.1 is published
    pace.delay(0.2)
    assert pace.recorded_ns(10.3) == pace.recorded_ns(10.4) == 300 * MS
    assert pace.recorded_ns(10.6) == 400 * MS


def test_the_clock_stands_until_the_pass_begins():
    waiting = Pace(5 * 10**9, 2.0, math.inf)
    assert waiting.recorded_ns(1e6) == waiting.recorded_ns(2e6) == 5 * 10**9
