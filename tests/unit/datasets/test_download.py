"""The download command against a real HTTP server on this machine."""

import argparse
import contextlib
import hashlib
import io
import resource
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.datasets import download
from heatnet_ros.datasets.archives import extract
from heatnet_ros.datasets.transfer import Patience, check_space, fetch
from heatnet_ros.errors import ConfigError, DataError

ROOT = Path(__file__).parents[3]
QUICK = Patience(retries=2, wait_s=0.0, timeout_s=5.0)
# more than one chunk, and no two places alike
CONTENT = np.random.default_rng(5).bytes(700_000)


@dataclass
class Site:
    """What the server has and how it behaves; ``requests`` are (path, Range) in order."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"v1"'
    linked_etag: str | None = None  # as Hugging Face states it, in a redirect
    drops: list[int] = field(default_factory=list)  # close after so many bytes, one per answer
    extra_length: int = 0
    no_length: bool = False
    failures: list[int] = field(default_factory=list)  # status codes to answer first
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.requests.append((self.path, wanted))
        if site.linked_etag is not None and not self.path.startswith("/cdn"):
            self.send_response(302)
            self.send_header("X-Linked-ETag", site.linked_etag)
            self.send_header("Location", "/cdn" + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.files.get(self.path.removeprefix("/cdn"))
        if site.failures or body is None:
            self.send_error(site.failures.pop(0) if site.failures else 404)
            return
        start = 0
        if wanted is not None and site.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if not site.no_length:
            self.send_header("Content-Length", str(len(body) - start + site.extra_length))
        self.send_header("ETag", site.etag)
        self.end_headers()
        stop = start + site.drops.pop(0) if site.drops else len(body)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- one file


def test_a_file_arrives_whole(site: Site, tmp_path: Path):
    site.files["/a.zip"] = CONTENT
    checked = fetch(f"{site.url}/a.zip", tmp_path / "a.zip", sha256(CONTENT).upper(), QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]
    assert checked == "SHA-256 as given"


def test_a_dropped_connection_is_continued_where_it_broke(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.drops = CONTENT, [300_000, 200_000]
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_continues(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.drops = CONTENT, [300_000, 0]
    with pytest.raises(DataError, match=r"connection closed after 300000 of 700000.*same command"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, Patience(0, 0.0, 5.0))
    assert left_over(tmp_path) == ["a.zip.part", "a.zip.part.tag"]
    site.drops.clear()
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert site.requests[-1][1] == "bytes=300000-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_connection_that_stays_down_ends_with_what_to_do(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.drops = CONTENT, [1000, 0, 0, 0, 0]
    with pytest.raises(DataError, match=r"closed after 1000 of 700000.*--mirror"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert len(site.requests) == 1 + QUICK.retries


@pytest.mark.parametrize("ranges", [False, True])
def test_a_length_that_is_announced_but_never_sent(site: Site, tmp_path: Path, ranges: bool):
    site.files["/a.zip"], site.extra_length, site.ranges = CONTENT, 5, ranges
    with pytest.raises(DataError, match=r"closed after 700000 of 700005 announced|more than the s"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert not (tmp_path / "a.zip").exists()


def test_a_server_without_a_length_is_refused(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.no_length = CONTENT, True
    with pytest.raises(DataError, match="does not state the size"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)


def test_a_server_without_ranges_starts_over_and_says_so(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    site.files["/a.zip"], site.drops, site.ranges = CONTENT, [300_000], False
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert "cannot continue a file: starting over" in capsys.readouterr().out


def test_a_new_version_is_not_joined_to_the_old_part(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.drops = CONTENT, [300_000]
    with pytest.raises(DataError):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, Patience(0, 0.0, 5.0))
    site.files["/a.zip"], site.etag = CONTENT[::-1], '"v2"'
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_a_part_of_unknown_origin_is_not_continued(site: Site, tmp_path: Path):
    site.files["/a.zip"] = CONTENT
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert site.requests == [("/a.zip", None)]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_complete_part_is_only_checked(site: Site, tmp_path: Path):
    """A kill between the last byte and the new name costs no second download."""
    site.files["/a.zip"], site.drops = CONTENT, [699_999]
    with pytest.raises(DataError):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, Patience(0, 0.0, 5.0))
    with (tmp_path / "a.zip.part").open("ab") as file:
        file.write(CONTENT[-1:])
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", sha256(CONTENT), QUICK)
    assert len(site.requests) == 1


def test_a_part_longer_than_the_file_starts_over(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.drops = CONTENT, [300_000]
    with pytest.raises(DataError):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, Patience(0, 0.0, 5.0))
    with (tmp_path / "a.zip.part").open("ab") as file:
        file.write(CONTENT)
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_missing_file_is_named_at_once(site: Site, tmp_path: Path):
    with pytest.raises(DataError, match=r"/gone\.zip: the server answered 404 .*--mirror"):
        fetch(f"{site.url}/gone.zip", tmp_path / "gone.zip", None, QUICK)
    assert len(site.requests) == 1
    assert left_over(tmp_path) == []


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.failures = CONTENT, [503, 429]
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_no_server(tmp_path: Path):
    with pytest.raises(DataError, match=r"no connection \(.*refused"):
        fetch("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", None, QUICK)


def test_a_wrong_checksum_removes_the_file(site: Site, tmp_path: Path):
    site.files["/a.zip"] = CONTENT
    with pytest.raises(DataError, match=rf"SHA-256 is {sha256(CONTENT)}, expected 0{{64}}.*--sha"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", "0" * 64, QUICK)
    assert not {"a.zip", "a.zip.part"} & set(left_over(tmp_path))
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", sha256(CONTENT), QUICK)


def test_the_checksum_in_the_redirect_counts(site: Site, tmp_path: Path):
    """Hugging Face's way: the redirect carries it, and the range survives the redirect."""
    site.files["/a.zip"], site.linked_etag = CONTENT, f'"{sha256(CONTENT)}"'
    site.drops = [300_000]
    with pytest.raises(DataError):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, Patience(0, 0.0, 5.0))
    site.etag = '"another node of the same cloud"'  # only the redirect's tag names the version
    checked = fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    assert checked == "SHA-256 as the server states"
    assert site.requests[-1] == ("/cdn/a.zip", "bytes=300000-")
    site.linked_etag = f'"{"1" * 64}"'
    with pytest.raises(DataError, match=r"expected 1{64} \(stated by the server\)"):
        fetch(f"{site.url}/a.zip", tmp_path / "b.zip", None, QUICK)


