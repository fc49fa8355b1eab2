"""Claims, each measured by one command against a peer or a limit in the same run; see `docs/figures.md`."""
