"""Checks as data: definitions, probes, matchers and the engine that joins them (standard library only)."""
