"""The configuration directory: a projected volume of Secrets in a cluster, a folder elsewhere, read as one consistent set of files."""

from __future__ import annotations

from pathlib import Path

from mailpod.limits import web as limits


class ConfigDirectory:
    """Reads all files of one moment.

    The kubelet (and `mailoperator render`) swaps the symbolic link `..data` to a new folder, so the link is resolved once and all files
    are read from where it led. In a plain folder two equal readings in a row stand for a moment.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None

    def read(self) -> dict[str, bytes]:
        """The files by name. Raises OSError when they cannot be read, also when they keep changing meanwhile."""
        for _ in range(limits.CONFIG_READ_ATTEMPTS):
            link = self._path / "..data"
            swapped = link.is_symlink()
            base = link.resolve() if swapped else self._path
            try:
                files = _files(base)
                # After a swap the old folder is removed at leisure: what was read from it may lack files.
                if swapped and link.resolve() == base:
                    return files
                if not swapped and files and _files(base) == files:
                    return files
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"{self._path} holds no configuration, or it kept changing while it was read")

    def changed(self) -> bool:
        """Whether anything may have changed since the last call: compares names, sizes and times only."""
        link = self._path / "..data"
        try:
            base = link.resolve() if link.is_symlink() else self._path
            now: object = (str(base), [(path.name, *_stat(path)) for path in sorted(base.iterdir()) if not path.name.startswith("..")])
        except OSError:
            now = None
        before, self._seen = self._seen, now
        return before is None or now != before


def _stat(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _files(base: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path in sorted(base.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if len(files) >= limits.CONFIG_FILES_MAX:
            raise OSError(f"{base} holds more than {limits.CONFIG_FILES_MAX} files")
        with path.open("rb") as file:
            data = file.read(limits.CONFIG_FILE_BYTES_MAX + 1)
        if len(data) > limits.CONFIG_FILE_BYTES_MAX:
            raise OSError(f"{path} is larger than {limits.CONFIG_FILE_BYTES_MAX} bytes")
        files[path.name] = data
    return files
