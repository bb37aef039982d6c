"""Limits of the disposable cache on the pod's local disk."""

from __future__ import annotations

from typing import Final

PENDING_BYTES_MAX: Final = 64 * 1024**2  # values waiting to be written; beyond it they are not kept, the bucket has them
PENDING_VALUES_MAX: Final = 4096
BATCH_VALUES: Final = 64  # written in one go in the thread
VALUE_BYTES_MAX: Final = 128 * 1024**2  # one value; a larger one would push everything else out
EVICT_TO_SHARE: Final = 0.9  # evicting frees a tenth at once, so that not every write has to
FULL_PAUSE_S: Final = 30.0  # after the disk was full (or failed) nothing is written for so long
FOLDERS: Final = 256  # files are spread over so many folders
FILE_OVERHEAD_BYTES: Final = 4096  # a file takes whole blocks
