"""What SIGINT, SIGTERM and SIGHUP do in each phase of a run.

Before the load, the first signal ends the run and removes its folder. Under load, it lets the clients in flight end and
releases the clients that wait for a later step; a second signal quits at once.
"""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from loadsim.errors import EnvironmentRefusedError, LoadsimError, RecordingError, explanation
from loadsim.process.tree import background
from loadsim.record.folder import RESULT_MARK, discard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from loadsim.run.setup import Driver

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class QuitError(LoadsimError):
    """A signal ended a command before its summary; the exit status is that of the signal."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.signal = number
        self.exit_code = 128 + number


class NotBegunError(QuitError):
    """A signal ended a run before its first client, and nothing was recorded."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number, "interrupted before the first client; nothing was recorded")


class Interruption:
    """The early end of a run, by the first signal or an `abort` threshold."""

    def __init__(self) -> None:
        self.reason: str | None = None  # for the result
        self.signal: signal.Signals | None = None  # the first one
        self.folder: Path | None = None  # of the result; None: not made yet
        self.stopped = trio.Event()  # the load was stopped early
        self._drivers: Sequence[Driver] | None = None

    def begin(self, drivers: Sequence[Driver]) -> None:
        """Begin to record: from now on a first signal only stops the load."""
        self._drivers = drivers

    async def stop_load(self, reason: str) -> None:
        """Start no further clients, for this reason."""
        self.reason = reason
        for driver in self._drivers or ():
            await driver.stop()
        self.stopped.set()  # only now: released clients must not start again

    @asynccontextmanager
    async def handling_signals(self) -> AsyncIterator[None]:
        """Handle the signals during the block, which makes a run.

        If a signal ends it at once, raises NotBegunError, without a folder, or QuitError, with the journals so far.
        """
        finished, last = False, signal.SIGINT
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with background() as nursery:

                async def handle() -> None:
                    nonlocal last
                    async for number in signals:
                        last = signal.Signals(number)
                        if self.signal is not None or self._drivers is None:
                            break
                        self.signal = last
                        await self.stop_load(last.name)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(handle)
                yield
                finished = True
        if not finished:
            raise self._quitting(last)

    @contextmanager
    def explaining_errors(self) -> Iterator[None]:
        """Add to an error of the block where the records so far are.

        Raises EnvironmentRefusedError if the kernel refused a resource to loadsim or its files were removed, QuitError
        for Ctrl-C while the result is saved; other errors pass unchanged.
        """
        try:
            yield
        except QuitError:
            raise
        except KeyboardInterrupt:
            raise QuitError(signal.SIGINT, f"quit; {self._kept()}") from None
        except Exception as raised:
            error = explanation(raised)
            if error is None:
                raise
            if self._drivers is None and not isinstance(error, RecordingError):
                raise error from raised
            raise EnvironmentRefusedError(f"{error}\nThe run is incomplete; {self._kept()}") from raised

    def _kept(self) -> str:
        if self.folder is None or not (self.folder / RESULT_MARK).exists():
            return "no records are left"
        return f"the records so far are in {self.folder}: loadsim report {self.folder}"

    def _quitting(self, number: signal.Signals) -> QuitError:
        if self._drivers is not None:
            return QuitError(number, f"quit; {self._kept()}")
        if self.folder is not None:
            discard(self.folder)
        return NotBegunError(number)
