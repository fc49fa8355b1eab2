"""Is it music, and whose? Measures of pieces and of sets of pieces, and people's ears.

A piece is read once (`reading`) and measured (`measures`: texture, rhythm, tonality, repetition, phrasing). Sets of
pieces are held against human works (`comparison`: `two_sample`, `overlap`, `ngrams`, `originality`, `styles`), by
their sound (`clips`, `musicnn`, `frechet`, `inception`) and by listeners (`listening`). `results` is what an evaluation
found, `table` and `page` show it, `brief` is its short form. Everything here is deterministic given its seed.
"""
