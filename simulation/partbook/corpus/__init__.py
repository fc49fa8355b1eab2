"""Public works to train on, to hold back and to measure by: their tune families, their pools, and how they sound.

`library` opens them, `dealing` says who may use which, `withheld` names the styles that no base may, `families` says
which works are one tune, `melody` is what that rests on, `joining` takes in folders of any MIDI, `rendition` says how a
work may be played, and `heard` plays it and lets a node's own ears write down what they hear.
"""
