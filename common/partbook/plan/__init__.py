"""What a round is: the plan every party hashes, the federation's configuration, and the messages on the wire.

`rounds`       RoundPlan, and the secure aggregation it defines
`exchanges`    what is signed around the sum: plan, opening, model, release
`step`         from the sum to the next adapter
`federation`   the coordinator's configuration file
`wire`         the only messages there are, and their exact contents
`transport`    the seam between the round loop and whatever carries messages
"""
