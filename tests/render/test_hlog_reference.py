"""The histogram logs are read by the JavaScript port of HdrHistogram, which finds the same numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from file_samples import written

from loadsim.analysis.latency import accept_latencies, connect_latencies
from loadsim.record.recording import nearest_rank

READER = Path(__file__).parent.parent / "data" / "read-hlog.mjs"


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with hdr-histogram-js; the tests are skipped if it cannot be installed."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "hdr-histogram-js@3"]
    try:
        ran = subprocess.run(install, cwd=folder, check=False, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer within 90 s")
    if ran.returncode:
        pytest.skip(f"npm cannot install hdr-histogram-js: {(ran.stderr or ran.stdout).strip()[:200]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["connect", "accept"])
def test_the_reference_reader_finds_the_same_percentiles(modules: Path, tmp_path: Path, name: str) -> None:
    """The merged intervals have every latency, and their percentiles equal the records' to three digits."""
    data = written(tmp_path)
    latencies = {"connect": connect_latencies(data.recording.attempts), "accept": accept_latencies(data)}[name]
    ordered = np.sort(latencies.nanoseconds)
    command = ["node", str(READER), str(modules), str(tmp_path / f"{name}.hlog")]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(ran.stdout)

    assert found.pop("count") == len(ordered) == 500
    expected = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    for key, share in expected.items():
        assert found[key] == pytest.approx(nearest_rank(ordered, share), rel=1e-3), key
