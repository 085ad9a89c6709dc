"""Unpack a downloaded archive: safely, and so that its folders appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from heatnet_ros.datasets.transfer import check_space
from heatnet_ros.errors import DataError
from heatnet_ros.progress import Progress

_CHUNK = 1 << 20


def extract(archive: Path, folder: Path, prefix: str = "") -> int:
    """Unpack a zip file into ``folder`` and return how many files it holds.

    prefix: name of a top folder to leave out where the archive has it (BOP's base archives do,
    the others do not). It is unpacked beside its place first, then each of its folders is renamed
    into it. A file that is there already and has the same content stays; one with other content
    is a DataError, and nothing is changed then. Raises DataError when the file is damaged, when
    it would write outside ``folder`` or when the disk is too small.
    """
    staging = folder / f".{archive.name}.part"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive) as file:
            members = {m: _place(m, archive, prefix) for m in file.infolist() if not m.is_dir()}
            staging.mkdir(parents=True)
            check_space(folder, sum(m.file_size for m in members), f"The content of {archive.name}")
            _refuse_conflicts(members, folder, archive)
            progress = Progress(f"unpack {archive.name}", max(1, len(members)))
            for member, place in members.items():
                _write(file, member, staging / place)
                progress.step(str(place))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise DataError(
            f"Archive {archive} is damaged: {error}. Remove it and run the same command again to "
            "download it anew."
        ) from error
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise DataError(
            f"Archive {archive} cannot be unpacked into {folder}: {error.strerror}. Make room or "
            "choose another folder with --out; the same command continues."
        ) from error
    except DataError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _move_into(staging, folder)
    return len(members)


def _place(member: zipfile.ZipInfo, archive: Path, prefix: str) -> PurePosixPath:
    """Where a member goes, relative to the folder. Raises DataError where that is outside."""
    path = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    odd = "\\" in member.filename or ":" in member.filename  # Windows would take them for folders
    if path.is_absolute() or not path.parts or ".." in path.parts or link or odd:
        raise DataError(
            f"Archive {archive} holds '{member.filename}'{', a link' if link else ''}, which could "
            "write outside of its folder. Nothing was unpacked: do not use this archive."
        )
    return PurePosixPath(*path.parts[1:]) if path.parts[0] == prefix else path


def _refuse_conflicts(
    members: dict[zipfile.ZipInfo, PurePosixPath], folder: Path, archive: Path
) -> None:
    for member, place in members.items():
        target = folder / place
        if target.exists() and not _same(target, member):
            raise DataError(
                f"{target} is there already and differs from the one in {archive.name} (two "
                "selections of the same scenes?). Nothing was unpacked. Remove the folder or "
                "choose another one with --out."
            )


def _same(path: Path, member: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _CHUNK)


def _move_into(source: Path, target: Path) -> None:
    """Rename what is in ``source`` into ``target``: a folder that is not there yet in one step."""
    for child in sorted(source.iterdir()):
        place = target / child.name
        if child.is_dir() and place.is_dir():
            _move_into(child, place)
        else:
            os.replace(child, place)
    source.rmdir()
