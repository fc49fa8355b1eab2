"""The process that runs at a label.

`cli`     `partbook node …`: ingest recordings, look at the vault
`label`   the label in a round: checks the plan, trains, hands over one clipped update
`app`     the label as a Flower ClientApp
"""
