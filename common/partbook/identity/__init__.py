"""Who signed what: the ECDSA P-256 identity key of every party, and its public half."""
