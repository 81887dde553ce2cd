"""The lab: a Debian 13 machine with UEFI, TPM 2.0 and three network cards, in a VM, on any Linux machine."""

from __future__ import annotations
