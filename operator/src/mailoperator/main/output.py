"""Writing a rendered configuration as the kubelet does, so that a running pod never sees half of a change."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once; only its owner can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def current(directory: Path) -> dict[str, bytes]:
    """The files in force; empty when there are none."""
    base = directory / "..data"
    return {path.name: path.read_bytes() for path in sorted(base.iterdir()) if path.is_file()} if base.is_dir() else {}


def write(directory: Path, files: Mapping[str, bytes], generation: str) -> bool:
    """Put `files` in force by swapping the symbolic link `..data`; returns whether anything changed."""
    if current(directory) == dict(files):
        return False
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    fresh = Path(tempfile.mkdtemp(prefix=f"..{generation}.", dir=directory))
    for name, data in files.items():
        write_private(fresh / name, data)
    link, data_link = directory / "..data_tmp", directory / "..data"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data_link)
    for name in files:
        shown = directory / name
        if not shown.is_symlink():
            shown.unlink(missing_ok=True)
            shown.symlink_to(Path("..data") / name)
    for entry in directory.iterdir():
        if entry.is_symlink() and entry != data_link and not entry.exists():
            entry.unlink()
        elif entry.name.startswith("..") and entry.is_dir() and not entry.is_symlink() and entry != fresh:
            shutil.rmtree(entry)
    return True
