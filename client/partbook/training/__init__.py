"""Training on this machine: the public base model, and a label's share of a round.

`run`           the base model, on public music: a long training that goes on where it was ended
`recipe`, `muon`           its learning rates and how long it is; its optimiser
`prefetch`, `saved_state`  its batches, made ahead; its state, kept whole
`pretraining`   the optimiser of small models: the baselines
`examples`      a label's recordings as windows
`adaptation`    one label alone: an adapter for itself, with early stopping
`local`         a label's update without noise: a few steps on its own recordings, clipped
`per_recording` one clipped update for each recording, and DP-SGD made of them
`replica`       what computes them on one device, and adds them up as integers
`spread`        several devices: a process each, one sum
`devices`       which devices there are, and how much of them is ours
`clipping`      vectors made no longer than a bound
"""
