"""Speed-ups are ratios to the baseline of the same run, and only where there is one."""

from heatnet_ros.bench.table import format_stages, format_table, list_speedups


def entry(mode: str, objects: int, p50: float, **more: object) -> dict:
    ms = {"p50": p50, "p95": 2 * p50, "p99": 3 * p50}
    return {
        "engine": "openvino CPU", "precision": "bf16", "mode": mode, "objects": objects, "ms": ms,
        "stages_ms": {"detect": 0.5, "estimate": p50 - 0.5}, "frames_per_s": 1e3 / p50, **more,
    }  # fmt: skip


RUNS = [
    entry("follow", 1, 8.0, rss_mb=300.0, recall_add_01d=0.8073),
    entry("detect", 1, 20.0),
    entry("follow", 4, 16.0),
]
BASELINE = [entry("detect", 1, 800.0)]


def test_speedups_compare_equal_numbers_of_objects() -> None:
    found = list_speedups(RUNS, BASELINE)
    assert [(s["mode"], s["objects"], s["ratio"]) for s in found] == [
        ("follow", 1, 100.0), ("detect", 1, 40.0),
    ]  # fmt: skip
    assert list_speedups(RUNS, []) == []


def test_the_table_has_a_row_for_each_run() -> None:
    rows = format_table(RUNS, BASELINE).splitlines()
    assert len(rows) == 1 + 4
    assert rows[1].endswith("baseline") and rows[2].endswith("100.0x") and rows[4].endswith("62.5")
    assert "300" in rows[2]
    assert "80.7 %" in rows[2] and "%" not in "".join(rows[3:])  # unknown is no number
    assert "8.0" in rows[2] and "16.0" in rows[2] and "24.0" in rows[2]


def test_stages_are_told() -> None:
    assert "openvino CPU bf16 follow 1: detect 0.50, estimate 7.50 ms" in format_stages(RUNS)
