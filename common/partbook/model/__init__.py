"""The generator: a mel encoder and a token decoder, its adapters, its checkpoints, and writing with it.

`config`       sizes (`SMALL` for two cores, `FULL` for a GPU)
`layers`       attention with a key–value cache, rotary positions, the mel encoder
`transformer`  the whole model
`adapter`      the few parameters a federation trains: LoRA with frozen A, and norms
`checkpoint`   base models on disk, the shipped one among them
`likelihood`   negative log-likelihood on windows of recordings
`generation`   sampling, with the cache, beyond the context if asked
"""
