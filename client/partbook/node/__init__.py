"""The process that runs at a label.

`cli`   `partbook node …`: ingest recordings, look at the vault
"""
