"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# A deadline measures the machine and not the code.
settings.register_profile("loadsim", deadline=None)
settings.load_profile("loadsim")
