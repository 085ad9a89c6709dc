import io

from heatnet_ros.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_on_one_line():
    stream = Terminal()
    progress = Progress("predict", 4, stream)
    for i in range(4):
        progress.step(f"image {i}")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "[######..................] predict 1/4" in text
    assert text.rstrip().endswith("image 3\033[K")


def test_a_log_gets_few_lines_and_always_the_last():
    stream = io.StringIO()
    progress = Progress("predict", 100, stream)
    for i in range(100):
        progress.step(f"image {i}")
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("predict 100/100")
    assert len(lines) <= 3
