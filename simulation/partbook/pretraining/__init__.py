"""Making the base model: which public music it reads, as what windows, by which recipe.

`pieces`     public works on the grid, as written and as heard, kept in one file each
`merges`     the tokeniser, learnt from excerpts of them
`mixture`    the training's windows
`measuring`  nats a note on works that are not learnt from
`making`     the long run, from works to a state that goes on
`watching`   curves, held-out works and sampled pieces while it goes
`exporting`  a state's averaged weights as a base with its manifest
`account`    what a base was made of, and the model card that says so
`cli`        `partbook base`
"""
