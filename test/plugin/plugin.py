#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kubectl-ebpfdump against a kubectl that answers from a folder of files: what a cluster with nodes would say. The commands that only
need an API server are tested with the real one in test/api. Ends with `N passed, N failed`."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PLUGIN = os.path.join(HERE, '..', '..', 'hack', 'kubectl-ebpfdump')

# Each call is noted; `get KIND` answers KIND.json, `logs POD` POD.log (with --follow it stays, then reads on), others succeed.
KUBECTL = '''#!/usr/bin/env python3
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
a = sys.argv[1:]
stdin = sys.stdin.read() if '-f' in a and a[0] in ('apply',) else ''
with open(folder + '/calls', 'a') as f:
    f.write(json.dumps([a, stdin]) + '\\n')
if a[0] == 'get':
    name = folder + '/' + a[1].split('.')[0] + '.json'
    if not os.path.exists(name):
        sys.exit('Error from server (NotFound): ' + a[1])
    sys.stdout.write(open(name).read())
elif a[0] == 'logs':
    with open(folder + '/' + a[1] + '.log') as f:
        while True:
            line = f.readline()
            if line:
                sys.stdout.write(line)
                sys.stdout.flush()
            elif '--follow' not in a or os.path.exists(folder + '/end'):
                break
            else:
                time.sleep(0.02)
else:
    print(a[0] + ' done')
'''

passed = failed = 0


def check(name, good, detail=''):
    global passed, failed
    print('ok' if good else 'not ok', name)
    if good:
        passed += 1
    else:
        failed += 1
        print('    ' + str(detail)[:2000].replace('\n', '\n    '))


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.write('kubectl', KUBECTL)
        os.chmod(self.path('kubectl'), 0o755)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode='w'):
        """Somebody may read it just now: it is there as a whole."""
        written = self.path(name) if mode == 'a' else self.path(name) + '.new'
        with open(written, mode) as f:
            f.write(text if isinstance(text, str) else json.dumps(text))
        if mode != 'a':
            os.rename(written, self.path(name))

    def start(self, *arguments):
        environment = dict(os.environ, KUBECTL=self.path('kubectl'), TZ='UTC', PYTHONIOENCODING='utf-8')
        return subprocess.Popen([sys.executable, PLUGIN, *arguments], env=environment, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, verb):
        try:
            with open(self.path('calls')) as f:
                return [c for c in map(json.loads, f) if c[0][0] == verb]
        except FileNotFoundError:
            return []

    def forget(self):
        if os.path.exists(self.path('calls')):
            os.unlink(self.path('calls'))


def message(ms, seq, **more):
    m = {'direction': 1, 'timing_ms': ms, 'remote_ip': '10.0.0.1', 'remote_port': 1, 'method': 'GET', 'path': '/a',
         'status_code': 0, 'version': '1.1', 'headers': {'Host': ['shop']}, 'body': '', 'src_ip': '10.0.0.1',
         'src_port': 40000, 'dst_ip': '10.0.0.2', 'dst_port': 80, 'node': 'n1', 'seq': seq}
    m.update(more)
    return json.dumps(m) + '\n'


def answer(ms, seq, code, path='/a', **more):
    return message(ms, seq, status_code=code, method='', path='', headers={}, latency_us=1500, body_bytes=7,
                   request={'method': 'GET', 'path': path, 'host': 'shop'}, **more)


def pods(*names):
    return {'items': [{'metadata': {'name': n}, 'spec': {'nodeName': 'node-' + n},
                       'status': {'phase': 'Running', 'containerStatuses': [{'ready': True, 'restartCount': 2}]}} for n in names]}


def dump(accepted='True', ready='True', generation=1, observed=1, reason='AllNodesReady', text=''):
    condition = lambda kind, status: {'type': kind, 'status': status, 'reason': reason, 'message': text,
                                      'observedGeneration': observed}
    return {'metadata': {'name': 'ebpfdump', 'namespace': 'ns', 'generation': generation}, 'spec': {'interfaces': ['lo']},
            'status': {'nodes': '2/2', 'conditions': [condition('Accepted', accepted), condition('Ready', ready)]}}


