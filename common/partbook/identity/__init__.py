"""Who is who: every party's identity and receiving keys, and the roster that all of them signed."""
