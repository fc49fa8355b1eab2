"""The process that runs at a label.

`cli`     `partbook node …`: ingest recordings, look at the vault
`label`   the label in a round: checks the plan, trains, adds its update to a sum that nobody reads
`keeping`, `shared_model`  what it keeps between exchanges, encrypted, and the model of sealed rounds
`app`, `answering`         the label as a Flower ClientApp
"""
