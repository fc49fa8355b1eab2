"""Secure aggregation: the sum of many members' vectors, and nothing else about any of them.

`rings`         the integers modulo 2^32 and modulo t, and masks added to them in place
`shares`        a secret split so that any `threshold` of its shares give it back, and fewer say nothing
`graph`         who masks with whom and holds whose shares: everybody up to 100 members, k neighbours above
`grid`          real numbers ↔ whole numbers on a public grid, rounded without bias
`session`       what is fixed for one run of the protocol
`messages`      what the parties say to each other
`node`          a member's side of the protocol
`coordinator`   the side that relays and adds

Bonawitz et al. 2017 (CCS) for cohorts of up to 100, Bell et al. 2020 (CCS) above. Nothing in here reads a
file, a clock or the network.
"""
