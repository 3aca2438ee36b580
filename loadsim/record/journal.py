"""A file of fixed-size records of one process, written through memory.

A write costs no system call and holds no descriptor, so it does not change the fd table under test. Written records
survive SIGKILL of the writer. The file is a header page (identity, named counters) followed by slots of equal size; a
slot whose first field is 0 is unused. Must not know the meaning of the records. Imports only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING, Self

from loadsim.errors import EnvironmentRefusedError, RecordingError
from loadsim.record.folder import opened
from loadsim.record.records import COUNTERS, LAYOUTS, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC = b"LOADSIM1"
HEADER_BYTES = mmap.PAGESIZE
_IDENTITY = struct.Struct("=8s16sQQ")  # magic, kind, record size, capacity
_CAPACITY = struct.Struct("=Q")
_CAPACITY_AT = _IDENTITY.size - _CAPACITY.size
_COUNTERS_AT = 64
_USED = 0  # the first two counters of every journal: used slots, and records lost for lack of space
_LOST = 1
_NAMED = 2
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Journal:
    """A mapped journal. A hot loop packs into `buffer` itself; see `take`.

    `close`, or the end of a `with` block, unmaps it; the file stays.
    """

    def __init__(self, buffer: mmap.mmap, layout: Layout, capacity: int) -> None:
        self.buffer = buffer
        self.layout = layout
        self.capacity = capacity
        names = COUNTERS[layout.name]
        #: Used slots, lost records, then the named counters of this kind.
        self.counters = memoryview(buffer)[_COUNTERS_AT : _COUNTERS_AT + 8 * (_NAMED + len(names))].cast("Q")
        #: Index into `counters` for each name.
        self.index = {name: _NAMED + i for i, name in enumerate(names)}

    @classmethod
    def create(cls, path: Path, layout: Layout, capacity: int) -> Self:
        """Reserve and map a new file for `capacity` records, with every page present.

        Raises EnvironmentRefusedError if the disk is too full (a later write to a hole would cause SIGBUS), OSError for
        any other failure.
        """
        size = HEADER_BYTES + capacity * layout.size
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.posix_fallocate(fd, 0, size)
            buffer = _map(fd, size)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise EnvironmentRefusedError(
                f"cannot reserve {size:,} bytes for {path}: {error.strerror}; free that space or choose another --out"
            ) from error
        finally:
            if fd >= 0:
                os.close(fd)
        with contextlib.suppress(OSError, ValueError):  # before Linux 5.14, the first write to a page faults
            buffer.madvise(_MADV_POPULATE_WRITE)
        _IDENTITY.pack_into(buffer, 0, MAGIC, layout.name.encode(), layout.size, capacity)
        return cls(buffer, layout, capacity)

    @classmethod
    def attach(cls, path: Path, layouts: Mapping[str, Layout] = LAYOUTS) -> Self:
        """Map an existing journal of one of these layouts for reading; raises RecordingError if it is not one."""
        try:
            with opened(path) as file:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, PermissionError, ValueError) as error:
            raise RecordingError(f"{path}: cannot be read ({error}); it may have been removed") from error
        try:
            magic, kind, size, capacity = _IDENTITY.unpack_from(buffer, 0)
            layout = layouts[kind.rstrip(b"\0").decode()]
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise RecordingError(f"{path}: is not a loadsim journal") from error
        is_truncated = HEADER_BYTES + capacity * size > len(buffer)
        if magic != MAGIC or size != layout.size or is_truncated:
            raise RecordingError(f"{path}: is damaged, or another version of loadsim wrote it")
        journal = cls(buffer, layout, capacity)
        if (used := journal.used) > capacity:
            journal.close()
            raise RecordingError(f"{path}: is damaged (its header counts {used:,} records in {capacity:,} slots)")
        return journal

    @classmethod
    def trim(cls, path: Path) -> None:
        """Cut the file of a journal without a writer to its used size, and free the rest of its reserved space."""
        with cls.attach(path) as journal:
            used, size = journal.used, journal.layout.size
        with path.open("r+b", buffering=0) as file:
            file.seek(_CAPACITY_AT)
            file.write(_CAPACITY.pack(used))
            file.truncate(HEADER_BYTES + used * size)

    @property
    def used(self) -> int:
        """Number of slots in use."""
        return self.counters[_USED]

    @property
    def lost(self) -> int:
        """Number of records that were only counted, because no slot was free."""
        return self.counters[_LOST]

    def take(self) -> int:
        """Take the next slot and return its byte offset in `buffer`; -1, and one more lost record, if none is free."""
        slot = self.counters[_USED]
        if slot >= self.capacity:
            self.counters[_LOST] += 1
            return -1
        self.counters[_USED] = slot + 1
        return HEADER_BYTES + slot * self.layout.size

    def take_many(self, count: int) -> list[int]:
        """Take slots for a batch of records and return their byte offsets, as `take` does."""
        used, size = self.counters[_USED], self.layout.size
        granted = min(count, self.capacity - used)
        self.counters[_USED] = used + granted
        self.counters[_LOST] += count - granted
        first = HEADER_BYTES + used * size
        return [*range(first, first + granted * size, size), *([-1] * (count - granted))]

    def append(self, *values: object) -> int:
        """Write one record and return its byte offset, or -1 if no slot is free."""
        at = self.take()
        if at >= 0:
            self.layout.struct.pack_into(self.buffer, at, *values)
        return at

    def count(self, name: str, more: int = 1) -> None:
        """Add to a named counter; a hot loop indexes `counters` itself."""
        self.counters[self.index[name]] += more

    def read(self, name: str) -> int:
        """Return a named counter."""
        return self.counters[self.index[name]]

    def close(self) -> None:
        """Unmap; the file keeps what was written."""
        self.counters.release()
        with contextlib.suppress(BufferError):  # a reader still has an array over it, which unmaps it when it ends
            self.buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _map(fd: int, size: int) -> mmap.mmap:
    """Map a file shared and writable, without the duplicate descriptor that `mmap.mmap(fd, size)` keeps.

    The file is mapped over an anonymous map. Python 3.13 has `trackfd=False` for this.
    """
    buffer = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if _mmap(address, size, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, 0) != address:
        buffer.close()
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer


_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_mmap.restype = ctypes.c_void_p
_MAP_FIXED = 0x10  # asm-generic/mman-common.h
_MADV_POPULATE_WRITE = 23  # Linux 5.14, the same
