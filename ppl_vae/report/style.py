"""How the page looks, in light and in dark, on paper and on a telephone."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --ground: #fbfbfa; --card: #ffffff; --line: #dfe3e8;
  --accent: #1f5fa8; --code: #f1f3f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa6b5; --ground: #14181e; --card: #1c222a;
  --line: #313a46; --accent: #7db4f0; --code: #10141a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main, header, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0 0 1.5rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0; }
.facts > div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.facts small { color: var(--soft); font-size: .8rem; white-space: nowrap; }
.story { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.25rem; margin: 0 0 1rem;
  overflow-x: auto; }
.story p { margin: 0 0 .4rem; color: var(--soft); font-size: .85rem; }
math { font-size: 1.15rem; margin: .35rem 0; }
math[display="block"] { display: block math; width: max-content; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 100%; font-size: .92rem; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding-bottom: .35rem; }
th, td { padding: .38rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
.words dt { font-weight: 600; } .words dd { margin: 0 0 .45rem; color: var(--soft); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; border-radius: .3rem; }
figcaption { color: var(--soft); font-size: .85rem; padding-top: .5rem; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, monospace; }
details { margin: 0 0 1rem; } summary { cursor: pointer; color: var(--accent); }
.note { color: var(--soft); font-style: italic; }
footer { color: var(--soft); font-size: .8rem; padding: 2.5rem 1.25rem 2rem; }
@media print { details > * { display: block; } figure, .facts > div { break-inside: avoid; } }
"""
