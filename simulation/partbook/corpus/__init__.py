"""Public works to train on, to hold back and to measure by: their tune families, their pools, and how they sound.

`library` opens them, `families` says which are one tune, `melody` is what that rests on, and `heard` plays them and
lets a node's own ears write down what they hear.
"""
