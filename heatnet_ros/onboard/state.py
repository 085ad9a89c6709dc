"""What an onboarding has done so far: ``runs/NAME/onboard.json``, whole at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.files import write_json
from heatnet_ros.onboard.options import Options, Places

STATE_FILE = "onboard.json"
_LOCK_FILE = "onboard.lock"


class State:
    """A JSON document that is written after every change.

    Keys: ``options``, ``objects`` (what was checked), ``machine``, ``rates``, ``plan``,
    ``finished`` (step -> command, seconds, further facts) and ``seconds`` of all runs together.
    """

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path, self.document = path, document

    def __contains__(self, key: str) -> bool:
        return key in self.document

    def __getitem__(self, key: str) -> Any:
        return self.document[key]

    @property
    def finished(self) -> Mapping[str, Any]:
        """Steps that are done: command, seconds and what else was noted."""
        found: Mapping[str, Any] = self.document["finished"]
        return found

    def put(self, key: str, value: Any) -> None:
        """Set an entry and write the file. Raises DataError when it cannot be written."""
        self.document[key] = value
        write_json(self.path, self.document)

    def finish(self, step: str, command: list[str], seconds: float, **facts: Any) -> None:
        """Note that a step is done."""
        entry = {"command": command, "seconds": round(seconds, 1), **facts}
        self.put("finished", {**self.finished, step: entry})

    def forget(self, step: str) -> None:
        """Note that a step has to be done again."""
        self.put("finished", {k: v for k, v in self.finished.items() if k != step})


def load_state(places: Places) -> State | None:
    """The state of an earlier run, or None. Raises DataError when the file is damaged."""
    path = places.run / STATE_FILE
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text())
        known = isinstance(document["options"], dict) and isinstance(document["finished"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path, str(error))) from error
    if not known:
        raise DataError(_damaged(path, "'options' or 'finished' is no mapping"))
    return State(path, document)


def start_state(places: Places, options: Options, version: str) -> State:
    """A new state, not yet written. Raises ConfigError where others' files are in the way."""
    for path, what in (
        (places.library, "object library"),
        (places.meshes, "folder of meshes"),
        (places.data, "data set"),
        (places.params, "parameter file"),
        *((places.model(network), "model") for network in ("yolo", "heatnet")),
    ):
        if path.exists():
            raise ConfigError(
                f"The {what} {path} exists and no onboarding of that name is known "
                f"({places.run / STATE_FILE} is not there). Give another --name, or move it away."
            )
    document = {"heatnet_ros": version, "options": plain(options), "finished": {}, "seconds": 0.0}
    return State(places.run / STATE_FILE, document)


def plain(options: Options) -> dict[str, Any]:
    """Options as JSON gives them back."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return document


def check_options(state: State, options: Options) -> None:
    """Raise ConfigError naming every option that differs from the state's."""
    before, now = state["options"], plain(options)
    changes = [
        _describe_change(key, before.get(key), now.get(key))
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise ConfigError(
            f"{state.path} was begun with other options: {'; '.join(changes)}. Give the same "
            f"options to continue, --restart to begin anew (deletes {state.path.parent} and what "
            "was made from it), or another --name."
        )


def _describe_change(key: str, before: Any, now: Any) -> str:
    if key == "meshes":
        old, new = dict(before or {}), dict(now or {})
        changed = [f"{path} has changed" for path in old if path in new and old[path] != new[path]]
        changed += [f"without {path}" for path in old if path not in new]
        changed += [f"with {path}" for path in new if path not in old]
        return f"meshes: {', '.join(changed) or 'their order'}"
    name = key.removesuffix("_s").removesuffix("_m").replace("_", "-")
    return f"--{name}: {_tell(before)} then, {_tell(now)} now"


def _tell(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    return json.dumps(value)


def remove_results(places: Places) -> None:
    """Delete what an onboarding made: its state last, so that a kill leaves it known.

    Without a state nothing is known to be its own, and nothing is deleted.
    """
    if not (places.run / STATE_FILE).exists():
        return
    shutil.rmtree(places.data, ignore_errors=True)
    for network in ("yolo", "heatnet"):
        shutil.rmtree(places.model(network), ignore_errors=True)
    shutil.rmtree(places.meshes, ignore_errors=True)
    for path in (places.library, places.params):
        path.unlink(missing_ok=True)
    for path in places.run.iterdir():
        if path.name not in (STATE_FILE, _LOCK_FILE):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    (places.run / STATE_FILE).unlink(missing_ok=True)


@contextmanager
def locked(places: Places) -> Iterator[None]:
    """Hold the run folder; a killed holder lets go. Raises ConfigError when another holds it."""
    try:
        places.run.mkdir(parents=True, exist_ok=True)
        file = (places.run / _LOCK_FILE).open("a+")
    except OSError as error:
        raise DataError(
            f"Folder {places.run} cannot be written: {error.strerror}. Give another --out-root."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ConfigError(
                f"Another onboard of '{places.name}' is running (process {file.read().strip()}). "
                "Wait for it, or stop it first."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{path} is damaged: {reason}. Restore it, or delete it together with the results of that "
        "name and begin anew."
    )
