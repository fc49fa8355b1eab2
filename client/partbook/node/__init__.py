"""The process that runs at a label.

`cli`     `partbook node …`: ingest recordings, look at the vault, its budget and its policy (`budget_cli`)
`label`   the label in a round: checks the plan, trains, adds its update to a sum that nobody reads
`keeping`, `shared_model`  what it keeps between exchanges, encrypted, and the model of sealed rounds
`opened_sum`  chunks of an opened sum, until all are there
`rosters` what earlier rosters still count for; `handing`: a model handed to another label, by `handing_cli`
`policy`  what the label allows, and which plans it therefore refuses
`ledger`  what every recording has lost of its privacy (`debits` says who pays, `chain` keeps the rows)
`budget`, `withdrawal`     what is left of it, for people; taking a recording out for good
`app`, `answering`         the label as a Flower ClientApp
`pinned`, `fleet`, `contract`  the process of weeks, its connection to the coordinator, what it relies on of Flower's
`settings`, `timing`       its file `node.toml`; how long it waits for the coordinator
`holding`, `earlier`       one process to a state folder; the last word of a killed one
`pausing`, `leaving`, `running_cli`  stopping for a while, and for good; `doctor` looks at it all
"""
