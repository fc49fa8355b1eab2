"""Whole federations on one machine, from public-domain scores to a report.

`collections`   public-domain scores, and which work serves which purpose
`performance`   a score as a person might play it
`labels`        scores become recordings: audio files and nothing else
`base`          the public base model, and the one command that makes it
`grid`          Flower's Grid inside one process
`federation`    a ServerApp and its ClientApps on that grid
`demo`          the main job, from recordings to a report
`results`       what a run comes to, in figures
`report`        what a run came to, as values; `report_page`, `report_style`: as a page
`diagram`       the picture of a federation
`pictures`      piano rolls and loss curves
`palette`       the colours they share
`watching`      how far a run is, for a person
`cli`           `partbook demo`, `partbook base`
"""
