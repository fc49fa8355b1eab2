"""What the generator is held against: simpler models of the same public music, and noise that only looks like it.

`language_model`  the seam: nats of a piece's tokens, pieces from seeds; the transformer behind it
`writing`         many pieces side by side: draws, bar lines, sliding windows
`kneser_ney`      n-grams, smoothed
`lstm`            a recurrent language model of the base's size
`vae`             a sequence autoencoder of the base's size, after MusicVAE
`noise`           random notes, shuffled bars
`token_corpus`    public works as tokens, in several keys
`training`        one command a model: resumable, with a manifest
`scoring`         nats a note and a token on held-out works, with intervals
`cli`             `partbook baseline`
"""
