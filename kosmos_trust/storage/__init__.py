"""Sealed data at rest: one LUKS2 volume opened by the TPM, and data keys for each agent inside it.

Read in this order: `disk` (what is on this device, and is it ours?), `luks` (slots, tokens, and the commands),
`volume` (the states of the volume, resumable after a power cut), `recovery` (the key that only the operator holds),
`units` and `move` (where the data lives afterwards), `datakeys` with `sealedfile` (keys for each agent), `shred`.
Runs on the host with Debian's Python and `cryptography`; needs no Ansible.
"""
