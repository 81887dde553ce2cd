"""Trust library: TPM, event log, and later quotes, PKI, rotation and ledger. No Ansible, no service."""
