"""One process's file of fixed-size records, written through memory.

A write costs no system call and holds no descriptor, so the fd table under test stays as it is, and what was written
survives the writer's SIGKILL. The file is a header page (identity, named counters) followed by equal slots; a slot
whose first field is 0 is unused. Must not know what the records mean. Imports the standard library alone.
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
_USED = 0  # the first two counters of every journal: slots used, records lost because the space was used up
_LOST = 1
_NAMED = 2


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Journal:
    """A mapped journal. The owner of a hot loop packs into `buffer` itself; see `take`.

    Close it (or use it as a context manager) to unmap; the file stays.
    """

    def __init__(self, buffer: mmap.mmap, layout: Layout, capacity: int) -> None:
        self.buffer = buffer
        self.layout = layout
        self.capacity = capacity
        names = COUNTERS[layout.name]
        #: Slots used, records lost, then the named counters of this kind.
        self.counters = memoryview(buffer)[_COUNTERS_AT : _COUNTERS_AT + 8 * (_NAMED + len(names))].cast("Q")
        #: Index into `counters` for each name.
        self.index = {name: _NAMED + i for i, name in enumerate(names)}

    @classmethod
    def create(cls, path: Path, layout: Layout, capacity: int) -> Self:
        """Reserve and map a new file for `capacity` records, with every page present.

        Raises EnvironmentRefusedError where the space cannot be reserved (a later write to a hole on a full disk would
        be SIGBUS), OSError where anything else is refused.
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
                f"cannot reserve {size:,} bytes for {path}: {error.strerror}; free that space, or choose another --out"
            ) from error
        finally:
            if fd >= 0:
                os.close(fd)
        with contextlib.suppress(OSError, ValueError):  # before Linux 5.14 the first touch of a page costs its fault
            buffer.madvise(_MADV_POPULATE_WRITE)
        _IDENTITY.pack_into(buffer, 0, MAGIC, layout.name.encode(), layout.size, capacity)
        return cls(buffer, layout, capacity)

    @classmethod
    def attach(cls, path: Path, layouts: Mapping[str, Layout] = LAYOUTS) -> Self:
        """Map an existing journal of one of these layouts for reading; raises RecordingError where it is none."""
        try:
            with opened(path) as file:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, PermissionError, ValueError) as error:
            raise RecordingError(f"{path}: cannot be read ({error}); it may have been removed") from error
        try:
            magic, kind, size, capacity = _IDENTITY.unpack_from(buffer, 0)
            layout = layouts[kind.rstrip(b"\0").decode()]
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise RecordingError(f"{path}: is no loadsim journal") from error
        whole = HEADER_BYTES + capacity * size <= len(buffer)
        if magic != MAGIC or size != layout.size or not whole:
            raise RecordingError(f"{path}: is damaged, or of another version of loadsim")
        journal = cls(buffer, layout, capacity)
        if (used := journal.used) > capacity:
            journal.close()
            raise RecordingError(f"{path}: is damaged ({used:,} records are said to be in {capacity:,} slots)")
        return journal

    @classmethod
    def give_back(cls, path: Path) -> None:
        """Cut the file of a journal that nobody writes any more to what is used: its reserve is for others now."""
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
        """Number of records that found no space and were only counted."""
        return self.counters[_LOST]

    def take(self) -> int:
        """Take the next slot and return its byte offset in `buffer`; -1, and one more lost, when all are used."""
        slot = self.counters[_USED]
        if slot >= self.capacity:
            self.counters[_LOST] += 1
            return -1
        self.counters[_USED] = slot + 1
        return HEADER_BYTES + slot * self.layout.size

    def take_many(self, count: int) -> list[int]:
        """Take the next slots and return their byte offsets as `take` does; one call for a whole batch of records."""
        used, size = self.counters[_USED], self.layout.size
        granted = min(count, self.capacity - used)
        self.counters[_USED] = used + granted
        self.counters[_LOST] += count - granted
        first = HEADER_BYTES + used * size
        return [*range(first, first + granted * size, size), *([-1] * (count - granted))]

    def append(self, *values: object) -> int:
        """Write one whole record and return its byte offset, -1 when the space is used up."""
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
        with contextlib.suppress(BufferError):  # a reader still holds an array over it: its own end unmaps
            self.buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _map(fd: int, size: int) -> mmap.mmap:
    """Map a file shared and writable, without the duplicate of its descriptor that `mmap.mmap(fd, size)` keeps.

    The file is mapped over the memory of an anonymous map. From Python 3.13 on, `trackfd=False` would do.
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
