"""The bridge with group commit taken away: each operation is a commit of its own."""

from __future__ import annotations

import sys

from bridge.cli.main import main
from bridge.ledger import writer

writer.MAX_BATCH = 1  # type: ignore[misc]  # what is measured is the lack of it
sys.exit(main())
