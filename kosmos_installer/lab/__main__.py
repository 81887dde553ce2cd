"""`python -m kosmos_installer.lab VERB`: the same as `kosmos-install lab VERB`."""

from __future__ import annotations

import sys

from kosmos_installer.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", *sys.argv[1:]]))
