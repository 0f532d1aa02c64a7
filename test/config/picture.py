#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: picture.py BUILD-FOLDER OUTPUT.png

The panels of config/prometheus/dashboard.json on real traffic: a loader with a callback, the receiver and a web server on this machine, scraped by
Debian's Prometheus for some minutes, each panel's expressions asked from Prometheus and drawn, photographed by Chromium. Grafana is not among
Debian's packages: where it is, it shows the same expressions. Needs root."""
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HOME = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..'))
SECONDS = 150
COLOURS = ['#5794f2', '#fade2a', '#73bf69', '#f2495c', '#ff9830', '#b877d9', '#8ab8ff', '#c0d8ff']


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def collect(build, folder):
    """Runs everything; what Prometheus says of each panel."""
    loader, receiver, web, prometheus = (free_port() for _ in range(4))
    with open(os.path.join(folder, 'prometheus.yml'), 'w') as f:
        f.write('global: {scrape_interval: 2s}\nscrape_configs:\n- job_name: ebpfdump\n  static_configs:\n'
                f'  - {{targets: ["127.0.0.1:{loader}"], labels: {{node: worker-1}}}}\n')
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL, 'stdin': subprocess.DEVNULL}
    running = []
    try:
        running.append(subprocess.Popen([sys.executable, '-m', 'http.server', str(web), '--bind', '127.0.0.1', '--directory',
                                         os.path.join(HOME, 'docs')], **quiet))
        running.append(subprocess.Popen([f'{build}/ebpfdump-callback', '--listen', f'127.0.0.1:{receiver}'], **quiet))
        running.append(subprocess.Popen([f'{build}/ebpfdump-loader', '--interface', 'lo', '--listen', f'127.0.0.1:{loader}', '--callback',
                                         f'http://127.0.0.1:{receiver}/ingest', '--callback-batch-messages', '200'], **quiet))
        running.append(subprocess.Popen(['prometheus', f'--config.file={folder}/prometheus.yml', f'--storage.tsdb.path={folder}/data',
                                         f'--web.listen-address=127.0.0.1:{prometheus}'], **quiet))
        begin = time.time()
        while time.time() - begin < SECONDS:
            wave = 1 + int(9 * abs(((time.time() - begin) % 80) / 40 - 1))
            urls = [f'http://127.0.0.1:{web}/{n}' for n in ('REFERENCE.md', 'SETUP.md', 'OLM.md', 'missing')[:3 + (int(time.time()) % 4 == 0)] * wave]
            subprocess.run(['curl', '-s', '-o', '/dev/null', *sum([[u, '-o', '/dev/null'] for u in urls[1:]], [urls[0]])], check=False)
            time.sleep(0.2)
        with open(os.path.join(HOME, 'config/prometheus/dashboard.json')) as f:
            dashboard = json.load(f)
        now = time.time()
        for panel in dashboard['panels']:
            panel['series'] = []
            for target in panel.get('targets', []):
                expression = target['expr'].replace('$__rate_interval', '10s').replace('$node', '.*')
                query = urllib.parse.urlencode({'query': expression, 'start': now - SECONDS + 15, 'end': now, 'step': 2})
                with urllib.request.urlopen(f'http://127.0.0.1:{prometheus}/api/v1/query_range?{query}') as answer:
                    for found in json.load(answer)['data']['result']:
                        name = re.sub(r'{{(\w+)}}', lambda m: found['metric'].get(m[1], ''), target['legendFormat'])
                        points = [(t, float(v)) for t, v in found['values'] if v not in ('NaN', '+Inf')]
                        if points:
                            panel['series'].append((name, points))
        return dashboard
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def number(value, unit):
    if unit in ('bytes', 'Bps'):
        for suffix in ('B', 'KiB', 'MiB', 'GiB'):
            if value < 1024 or suffix == 'GiB':
                return f'{value:.3g} {suffix}' + ('/s' if unit == 'Bps' else '')
            value /= 1024
    if unit == 's':
        return f'{value * 1000:.3g} ms' if value < 1 else f'{value:.3g} s'
    if unit == 'percentunit':
        return f'{value * 100:.3g} %'
    return f'{value:.4g}' + (' req/s' if unit == 'reqps' else '')


def draw(panel):
    place, unit = panel['gridPos'], panel.get('fieldConfig', {}).get('defaults', {}).get('unit', '')
    style = f'grid-column:{place["x"] + 1}/span {place["w"]};grid-row:{place["y"] + 1}/span {place["h"]}'
    title = html.escape(panel['title'])
    if panel['type'] == 'row':
        return f'<h2 style="{style}">{title}</h2>'
    if not panel['series']:
        return f'<section style="{style}"><h3>{title}</h3><p class=none>no data</p></section>'
    if panel['type'] == 'stat':
        values = ' / '.join(number(p[-1][1], unit) for _, p in panel['series'])
        return f'<section style="{style}"><h3>{title}</h3><p class=stat>{html.escape(values)}</p></section>'
    top = max(v for _, p in panel['series'] for _, v in p) or 1
    first, last = min(p[0][0] for _, p in panel['series']), max(p[-1][0] for _, p in panel['series'])
    lines, legend = '', ''
    for i, (name, points) in enumerate(panel['series'][:8]):
        colour = COLOURS[i % len(COLOURS)]
        path = ' '.join(f'{(t - first) / max(last - first, 1) * 100:.2f},{40 - v / top * 38:.2f}' for t, v in points)
        lines += f'<polyline points="{path}" stroke="{colour}"/>'
        legend += f'<span style="color:{colour}">{html.escape(name)}</span> '
    return (f'<section style="{style}"><h3>{title}</h3><small>{html.escape(number(top, unit))}</small>'
            f'<svg viewBox="0 0 100 40" preserveAspectRatio="none">{lines}</svg><footer>{legend}</footer></section>')


STYLE = '''body{margin:12px;background:#111217;color:#ccccdc;font:13px sans-serif}
main{display:grid;grid-template-columns:repeat(24,1fr);grid-auto-rows:26px;gap:6px}
h1{font-size:18px;margin:0 0 8px}h2{font-size:14px;margin:4px 0 0}h3{font-size:12px;margin:0;font-weight:600}
section{background:#181b1f;border:1px solid #2c3235;border-radius:3px;padding:6px 8px;display:flex;flex-direction:column;min-height:0;overflow:hidden}
svg{flex:1;min-height:0;width:100%}polyline{fill:none;stroke-width:1.4;vector-effect:non-scaling-stroke}
small{color:#8e8e9a}footer{font-size:11px;height:15px;overflow:hidden}.stat{font-size:26px;margin:auto;color:#73bf69}.none{margin:auto;color:#8e8e9a}'''


def main():
    if len(sys.argv) != 3 or os.geteuid():
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        dashboard = collect(os.path.realpath(sys.argv[1]), folder)
        page = os.path.join(folder, 'page.html')
        with open(page, 'w') as f:
            f.write(f'<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{html.escape(dashboard["title"])}</h1><main>' +
                    ''.join(map(draw, dashboard['panels'])) + '</main>')
        subprocess.run(['chromium', '--headless', '--no-sandbox', '--hide-scrollbars', '--window-size=1500,1330', f'--user-data-dir={folder}/chromium',
                        f'--screenshot={folder}/shot.png', 'file://' + page], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.copy(os.path.join(folder, 'shot.png'), sys.argv[2])
    print('panels without data:', [p['title'] for p in dashboard['panels'] if p['type'] != 'row' and not p['series']])


if __name__ == '__main__':
    main()
