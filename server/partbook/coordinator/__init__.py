"""The coordinator: proposes rounds, adds updates up, moves the global adapter, keeps every state on disk.

`rounds`       the loop, which reads as the algorithm
`attempt`      one attempt at a round's sum, exchange by exchange
`totals`       what contributions are added up in
`sealed`       what follows a sealed sum: opening, stepping, releasing
`checkpoints`  states on disk, and resuming
`validation`   public held-out recordings, scored after each round
`grid`         the Transport over any Flower Grid
`app`          the Flower ServerApp
"""
