"""The custodian: holds the key that sealed sums open with, and opens only what the labels agreed on.

`opening`  the checks, the key, and what was opened before
`app`      the Flower ClientApp
"""
