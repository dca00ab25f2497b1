"""The files of kd that a command crosses: those of which a function runs (imports alone do not count).

    python benchmarks/files_crossed.py predict --student runs/demo/student --input texts.txt

It exits with 0 whatever the command does; both are printed to stderr.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

from kdcli.cli import run

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(f"{ROOT / name}/" for name in ("kdcli", "plugins"))


def main() -> None:
    crossed: set[str] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGES) and code.co_name != "<module>":
            crossed.add(code.co_filename)

    threading.setprofile(look)
    sys.setprofile(look)
    code = run(sys.argv[1:])
    sys.setprofile(None)
    print("\n".join(sorted(str(Path(file).relative_to(ROOT)) for file in crossed)), file=sys.stderr)
    print(f"{len(crossed)} files, exit code {code}", file=sys.stderr)


if __name__ == "__main__":
    main()
