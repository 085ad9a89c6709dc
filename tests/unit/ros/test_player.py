"""The arithmetic of ``replay``: when messages are due, and which stamps they get."""

import math

import pytest

from heatnet_ros.ros.player import Pace, Restamp

MS = 1_000_000


def test_the_rate_stretches_the_intervals():
    pace = Pace(5 * 10**9, 0.5, now_s=100.0)
    assert pace.due_s(5 * 10**9) == 100.0 and pace.due_s(6 * 10**9) == 102.0
    assert pace.recorded_ns(90.0) == 5 * 10**9  # the clock stands before the beginning
    assert pace.recorded_ns(102.0) == 6 * 10**9


def test_a_delay_moves_what_follows():
    pace = Pace(0, 1.0, now_s=10.0)
    pace.note_lateness(0.5)
    assert pace.due_s(10**9) == 11.5 and pace.recorded_ns(11.5) == 10**9
    assert pace.delayed_s == 0.5


def test_what_is_a_little_late_is_caught_up_with():
    """30 images a second, each published 2 ms late: no drift."""
    pace = Pace(0, 1.0, now_s=10.0, patience_s=0.033)
    for _ in range(900):
        pace.note_lateness(0.002)
    assert pace.due_s(30 * 10**9) == 40.0 and pace.delayed_s == 0


def play(restamp, messages, delayed_s=lambda ms: 0.0):
    """(stamp, arrival), both in ms -> new stamps in ms after the beginning."""
    now = 10**18
    return [(restamp.move(s * MS, now + a * MS, delayed_s(a)) - now) / MS for s, a in messages]


def test_stamps_keep_their_intervals_and_depth_its_frame_however_late_it_comes():
    """Depth 45 ms behind its stamp at 30 Hz: after the next colour image."""
    frames = range(0, 330, 33)
    messages = sorted([*((s, s + 5) for s in frames), *((s, s + 45) for s in frames)],
                      key=lambda message: message[1])  # fmt: skip
    moved = play(Restamp(1.0, 16 * MS), messages)
    assert moved == [5 + s for s, _ in messages], "the first is now, the others follow"


def test_a_faster_rate_shortens_the_intervals():
    """60 images a second at four times the pace: they rise, evenly."""
    stamps = [i * 50 / 3 for i in range(12)]
    moved = play(Restamp(4.0, 8 * MS), [(round(s * MS) / MS, s / 4) for s in stamps])
    assert moved == pytest.approx([s / 4 for s in stamps], abs=1e-3)


def test_a_slower_rate_keeps_the_offset_within_a_frame():
    """Depth 5 ms behind colour at half the pace: still within the slop of 8 ms."""
    moved = play(Restamp(0.5, 16 * MS), [(0, 0), (5, 10), (33, 66), (38, 76)])
    assert moved == [0, 5, 66, 71]


def test_a_delay_counts_from_the_next_frame_on():
    """The pace loses 60 ms between a colour image and its depth image."""
    messages = [(0, 0), (1, 60), (33, 93), (34, 94), (66, 126)]
    moved = play(Restamp(1.0, 16 * MS), messages, lambda now: 0.06 if now >= 60 else 0.0)
    assert moved == [0, 1, 93, 94, 126]


def test_a_calibration_that_nobody_stamped_moves_no_image():
    restamp, now = Restamp(1.0, 16 * MS), 10**18
    for ms in range(0, 330, 33):
        late = 25 if ms % 2 else 10
        assert restamp.move((5000 + ms) * MS, now + ms * MS, 0.0) == now + ms * MS
        assert restamp.move(0, now + (ms + 1) * MS, 0.0, is_image=False) == now + (ms + 1) * MS
        assert restamp.move((5000 + ms) * MS, now + (ms + late) * MS, 0.0) == now + ms * MS


def test_a_jump_after_a_long_delay_is_noticed():
    messages = [(0, 0), (33, 30_033), (20_066, 30_066)]
    moved = play(Restamp(1.0, 16 * MS), messages, lambda now: 30.0 if now else 0.0)
    assert moved == [0, 30_033, 30_066]


def test_stamps_of_another_clock_are_moved_to_now_as_well():
    moved = play(Restamp(1.0, 16 * MS), [(5000, 0), (5033, 33), (700_000, 66), (700_033, 99)])
    assert moved == [0, 33, 66, 99]


def test_the_clock_waits_for_what_is_late_and_never_steps_back():
    pace = Pace(0, 1.0, now_s=10.0)
    assert pace.recorded_ns(10.3) == 300 * MS  # and then a message due at 10.1 is published
    pace.note_lateness(0.2)
    assert pace.recorded_ns(10.3) == pace.recorded_ns(10.4) == 300 * MS
    assert pace.recorded_ns(10.6) == 400 * MS


def test_the_clock_stands_until_the_pass_begins():
    waiting = Pace(5 * 10**9, 2.0, math.inf)
    assert waiting.recorded_ns(1e6) == waiting.recorded_ns(2e6) == 5 * 10**9
