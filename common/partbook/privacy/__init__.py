"""Differential privacy for each recording (PROTOCOL §3).

`gaussian`     exact discrete Gaussian noise, in integers, from the system's generator
`sampling`     which recordings a round draws
`mechanism`    clipped updates on the integer grid, and a member's noisy contribution
`events`       what happened: the noisy sums that were released
`accounting`   what it cost: ε of events; calibration of σ
`planning`     the σ, batch and rounds that an ε leaves a federation to choose from (`picture` draws it)
`cli`          `partbook privacy …`
"""
