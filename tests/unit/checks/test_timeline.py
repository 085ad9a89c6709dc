"""Rates, gaps, delays and offsets from stamps, against closed forms."""

import tracemalloc

import numpy as np
import pytest

from heatnet_ros.checks.timeline import Timeline, measure_offsets

MS = 1_000_000


def timeline(stamps_ms, delay_ms=lambda i: 5.0):
    times = Timeline(1000)
    for i, ms in enumerate(stamps_ms):
        clock_ns = round((ms + delay_ms(i)) * MS)
        times.add(ms * MS, clock_ns / 1e9, clock_ns)
    return times


def test_rate_period_and_delay():
    times = timeline(range(0, 3000, 100))
    assert times.rate_hz == pytest.approx(10.0)
    assert times.period_s == pytest.approx(0.1)
    assert times.delay_s == pytest.approx(0.005)
    assert (times.count_gaps(), times.drop_share, times.backwards, times.repeated) == (0, 0, 0, 0)


def test_gaps_are_counted_whatever_the_jitter():
    rng = np.random.default_rng(0)
    stamps = [round(100 * i + rng.uniform(-15, 15)) for i in range(60) if i not in (7, 20, 21)]
    times = timeline(stamps)
    assert times.count_gaps() == 3 and times.drop_share == pytest.approx(3 / 60)


def test_stamps_that_repeat_or_go_back():
    times = timeline([0, 100, 100, 200, 150, 300])
    assert times.backwards == 1 and times.repeated == 1


def test_drift_is_the_slope_of_the_delay_and_late_messages_are_none():
    drifting = timeline(range(0, 5000, 50), lambda i: 5 + 0.02 * 50 * i)  # 20 ms a second
    assert drifting.drift == pytest.approx(0.02 / 1.02, rel=0.01)
    late = timeline(range(0, 5000, 50), lambda i: 5.0 + (80.0 if i % 5 else 0.0))
    assert late.drift == pytest.approx(0.0, abs=1e-6)
    assert timeline(range(0, 1000, 50)).drift is None, "too short to tell"


def test_without_a_clock_there_is_no_delay():
    times = Timeline()
    times.add(0, 0.0)
    assert times.delay_s is None and times.drift is None and times.rate_hz == 0


def test_nothing_came():
    times = Timeline()
    assert (times.period_s, times.delay_s, times.rate_hz, times.drop_share) == (None, None, 0, 0)
    assert not measure_offsets(times, timeline([0])).size


def test_offset_is_that_to_the_nearest_depth_stamp():
    color = timeline(range(0, 1000, 33))
    late = timeline([ms + 12 for ms in range(0, 1000, 33)])
    np.testing.assert_allclose(measure_offsets(color, late), 0.012)
    np.testing.assert_allclose(measure_offsets(late, color), -0.012)


def test_depth_that_stopped_is_no_offset():
    color, depth = timeline(range(0, 1000, 100)), timeline(range(0, 500, 100))
    np.testing.assert_allclose(measure_offsets(color, depth), np.zeros(5))


def test_half_the_rate_leaves_every_second_image_alone():
    color, depth = timeline(range(0, 1010, 100)), timeline(range(0, 1010, 200))
    offsets = np.abs(measure_offsets(color, depth))
    assert np.count_nonzero(offsets < 0.008) == 6 and np.count_nonzero(offsets > 0.09) == 5


def test_offsets_of_many_stamps_take_little_memory():
    """All pairs of 5000 and 5000 would be 200 MB."""
    rng = np.random.default_rng(0)
    color, depth = Timeline(5000), Timeline(5000)
    for color_ns, depth_ns in 10**18 + np.sort(rng.integers(0, 10**11, (2, 5000))).T:
        color.add(int(color_ns), 0.0)
        depth.add(int(depth_ns), 0.0)
    tracemalloc.start()
    offsets = measure_offsets(color, depth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    other = np.array(depth.stamps_ns)
    stamps = np.array(color.stamps_ns)[np.linspace(0, 4999, 50).astype(int)]
    wanted = [float(np.abs(other - stamp).min()) / 1e9 for stamp in stamps]
    assert len(offsets) == 5000
    np.testing.assert_allclose(np.abs(offsets)[np.linspace(0, 4999, 50).astype(int)], wanted)


def test_a_pause_is_no_loss():
    stamps = [*range(0, 2000, 100), *range(12000, 14000, 100)]
    assert timeline(stamps).count_gaps() == 0


def test_a_camera_that_stutters_loses_all_that_it_leaves_out():
    """0.4 s without an image every 1.5 s, as over a bad USB cable: losses, not pauses."""
    stamps = [ms for ms in range(0, 6000, 33) if ms % 1500 > 400]
    times = timeline(stamps)
    left_out = sum(stamps[0] < ms for ms in range(0, 6000, 33) if ms % 1500 <= 400)
    assert times.count_gaps() == pytest.approx(left_out, abs=3) and times.drop_share > 0.15


def test_one_step_of_the_delay_is_no_drift():
    stepped = timeline(range(0, 20000, 50), lambda i: 30 if i < 150 else 230)
    assert stepped.drift == pytest.approx(0.0, abs=2e-3)
