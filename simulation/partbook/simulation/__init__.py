"""Whole federations on one machine, from public-domain scores to a report.

`collections`   public-domain scores, and which work serves which purpose
`performance`   a score as a person might play it
`labels`        scores become recordings: audio files and nothing else
`base`          the public base model, and the one command that makes it
`grid`          Flower's Grid inside one process
`federation`    a ServerApp and its ClientApps on that grid
`ray_engine`    the same apps on Flower's simulation engine, past one machine
`drops`         members that fall away on purpose
`parties`       keys and roster of a simulated federation
`noise`         from the ε a person asks for to σ, a public batch, and policies that hold a run to it
`demo`          the main job, from recordings to a report; `demo_rounds` is its rounds, with noise and without
`trial`         a researcher's federation, out of vaults that are there; `trial_table` shows it
`processes`     a federation as real ones run it: every party a process, on this machine
`reference`     the same rounds in one process, to be compared
`demo_processes` the demo of that, from vaults to a release; `_view` shows it, `_cli` is its command
`demo_vaults`   the demo's labels, with their vaults filled
`three_pieces`  what the demo has its generator write
`control`       music of no label, which tells change of hand from style
`scoring`       the held-out loss after every round, also of sealed ones
`results`       what a run comes to, in figures
`report`        what a run came to, as values
`report_page`   the same as a page, with its sections and its style in `report_*` and `exchange_figure`
`audit`         attacks on a federation, held against its claim
`diagram`       the picture of a federation
`pictures`      piano rolls and loss curves; `roll` draws a MIDI file
`palette`       the colours they share
`watching`      how far a run is, for a person
`cli`           `partbook demo`, `partbook simulate`, `partbook base`
"""
