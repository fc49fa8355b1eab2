"""The coordinator: proposes rounds, adds updates up, moves the global adapter, keeps every state on disk.

`rounds`       the loop, which reads as the algorithm
`attempt`      one attempt at a round's sum, exchange by exchange
`totals`       what contributions are added up in; `shelf`: where they lie, since memory has no room for them
`sealed`       what follows a sealed sum: opening, stepping, releasing; `laggards`: whom a kept sum can help
`checkpoints`  states on disk, and resuming
`validation`   public held-out recordings, scored after each round
`grid`         the Transport over any Flower Grid
`app`          the Flower ServerApp

Its processes:

`home`         the folder with everything, and `settings`, its server.toml; `timing`: how long it waits for what
`starting`     `coordinator start`: what is kept up, by `supervisor`; `superlink` says how Flower's are called
`serverapp`    the process that `app` runs in
`running`      `coordinator run`: submit, follow, go on; over `control`, Flower's Control API
`failure`      what ended a run, on its way from `app` to `running`
`releasing`    a signed release out of HOME
`checking`     what can be wrong with HOME
`showing`      what the operator sees; `cli`, what the operator types
`locks`        one process at a time; `disk`: files replaced whole
"""
