"""The doctor as a process of its own, and what it found."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

from child_environment import child_environment


class Report:
    """Exit status and findings of a doctor's run."""

    def __init__(self, status, content):
        self.status, self.findings = status, content["findings"]

    def one(self, level, what, evidence, remedy):
        """The single finding of that level whose evidence holds the text; its remedy holds more."""
        found = [
            f for f in self.findings if f["level"] == level and f["what"].endswith(what)
            and evidence in f["evidence"]
        ]  # fmt: skip
        assert len(found) == 1, (level, what, evidence, self.findings)
        assert remedy in found[0]["remedy"], found
        return found[0]

    def faults(self):
        """Warnings and errors but those of this machine: a busy one leaves gaps between frames."""
        found = [f for f in self.findings if f["level"] != "ok"]
        return [f for f in found if "missing between the stamps" not in f["evidence"]]

    def is_well(self):
        return self.status < 2 and not self.faults()


class Clinic:
    """Runs the doctor as a process while a camera publishes."""

    def __init__(self, folder):
        self._folder, self._numbers = folder, itertools.count()

    def examine(self, *options, stream=lambda done: None, environment=None):
        """``stream(done)`` publishes until ``done()``, which the doctor's end makes true."""
        path = self._folder / f"doctor_{next(self._numbers)}.json"
        command = [sys.executable, "-m", "heatnet_ros", "doctor", *options, "--json", str(path)]
        environment = environment or child_environment()
        process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            stream(lambda: process.poll() is not None)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        print(out)  # pytest -rP shows it: docs/troubleshooting.md quotes it
        assert path.exists(), err
        report = Report(process.returncode, json.loads(path.read_text()))
        assert len(out.splitlines()) == len(report.findings), "one line a finding"
        return report

    def look_at(self, bench, *options, seconds=1.5, rate_hz=15, **changes):
        """The camera of a bench, which publishes ``changes`` all the while."""
        base = bench.namespace
        topics = [
            *("--color-topic", f"{base}/color/image_raw"),
            *("--camera-info-topic", f"{base}/color/camera_info"),
            *("--depth-topic", f"{base}/depth/image_raw"),
        ]

        def stream(done):
            bench.stream(done, "the doctor's end", 60, rate_hz, **changes)

        only = () if "--only" in options else ("--only", "camera")
        return self.examine(*only, "--seconds", str(seconds), *topics, *options, stream=stream)
