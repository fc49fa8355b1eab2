"""The style sheet of `report.html`: system fonts, one column on a phone, no controls on paper."""

from __future__ import annotations

from typing import Final

from partbook.simulation.diagram import SANS, SERIF
from partbook.simulation.palette import ACCENT, CARD, INK, PAPER, RULE, SOFT_INK

STYLE: Final = f"""
:root {{ color-scheme: light; --ink:{INK}; --soft:{SOFT_INK}; --rule:{RULE}; --paper:{PAPER}; --card:{CARD}; --accent:{ACCENT} }}
* {{ box-sizing: border-box }}
html {{ -webkit-text-size-adjust: 100% }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 {SANS} }}
main, header, footer {{ max-width: 1120px; margin: 0 auto; padding: 0 28px }}
header {{ padding-top: 56px }}
.mark {{ font: italic 17px {SERIF}; color: var(--accent); letter-spacing: .02em }}
h1 {{ font: 700 clamp(30px, 5vw, 46px)/1.15 {SERIF}; margin: 6px 0 10px; text-wrap: balance }}
h2 {{ font: 700 27px/1.25 {SERIF}; margin: 64px 0 8px; padding-top: 18px; border-top: 3px solid var(--ink) }}
h3 {{ font: 700 20px/1.3 {SERIF}; margin: 0 0 6px }}
p {{ max-width: 72ch; margin: 0 0 14px }}
.lead {{ font-size: 19px; line-height: 1.55 }}
.meta, .note, figcaption {{ color: var(--soft); font-size: 14.5px }}
.facts {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; margin: 26px 0 34px; padding: 0 }}
.facts div {{ background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 18px }}
.facts dt {{ color: var(--soft); font-size: 14px; line-height: 1.35 }}
.facts dd {{ margin: 0 0 2px; font: 700 28px/1.2 {SERIF} }}
.drawing svg {{ display: block; width: 100%; height: auto }}
.drawing .tall {{ display: none }}
.card {{ background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 22px 24px; margin: 18px 0 }}
.card audio {{ width: 100%; display: block; margin: 10px 0 14px }}
.card img {{ width: 100%; height: auto; display: block; border-radius: 6px }}
.scroll {{ overflow-x: auto; margin: 14px 0 8px }}
table {{ border-collapse: collapse; width: 100%; background: var(--card); font-size: 15px; line-height: 1.4 }}
caption {{ text-align: left; color: var(--soft); font-size: 14.5px; padding: 0 0 8px }}
th, td {{ padding: 9px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) }}
thead th {{ font-size: 13.5px; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--ink); vertical-align: bottom }}
tbody th {{ font-weight: 600 }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
td.n {{ white-space: nowrap }}
.figures th:first-child {{ min-width: 13em }}
tr.total > * {{ border-bottom: 0; border-top: 2px solid var(--ink); font-weight: 700 }}
.dot {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 16px; margin: 18px 0 8px }}
.panels figure, .locks .card {{ margin: 0 }}
.panels figure {{ background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 14px 8px }}
.panels svg {{ width: 100%; height: auto; display: block }}
.panels figcaption {{ color: var(--ink); font-weight: 600 }}
.locks {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 16px; margin: 18px 0 }}
.locks dl {{ margin: 0 }} .locks dt {{ font-weight: 700; font-size: 14.5px; margin-top: 10px }}
.locks dd {{ margin: 0; font-size: 15px; line-height: 1.5 }}
.costs {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; margin: 18px 0 8px }}
.costs figure {{ margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 14px 8px }}
.costs svg {{ width: 100%; height: auto; display: block }} .costs figcaption {{ color: var(--ink); font-weight: 600 }}
.keys {{ margin-bottom: 4px }} .keys span {{ margin-right: 1.4em; white-space: nowrap }}
.state {{ display: inline-block; font-size: 13px; font-weight: 700; letter-spacing: .04em; padding: 2px 10px; border-radius: 99px; margin-bottom: 8px }}
.on {{ background: #DDEFE6; color: #07523B }}
.off {{ background: #F7E1DC; color: #7A1F2B }}
.better {{ color: #07613F; font-weight: 700 }}
.worse {{ color: #9B1C1C; font-weight: 700 }}
.bar {{ display: block; height: 12px; min-width: 2px; border-radius: 3px; background: var(--accent); opacity: .85 }}
code {{ font: 13.5px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }}
dl.model {{ display: grid; grid-template-columns: max-content 1fr; gap: 6px 22px; margin: 14px 0 }}
dl.model dt {{ color: var(--soft) }} dl.model dd {{ margin: 0 }}
.two {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px }}
ul {{ max-width: 74ch; padding-left: 1.2em }} li {{ margin-bottom: 6px }}
details summary {{ cursor: pointer; color: var(--accent); font-weight: 600 }}
a {{ color: var(--accent) }}
footer {{ padding: 40px 28px 60px; color: var(--soft); font-size: 14px }}
@media (max-width: 760px) {{
  main, header, footer {{ padding-left: 16px; padding-right: 16px }}
  header {{ padding-top: 32px }}
  .facts {{ grid-template-columns: 1fr 1fr }} .facts dd {{ font-size: 23px }}
  .locks, .two {{ grid-template-columns: 1fr }}
  .drawing .wide {{ display: none }} .drawing .tall {{ display: block }}
  .card {{ padding: 16px }} h2 {{ margin-top: 46px; font-size: 24px }}
  table {{ font-size: 13.5px }} th, td {{ padding: 7px 6px }} .figures th:first-child {{ min-width: 8em }}
  td.long {{ min-width: 17em }}
  .roll {{ overflow-x: auto }} .roll img {{ min-width: 640px }}
  dl.model {{ grid-template-columns: 1fr; gap: 0 }} dl.model dd {{ margin-bottom: 8px }}
}}
@media print {{
  body {{ background: #fff; font-size: 11pt }} .card, figure, tr, .facts div {{ break-inside: avoid }}
  h2 {{ break-after: avoid }} audio {{ display: none !important }} details > * {{ display: block }}
}}
"""  # noqa: E501  # a style sheet reads best one rule a line
