#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: config.py BUILD-FOLDER

config/ and bundle/: every overlay renders, what is generated is up to date, names and images are consistent, and the bundle's
checks find each of the faults that are put into it. Ends with `N passed, N failed`."""
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

HOME = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..'))
sys.path[:0] = [os.path.join(HOME, 'hack'), os.path.join(HOME, 'test')]
sys.dont_write_bytecode = True
import bundle  # noqa: E402
from ports import free_port  # noqa: E402

passed = failed = 0


def check(name, good, detail=''):
    global passed, failed
    print('ok' if good else 'not ok', name)
    if good:
        passed += 1
    else:
        failed += 1
        print('    ' + str(detail)[:3000].replace('\n', '\n    '))


def render(*arguments):
    done = subprocess.run([os.path.join(HOME, 'hack/render.sh'), *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def walk(value):
    if isinstance(value, dict):
        yield value
        for v in value.values():
            yield from walk(v)
    elif isinstance(value, list):
        for v in value:
            yield from walk(v)


# ---- config/ ----

def overlays():
    all_documents = {}
    for folder in sorted(os.listdir(os.path.join(HOME, 'config'))):
        if not os.path.exists(os.path.join(HOME, 'config', folder, 'kustomization.yaml')):
            continue
        status, out, err = render(folder)
        documents = [d for d in yaml.safe_load_all(out) if d] if status == 0 else []
        check(f'config/{folder} renders', status == 0 and documents and all(d.get('kind') for d in documents), err)
        all_documents[folder] = documents
    wanted = {'crd', 'rbac', 'manager', 'default', 'samples', 'prometheus', 'callback', 'network-policy', 'scorecard', 'manifests'}
    check('config/ has each folder that operator-sdk users look for', wanted <= set(all_documents), wanted - set(all_documents))
    status, _, err = render('nowhere')
    check('an overlay that is none is said', status == 2 and 'default' in err, err)
    _, out, _ = render('demo', 'reg/op:1', 'reg/lo:2', 'reg/ca:3')
    check('IMG, LOADER_IMG and CALLBACK_IMG stand for the images', 'image: reg/op:1' in out and 'value: reg/lo:2' in out and
          'image: reg/ca:3' in out and 'ghcr.io' not in out, out)
    return all_documents


def installer(documents):
    _, out, _ = render('default')
    with open(os.path.join(HOME, 'config/install.yaml')) as f:
        check('config/install.yaml is up to date (make build-installer)', f.read() == out)
    order = [d['kind'] for d in documents['default']]
    check('the namespace comes first, the definition before what needs it',
          order[0] == 'Namespace' and order.index('CustomResourceDefinition') < order.index('Deployment'), order)
    crd = [d for d in documents['default'] if d['kind'] == 'CustomResourceDefinition'][0]
    check('the definition fits the annotation of kubectl apply', len(json.dumps(crd)) < 262144 // 2, len(json.dumps(crd)))
    flags = re.findall(r'"description": "([^"]*(?: --[a-z]|Repeatable)[^"]*)"', json.dumps(crd))
    check("the definition's descriptions name no flags, which a resource has not", not flags, flags)
    with open(os.path.join(HOME, 'config/samples/research_v1alpha1_ebpfdump.yaml')) as f:
        seed = {'apiVersion': 'research.dynatrace.com/v1alpha1', 'kind': 'EbpfDump',
                'metadata': {'labels': {'app.kubernetes.io/name': 'ebpfdump-operator'}, 'name': 'ebpfdump-sample',
                             'namespace': 'ebpfdump-operator-system'},
                'spec': {'interfaces': ['lo'], 'callback': 'http://example.com'}}
        check("the seed's example is among the samples", yaml.safe_load(f) == seed)
    listed = {d['metadata']['name'] for d in documents['samples']}
    files = set()
    for name in os.listdir(os.path.join(HOME, 'config/samples')):
        if name != 'kustomization.yaml':
            with open(os.path.join(HOME, 'config/samples', name)) as f:
                files.add(yaml.safe_load(f)['metadata']['name'])
    check('every sample is in the list', listed == files, listed ^ files)


def consistent(documents):
    version = bundle.version()
    images = {}
    for folder, ds in documents.items():
        for node in walk(ds):
            for key in ('image', 'value', 'containerImage'):
                if isinstance(node.get(key), str) and '/ebpfdump-' in node[key] and not node[key].startswith(('http', '/')):
                    images.setdefault(node[key], set()).add(folder)
    want = {f'ghcr.io/dynatrace-oss/ebpfdump-{n}:{version}' for n in ('operator', 'loader', 'callback')}
    check('the images are those of this version, everywhere', set(images) == want, images)
    spaces = {d['metadata'].get('namespace') for f in documents if f not in ('scorecard', 'manifests') for d in documents[f]} - {None}
    check('everything is in one namespace', spaces == {'ebpfdump-operator-system'}, spaces)
    accounts = {d['metadata']['name'] for d in documents['rbac'] if d['kind'] == 'ServiceAccount'}
    used = {n['serviceAccountName'] for n in walk(documents['default']) if 'serviceAccountName' in n}
    used |= {s['name'] for d in documents['rbac'] for s in d.get('subjects', [])}
    check('every service account in use is there', used <= accounts, used - accounts)
    roles = {(d['kind'], d['metadata']['name']) for d in documents['rbac'] if d['kind'].endswith('Role')}
    bound = {(d['roleRef']['kind'], d['roleRef']['name']) for d in documents['rbac'] if d['kind'].endswith('Binding')}
    check('every role that is bound is there', bound <= roles, bound - roles)
    rules = [r for d in documents['rbac'] for r in d.get('rules', [])]
    check('no rule has a wildcard', not any('*' in r['verbs'] + r['resources'] + r['apiGroups'] for r in rules))
    wrong = [d['metadata']['name'] for d in documents['rbac'] if 'editor' in d['metadata']['name'] and
             any('aggregate' in k for k in d['metadata'].get('labels', {}))]
    check('the editor role is not aggregated', not wrong, wrong)
    for d in documents['default'] + documents['callback']:
        if d['kind'] != 'Deployment':
            continue
        pod = d['spec']['template']['spec']
        inside = [c['securityContext'] for c in pod['containers']]
        restricted = pod['securityContext'].get('runAsNonRoot') and \
            pod['securityContext']['seccompProfile']['type'] == 'RuntimeDefault' and all(
                c['capabilities']['drop'] == ['ALL'] and c['allowPrivilegeEscalation'] is False and c['readOnlyRootFilesystem']
                for c in inside)
        check(f'{d["metadata"]["name"]} is within the restricted Pod Security level', restricted, pod)
        check(f'{d["metadata"]["name"]} has probes and requests', all(
            c.get('livenessProbe') and c.get('readinessProbe') and c['resources'].get('requests') for c in pod['containers']))
        labels = d['spec']['template']['metadata']['labels']
        check(f'{d["metadata"]["name"]} selects its pods', d['spec']['selector']['matchLabels'].items() <= labels.items())
    service = [d for d in documents['callback'] if d['kind'] == 'Service'][0]
    check('the receiver is where the documentation says', service['metadata']['name'] == 'callback-service' and
          service['spec']['ports'][0]['port'] == 9376, service)
    ports = {p.get('name') for n in walk(documents['callback']) for p in n.get('ports', []) if 'containerPort' in p}
    check("the receiver's Service leads to a port of its container", service['spec']['ports'][0]['targetPort'] in ports, ports)
    urls = [d['spec']['callback'] for d in documents['samples'] + documents['demo'] if d['kind'] == 'EbpfDump' and
            'callback-service' in str(d['spec'].get('callback'))]
    check("the samples' callback is the receiver", urls and set(urls) ==
          {'http://callback-service.ebpfdump-operator-system.svc.cluster.local:9376/ingest'}, urls)


# ---- config/prometheus ----

def receiver_metrics(build):
    address = '127.0.0.1:%d' % free_port()
    process = subprocess.Popen([os.path.join(build, 'ebpfdump-callback'), '--listen', address], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f'http://{address}/metrics', timeout=10) as answer:
                    return re.findall(r'^# TYPE (\S+) (\S+)$', answer.read().decode(), re.M)
            except OSError:
                time.sleep(0.1)
        return []
    finally:
        process.terminate()
        process.wait()


def known_metrics(build):
    """What /metrics of the three programs has; loader and operator print it by the same code."""
    kinds = dict(receiver_metrics(build))
    check('the metrics of the callback are known', len(kinds) > 10, kinds)
    names = set(kinds)
    for program in ('loader', 'operator'):
        text = subprocess.run([os.path.join(build, 'ebpfdump-' + program), '--reference'], capture_output=True, text=True).stdout
        rows = re.findall(r'^\| `((?:ebpfdump|process)_[a-z0-9_]+)` \| (counter|gauge|histogram) ', text, re.M)
        check(f'the metrics of the {program} are known', len(rows) > 10, text[-2000:])
        kinds.update(rows)
        names |= {n for n, _ in rows}
    for name, kind in kinds.items():
        if kind == 'histogram':
            names |= {name + end for end in ('_bucket', '_sum', '_count')}
    return names


def prometheus(documents, build):
    known = known_metrics(build)
    rules = [d for d in documents['prometheus'] if d['kind'] == 'PrometheusRule'][0]['spec']
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, 'rules.yaml'), 'w') as f:
            yaml.safe_dump(rules, f)
        shutil.copy(os.path.join(HOME, 'test/config/rules_test.yaml'), folder)
        for arguments in (['check', 'rules', 'rules.yaml'], ['test', 'rules', 'rules_test.yaml']):
            done = subprocess.run(['promtool', *arguments], cwd=folder, capture_output=True, text=True)
            check('promtool ' + ' '.join(arguments), done.returncode == 0, done.stdout + done.stderr)
        # a test that cannot fail would be none
        with open(os.path.join(folder, 'rules.yaml'), 'w') as f:
            f.write(yaml.safe_dump(rules).replace('== 0', '== 5').replace('> 0', '> 5000'))
        done = subprocess.run(['promtool', 'test', 'rules', 'rules_test.yaml'], cwd=folder, capture_output=True, text=True)
        check('promtool test rules fails with other rules', done.returncode != 0)
    with open(os.path.join(HOME, 'test/config/rules_test.yaml')) as f:
        tested = {t['alertname'] for c in yaml.safe_load(f)['tests'] for t in c['alert_rule_test'] if t.get('exp_alerts')}
    alerts = {r['alert'] for g in rules['groups'] for r in g['rules'] if 'alert' in r}
    check('every alert is tested', alerts == tested, alerts ^ tested)
    expressions = [('rules', r['expr']) for g in rules['groups'] for r in g['rules']]
    with open(os.path.join(HOME, 'config/prometheus/dashboard.json')) as f:
        dashboard = json.load(f)
    expressions += [(p['title'], t['expr']) for p in dashboard['panels'] for t in p.get('targets', [])]
    check('the dashboard has panels of each kind of thing', len(expressions) > 25 and [p['title'] for p in dashboard['panels']
                                                                                       if p['type'] == 'row'], len(expressions))
    for where, expression in expressions:
        used = set(re.findall(r'\b(?:ebpfdump|process)_[a-z0-9_]+', expression))
        check(f'metrics of {where} exist: {expression[:70]!r}', used and used <= known, used - known)
    panels = [p for p in dashboard['panels'] if 'targets' in p]
    check('every panel has a title of its own', len({p['title'] for p in panels}) == len(panels))
    spots = [(x, y) for p in dashboard['panels'] for x in range(p['gridPos']['x'], p['gridPos']['x'] + p['gridPos']['w'])
             for y in range(p['gridPos']['y'], p['gridPos']['y'] + p['gridPos']['h'])]
    check('no panel lies on another', len(spots) == len(set(spots)))
    monitors = {d['kind']: d for d in documents['prometheus']}
    scraped = monitors['PodMonitor']['spec']
    operator = [d for d in documents['default'] if d['kind'] == 'Deployment'][0]['spec']['template']
    ports = {p['name'] for c in operator['spec']['containers'] for p in c['ports']}
    check('the PodMonitor finds the operator', scraped['selector']['matchLabels'].items() <= operator['metadata']['labels'].items() and
          {e['port'] for e in scraped['podMetricsEndpoints']} <= ports, scraped)
    service = [d for d in documents['callback'] if d['kind'] == 'Service'][0]
    found = monitors['ServiceMonitor']['spec']
    check('the ServiceMonitor finds the receiver', found['selector']['matchLabels'].items() <= service['metadata']['labels'].items()
          and {e['port'] for e in found['endpoints']} <= {p['name'] for p in service['spec']['ports']}, found)


# ---- bundle/ ----

def bundle_files(documents):
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.path.join(folder, 'bundle')
        shutil.copytree(os.path.join(HOME, 'bundle'), fresh)
        bundle.write(fresh)
        done = subprocess.run(['diff', '-r', os.path.join(HOME, 'bundle'), fresh], capture_output=True, text=True)
        check('bundle/ is up to date (make bundle)', done.returncode == 0, done.stdout)
        own = {'IMG': 'reg/op:1', 'LOADER_IMG': 'reg/lo@sha256:2', 'CALLBACK_IMG': 'reg/ca:3', 'BUNDLE_IMG': 'reg/bu:4'}
        subprocess.run([os.path.join(HOME, 'hack/bundle.py'), 'write', fresh], env={**os.environ, **own}, check=True)
        text = ''
        for name in (CSV, 'catalog/catalog.yaml'):
            with open(os.path.join(fresh, name)) as f:
                text += f.read()
        check('IMG and its kin stand for the images of the bundle', all(i in text for i in own.values()) and 'ghcr.io' not in text, text)
    with open(os.path.join(HOME, 'hack/images/bundle.Dockerfile')) as f:
        check("the bundle's Dockerfile is up to date (make bundle)", f.read() == bundle.dockerfile())
    found = bundle.validate(os.path.join(HOME, 'bundle'))
    check('the bundle has no errors', not found.errors, '\n'.join(found.errors))
    check('the bundle has no warnings', not found.warnings, '\n'.join(found.warnings))
    with open(os.path.join(HOME, 'bundle/manifests/ebpfdump.clusterserviceversion.yaml')) as f:
        csv = yaml.safe_load(f)
    rules = {d['kind']: d['rules'] for d in documents['rbac'] if d['metadata']['name'] == 'ebpfdump-operator' and 'rules' in d}
    install = csv['spec']['install']['spec']
    mine = [p for p in install['permissions'] if p['serviceAccountName'] == 'ebpfdump-operator']
    check('its permissions are those of config/rbac', [p['rules'] for p in mine] == [rules['Role']] and
          [p['rules'] for p in install['clusterPermissions']] == [rules['ClusterRole']])
    with open(os.path.join(HOME, 'bundle/catalog/catalog.yaml')) as f:
        catalog = list(yaml.safe_load_all(f))
    names = {d['schema']: d for d in catalog}
    check('the catalog: package, channel and bundle fit', names['olm.package']['defaultChannel'] == names['olm.channel']['name'] and
          [e['name'] for e in names['olm.channel']['entries']] == [csv['metadata']['name']] == [names['olm.bundle']['name']] and
          all(d.get('package', bundle.PACKAGE) == bundle.PACKAGE for d in catalog), catalog)


CSV = 'manifests/ebpfdump.clusterserviceversion.yaml'
CRD = 'manifests/research.dynatrace.com_ebpfdumps.yaml'
NOTES = 'metadata/annotations.yaml'
PREFIX = 'operators.operatorframework.io.bundle.'


def put(path, value):
    def change(d):
        *parents, last = path
        for key in parents:
            d = d[key]
        if value is None:
            del d[last]
        else:
            d[last] = value
    return change


def example(change):
    def edit(csv):
        examples = json.loads(csv['metadata']['annotations']['alm-examples'])
        change(examples)
        csv['metadata']['annotations']['alm-examples'] = json.dumps(examples)
    return edit


def account(folder):
    with open(os.path.join(folder, 'manifests/sa.yaml'), 'w') as f:
        yaml.safe_dump({'apiVersion': 'v1', 'kind': 'ServiceAccount', 'metadata': {'name': 'ebpfdump-operator'}}, f)


def add(name, document):
    def change(folder):
        with open(os.path.join(folder, 'manifests', name), 'w') as f:
            f.write(document if isinstance(document, str) else yaml.safe_dump(document))
    return change


OWNED = ('spec', 'customresourcedefinitions', 'owned')
OPERATOR = ('spec', 'install', 'spec', 'deployments', 0, 'spec', 'template', 'spec')
V1 = ('spec', 'versions', 0)
# what is broken: file (None: the folder), how, what is said of it
FAULTS = [
    ('no manifests', None, lambda d: shutil.rmtree(d + '/manifests'), 'manifests: it is missing'),
    ('no annotations', None, lambda d: os.unlink(d + '/' + NOTES), 'annotations.yaml: it is missing'),
    ('annotations that are no YAML', None, lambda d: open(d + '/' + NOTES, 'w').write('a: [b'), 'cannot be read'),
    ('another mediatype', NOTES, put(('annotations', PREFIX + 'mediatype.v1'), 'helm'), 'mediatype is not'),
    ('no package', NOTES, put(('annotations', PREFIX + 'package.v1'), None), 'package.v1 is missing'),
    ('no channels', NOTES, put(('annotations', PREFIX + 'channels.v1'), ''), 'channels.v1 is missing'),
    ('a default channel that is none', NOTES, put(('annotations', PREFIX + 'channel.default.v1'), 'stable'), 'default channel'),
    ('an unconventional channel', NOTES, put(('annotations', PREFIX + 'channels.v1'), 'candidate,alpha'), "'alpha' is not named"),
    ('labels that differ from the annotations', NOTES, put(('annotations', 'com.redhat.openshift.versions'), 'v4.1'), 'labels are not'),
    ('two documents in a file', None, add('two.yaml', 'a: 1\n---\nb: 2\n'), 'one document is wanted'),
    ('a kind that no bundle takes', None, add('d.yaml', {'apiVersion': 'apps/v1', 'kind': 'DaemonSet', 'metadata': {'name': 'd'}}),
     'takes no DaemonSet'),
    ('a removed API', None, add('p.yaml', {'apiVersion': 'policy/v1beta1', 'kind': 'PodDisruptionBudget', 'metadata': {'name': 'p'}}),
     'served no more'),
    ('a budget that blocks drains', None, add('p.yaml', {'apiVersion': 'policy/v1', 'kind': 'PodDisruptionBudget',
                                                          'metadata': {'name': 'p'}, 'spec': {'maxUnavailable': 0}}), 'lets no node'),
    ('a default priority class', None, add('p.yaml', {'apiVersion': 'scheduling.k8s.io/v1', 'kind': 'PriorityClass',
                                                      'metadata': {'name': 'p'}, 'globalDefault': True}), 'default for all'),
    ("the operator's service account", None, account, 'OLM makes it'),
    ('no ClusterServiceVersion', None, lambda d: os.unlink(d + '/' + CSV), 'there are 0 ClusterServiceVersions'),
    ('no definition', None, lambda d: os.unlink(d + '/' + CRD), 'is not in the bundle'),
    ('a name without a version', CSV, put(('metadata', 'name'), 'ebpfdump'), 'is not PACKAGE.vVERSION'),
    ('another version than the name says', CSV, put(('spec', 'version'), '9.9.9'), 'not that of the name'),
    ('no version', CSV, put(('spec', 'version'), None), 'is no version'),
    ('replaces itself', CSV, put(('spec', 'replaces'), 'ebpfdump.v0.1.0'), 'spec.replaces'),
    ('no provider', CSV, put(('spec', 'provider'), {}), 'provider.name'),
    ('a maintainer without an address', CSV, put(('spec', 'maintainers'), [{'name': 'x', 'email': 'nobody'}]), 'maintainer'),
    ('a link without a URL', CSV, put(('spec', 'links'), [{'name': 'x', 'url': 'nowhere'}]), 'link'),
    ('no icon', CSV, put(('spec', 'icon'), None), 'not one icon'),
    ('an icon of another kind', CSV, put(('spec', 'icon', 0, 'mediatype'), 'image/webp'), 'mediatype'),
    ('an icon that is not base64', CSV, put(('spec', 'icon', 0, 'base64data'), '***'), 'not base64'),
    ('a missing install mode', CSV, put(('spec', 'installModes'), [{'type': 'AllNamespaces', 'supported': True}]), 'installModes'),
    ('no install mode that is supported', CSV, put(('spec', 'installModes', 3, 'supported'), False), 'no install mode'),
    ('an unknown capability level', CSV, put(('metadata', 'annotations', 'capabilities'), 'Wonders'), 'capabilities'),
    ('an unknown category', CSV, put(('metadata', 'annotations', 'categories'), 'Cooking'), 'category'),
    ('a minKubeVersion that is none', CSV, put(('spec', 'minKubeVersion'), 'new'), 'minKubeVersion'),
    ('examples that are no JSON', CSV, put(('metadata', 'annotations', 'alm-examples'), '['), 'is no JSON'),
    ('an example of something else', CSV, example(lambda e: e[0].update(kind='Other')), 'is not owned'),
    ('an example without spec', CSV, example(lambda e: e[0].pop('spec')), 'it has no spec'),
    ('an example with an unknown field', CSV, example(lambda e: e[0]['spec'].update(interface='lo')), 'there is no field interface'),
    ('an example with a wrong type', CSV, example(lambda e: e[0]['spec'].update(interfaces='lo')), 'is not of type array'),
    ('a definition owned twice', CSV, lambda c: c['spec']['customresourcedefinitions']['owned'].append(
        copy.deepcopy(c['spec']['customresourcedefinitions']['owned'][0])), 'owned twice'),
    ('a definition that is not there', CSV, put(OWNED + (0, 'kind'), 'Other'), 'is not in the bundle'),
    ('no resources', CSV, put(OWNED + (0, 'resources'), []), 'names no resources'),
    ('no descriptors', CSV, put(OWNED + (0, 'specDescriptors'), []), 'has no descriptor'),
    ('a descriptor of no field', CSV, put(OWNED + (0, 'specDescriptors', 0, 'path'), 'nothing'), 'is of no field'),
    ('no status descriptors', CSV, put(OWNED + (0, 'statusDescriptors'), []), 'status.conditions has no descriptor'),
    ('another strategy', CSV, put(('spec', 'install', 'strategy'), 'job'), 'strategy'),
    ('a container without requests', CSV, put(OPERATOR + ('containers', 0, 'resources'), {}), 'requests no cpu'),
    ('an image that is not listed', CSV, put(OPERATOR + ('containers', 0, 'image'), 'x:1'), 'relatedImages'),
    ('a privileged operator', CSV, put(OPERATOR + ('containers', 0, 'securityContext', 'privileged'), True), 'is privileged'),
    ('an account without permissions', CSV, put(OPERATOR + ('serviceAccountName',), 'x'), 'has no permissions'),
    ('a selector that selects nothing', CSV, put(('spec', 'install', 'spec', 'deployments', 0, 'spec', 'selector'),
                                                 {'matchLabels': {'a': 'b'}}), 'does not match its pods'),
    ('a wildcard', CSV, put(('spec', 'install', 'spec', 'permissions', 0, 'rules', 0, 'verbs'), ['*']), 'wildcard'),
    ('changed security context constraints', CSV, put(('spec', 'install', 'spec', 'permissions', 1, 'rules', 0, 'verbs'), ['update']),
     'security context constraints'),
    ('a namespace template that is no JSON', CSV,
     put(('metadata', 'annotations', 'operatorframework.io/suggested-namespace-template'), '{'), 'is no JSON'),
    ('a definition without schema', CRD, put(V1 + ('schema',), {}), 'has no schema'),
    ('a definition whose name is not its own', CRD, put(('metadata', 'name'), 'x.y'), 'PLURAL.GROUP'),
    ('no stored version', CRD, put(V1 + ('storage',), False), 'not one version is stored'),
    ('a schema without a type', CRD, put(V1 + ('schema', 'openAPIV3Schema', 'properties', 'spec', 'type'), None), 'has no type'),
    ('a schema with $ref', CRD, put(V1 + ('schema', 'openAPIV3Schema', 'properties', 'spec', '$ref'), '#/x'), '$ref is not allowed'),
    ('a required field that is none', CRD, put(V1 + ('schema', 'openAPIV3Schema', 'required'), ['other']), 'is no property'),
    ('an editor role that is aggregated', 'manifests/ebpfdump-editor_rbac.authorization.k8s.io_v1_clusterrole.yaml',
     put(('metadata', 'labels', 'rbac.authorization.k8s.io/aggregate-to-edit'), 'true'), 'every tenant'),
    ('no scorecard', None, lambda d: os.unlink(d + '/tests/scorecard/config.yaml'), 'config.yaml: it is missing'),
    ('a scorecard test without an image', 'tests/scorecard/config.yaml', put(('stages', 0, 'tests', 0, 'image'), None), 'no image'),
]


def faults():
    for name, file, change, said in FAULTS:
        with tempfile.TemporaryDirectory() as home:
            folder = os.path.join(home, 'bundle')
            shutil.copytree(os.path.join(HOME, 'bundle'), folder)
            os.makedirs(os.path.join(home, 'hack/images'))
            shutil.copy(os.path.join(HOME, 'hack/images/bundle.Dockerfile'), os.path.join(home, 'hack/images'))
            if file:
                path = os.path.join(folder, file)
                with open(path) as f:
                    d = yaml.safe_load(f)
                change(d)
                with open(path, 'w') as f:
                    yaml.safe_dump(d, f)
            else:
                change(folder)
            found = bundle.validate(folder)
            check('found in a bundle: ' + name, any(said in t for t in found.errors + found.warnings),
                  '\n'.join(found.errors + found.warnings) or 'nothing was found')


everything = overlays()
installer(everything)
consistent(everything)
prometheus(everything, sys.argv[1] if len(sys.argv) > 1 else os.path.join(HOME, 'build'))
bundle_files(everything)
faults()
check('a bundle is broken in at least twenty ways', len(FAULTS) >= 20)
check('the licences of what is generated', all(re.match('# SPDX', open(os.path.join(HOME, f)).read()) for f in
                                               ('config/install.yaml', 'bundle/' + CSV, 'bundle/' + CRD, 'bundle/catalog/catalog.yaml')))
print(f'{passed} passed, {failed} failed')
sys.exit(1 if failed else 0)
