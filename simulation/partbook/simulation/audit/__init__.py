"""Attacks on a federation, each by the strongest adversary a claim is made against, and what they found.

results      what every attack hands to the report
canaries     short random recordings, and rounds in which each is in or out by a coin
one_run      lower bounds on ε from one run's guesses: the binomial bound, and the one for Gaussian noise
membership   from the released model alone: was this recording trained on?
matching     which tokens have the gradient that was seen?
inversion    from one label's update: which notes were played?
copying      does the released model recite what it was trained on?
report       report.html, audit.json
cli          `partbook audit`
"""