def test_a_file_larger_than_the_disk_is_refused_before_it_is_read(site: Site, tmp_path: Path):
    site.files["/a.zip"], site.extra_length = CONTENT, 10**16
    with pytest.raises(DataError, match=r"a\.zip with its content needs 20,000,000,00. MB.*--out"):
        fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, QUICK)
    check_space(tmp_path, 1, "One byte")


def test_a_disk_that_fills_up_keeps_what_arrived(site: Site, tmp_path: Path):
    """In a process whose files may have 400 kB: the write itself fails, as on a full disk."""
    site.files["/a.zip"] = CONTENT
    program = (
        "import sys; from pathlib import Path; from heatnet_ros.datasets.transfer import fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{site.url}/a.zip", str(tmp_path / "a.zip")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    assert "DataError" in done.stderr
    assert "cannot be written: File too large. Make room" in done.stderr
    assert (tmp_path / "a.zip.part").stat().st_size == 400_000
    fetch(f"{site.url}/a.zip", tmp_path / "a.zip", sha256(CONTENT), QUICK)
    assert site.requests[-1][1] == "bytes=400000-"


# --- unpacking


def test_folders_appear_at_their_place(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped({"lmo/camera.json": b"{}", "models/o.ply": b"ply"}))
    assert extract(tmp_path / "a.zip", tmp_path / "lmo", prefix="lmo") == 2
    assert (tmp_path / "lmo" / "camera.json").read_bytes() == b"{}"
    assert (tmp_path / "lmo" / "models" / "o.ply").read_bytes() == b"ply"
    assert left_over(tmp_path / "lmo") == ["camera.json", "models"]


def test_unpacking_twice_changes_nothing_and_other_content_is_refused(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped({"test/1/gt.json": b"all", "test/1/x.png": b"x"}))
    extract(tmp_path / "a.zip", tmp_path / "set")
    extract(tmp_path / "a.zip", tmp_path / "set")
    (tmp_path / "b.zip").write_bytes(zipped({"test/2/gt.json": b"two", "test/1/gt.json": b"sub"}))
    with pytest.raises(DataError, match=r"gt\.json is there already and differs"):
        extract(tmp_path / "b.zip", tmp_path / "set")
    assert left_over(tmp_path / "set" / "test") == ["1"]
    assert (tmp_path / "set" / "test" / "1" / "gt.json").read_bytes() == b"all"


def test_a_killed_unpacking_leaves_nothing_that_looks_whole(tmp_path: Path):
    """What it leaves has another name, and the next run clears it."""
    (tmp_path / "a.zip").write_bytes(zipped({"test/1/gt.json": b"all"}))
    (tmp_path / "set" / ".a.zip.part" / "test").mkdir(parents=True)
    (tmp_path / "set" / ".a.zip.part" / "test" / "half.png").write_bytes(b"h")
    extract(tmp_path / "a.zip", tmp_path / "set")
    assert [str(p.relative_to(tmp_path / "set")) for p in sorted(tmp_path.rglob("set/**/*"))] == [
        "test",
        "test/1",
        "test/1/gt.json",
    ]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_nothing_is_written_outside(tmp_path: Path, name: str):
    (tmp_path / "a.zip").write_bytes(zipped({"good": b"1", name: b"2"}))
    with pytest.raises(DataError, match="write outside of its folder"):
        extract(tmp_path / "a.zip", tmp_path / "set" / "deep")
    assert left_over(tmp_path) == ["a.zip"]


def test_a_link_is_refused(tmp_path: Path):
    link = zipfile.ZipInfo("models")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc")
    with pytest.raises(DataError, match="a link, which could write outside"):
        extract(tmp_path / "a.zip", tmp_path / "set")


@pytest.mark.parametrize("damage", ["cut", "flipped", "html"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, damage: str):
    content = bytearray(zipped({"models/a.ply": CONTENT, "models/b.ply": b"b"}))
    if damage == "flipped":
        content[5000] ^= 0xFF
    damaged = {"cut": content[:5000], "flipped": content, "html": b"<html>"}[damage]
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.zip is damaged: .*Remove it"):
        extract(tmp_path / "a.zip", tmp_path / "set")
    assert not (tmp_path / "set").exists() or left_over(tmp_path / "set") == []


# --- the command


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    download.add_arguments(parser)
    return download.run(parser.parse_args(words), QUICK)


def publish(site: Site) -> None:
    site.files |= {
        "/lmo/lmo_base.zip": zipped({"lmo/camera.json": b"{}"}),
        "/lmo/lmo_models.zip": zipped({"models/models_info.json": b"{}"}),
        "/lmo/lmo_test_bop19.zip": zipped({"test/000002/scene_camera.json": b"{}"}),
    }


def test_the_command_is_complete_and_repeatable(site: Site, tmp_path: Path):
    publish(site)
    mirror = site.url + "/{dataset}/{file}"
    assert run("lmo", "--out", str(tmp_path), "--mirror", mirror) == 0
    assert left_over(tmp_path) == ["lmo"]
    assert (tmp_path / "lmo" / "test" / "000002" / "scene_camera.json").exists()
    asked = len(site.requests)
    assert run("lmo", "--out", str(tmp_path), "--mirror", mirror) == 0
    assert len(site.requests) == asked


def test_the_command_continues_after_a_failure(site: Site, tmp_path: Path):
    publish(site)
    test = site.files.pop("/lmo/lmo_test_bop19.zip")
    mirror = site.url + "/{dataset}/{file}"
    with pytest.raises(DataError, match=r"lmo_test_bop19\.zip: the server answered 404"):
        run("lmo", "--out", str(tmp_path), "--mirror", mirror)
    site.files["/lmo/lmo_test_bop19.zip"] = test
    site.requests.clear()
    run("lmo", "--out", str(tmp_path), "--mirror", mirror)
    assert [path for path, _ in site.requests] == ["/lmo/lmo_test_bop19.zip"]


def test_a_downloaded_archive_is_unpacked_without_asking_again(site: Site, tmp_path: Path):
    (tmp_path / "lmo_base.zip").write_bytes(zipped({"lmo/camera.json": b"{}"}))
    run("lmo", "--out", str(tmp_path), "--mirror", site.url, "--parts", "base", "--keep-archives")
    assert site.requests == []
    assert (tmp_path / "lmo" / "camera.json").exists()
    assert (tmp_path / "lmo_base.zip").exists()


def test_checksums_of_the_user_count(site: Site, tmp_path: Path):
    publish(site)
    words = ["lmo", "--out", str(tmp_path), "--mirror", site.url + "/{dataset}/{file}"]
    words += ["--parts", "base", "--sha256"]
    with pytest.raises(DataError, match="SHA-256 is"):
        run(*words, f"lmo_base.zip={'0' * 64}")
    assert run(*words, f"lmo_base.zip={sha256(site.files['/lmo/lmo_base.zip'])}") == 0


def test_addresses():
    jobs = download.plan(["lm", "lmo"], "base, test_all", download.DEFAULT_MIRROR, [])
    assert [
        job.url.removeprefix("https://huggingface.co/datasets/bop-benchmark") for job in jobs
    ] == [
        "/lm/resolve/main/lm_base.zip",
        "/lm/resolve/main/lm_test_all.zip",
        "/lmo/resolve/main/lmo_base.zip",
        "/lmo/resolve/main/lmo_test_all.zip",
    ]
    (job,) = download.plan(["lmo"], "base", "http://host/bop/", [])
    assert job.url == "http://host/bop/lmo_base.zip"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lmoo"], r"'lmoo' is not known.*Did you mean 'lmo'"),
        (["lmo", "--parts", "modles"], r"'modles' is not known.*Did you mean 'models'"),
        (["lmo", "--mirror", "file:///tmp"], r"--mirror: expected .*http"),
        (["lmo", "--sha256", "lmo_base.zip=12"], r"expected FILE=64 hexadecimal digits"),
        (["lmo", "--sha256", f"lm.zip={'0' * 64}"], r"names lm\.zip, which is not downloaded"),
        ([], r"Name a data set to download: lm, lmo, ycbv"),
    ],
)
def test_wrong_words(tmp_path: Path, words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        run(*words, "--out", str(tmp_path))


def test_the_list_names_every_part(capsys: pytest.CaptureFixture[str]):
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "lmo    base, models, test, test_all"
    assert len(lines) == len(download.ARCHIVES)
