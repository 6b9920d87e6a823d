"""How a report looks."""

STYLE = """
:root { --ground: #fbfbfa; --card: #ffffff; --ink: #1d2327; --faint: #5f6b73; --rule: #e1e5e8;
  --room: #eef1f3; --allocated: #a9cbe8; --used: #2b6ca3; --full: #b9552f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181b; --card: #1c2226; --ink: #e6eaed; --faint: #9aa7b0; --rule: #2c353b;
    --room: #252d33; --allocated: #2f5878; --used: #6fb1e4; --full: #e08a62; --bad: #f28b82; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 40px; background: var(--ground);
  color: var(--ink); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 16px; margin: 0 0 10px; }
.facts, .legend, footer, small, figcaption, section > p { color: var(--faint); }
.facts { margin: 0 0 18px; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 16px; margin: 0 0 16px; }
section > p { margin: 8px 0 0; font-size: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 14px 20px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { display: block; } .tile small { display: block; font-size: 12px; }
.tile.bad b { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: 6px;
  margin: 0 0 10px !important; }
.key { width: 14px; height: 10px; border-radius: 2px; margin-left: 10px; }
.key:first-child { margin-left: 0; } .key.allocated { background: var(--allocated); }
.key.used { background: var(--used); } .key.full { height: 0; border-top: 2px dashed var(--full); }
.node { display: grid; grid-template-columns: 150px 1fr 1fr; gap: 14px; align-items: start;
  padding: 8px 0; border-top: 1px solid var(--rule); }
.node .name b { display: block; overflow-wrap: anywhere; }
.node.axis { border: 0; padding: 0; font-size: 12px; color: var(--faint); }
.ends { display: flex; justify-content: space-between; }
figure { margin: 0; } figcaption { font-size: 12px; }
.chart { display: block; width: 100%; height: 56px; border-radius: 3px; }
.chart .room { fill: var(--room); } .allocated { fill: var(--allocated); }
.chart .used, .bars .used { fill: var(--used); }
.chart .full { stroke: var(--full); stroke-dasharray: 5 4; stroke-width: 1.5;
  vector-effect: non-scaling-stroke; }
.bars { display: block; width: 120px; height: 24px; }
.bars .mark { stroke: var(--full); stroke-width: 1.5; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 8px; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 500; font-size: 12px; white-space: normal;
  vertical-align: bottom; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 150px; }
tr:last-child td { border-bottom: 0; }
pre { margin: 6px 0 0; white-space: pre-wrap; font-size: 12px; }
footer { font-size: 12px; }
@media (max-width: 760px) { .node { grid-template-columns: 1fr; } .node.axis { display: none; } }
@media print { body { max-width: none; } section { break-inside: avoid; } }
"""
