"""`python -m kosmos_installer` is `kosmos-install`."""

from __future__ import annotations

import sys

from kosmos_installer.cli import main

sys.exit(main())
