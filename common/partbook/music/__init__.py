"""Music as data: notes in seconds, scores in ticks, tokens, mel windows, recordings and sound.

`notes`       performed notes, in seconds
`vocabulary`  the symbols that music is written in; `quantised`: scores on its grid; `grammar`: which may come next
`tokens`      scores ↔ token ids, with the bar structure kept
`mel`         log-mel spectrograms in the federation's one format
`recording`   what is kept of one recording: notes, tokens, bar times, mel
`windows`     fixed-size training examples cut from a recording
`decode`      audio files → samples
`rendering`   scores → sound, through a SoundFont
`mastering`   a room, an equaliser, a level
`metrics`     figures that tell music from noise
"""
