"""Style sheet of the report page."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2024; --soft: #5b636c; --line: #d9dee3; --panel: #f4f6f8; --accent: #0b5f98;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e4e7ea; --soft: #a0a9b2; --line: #343b43; --panel: #1e2328; --accent: #7cc0f2; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 54rem; padding: 2.5rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .6rem; }
p { margin: 0 0 .9rem; max-width: 44rem; }
section { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--line); scroll-margin-top: .5rem; }
a { color: var(--accent); text-underline-offset: .15em; }
nav ol { margin: 1.25rem 0 0; padding-left: 1.4rem; columns: 18rem 2; column-gap: 2rem; }
nav li { break-inside: avoid; padding: .1rem 0; }
.summary {
  background: var(--panel); border-left: 4px solid var(--accent); border-radius: 0 6px 6px 0; padding: .9rem 1.1rem;
}
.summary p:last-child { margin-bottom: 0; }
.table { overflow-x: auto; margin: 1.1rem 0; }
table { border-collapse: collapse; font-size: .92rem; line-height: 1.4; min-width: min(100%, 24rem); }
caption, figcaption { color: var(--soft); font-size: .9rem; line-height: 1.5; text-align: left; }
caption { padding-bottom: .5rem; }
figcaption { margin-top: .6rem; max-width: 44rem; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: .25rem; }
thead th, thead .num { white-space: normal; }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--panel); }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.3rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
@media (prefers-color-scheme: dark) { img { padding: .6rem; } }
footer {
  margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem;
}
@media (max-width: 36rem) {
  body { padding: 1.5rem 1rem 2rem; } h1 { font-size: 1.55rem; } section { margin-top: 2rem; }
}
@media print {
  body { max-width: none; padding: 0; } section { break-inside: avoid-page; } .table { overflow: visible; }
}
"""
