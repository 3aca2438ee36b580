"""The errors that loadsim raises on purpose, and the exit code that each one means.

Every message names the place and ends with the remedy. What goes wrong in the thing under test is data, never an
exception.
"""

from __future__ import annotations


class LoadsimError(Exception):
    """Anything that loadsim can explain; `exit_code` is what the command line returns for it."""

    exit_code = 1


class ScenarioError(LoadsimError):
    """The command line or the scenario is wrong; nothing was started."""

    exit_code = 2


class EnvironmentRefusedError(LoadsimError):
    """This host or the target cannot run it: a limit, a sysctl, a namespace, a port, a server that did not start."""

    exit_code = 3


class DidNotStartError(EnvironmentRefusedError):
    """The command under test was started, and did not come to listen, or to stay: about it, not about this host."""


class RecordingError(LoadsimError):
    """A result folder cannot be read: it is missing, damaged or of a newer format."""

    exit_code = 2


def innermost(error: BaseException) -> BaseException:
    """Return the one error in a group of groups; trio's nurseries wrap what is raised in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
