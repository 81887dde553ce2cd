"""The measured boot of one host: build an image, prove that it can unlock, publish it, fall back, rotate its keys.

Read in this order: `pe` and `prediction` (what the TPM will have seen), `pcrsig` and `signing` (who signs it), `token`
(which keys open the volumes), `gate` (may this image become the default?), `esp` (where images lie), `update` and
`rotate`.
Runs on the host with Debian's Python and `cryptography`; needs no Ansible.
"""
