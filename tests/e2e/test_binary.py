"""The file of `make binary`, without the large libraries: its commands, kd's plugins, and one that is beside it.

The whole file takes minutes to build: here shiv packs the packages that `kd plugins` imports, with the flags of
the Makefile.
"""

import json
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from kdcli.export.binary import _copy_libraries

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LISTED = """
import json
import sys
before = set(sys.modules)
from kdcli.cli import run
run(["plugins", "list", "--json"])
run(["plugins", "show", "pattern", "--json"])
added = {name.partition(".")[0] for name in set(sys.modules) - before} & set(sys.modules)
json.dump({name: getattr(sys.modules[name], "__file__", None) for name in added}, sys.stderr)
"""


def test_one_file_finds_plugins_inside_and_beside_it(tmp_path):
    kd = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, check=True)
    found, _ = json.JSONDecoder().raw_decode(kd.stdout)
    ours = {plugin["full_name"] for plugin in found["plugins"] if plugin["distribution"] == "kdcli"}
    (tmp_path / "site").mkdir()
    _copy_libraries(json.loads(kd.stderr), "kdcli", tmp_path / "site")
    command = re.search(r"bin/(shiv .*?--extend-pythonpath)", (ROOT / "Makefile").read_text("utf-8"))[1]
    _, *flags = shlex.split(command.replace("build/binary/site", str(tmp_path / "site")))
    shiv = sys.executable, "-m", "shiv", *flags, "--output-file", str(tmp_path / "kd")
    subprocess.run(shiv, check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=False)
    (beside,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (beside / "kd_beside.py").write_text("api_version = 2\ndef tag(texts): return [list(text) for text in texts]\n")
    (beside / "kd_beside-1.dist-info").mkdir()
    (beside / "kd_beside-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: kd-beside\nVersion: 1\n")
    (beside / "kd_beside-1.dist-info" / "entry_points.txt").write_text("[kdcli.taggers]\nbeside = kd_beside\n")
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere", "SHIV_ROOT": str(tmp_path / "unpacked")}

    def call(*arguments):
        command = tmp_path / "venv" / "bin" / "python", tmp_path / "kd", *arguments
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    listed = call("plugins", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {plugin["full_name"] for plugin in json.loads(listed.stdout)["plugins"]} == {*ours, "kd-beside:beside"}
    shown = call("plugins", "show", "beside")
    assert shown.returncode == 0 and "kd-beside" in shown.stdout
    assert call("plugins", "show", "nothing").returncode == 5
