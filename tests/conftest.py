"""What every test gets: an environment without the settings of whoever runs them, and plugins made on the spot."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from notes import Notes

from kdcli import registry

# A busy machine is no error; half of the usual examples find the same faults here.
settings.register_profile("kd", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kd")

CHANGED_BY_FLAGS = ("NO_COLOR", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "KD_CODE")

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


@pytest.fixture(autouse=True, scope="module")
def collect_the_garbage_of_this_module_alone():
    """Keep collections from going through all that the libraries have made, which took half of some tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("KD_")]:
        monkeypatch.delenv(name)
    for name in (*CHANGED_BY_FLAGS, "FORCE_COLOR", "RANK", "WORLD_SIZE", "COLUMNS"):
        monkeypatch.setenv(name, "")  # set first, so that what a command puts there is undone
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def forget_plugins():
    before = set(sys.modules)
    yield
    registry.used.clear()  # a cluster is asked for these
    ray = sys.modules.get("ray")
    assert not (ray and ray.is_initialized()), "a cluster is left behind"
    for name in set(sys.modules) - before:
        if name.startswith("kd_") and not str(getattr(sys.modules[name], "__file__", "")).startswith(str(PLUGINS)):
            del sys.modules[name]


@pytest.fixture
def notes():
    """Give a reporter that remembers what it is told."""
    return Notes()


@pytest.fixture
def make_plugin(tmp_path, monkeypatch):
    """Install a distribution that consists of one module and its entry points."""

    def make(distribution, entry_points, code="", *, module="", version="1.0"):
        site = tmp_path / f"site-{distribution}-{version}"
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        if module:
            (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        return site

    return make
