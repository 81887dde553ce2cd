"""Certificates of agents: attested, renewed in time, installed so that the last working pair is never lost.

Ansible, a systemd timer and a person call the same `Enroller`.
"""
