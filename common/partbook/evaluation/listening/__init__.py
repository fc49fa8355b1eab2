"""A blind listening test: two folders become one offline page for listeners and a key for the researcher.

`trials` lays out which clip is heard when and holds the key; `clips` makes files sound alike in all but their music,
and `scores` plays those that are scores; `page` writes the page; `kit` puts a kit together; `answers` reads what
listeners send; `statistics` holds the exact tests and agreement, and `scoring` says what came out.
"""
