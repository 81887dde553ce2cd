"""The verifier half of remote attestation: challenge, quote, logs, policy, verdict, evidence. Never talks to a TPM.

Read in this order: `credential` and `enrolment` (is this key in that TPM?), `quote` (did that TPM sign these PCR
values for my nonce?), `logs` (what was measured to get there?), `policy` and `appraisal` (is that what we want?),
`evidence` (how somebody else can check the verdict later).
"""
