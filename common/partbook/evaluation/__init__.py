"""Is it music, and whose? Measures of pieces and of sets of pieces, each of which a set of random notes fails.

A piece is read once (`reading`) and measured (`measures`: texture, rhythm, tonality, repetition, phrasing); sets of
pieces are compared with human works (`sets`, `two_sample`, `ngrams`, `originality`, `frechet`); `page` and `table`
show the result. Everything here is deterministic given its seed.
"""
