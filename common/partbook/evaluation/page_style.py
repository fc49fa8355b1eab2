"""The style sheet of `evaluation.html`: the report's look, in the light, in the dark and on paper."""

from __future__ import annotations

from typing import Final

COLOURS: Final = (
    "#0072B2", "#C75500", "#00805D", "#A8518A", "#946600", "#4B5563", "#6547B5", "#B3261E", "#4F7A1C",
)  # fmt: skip
"""After Okabe & Ito 2008, "Color universal design", darkened to a contrast of 4.5:1 on white, as in the demo's report;
and three more."""
_COLOURS_IN_THE_DARK: Final = (
    "#5DB4EA", "#F2995A", "#4FC8A3", "#DE94C6", "#D9B14A", "#AEB6C4", "#A994F0", "#F08A80", "#A9D06B",
)  # fmt: skip

SERIF: Final = "'Iowan Old Style','Palatino Linotype',Palatino,Georgia,serif"
SANS: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def _variables(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


STYLE: Final = f"""
:root {{
  color-scheme: light dark;
  --ink: #1D2433; --soft: #5B6475; --rule: #D9D3C7; --paper: #FBF8F2; --card: #FFFFFF; --accent: #7A1F2B;
  --band: #ECE6D9; --human: #A9A292; --out: #FBEBD9; --far: #F6D3B5; --outink: #8A3B00; --good: #07613F; --barline: #D8D0C0;
  {_variables(COLOURS)}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ink: #EFEAE0; --soft: #ADA79B; --rule: #423D36; --paper: #181613; --card: #23201C; --accent: #E79AA3;
    --band: #37322A; --human: #9B9384; --out: #3B2A1B; --far: #56351B; --outink: #F5B888; --good: #7FD6AE; --barline: #4B453B;
    {_variables(_COLOURS_IN_THE_DARK)}
  }}
}}
* {{ box-sizing: border-box }}
html {{ -webkit-text-size-adjust: 100% }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 {SANS} }}
main, header, footer {{ max-width: 1240px; margin: 0 auto; padding: 0 28px }}
header {{ padding-top: 48px }}
.mark {{ font: italic 17px {SERIF}; color: var(--accent); letter-spacing: .02em }}
h1 {{ font: 700 clamp(34px, 5vw, 50px)/1.12 {SERIF}; margin: 6px 0 12px; text-wrap: balance }}
h2 {{ font: 700 27px/1.25 {SERIF}; margin: 60px 0 8px; padding-top: 18px; border-top: 3px solid var(--ink) }}
h3 {{ font: 700 20px/1.3 {SERIF}; margin: 0 0 4px }}
p {{ max-width: 74ch; margin: 0 0 14px }}
.lead {{ font-size: 20px; line-height: 1.5; max-width: 62ch }}
.note, .meta, caption, figcaption {{ color: var(--soft); font-size: 14.5px }}
.card {{ background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 22px 24px; margin: 22px 0 }}
:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 2px }}
a {{ color: var(--accent) }}
code {{ font: 13.5px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }}
nav {{ display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 18px 0 0; font-weight: 600 }}
svg {{ display: block; width: 100%; height: auto }}
svg text {{ fill: var(--soft); font-family: {SANS} }}
.dot {{ display: inline-block; width: .72em; height: .72em; border-radius: 50%; background: var(--c); margin-right: .5em; flex: none }}
{" ".join(f".c{i} {{ --c: var(--c{i}) }}" for i in range(len(COLOURS)))}
.row {{ display: grid; grid-template-columns: minmax(150px, 230px) minmax(0, 1fr) 300px; gap: 0 24px; align-items: center; padding: 9px 0; border-bottom: 1px solid var(--rule) }}
.row:last-of-type {{ border-bottom: 0 }}
.row.axis {{ padding: 0; color: var(--soft); font-size: 13.5px; align-items: end }}
.who {{ display: flex; align-items: baseline; font-weight: 600; line-height: 1.3 }}
.who small {{ display: block; font-weight: 400; color: var(--soft); font-size: 13.5px }}
.says {{ font-size: 15px; line-height: 1.35 }}
.keys {{ display: flex; flex-wrap: wrap; gap: 2px 1.6em }} .keys svg {{ display: inline-block; width: 30px; height: 12px; vertical-align: -1px; margin-right: 6px }}
.answers {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; margin: 22px 0 }}
.answers .card {{ margin: 0 }}
.answers .verdict {{ font: 700 19px/1.3 {SERIF}; margin: 0 0 8px }}
.answers ul {{ margin: 0; padding: 0; list-style: none; font-size: 15px; line-height: 1.5 }} .answers li {{ margin: 0 0 8px }}
.answers h3 {{ font: 600 15px/1.4 {SANS}; margin: 0 0 2px; display: flex; align-items: baseline }}
.scroll {{ position: relative; overflow: auto; margin: 14px 0 8px; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; max-width: 100% }}
.scroll.tall {{ max-height: 86vh }}
table {{ border-collapse: separate; border-spacing: 0; width: 100%; min-width: calc(184px + var(--n) * 97px); table-layout: fixed; font-size: 15px; line-height: 1.35 }}
caption {{ text-align: left; padding: 12px 14px 4px }}
th, td {{ padding: 8px 7px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums; white-space: nowrap }}
thead th {{ position: sticky; top: 0; z-index: 2; background: var(--card); font-size: 13.5px; line-height: 1.25; vertical-align: bottom; white-space: normal; text-wrap: balance; border-bottom: 2px solid var(--ink) }}
tbody th, thead th:first-child {{ position: sticky; left: 0; text-align: left; white-space: normal; font-weight: 600; background: var(--card); width: 184px; padding-left: 12px; border-right: 1px solid var(--rule) }}
tbody th {{ z-index: 1 }} thead th:first-child {{ z-index: 3 }}
tbody tr:last-child > * {{ border-bottom: 0 }}
tr.group th {{ font: 700 17px/1.3 {SERIF}; background: var(--paper); padding-top: 16px; border-right: 0 }}
tr.group td {{ background: var(--paper) }}
th small, td small {{ display: block; color: var(--soft); font-weight: 400; font-size: 12px; line-height: 1.45; white-space: nowrap }}
th small {{ white-space: normal }}
td.band {{ color: var(--soft) }}
td.out {{ background: var(--out) }} td.far {{ background: var(--far) }}
td.out b, td.far b {{ color: var(--outink) }}
.keys .out, .keys .far {{ padding: 1px 8px; border-radius: 4px; margin-right: .4em }} .keys .out {{ background: var(--out); color: var(--outink) }} .keys .far {{ background: var(--far); color: var(--outink) }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(268px, 1fr)); gap: 14px; margin: 14px 0 30px }}
.panels figure {{ margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 12px 12px 6px }}
.panels figcaption {{ color: var(--ink); font-weight: 600; line-height: 1.3; margin-bottom: 6px }}
.panels figcaption small {{ color: var(--soft); font-weight: 400 }}
.ridge {{ fill: var(--c); fill-opacity: .62; stroke: var(--c); stroke-width: 1 }}
.human {{ fill: var(--human); fill-opacity: .75; stroke: none }}
.inband {{ fill: var(--band) }}
.mid {{ stroke: var(--ink); stroke-width: 1.6 }}
.axisline {{ stroke: var(--rule); stroke-width: 1 }}
.reach {{ stroke: var(--c); stroke-width: 3; stroke-linecap: round }}
.mark-a {{ fill: var(--c) }} .mark-b {{ fill: var(--card); stroke: var(--c); stroke-width: 2.2 }}
.keys .reach, .keys .mark-a, .keys .mark-b {{ --c: var(--ink) }}
.pieces {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px; margin: 14px 0 34px }}
.piece {{ margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 14px 16px; min-width: 0; display: flex; flex-direction: column }}
.piece h4 {{ margin: 0; display: flex; justify-content: space-between; gap: 10px; align-items: baseline; font: 600 15.5px/1.35 {SANS}; overflow-wrap: anywhere }}
.piece .tag {{ font-size: 12.5px; font-weight: 700; letter-spacing: .03em; padding: 1px 9px; border-radius: 99px; flex: none; background: var(--band); color: var(--ink) }}
.piece .tag.worst {{ background: var(--far); color: var(--outink) }}
.piece p {{ margin: 4px 0 8px; font-size: 13.5px; line-height: 1.45; color: var(--soft) }}
.piece .roll {{ margin: auto 0 10px }}
.piece audio {{ width: 100%; height: 40px; display: block }}
.bars {{ stroke: var(--barline); stroke-width: .8; fill: none }} .octave {{ stroke: var(--barline); stroke-width: .6; stroke-dasharray: 2 3 }}
.notes {{ stroke: var(--c); fill: none }}
details {{ margin: 14px 0 }} summary {{ cursor: pointer; color: var(--accent); font-weight: 600; width: max-content; max-width: 100%; border-radius: 4px }}
dl.measures dt {{ font-weight: 700; margin-top: 14px }} dl.measures dd {{ margin: 2px 0 0; max-width: 84ch; font-size: 15px }}
dl.facts {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 14px 0 }}
dl.facts dt {{ color: var(--soft) }} dl.facts dd {{ margin: 0; overflow-wrap: anywhere }}
ul.notes-list {{ max-width: 76ch; padding-left: 1.2em }} ul.notes-list li {{ margin-bottom: 6px }}
footer {{ padding-top: 40px; padding-bottom: 60px; color: var(--soft); font-size: 14px }}
.unseen {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }}
@media (max-width: 760px) {{
  main, header, footer {{ padding-left: 16px; padding-right: 16px }} header {{ padding-top: 28px }}
  .lead {{ font-size: 18px }} .card {{ padding: 16px }} h2 {{ margin-top: 44px; font-size: 24px }}
  .row {{ grid-template-columns: 1fr; gap: 3px }} .row.axis {{ display: none }} .says {{ color: var(--soft) }}
  .answers, .pieces {{ grid-template-columns: 1fr }}
  table {{ font-size: 14px }} th, td {{ padding: 7px 8px }}
  table {{ min-width: calc(124px + var(--n) * 104px) }}
  tbody th, thead th:first-child {{ width: 124px; font-size: 13px; overflow-wrap: anywhere; hyphens: auto }}
  nav {{ gap: 2px 16px; font-size: 15px }}
  dl.facts {{ grid-template-columns: 1fr; gap: 0 }} dl.facts dd {{ margin-bottom: 8px }}
}}
@media print {{
  body {{ background: #fff; font-size: 10pt }} .scroll, .scroll.tall {{ max-height: none; overflow: visible }}
  .card, figure, tr {{ break-inside: avoid }} h2 {{ break-after: avoid }} audio, nav {{ display: none !important }}
  th {{ position: static !important }}
}}
@media (forced-colors: active) {{ .inband, .human, .ridge {{ forced-color-adjust: none }} }}
"""  # noqa: E501  # a style sheet reads best one rule a line