def logs(c):
    own = '{"time":"t","level":"info","component":"loader","msg":"capturing"}\n'
    c.write('pods.json', pods('p1', 'p2'))
    c.write('p1.log', own + message(1000, 1) + message(3000, 2) + answer(5000, 3, 500))
    c.write('p2.log', message(2000, 1, method='POST', path='/b') + answer(4000, 2, 404, '/b') + 'no JSON\n')
    code, out, err = c.run('logs', '--no-follow', '-o', 'json', '--since', '')
    times = [json.loads(line)['timing_ms'] for line in out.splitlines()]
    check('logs: all loaders, by time', code == 0 and times == [1000, 2000, 3000, 4000, 5000] and not err, (code, out, err))
    check("logs: each loader's, by its container", sorted(x[0][1] for x in c.calls('logs')) == ['p1', 'p2'] and
          all('loader' in x[0] for x in c.calls('logs')), c.calls('logs'))

    def filtered(*arguments):
        return [json.loads(x)['timing_ms'] for x in
                c.run('logs', '--no-follow', '-o', 'json', *arguments)[1].splitlines()]
    check('logs: --method', filtered('--method', 'post') == [2000], filtered('--method', 'post'))
    check('logs: --status, of a class', filtered('--status', '5xx') == [5000])
    check('logs: --status, several', filtered('--status', '404', '--status', '500') == [4000, 5000])
    check("logs: --path, a response by its request's", filtered('--path', '/b') == [2000, 4000])
    check('logs: --host', filtered('--host', 'nowhere') == [] and len(filtered('--host', 'sho')) == 5)
    check('logs: --grep', filtered('--grep', '"status_code": 404') == [4000])
    code, out, err = c.run('logs', '--no-follow', '--status', '6xx')
    check('logs: a wrong --status is said', code == 1 and "'6xx'" in err, err)
    code, out, err = c.run('logs', '--no-follow', '-o', 'json', '--loader-log')
    check("logs: the loaders' own log", 'capturing' in err and 'no JSON' in err and 'capturing' not in out, err)

    whose = [('shop', 'web-0'), ('shop', 'web-1'), ('other', 'web-0'), (None, None)]
    c.write('p1.log', ''.join(message(1000 + n, n, **({'namespace': ns, 'pod': pod} if pod else {})) for n, (ns, pod) in enumerate(whose)))
    check("logs: --pod, a pod's name in any namespace", filtered('--pod', 'web-0') == [1000, 1002], filtered('--pod', 'web-0'))
    check('logs: --pod, with its namespace', filtered('--pod', 'shop/web-0') == [1000])
    check('logs: --pod, how it begins', filtered('--pod', 'shop/') == [1000, 1001] and filtered('--pod', 'shop/web-') == [1000, 1001])
    check('logs: --pod, several', filtered('--pod', 'shop/web-1', '--pod', 'other/') == [1001, 1002])
    check('logs: --pod, none of that name', filtered('--pod', 'eb-0') == [] and filtered('--pod', '/') == [])
    code, out, err = c.run('logs', '--no-follow', '-o', 'text', '--pod', 'shop/web-1')
    check('logs: a line for people names the pod', out.endswith('  shop/web-1\n') and out.count('\n') == 1, out)

    c.write('p1.log', message(1000, 1, path='/\x1b[2J\u202e', node='n\x07') + answer(2000, 2, 404))
    c.write('p2.log', '')
    code, out, err = c.run('logs', '--no-follow', '-o', 'text')
    lines = out.splitlines()
    check('logs: a line for people', len(lines) == 2 and '00:00:01.000' in lines[0] and '10.0.0.1:40000' in lines[0] and
          '404' in lines[1] and '1.5 ms' in lines[1] and 'shop/a' in lines[1], out)
    check('logs: captured bytes do not steer the terminal', '\x1b' not in out and '\u202e' not in out and '\x07' not in out, repr(out))

    c.write('p1.log', message(1000, 1))
    process = c.start('logs', '-o', 'json')
    read = [json.loads(process.stdout.readline())['timing_ms']]
    c.write('p2.log', message(2000, 1), mode='a')
    read.append(json.loads(process.stdout.readline())['timing_ms'])
    c.write('p3.log', message(2500, 1))
    c.write('pods.json', pods('p1', 'p2', 'p3'))
    read.append(json.loads(process.stdout.readline())['timing_ms'])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    check('logs: followed, with a loader that comes later', read == [1000, 2000, 2500] and process.returncode == 0,
          (read, process.returncode))
    c.write('pods.json', pods())
    code, out, err = c.run('logs')
    check('logs: no loader is said', code == 1 and 'no loader' in err, err)


