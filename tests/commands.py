"""The commands of ``kd``, for the tests of all of them."""

import os
import subprocess
import sys

from kdcli.cli import Commands


def all_commands(group):
    """Go through all commands, each with its path; this imports them all."""
    for name in group.commands:
        command = group.load(name)
        if isinstance(command, Commands):
            yield from (((name, *path), inner) for path, inner in all_commands(command))
        else:
            yield (name,), command


def imported(names, *arguments, input="", **environ):
    """Run ``kd`` in a process; return which of these modules it imports: they decide how soon it starts; its stdout."""
    code = f"""
import sys
sys.argv = ["kd", *sys.argv[1:]]
from kdcli.cli import main
try:
    main()
finally:
    print("imported", *[name for name in {names} if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, **environ}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, input=input)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split()[1:]), done.stdout
