"""The appliance's own certificate authorities: names, profiles, keys, issuing, revocation, escrow, backup.

Pure library: no service, no Ansible. X.509 as in RFC 5280, SPIFFE-ID and X509-SVID for agents.
"""
