"""Attacks on a federation, each by the strongest adversary a claim is made against, and what they found.

results      what every attack hands to the report
canaries     short random recordings, and rounds in which each is in or out by a coin
bounds       lower bounds on ε from guesses: the binomial one, and the one for Gaussian noise
one_run      from the sums: which canaries were in?
membership   from the released model alone: was this recording trained on?
matching     which tokens have the gradient that was seen?
inversion    from one label's update: which notes were played?
copying      does the released model recite what it was trained on?
drawing      the frame of the pictures
report       report.html, audit.json
cli          `partbook audit`
"""
