"""What SIGINT, SIGTERM and SIGHUP mean at each moment of a run.

While everybody gets ready the first one ends the run and leaves nothing behind. Under load it lets the clients in
flight end, lets those go who would have stayed until a later step, and one more quits at once.
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
    """A signal ended something before it could be summarised; the exit status is that of the signal."""

    def __init__(self, number: signal.Signals, says: str) -> None:
        super().__init__(says)
        self.signal = number
        self.exit_code = 128 + number


class NotBegunError(QuitError):
    """A signal ended a run before its first client: nothing was recorded."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number, "interrupted before the first client; nothing was recorded")


class Interruption:
    """What ended a run early: the first signal or `abort` threshold."""

    def __init__(self) -> None:
        self.reason: str | None = None  # as the result tells it
        self.signal: signal.Signals | None = None  # the first one
        self.folder: Path | None = None  # of the result, once there is one
        self.stopped = trio.Event()  # the load was stopped early
        self._drivers: Sequence[Driver] | None = None

    def begin(self, drivers: Sequence[Driver]) -> None:
        """From now on there is something to record: a first signal stops the load alone."""
        self._drivers = drivers

    async def stop_load(self, reason: str) -> None:
        """Let no client start any more, and say why."""
        self.reason = reason
        for driver in self._drivers or ():
            await driver.stop()
        self.stopped.set()  # then those who stay are let go: nobody may come after that

    @asynccontextmanager
    async def heeding(self) -> AsyncIterator[None]:
        """Take the signals for the block, in which a run is made.

        Where one ends it at once: raises NotBegunError, nothing is left, or QuitError, and the journals hold what there
        is.
        """
        whole, last = False, signal.SIGINT
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with background() as nursery:

                async def heed() -> None:
                    nonlocal last
                    async for number in signals:
                        last = signal.Signals(number)
                        if self.signal is not None or self._drivers is None:
                            break
                        self.signal = last
                        await self.stop_load(last.name)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(heed)
                yield
                whole = True
        if not whole:
            raise self._quitting(last)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say of whatever breaks a run why, and where that is what it has recorded by then.

        Raises EnvironmentRefusedError where the kernel refused loadsim itself something, or somebody took away what it
        wrote; QuitError where Ctrl-C comes while the result is saved; any other error as it is.
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
            raise EnvironmentRefusedError(f"{error}\nso the run is not whole; {self._kept()}") from raised

    def _kept(self) -> str:
        if self.folder is None or not (self.folder / RESULT_MARK).exists():
            return "nothing of it is left"
        return f"what was recorded is in {self.folder}: loadsim report {self.folder}"

    def _quitting(self, number: signal.Signals) -> QuitError:
        if self._drivers is not None:
            return QuitError(number, f"quit; {self._kept()}")
        if self.folder is not None:
            discard(self.folder)
        return NotBegunError(number)
