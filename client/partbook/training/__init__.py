"""Training on this machine: the public base model, and a label's share of a round.

`pretraining`   the base model, on public music
`local`         a label's update: a few steps on its own recordings, clipped
"""
