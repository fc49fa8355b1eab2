"""The seal: sums that whoever adds them up cannot read, and only the custodian opens (PROTOCOL.md, section 2).

`parameters` holds the one parameter set and the keys, `packing` puts several values into a slot, `blocks` seals,
adds and opens chunks of slots, and `pool` does so in several processes.
"""
