"""A whole federation on one machine: public-domain labels, the demo, and the report of what it did.

`collections`   the public-domain scores, and who may use which
`performance`   playing a score as a person might
`pictures`      piano rolls and loss curves
`diagram`       the drawing of the federation
`report`        what a run did, as data; `report_page` lays it out
"""
