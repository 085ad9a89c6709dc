"""Fetch one large file over HTTP: continued after an interruption, verified, whole or not there.

A file grows as ``NAME.part``; ``NAME.part.tag`` says which version of it that is, so that two
versions are never joined. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from heatnet_ros.errors import DataError
from heatnet_ros.progress import Progress

_CHUNK = 1 << 18
_MB = 1e6
_TRANSIENT = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to put up with a bad connection. Failures in a row without a new byte count."""

    retries: int = 5
    wait_s: float = 3.0
    timeout_s: float = 60.0


class _DroppedError(Exception):
    """The connection failed in a way that another attempt may mend."""


@dataclass(frozen=True)
class _Offer:
    """What the server has: total size in bytes, what tells this version from others, checksum."""

    total: int
    etag: str | None
    sha256: str | None


def fetch(
    url: str, target: Path, sha256: str | None = None, patience: Patience | None = None
) -> str:
    """Download ``url`` to ``target``; a ``.part`` file left by an earlier run is continued.

    The file is checked against ``sha256``, else against the checksum the server states for it
    (Hugging Face: X-Linked-ETag). Returns a line that says what it was checked against. Raises
    DataError when the address is wrong, the connection stays down, the disk is too small or the
    content is wrong; what arrived is kept unless it is wrong, and the same call continues it.
    """
    patience = patience or Patience()
    part, tag = _part(target), _tag(target)
    failures, offer, most = 0, None, _size(part)
    target.parent.mkdir(parents=True, exist_ok=True)
    while offer is None:
        try:
            offer = _attempt(url, part, tag, patience.timeout_s)
        except _DroppedError as error:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures > patience.retries:
                raise DataError(
                    f"{url}: {error} ({_size(part) / _MB:.1f} MB are kept in {part}). Run the "
                    "same command again to continue, or choose another server with --mirror."
                ) from error
            print(f"{target.name}: {error}; next attempt in {patience.wait_s:.0f} s", flush=True)
            time.sleep(patience.wait_s)
    checked = _verify(part, sha256, offer.sha256, url)
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return checked


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise DataError unless the disk of ``folder`` has ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{what} needs {needed / _MB:,.0f} MB, the disk of {folder} has {free / _MB:,.0f} MB "
            "free. Make room or choose another folder with --out; the same command continues."
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _KeepLinkedHeaders(urllib.request.HTTPRedirectHandler):
    """Hugging Face states a file's SHA-256 in the redirect, not where the redirect leads."""

    def __init__(self) -> None:
        self.linked_etag: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        self.linked_etag = self.linked_etag or headers.get("X-Linked-ETag")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _attempt(url: str, part: Path, tag: Path, timeout_s: float) -> _Offer:
    """One request. Returns when ``part`` is complete, else raises _DroppedError or DataError."""
    known = _read_tag(tag)  # without it nobody knows of what ``part`` is a part
    start = _size(part) if known else 0
    if known and start == known.total:  # a kill came while it was checked
        return known
    headers = {"Accept-Encoding": "identity", "User-Agent": "heatnet_ros"}
    if start:
        headers["Range"] = f"bytes={start}-"
    redirects = _KeepLinkedHeaders()
    opener = urllib.request.build_opener(redirects)
    try:
        request = urllib.request.Request(url, headers=headers)
        with opener.open(request, timeout=timeout_s) as response:
            offer = _read_offer(response, redirects.linked_etag, url)
            if start and response.status == 206:
                if known != offer or _range_start(response) != start:
                    part.unlink()
                    raise _DroppedError("the file has changed on the server: starting over")
            elif start:
                print(f"{part.stem}: the server cannot continue a file: starting over", flush=True)
                start = 0
            _receive(response, part, tag, start, offer)
            return offer
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            part.unlink()
            raise _DroppedError(
                f"{start} bytes are more than the server has: start over"
            ) from error
        if error.code in _TRANSIENT:
            raise _DroppedError(f"the server answered {error.code} {error.reason}") from error
        raise DataError(
            f"{url}: the server answered {error.code} {error.reason}. It may have been moved: "
            "look it up on https://bop.felk.cvut.cz/datasets and give its place with --mirror."
        ) from error
    except urllib.error.URLError as error:
        raise _DroppedError(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(f"connection lost ({type(error).__name__}: {error})") from error


def _read_offer(response: http.client.HTTPResponse, linked_etag: str | None, url: str) -> _Offer:
    length = response.headers.get("Content-Length")
    if length is None or not length.isdigit():
        raise DataError(
            f"{url}: the server does not state the size of the file (Content-Length), so nobody "
            "could tell whether it arrived whole. Choose another server with --mirror."
        )
    total = int(length) + (_range_start(response) if response.status == 206 else 0)
    etag = linked_etag or response.headers.get("ETag") or response.headers.get("Last-Modified")
    plain = (linked_etag or "").strip('W/"').lower()
    sha256 = plain if re.fullmatch(r"[0-9a-f]{64}", plain) else None
    return _Offer(total, etag, sha256)


def _range_start(response: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else -1


def _receive(
    response: http.client.HTTPResponse, part: Path, tag: Path, start: int, offer: _Offer
) -> None:
    """Append the body to ``part`` from ``start`` on."""
    left = offer.total - start
    # as much again for what the archive holds: images do not shrink when they are packed
    check_space(part.parent, left + offer.total, f"{part.stem} with its content")
    progress = Progress(part.stem, max(1, -(-left // _CHUNK)))
    begin, received = time.monotonic(), 0
    with _open(part, append=start > 0) as file:
        tag.write_text(json.dumps(dataclasses.asdict(offer)))
        while chunk := response.read(_CHUNK):
            _write(file, chunk, part)
            received += len(chunk)
            speed = received / max(time.monotonic() - begin, 1e-3)
            done = (start + received) / _MB
            progress.step(f"{done:.1f} of {offer.total / _MB:.1f} MB, {speed / _MB:.1f} MB/s")
    if received < left:
        raise _DroppedError(
            f"connection closed after {start + received} of {offer.total} announced bytes"
        )


def _open(part: Path, append: bool) -> io.FileIO:
    try:
        return io.FileIO(part, "ab" if append else "wb")
    except OSError as error:
        raise _disk_error(part, error) from error


def _write(file: io.FileIO, chunk: bytes, part: Path) -> None:
    """Write all of ``chunk``, unbuffered: a full disk shows here and not when the file closes."""
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _disk_error(part, error) from error


def _disk_error(part: Path, error: OSError) -> DataError:
    return DataError(
        f"{part} cannot be written: {error.strerror}. Make room or choose another folder with "
        "--out; the same command continues."
    )


def _read_tag(tag: Path) -> _Offer | None:
    try:
        return _Offer(**json.loads(tag.read_text()))
    except (OSError, ValueError, TypeError):  # absent, or cut off by a kill
        return None


def _verify(part: Path, wanted: str | None, stated: str | None, url: str) -> str:
    """Check the whole file; a wrong one is removed, because no byte of it can be trusted."""
    expected = wanted or stated
    if expected is None:
        return "no checksum is known, only its size was checked"
    got = sha256_of(part)
    if got != expected.lower():
        part.unlink()
        raise DataError(
            f"{url}: SHA-256 is {got}, expected {expected.lower()} (stated by "
            f"{'--sha256' if wanted else 'the server'}). The file was removed. Run the same "
            "command again, or correct --sha256 if the data set was published anew."
        )
    return f"SHA-256 as {'given' if wanted else 'the server states'}"


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _tag(target: Path) -> Path:
    return target.with_name(target.name + ".part.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
