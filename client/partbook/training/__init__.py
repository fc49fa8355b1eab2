"""Training on this machine: the public base model, and a label's share of a round.

`pretraining`   the base model, on public music
`examples`      a label's recordings as windows
`adaptation`    one label alone: an adapter for itself, with early stopping
`local`         a label's update without noise: a few steps on its own recordings, clipped
`per_recording` one clipped update for each recording, and DP-SGD made of them
`replica`       what computes them on one device, and adds them up as integers
`spread`        several devices: a process each, one sum
`devices`       which devices there are, and how much of them is ours
`clipping`      vectors made no longer than a bound
"""
