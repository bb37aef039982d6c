"""The account log (STORAGE.md): mail in a bucket, without a database. Others use `facade` and `types` only, and `MailStore` from here.

Charter: correctness rests on create-only PUT alone; no clock, lock, leader or age takes part. No protocol knowledge, no sockets, no
vendor imports; everything outside comes through `mailpod.ports`.
"""

from __future__ import annotations

from mailpod.store.mailstore import MailStore
from mailpod.store.options import DiskCache, StoreOptions

__all__ = ["DiskCache", "MailStore", "StoreOptions"]
