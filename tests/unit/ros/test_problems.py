import pytest

from heatnet_ros.ros.problems import Problems, Source


@pytest.fixture
def bench():
    class Bench:
        now, errors, infos = 100.0, [], []

    Bench.errors, Bench.infos = [], []
    bench = Bench()
    bench.problems = Problems(bench.errors.append, bench.infos.append, lambda: bench.now)
    return bench


def test_the_same_message_is_logged_at_most_every_5_s(bench):
    for i in range(100):
        bench.problems.report(Source.INPUT, f"/color: got {i} bytes")
        bench.now += 0.125
    assert bench.errors == ["/color: got 0 bytes", "/color: got 40 bytes", "/color: got 80 bytes"]


def test_different_messages_do_not_hide_each_other(bench):
    bench.problems.report(Source.INPUT, "/color: bad")
    bench.problems.report(Source.INPUT, "/depth: bad")
    assert bench.errors == ["/color: bad", "/depth: bad"]


def test_a_solved_problem_is_gone_and_said_once(bench):
    bench.problems.report(Source.INPUT, "/color: bad")
    bench.problems.clear(Source.INPUT)
    bench.problems.clear(Source.INPUT)
    assert bench.problems.present == {} and bench.infos == ["Solved (input): /color: bad"]
    assert bench.problems.last.message == "/color: bad"


def test_good_and_bad_frames_in_turn_do_not_flood_the_log(bench):
    for _ in range(100):
        bench.problems.report(Source.INPUT, "/color: bad")
        bench.problems.clear(Source.INPUT)
        bench.now += 0.01
    assert len(bench.errors) == 1 and len(bench.infos) == 1


def test_configuration_errors_that_differ_in_a_number_are_both_logged(bench):
    bench.problems.report(Source.CONFIGURATION, "threads is 300, expected 0 to 256")
    bench.problems.report(Source.CONFIGURATION, "threads is 400, expected 0 to 256")
    bench.problems.report(Source.CONFIGURATION, "threads is 400, expected 0 to 256")
    assert len(bench.errors) == 2


def test_a_node_that_starts_anew_says_the_same_again(bench):
    bench.problems.report(Source.INPUT, "/color: bad")
    bench.problems.forget()
    bench.problems.report(Source.INPUT, "/color: bad")
    assert len(bench.errors) == 2


def test_no_memory_is_kept_of_what_cameras_call_themselves(bench):
    for i in range(3000):
        bench.problems.report(Source.INPUT, f"/color: bad encoding {'x' * i}")
    assert len(bench.problems._logged_s) < 1000
    bench.problems.report(Source.INPUT, f"/color: bad encoding {'x' * 2999}")
    assert len(bench.errors) == 3000, "the newest are still known"