def commands(c):
    c.forget()
    c.write('ebpfdumps.json', dump())
    code, out, err = c.run('start', '--interface', 'eth0', '--interface', 'lo', '--body-bytes', '0', '--message', 'request',
                           '--callback', 'http://c/ingest', '--node-selector', 'pool=web', '--pods-of', 'shop')
    sent = json.loads(c.calls('apply')[0][1])
    check('start: the resource', code == 0 and sent['kind'] == 'EbpfDump' and sent['spec'] == {
        'interfaces': ['eth0', 'lo'], 'messages': ['request'], 'namespaces': ['shop'], 'bodyBytes': 0, 'callback': 'http://c/ingest',
        'nodeSelector': {'pool': 'web'}}, (code, sent, err))
    check('start: it stays', not c.calls('delete') and '2/2' in out, out)
    begin = time.monotonic()
    code, out, err = c.run('start', '--for', '2s')
    check('start --for: it is deleted after that', code == 0 and len(c.calls('delete')) == 1 and time.monotonic() - begin >= 2,
          (code, err))
    c.forget()
    process = c.start('start', '--for', '1h')
    while 'Ctrl-C' not in process.stderr.readline():
        assert process.poll() is None, 'it ended'
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    check('start --for: Ctrl-C deletes as well', len(c.calls('delete')) == 1, c.calls('delete'))
    c.forget()
    os.unlink(c.path('ebpfdumps.json'))
    code, out, err = c.run('start', '--for', '1h')
    check('start --for: it is deleted if the API server fails meanwhile', code == 1 and 'NotFound' in err and len(c.calls('delete')) == 1,
          (code, err, c.calls('delete')))
    c.forget()
    c.write('ebpfdumps.json', dump(accepted='False', ready='False', reason='Conflict', text='EbpfDump a/b is active'))
    code, out, err = c.run('start', '--timeout', '5s')
    check('start: a conflict is said, and undone', code == 1 and 'a/b is active' in err and len(c.calls('delete')) == 1, (code, err))
    c.write('ebpfdumps.json', dump(generation=2))
    code, out, err = c.run('start', '--timeout', '2s')
    check('start: what is said of an older generation does not count', code == 1 and 'not capturing' in err, (code, out, err))
    for bad in ('10', '5 minutes', ''):
        code, out, err = c.run('start', '--for', bad)
        check(f"start: --for '{bad}' is refused", code == 2 and 'duration' in err, err)

    c.write('ebpfdumps.json', {'items': [dump(ready='False', reason='PodsRejected', text='image pull')]})
    c.write('pods.json', pods('p1'))
    code, out, err = c.run('status')
    check('status: why it is not ready', code == 1 and 'ns/ebpfdump: image pull' in out and 'p1' in out and 'node-p1' in out, out)
    c.write('ebpfdumps.json', {'items': [dump()]})
    check('status: ready', c.run('status')[0] == 0)
    c.write('ebpfdumps.json', {'items': []})
    code, out, err = c.run('status')
    check('status: nothing', code == 1 and 'nothing is captured' in out, out)
    c.forget()
    check('stop', c.run('stop')[0] == 0 and c.calls('delete')[0][0][1:3] == ['ebpfdumps.research.dynatrace.com', 'ebpfdump'])

    c.forget()
    c.write('nodes.json', {'items': [{'metadata': {'name': 'Node.A'}}, {'metadata': {'name': 'b'}}]})
    c.write('deployment.json', {'spec': {'template': {'spec': {'containers': [
        {'env': [{'name': 'LOADER_IMAGE', 'value': 'reg/loader:1'}]}]}}}})
    c.write('pod.json', {'status': {'phase': 'Succeeded'}})
    for name in ('ebpfdump-check-ode-', 'ebpfdump-check--ode-a', 'ebpfdump-check-b', 'ebpfdump-check-node-a'):
        c.write(name + '.log', 'egress fentry yes\n')
    code, out, err = c.run('check')
    made = json.loads(c.calls('apply')[0][1])['items'] if c.calls('apply') else []
    check('check: a pod on each node', code == 0 and [p['spec']['nodeName'] for p in made] == ['Node.A', 'b'] and
          made[0]['spec']['containers'][0]['image'] == 'reg/loader:1', (code, out, err))
    check('check: what they say', 'egress fentry yes' in out and out.count('it can') == 2, out)
    check('check: nodes with Linux alone are asked', [x[0][3] for x in c.calls('get') if x[0][1] == 'nodes'] == ['kubernetes.io/os=linux'],
          c.calls('get'))
    check('check: they are deleted', len(c.calls('delete')) == 1)
    c.write('pod.json', {'status': {'phase': 'Failed'}})
    code, out, err = c.run('check', '--node', 'b')
    check('check: a node that cannot', code == 1 and 'it cannot' in out, out)
    code, out, err = c.run('check', '--node', 'c')
    check('check: an unknown node', code == 1 and 'no Linux node c' in err, err)
    os.unlink(c.path('kubectl'))
    code, out, err = c.run('status')
    check('kubectl is missing', code == 1 and 'cannot be run' in err, err)


with tempfile.TemporaryDirectory() as folder:
    cluster = Cluster(folder)
    logs(cluster)
    commands(cluster)
print(f'{passed} passed, {failed} failed')
sys.exit(1 if failed else 0)
