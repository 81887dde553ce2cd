"""The live host: packages, identity, running state, journal sealing. Standard library only: it runs on the target."""
