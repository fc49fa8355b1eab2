"""The coordinator: proposes rounds, adds updates up, moves the global adapter, keeps every state on disk.

`rounds`       the loop, which reads as the algorithm
`aggregation`  the sum and the server's step
`checkpoints`  states on disk, and resuming
`validation`   public held-out recordings, scored after each round
`grid`         the Transport over any Flower Grid
`app`          the Flower ServerApp
"""
