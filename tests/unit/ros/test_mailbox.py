import threading

from heatnet_ros.ros.mailbox import Mailbox


def test_newest_item_wins_and_the_others_are_counted():
    box = Mailbox()
    for item in (1, 2, 3):
        box.put(item)
    assert box.take() == 3
    assert box.dropped == 2


def test_take_waits_for_an_item():
    box, taken = Mailbox(), []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    assert thread.is_alive()
    box.put("x")
    thread.join(2)
    assert taken == ["x"] and box.dropped == 0


def test_close_wakes_the_taker_and_ends_it_for_good():
    box, taken = Mailbox(), []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(2)
    box.put("late")
    assert taken == [None] and box.take() is None and box.dropped == 0
