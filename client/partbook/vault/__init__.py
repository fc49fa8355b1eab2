"""The label's store, and the way of a recording into it.

`transcription`   sound → notes (Basic Pitch's network)
`beats`           sound and notes → a grid of beats
`analysis`        one audio file → one `Recording`
`keys`            the master key in its file, and the keys derived from it
`disk`            what is written is there to stay
`store`           recordings, encrypted, with an index that does not tell what is inside
`ingest`          folders of audio → the store, in parallel, reporting each refusal
"""
