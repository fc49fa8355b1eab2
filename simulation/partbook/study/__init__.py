"""Evaluations from end to end: whose pieces, held against whose works, and what came of it.

`human`     the works that everything is held against, and others of the same kind
`subjects`  what can be evaluated: models that write pieces, folders, noises, human works
`surprise`  how surprised a model is by held-out works
`sound`     how a set sounds to the embedder
`study`     one evaluation, from names to results
`cli`       `partbook evaluate`

Its short form, for the demo's report and a release, is `partbook.evaluation.brief`.
"""
