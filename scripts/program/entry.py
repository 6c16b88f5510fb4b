"""Where the program without Python begins: it is the command, and the Python that the command starts.

Must stay small: it runs at each start. Made into a program by `bridge.spec`.
"""

import os
import sys

# The bootloader's variables are for this process alone: a key command must find its own libraries.
for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
    os.environ.pop(name, None)
    if (before := os.environ.pop(f"{name}_ORIG", None)) is not None:
        os.environ[name] = before
for name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[name]

# `sys.executable` is this program: what the command would have Python do arrives here.
if sys.argv[1:3] == ["-m", "bridge"]:
    del sys.argv[1:3]

from bridge.cli.main import run  # noqa: E402  # nothing of the bridge may see those variables

run()
