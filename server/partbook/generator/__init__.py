"""Releases and the generator that serves them.

`release`    a trained generator as a signed folder
`prompts`    what a piece may start from: a MIDI file to go on with, a sound to have heard
`composing`  tokens → bars → a piece
`pieces`     a piece on disk: MIDI, WAV, and where both came from
`service`    the gRPC service of `v1/generator.proto`; `serving` runs it
`remote`     the same pieces, from somebody else's server
`cli`        `partbook release`, `partbook serve`, `partbook generate`
"""
