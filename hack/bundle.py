#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: hack/bundle.py write [FOLDER]      makes the bundle (registry+v1) and the catalog from config/ (default: bundle)
       hack/bundle.py validate FOLDER     checks a bundle as the validators and the scorecard do, offline

IMG, LOADER_IMG, CALLBACK_IMG and BUNDLE_IMG in the environment stand for the images that config/ names.

The checks are those of operator-framework/api and operator-registry, of `operator-sdk bundle validate --select-optional
suite=operatorframework`, and of the scorecard's OLM tests. Each finding is a line, `error:` or `warning:`; errors make the exit
status 1."""
import base64
import copy
import datetime
import json
import os
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    sys.exit('bundle.py: python3-yaml is missing: hack/deps.sh test installs it')

HOME = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')
PACKAGE, CHANNEL, KIND = 'ebpfdump', 'candidate', 'EbpfDump'
OPERATOR = 'ebpfdump-operator'
REGISTRY = 'ghcr.io/dynatrace-oss'
ANNOTATIONS = {
    'operators.operatorframework.io.bundle.mediatype.v1': 'registry+v1',
    'operators.operatorframework.io.bundle.manifests.v1': 'manifests/',
    'operators.operatorframework.io.bundle.metadata.v1': 'metadata/',
    'operators.operatorframework.io.bundle.package.v1': PACKAGE,
    'operators.operatorframework.io.bundle.channels.v1': CHANNEL,
    'operators.operatorframework.io.bundle.channel.default.v1': CHANNEL,
    'operators.operatorframework.io.test.mediatype.v1': 'scorecard+v1',
    'operators.operatorframework.io.test.config.v1': 'tests/scorecard/',
    'com.redhat.openshift.versions': 'v4.14',
}
# What operator-registry takes in a bundle.
KINDS = {'ClusterServiceVersion', 'CustomResourceDefinition', 'Secret', 'ClusterRole', 'ClusterRoleBinding', 'ConfigMap',
         'ServiceAccount', 'Service', 'Role', 'RoleBinding', 'PrometheusRule', 'ServiceMonitor', 'PodDisruptionBudget',
         'PriorityClass', 'VerticalPodAutoscaler', 'ConsoleYAMLSample', 'ConsoleQuickStart', 'ConsoleCLIDownload',
         'ConsoleLink'}
CAPABILITIES = {'Basic Install', 'Seamless Upgrades', 'Full Lifecycle', 'Deep Insights', 'Auto Pilot'}
CATEGORIES = {'AI/Machine Learning', 'Application Runtime', 'Big Data', 'Cloud Provider', 'Database', 'Developer Tools',
              'Drivers and plugins', 'Integration & Delivery', 'Logging & Tracing', 'Modernization & Migration', 'Monitoring',
              'Networking', 'OpenShift Optional', 'Security', 'Storage', 'Streaming & Messaging'}
ICONS = {'image/gif', 'image/jpeg', 'image/png', 'image/svg+xml'}
MODES = ('OwnNamespace', 'SingleNamespace', 'MultiNamespace', 'AllNamespaces')
# Served no more by the Kubernetes that minKubeVersion names, or later ones.
REMOVED = {'extensions/v1beta1', 'apps/v1beta1', 'apps/v1beta2', 'apiextensions.k8s.io/v1beta1',
           'rbac.authorization.k8s.io/v1beta1', 'policy/v1beta1', 'scheduling.k8s.io/v1beta1', 'batch/v1beta1',
           'networking.k8s.io/v1beta1', 'admissionregistration.k8s.io/v1beta1', 'coordination.k8s.io/v1beta1'}
SEMVER = r'(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?'


def at(value, path, default=None):
    """value['a']['b'] for 'a.b', or the default."""
    for key in path.split('.'):
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


# ---- making it ----

def render(folder):
    done = subprocess.run([os.environ.get('KUBECTL', 'kubectl'), 'kustomize', os.path.join(HOME, 'config', folder)],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit('bundle.py: ' + done.stderr.strip())
    text = done.stdout
    for program, variable in (('operator', 'IMG'), ('loader', 'LOADER_IMG'), ('callback', 'CALLBACK_IMG')):
        if os.environ.get(variable):
            text = text.replace(f'{REGISTRY}/ebpfdump-{program}:{version()}', os.environ[variable])
    return [d for d in yaml.safe_load_all(text) if d]


def one(documents, kind, name):
    found = [d for d in documents if d['kind'] == kind and d['metadata']['name'] == name]
    if len(found) != 1:
        sys.exit(f'bundle.py: config/ has {len(found)} {kind} {name}, not one')
    return found[0]


def version():
    with open(os.path.join(HOME, 'Makefile')) as f:
        return re.search(r'^VERSION := (\S+)', f.read(), re.M).group(1)


def words(name):
    """bodyBytes -> Body bytes"""
    text = re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name).lower()
    text = re.sub(r'\b(ca|hmac|url)\b', lambda m: m.group().upper(), text)
    return text[0].upper() + text[1:]


X = 'urn:alm:descriptor:com.tectonic.ui:'
BY_PATH = {'nodeSelector': ['nodeSelector'], 'tolerations': ['tolerations'], 'resources': ['resourceRequirements'],
           'callback': ['text'], 'image': ['text']}


def descriptors(schema, prefix=''):
    """A descriptor for each field: of an object those of its fields, too."""
    for name, field in schema.get('properties', {}).items():
        path = prefix + name
        # of a field of an object: "Batch bytes"
        title = words(f'{prefix.split(".")[-2]} {words(name).lower()}' if prefix else name)
        row = {'path': path, 'displayName': title, 'description': field.get('description', '')}
        hints = BY_PATH.get(path)
        if hints is None:
            if 'enum' in field:
                hints = ['select:' + v for v in field['enum']]
            elif field.get('type') in ('integer', 'number'):
                hints = ['number']
            elif field.get('type') == 'boolean':
                hints = ['booleanSwitch']
            elif field.get('type') == 'string':
                hints = ['text']
            else:
                hints = []
        if prefix:
            hints = hints + ['advanced']
        if hints:
            row['x-descriptors'] = [X + h for h in hints]
        yield row
        if field.get('type') == 'object' and path not in BY_PATH:
            yield from descriptors(field, path + '.')


def status_descriptors(schema):
    for name, field in schema.get('properties', {}).items():
        row = {'path': name, 'displayName': words(name), 'description': field.get('description', '')}
        if name == 'conditions':
            row['x-descriptors'] = ['urn:alm:descriptor:io.kubernetes.conditions']
        yield row


def service_version(documents, when):
    csv = copy.deepcopy(one(documents, 'ClusterServiceVersion', 'ebpfdump.v0.0.0'))
    crd = one(documents, 'CustomResourceDefinition', 'ebpfdumps.research.dynatrace.com')
    deployment = one(documents, 'Deployment', OPERATOR)
    served = crd['spec']['versions'][0]
    schema = served['schema']['openAPIV3Schema']['properties']
    meta, spec = csv['metadata'], csv['spec']
    meta['name'] = f'{PACKAGE}.v{version()}'
    spec['version'] = version()
    image = deployment['spec']['template']['spec']['containers'][0]['image']
    loader = [e['value'] for e in deployment['spec']['template']['spec']['containers'][0]['env'] if e['name'] == 'LOADER_IMAGE'][0]
    examples = [d for d in documents if d['kind'] == KIND]
    for e in examples:
        e['metadata'].pop('annotations', None)
    meta['annotations']['alm-examples'] = json.dumps(examples, indent=2)
    meta['annotations']['containerImage'] = image
    meta['annotations']['createdAt'] = when
    namespace = one(documents, 'Namespace', 'ebpfdump-operator-system')
    meta['annotations']['operatorframework.io/suggested-namespace-template'] = json.dumps(
        {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': namespace['metadata']})
    with open(os.path.join(HOME, 'config/manifests/icon.svg'), 'rb') as f:
        spec['icon'] = [{'base64data': base64.b64encode(f.read().strip()).decode(), 'mediatype': 'image/svg+xml'}]
    spec['customresourcedefinitions'] = {'owned': [{
        'name': crd['metadata']['name'], 'version': served['name'], 'kind': KIND, 'displayName': 'HTTP capture',
        'description': served['schema']['openAPIV3Schema']['description'],
        'resources': [{'kind': 'DaemonSet', 'name': 'ebpfdump-loader', 'version': 'v1'}, {'kind': 'Pod', 'name': '', 'version': 'v1'},
                      {'kind': 'Secret', 'name': 'ebpfdump-marker-key', 'version': 'v1'}],
        'specDescriptors': list(descriptors(schema['spec'])),
        'statusDescriptors': list(status_descriptors(schema['status']))}]}
    scc = [d for d in render('openshift') if d['kind'] == 'Role' and d['metadata']['name'] == 'ebpfdump-loader-scc'][0]
    spec['install'] = {'strategy': 'deployment', 'spec': {
        'clusterPermissions': [{'serviceAccountName': OPERATOR, 'rules': one(documents, 'ClusterRole', OPERATOR)['rules']}],
        'permissions': [{'serviceAccountName': OPERATOR, 'rules': one(documents, 'Role', OPERATOR)['rules']},
                        {'serviceAccountName': 'ebpfdump-loader', 'rules': scc['rules']}],
        'deployments': [{'name': OPERATOR, 'label': deployment['metadata']['labels'], 'spec': deployment['spec']}]}}
    callback = one(render('callback'), 'Deployment', 'ebpfdump-callback')['spec']['template']['spec']['containers'][0]['image']
    spec['relatedImages'] = [{'name': 'operator', 'image': image}, {'name': 'loader', 'image': loader},
                             {'name': 'callback', 'image': callback}]
    return csv


def as_block(dumper, text):
    return dumper.represent_scalar('tag:yaml.org,2002:str', text, style='|' if '\n' in text else None)


class Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


Dumper.add_representer(str, as_block)


def save(folder, name, document):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write('# SPDX-License-Identifier: Apache-2.0\n')
        yaml.dump(document, f, Dumper=Dumper, sort_keys=False, width=130, allow_unicode=True)


def dockerfile():
    labels = ' \\\n'.join(f'      {k}="{v}"' for k, v in ANNOTATIONS.items()).lstrip()
    return ('# SPDX-License-Identifier: Apache-2.0\n# Generated: make bundle\nFROM scratch\nLABEL ' + labels + '\n'
            'COPY bundle/manifests /manifests/\nCOPY bundle/metadata /metadata/\n'
            'COPY bundle/tests/scorecard /tests/scorecard/\n')


def catalog(csv, crd):
    """A file-based catalog with the one bundle."""
    image = os.environ.get('BUNDLE_IMG') or f'{REGISTRY}/ebpfdump-bundle:{version()}'
    return [
        {'schema': 'olm.package', 'name': PACKAGE, 'defaultChannel': CHANNEL, 'icon': csv['spec']['icon'][0],
         'description': csv['metadata']['annotations']['description']},
        {'schema': 'olm.channel', 'package': PACKAGE, 'name': CHANNEL, 'entries': [{'name': csv['metadata']['name']}]},
        {'schema': 'olm.bundle', 'package': PACKAGE, 'name': csv['metadata']['name'], 'image': image,
         'relatedImages': csv['spec']['relatedImages'] + [{'name': '', 'image': image}],
         'properties': [
             {'type': 'olm.package', 'value': {'packageName': PACKAGE, 'version': version()}},
             {'type': 'olm.gvk', 'value': {'group': crd['spec']['group'], 'kind': KIND, 'version': 'v1alpha1'}},
             {'type': 'olm.csv.metadata', 'value': {
                 'annotations': {k: v for k, v in csv['metadata']['annotations'].items() if k != 'alm-examples'},
                 'displayName': csv['spec']['displayName'], 'description': csv['spec']['description'],
                 'provider': csv['spec']['provider'], 'minKubeVersion': csv['spec']['minKubeVersion'],
                 'installModes': csv['spec']['installModes'], 'keywords': csv['spec']['keywords'],
                 'links': csv['spec']['links'], 'maintainers': csv['spec']['maintainers'], 'maturity': csv['spec']['maturity'],
                 'crdDescriptions': {'owned': [{k: o[k] for k in ('name', 'version', 'kind', 'displayName', 'description')}
                                               for o in csv['spec']['customresourcedefinitions']['owned']]}}}]}]


def write(folder):
    documents = render('manifests')
    try:
        with open(os.path.join(folder, 'manifests/ebpfdump.clusterserviceversion.yaml')) as f:
            old = yaml.safe_load(f)
    except FileNotFoundError:
        old = None
    # the day on which this version was first made: made again tomorrow, it is the same
    if old and at(old, 'spec.version') == version():
        when = old['metadata']['annotations']['createdAt']
    else:
        when = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%dT00:00:00Z')
    csv = service_version(documents, when)
    crd = one(documents, 'CustomResourceDefinition', 'ebpfdumps.research.dynatrace.com')
    for name in ('manifests', 'metadata', 'tests/scorecard'):
        path = os.path.join(folder, name)
        for old_file in os.listdir(path) if os.path.isdir(path) else []:
            os.unlink(os.path.join(path, old_file))
    save(folder, 'manifests/ebpfdump.clusterserviceversion.yaml', csv)
    save(folder, 'manifests/research.dynatrace.com_ebpfdumps.yaml', crd)
    for role in ('viewer', 'editor'):
        save(folder, f'manifests/ebpfdump-{role}_rbac.authorization.k8s.io_v1_clusterrole.yaml',
             one(documents, 'ClusterRole', f'ebpfdump-{role}'))
    save(folder, 'metadata/annotations.yaml', {'annotations': ANNOTATIONS})
    save(folder, 'tests/scorecard/config.yaml', one(documents, 'Configuration', 'config'))
    os.makedirs(os.path.join(folder, 'catalog'), exist_ok=True)
    with open(os.path.join(folder, 'catalog/catalog.yaml'), 'w') as f:
        f.write('# SPDX-License-Identifier: Apache-2.0\n')
        yaml.dump_all(catalog(csv, crd), f, Dumper=Dumper, sort_keys=False, width=130, allow_unicode=True, explicit_start=True)
    if os.path.realpath(folder) == os.path.realpath(os.path.join(HOME, 'bundle')):
        with open(os.path.join(HOME, 'hack/images/bundle.Dockerfile'), 'w') as f:
            f.write(dockerfile())


# ---- checking it ----

class Findings:
    def __init__(self):
        self.errors, self.warnings = [], []

    def error(self, condition, text):
        if not condition:
            self.errors.append(text)
        return bool(condition)

    def warning(self, condition, text):
        if not condition:
            self.warnings.append(text)
        return bool(condition)


def load(path, f):
    try:
        with open(path) as stream:
            documents = [d for d in yaml.safe_load_all(stream) if d is not None]
    except (OSError, yaml.YAMLError) as e:
        f.error(False, f'{path}: cannot be read: {" ".join(str(e).split())}')
        return None
    if not f.error(len(documents) == 1, f'{path}: one document is wanted, there are {len(documents)}'):
        return None
    if not f.error(isinstance(documents[0], dict), f'{path}: it is no object'):
        return None
    return documents[0]


def check_annotations(folder, f):
    path = os.path.join(folder, 'metadata/annotations.yaml')
    if not f.error(os.path.isfile(path), f'{path}: it is missing'):
        return {}
    annotations = at(load(path, f) or {}, 'annotations', {})
    for key in list(ANNOTATIONS)[:5]:
        f.error(annotations.get(key), f'{path}: {key} is missing')
    prefix = 'operators.operatorframework.io.bundle.'
    f.error(annotations.get(prefix + 'mediatype.v1') == 'registry+v1', f'{path}: mediatype is not registry+v1')
    f.error(annotations.get(prefix + 'manifests.v1') == 'manifests/', f'{path}: manifests are not in manifests/')
    f.error(annotations.get(prefix + 'metadata.v1') == 'metadata/', f'{path}: metadata is not in metadata/')
    channels = [c.strip() for c in str(annotations.get(prefix + 'channels.v1') or '').split(',')]
    f.error(all(channels), f'{path}: a channel has no name')
    default = annotations.get(prefix + 'channel.default.v1')
    if default is not None:
        f.error(default in channels, f'{path}: the default channel {default!r} is not among {channels}')
    for c in channels:
        f.warning(re.match(r'(candidate|fast|stable)', c), f'{path}: channel {c!r} is not named candidate, fast or stable')
    f.error(re.fullmatch(r'[a-z0-9]([a-z0-9-]*[a-z0-9])?', str(annotations.get(prefix + 'package.v1'))),
            f'{path}: the package\'s name is not one')
    return annotations


def check_schema(schema, where, f):
    """What a structural schema must be (apiextensions' validation.go)."""
    if not f.error(isinstance(schema, dict), f'{where}: it is no schema'):
        return
    kind = schema.get('type')
    f.error(kind or schema.get('x-kubernetes-int-or-string') or schema.get('x-kubernetes-preserve-unknown-fields'),
            f'{where}: it has no type')
    for word in ('$ref', 'definitions', 'dependencies', 'patternProperties', 'additionalItems', 'deprecated', 'discriminator',
                 'readOnly', 'writeOnly', 'xml', 'id'):
        f.error(word not in schema, f'{where}: {word} is not allowed')
    f.error(schema.get('uniqueItems') is not True, f'{where}: uniqueItems is not allowed')
    f.error(not ('properties' in schema and 'additionalProperties' in schema),
            f'{where}: properties and additionalProperties exclude each other')
    f.error(kind != 'array' or 'items' in schema, f'{where}: an array needs items')
    for word in ('pattern',):
        if word in schema:
            try:
                re.compile(schema[word])
            except re.error as e:
                f.error(False, f'{where}: {word} is no regular expression: {e}')
    properties = schema.get('properties', {})
    for name in schema.get('required', []):
        f.error(name in properties, f'{where}: required {name!r} is no property')
    for name, value in properties.items():
        check_schema(value, f'{where}.{name}', f)
    if isinstance(schema.get('items'), dict):
        check_schema(schema['items'], where + '[]', f)
    if isinstance(schema.get('additionalProperties'), dict):
        check_schema(schema['additionalProperties'], where + '{}', f)


def check_crd(path, crd, f):
    spec, name = crd.get('spec', {}), at(crd, 'metadata.name', '')
    f.error(crd.get('apiVersion') == 'apiextensions.k8s.io/v1', f'{path}: it is not of apiextensions.k8s.io/v1')
    f.error(name == f'{at(spec, "names.plural")}.{spec.get("group")}', f'{path}: the name {name!r} is not PLURAL.GROUP')
    f.error(spec.get('scope') in ('Namespaced', 'Cluster'), f'{path}: scope is neither Namespaced nor Cluster')
    versions = spec.get('versions') or []
    f.error(sum(v.get('storage') is True for v in versions) == 1, f'{path}: not one version is stored')
    f.error(any(v.get('served') for v in versions), f'{path}: no version is served')
    f.error(len({v.get('name') for v in versions}) == len(versions), f'{path}: a version is there twice')
    for v in versions:
        schema = at(v, 'schema.openAPIV3Schema')
        if f.error(schema, f'{path}: version {v.get("name")} has no schema'):
            f.error(schema.get('type') == 'object', f'{path}: the root of a schema is an object')
            check_schema(schema, f'{path}: {v.get("name")}', f)


def field(schema, value, where, f):
    """An example against the schema: unknown fields, types, enums, bounds."""
    if not schema:
        return
    kind = schema.get('type')
    types = {'object': dict, 'array': list, 'string': str, 'boolean': bool, 'integer': int, 'number': (int, float)}
    if kind and not f.error(isinstance(value, types[kind]) and not (kind in ('integer', 'number') and isinstance(value, bool)),
                            f'{where}: {value!r} is not of type {kind}'):
        return
    if 'enum' in schema:
        f.error(value in schema['enum'], f'{where}: {value!r} is none of {schema["enum"]}')
    if isinstance(value, str) and 'pattern' in schema:
        f.error(re.search(schema['pattern'], value), f'{where}: {value!r} does not match {schema["pattern"]}')
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        f.error(schema.get('minimum', value) <= value <= schema.get('maximum', value), f'{where}: {value} is out of bounds')
    if isinstance(value, list):
        f.error(len(value) <= schema.get('maxItems', len(value)), f'{where}: too many')
        for i, v in enumerate(value):
            field(schema.get('items', {}), v, f'{where}[{i}]', f)
    if isinstance(value, dict):
        for name in schema.get('required', []):
            f.error(name in value, f'{where}: {name} is missing')
        for name, v in value.items():
            if name in schema.get('properties', {}):
                field(schema['properties'][name], v, f'{where}.{name}', f)
            elif 'additionalProperties' in schema:
                field(schema['additionalProperties'] or {}, v, f'{where}.{name}', f)
            else:
                f.error(False, f'{where}: there is no field {name}')


def check_csv(path, csv, crds, accounts, f):
    meta, spec = csv.get('metadata', {}), csv.get('spec', {})
    annotations = meta.get('annotations', {})
    name = str(meta.get('name'))
    f.error(re.fullmatch(r'[a-z0-9-]+\.v' + SEMVER, name), f'{path}: the name {name!r} is not PACKAGE.vVERSION')
    f.error(re.fullmatch(SEMVER, str(spec.get('version'))), f'{path}: spec.version {spec.get("version")!r} is no version')
    f.error(name.endswith('.v' + str(spec.get('version'))), f'{path}: spec.version is not that of the name {name!r}')
    if 'replaces' in spec:
        f.error(re.fullmatch(r'[a-z0-9-]+\.v' + SEMVER, str(spec['replaces'])) and spec['replaces'] != name,
                f'{path}: spec.replaces {spec["replaces"]!r} is not another PACKAGE.vVERSION')
    for key in ('displayName', 'description', 'maturity'):
        f.error(spec.get(key), f'{path}: spec.{key} is empty')
    f.error(at(spec, 'provider.name'), f'{path}: spec.provider.name is missing')
    people = spec.get('maintainers') or []
    f.error(people, f'{path}: spec.maintainers is empty')
    for p in people:
        f.error(p.get('name') and re.fullmatch(r'[^@\s<>]+@[^@\s<>.]+(\.[^@\s<>.]+)+', str(p.get('email'))),
                f'{path}: maintainer {p} has no name or no address')
    links = spec.get('links') or []
    f.error(links, f'{path}: spec.links is empty')
    for link in links:
        f.error(link.get('name') and re.match(r'https?://[^/\s]+', str(link.get('url'))), f'{path}: link {link} has no name or no URL')
    icons = spec.get('icon') or []
    if f.warning(len(icons) == 1, f'{path}: there is not one icon'):
        f.error(icons[0].get('mediatype') in ICONS, f'{path}: the icon\'s mediatype is none of {sorted(ICONS)}')
        try:
            f.error(base64.b64decode(str(icons[0].get('base64data')), validate=True), f'{path}: the icon is empty')
        except ValueError:
            f.error(False, f'{path}: the icon is not base64')
    if f.warning('minKubeVersion' in spec, f'{path}: there is no spec.minKubeVersion'):
        f.error(re.fullmatch(SEMVER, str(spec['minKubeVersion'])), f'{path}: spec.minKubeVersion is no version')
    modes = {m.get('type'): m.get('supported') for m in spec.get('installModes') or []}
    f.error(sorted(modes) == sorted(MODES), f'{path}: spec.installModes does not name each mode once')
    f.error(any(modes.values()), f'{path}: no install mode is supported')
    capability = annotations.get('capabilities')
    f.error(capability in CAPABILITIES, f'{path}: capabilities {capability!r} is none of {sorted(CAPABILITIES)}')
    for category in str(annotations.get('categories', '')).split(','):
        f.error(category.strip() in CATEGORIES, f'{path}: category {category.strip()!r} is unknown')
    for key in ('containerImage', 'createdAt', 'description', 'repository', 'support'):
        f.error(annotations.get(key), f'{path}: the annotation {key} is missing')
    f.error(len(annotations.get('description', '')) <= 135, f'{path}: the annotation description is longer than 135 characters')
    template = annotations.get('operatorframework.io/suggested-namespace-template')
    if template is not None:
        try:
            namespace = json.loads(template)
            f.error(namespace.get('kind') == 'Namespace' and at(namespace, 'metadata.name') ==
                    annotations.get('operatorframework.io/suggested-namespace'),
                    f'{path}: the suggested namespace\'s template is of another namespace')
            f.error(at(namespace, 'metadata.labels', {}).get('pod-security.kubernetes.io/enforce') == 'privileged',
                    f'{path}: the suggested namespace does not admit the loaders')
        except (ValueError, AttributeError):
            f.error(False, f'{path}: the suggested namespace\'s template is no JSON')
    check_install(path, spec, accounts, f)
    check_owned(path, spec, annotations, crds, f)
    images = spec.get('relatedImages') or []
    f.warning(images, f'{path}: there are no spec.relatedImages')
    listed = {i.get('image') for i in images}
    for c in containers(spec):
        f.error(c.get('image') in listed, f'{path}: image {c.get("image")!r} is not among spec.relatedImages')
        for e in c.get('env', []):
            if e.get('name', '').endswith('_IMAGE'):
                f.error(e.get('value') in listed, f'{path}: image {e.get("value")!r} is not among spec.relatedImages')


def containers(spec):
    for d in at(spec, 'install.spec.deployments', []):
        yield from at(d, 'spec.template.spec.containers', [])


def check_install(path, spec, accounts, f):
    f.error(at(spec, 'install.strategy') == 'deployment', f'{path}: spec.install.strategy is not deployment')
    deployments = at(spec, 'install.spec.deployments', [])
    f.error(deployments, f'{path}: no deployment is installed')
    ruled = [p for key in ('permissions', 'clusterPermissions') for p in at(spec, 'install.spec.' + key, [])]
    for d in deployments:
        account = at(d, 'spec.template.spec.serviceAccountName')
        f.error(account not in accounts, f'{path}: ServiceAccount {account} is in the bundle: OLM makes it')
        f.error(account in {p.get('serviceAccountName') for p in ruled}, f'{path}: ServiceAccount {account} has no permissions')
        labels = at(d, 'spec.template.metadata.labels', {})
        f.error(at(d, 'spec.selector.matchLabels', {}).items() <= labels.items() and at(d, 'spec.selector.matchLabels'),
                f'{path}: the selector of deployment {d.get("name")} does not match its pods')
    for c in containers(spec):
        for what in ('cpu', 'memory'):
            f.warning(what in at(c, 'resources.requests', {}), f'{path}: container {c.get("name")} requests no {what}')
        f.error(at(c, 'securityContext.privileged') is not True, f'{path}: container {c.get("name")} is privileged')
    for p in ruled:
        for rule in p.get('rules', []):
            f.error(rule.get('verbs') and (rule.get('resources') or rule.get('nonResourceURLs')), f'{path}: a rule is empty: {rule}')
            f.error('*' not in rule.get('verbs', []) + rule.get('resources', []) + rule.get('apiGroups', []),
                    f'{path}: a rule has a wildcard: {rule}')
            f.error('securitycontextconstraints' not in rule.get('resources', []) or rule.get('verbs') == ['use'],
                    f'{path}: a rule changes security context constraints: {rule}')


def check_owned(path, spec, annotations, crds, f):
    owned = at(spec, 'customresourcedefinitions.owned', [])
    f.error(owned, f'{path}: no definition is owned')
    keys = [(o.get('name'), o.get('version'), o.get('kind')) for o in owned]
    f.error(len(set(keys)) == len(keys), f'{path}: a definition is owned twice')
    served = {}
    for crd in crds:
        for v in at(crd, 'spec.versions', []):
            served[(at(crd, 'metadata.name'), v.get('name'), at(crd, 'spec.names.kind'))] = (crd, v)
    for key in keys:
        f.error(key in served, f'{path}: the owned definition {key} is not in the bundle')
    for key in served:
        f.warning(key in keys, f'{path}: the definition {key} is not owned')
    for o in owned:
        for what in ('displayName', 'description'):
            f.warning(o.get(what), f'{path}: the owned {o.get("kind")} has no {what}')
        f.error(o.get('resources'), f'{path}: scorecard: the owned {o.get("kind")} names no resources')
    try:
        examples = json.loads(annotations.get('alm-examples', '[]'))
    except ValueError as e:
        f.error(False, f'{path}: alm-examples is no JSON: {e}')
        return
    f.error(isinstance(examples, list), f'{path}: alm-examples is no list')
    by_kind = {f'{at(c, "spec.group")}/{v["name"]}/{at(c, "spec.names.kind")}': (c, v) for c, v in served.values()}
    f.warning(examples, f'{path}: there is no example')
    for i, example in enumerate(examples if isinstance(examples, list) else []):
        where = f'{path}: alm-examples[{i}]'
        kind = f'{example.get("apiVersion")}/{example.get("kind")}'
        if not f.error(kind in by_kind, f'{where}: {kind} is not owned'):
            continue
        f.error('spec' in example, f'{where}: scorecard: it has no spec')
        schema = at(by_kind[kind][1], 'schema.openAPIV3Schema', {})
        field(dict(schema, properties=dict(schema.get('properties', {}), metadata={'type': 'object', 'additionalProperties': {}})),
              example, where, f)
        for o in owned:
            if o.get('kind') != example.get('kind'):
                continue
            for part, what in (('spec', 'specDescriptors'), ('status', 'statusDescriptors')):
                paths = {d.get('path') for d in o.get(what, [])}
                for name in example.get(part) or {}:
                    f.error(name in paths, f'{where}: scorecard: {part}.{name} has no descriptor')
    for o in owned:
        crd, v = served.get((o.get('name'), o.get('version'), o.get('kind')), (None, {}))
        for part, what in (('spec', 'specDescriptors'), ('status', 'statusDescriptors')):
            properties = at(v, f'schema.openAPIV3Schema.properties.{part}', {})
            for d in o.get(what, []):
                node = properties
                for name in str(d.get('path')).split('.'):
                    node = at(node, 'properties', {}).get(name) if isinstance(node, dict) else None
                f.error(node is not None, f'{path}: the descriptor {part}.{d.get("path")} is of no field')
            described = {d.get('path') for d in o.get(what, [])}
            for name in at(properties, 'properties', {}):
                f.warning(name in described, f'{path}: {part}.{name} has no descriptor')


def check_object(path, d, f):
    kind = d.get('kind')
    f.error(d.get('apiVersion') and kind, f'{path}: apiVersion or kind is missing')
    f.error(kind in KINDS, f'{path}: a bundle takes no {kind}')
    f.error(d.get('apiVersion') not in REMOVED, f'{path}: {d.get("apiVersion")} {kind} is served no more')
    name = at(d, 'metadata.name', '')
    f.error(re.fullmatch(r'[a-z0-9]([a-z0-9.:-]*[a-z0-9])?', str(name)) and len(str(name)) <= 253, f'{path}: the name {name!r} is none')
    if kind == 'PriorityClass':
        f.error(d.get('globalDefault') is not True, f'{path}: a PriorityClass that is the default for all')
    if kind == 'PodDisruptionBudget':
        f.error(str(at(d, 'spec.maxUnavailable', 1)) not in ('0', '0%') and str(at(d, 'spec.minAvailable', 1)) != '100%',
                f'{path}: a PodDisruptionBudget that lets no node be drained')
    if kind in ('ClusterRole', 'Role'):
        for rule in d.get('rules') or []:
            f.error(not ('securitycontextconstraints' in rule.get('resources', []) and rule.get('verbs') != ['use']),
                    f'{path}: a rule changes security context constraints')
            f.error('aggregate-to-edit' not in str(at(d, 'metadata.labels', {})) and
                    'aggregate-to-admin' not in str(at(d, 'metadata.labels', {})),
                    f'{path}: it is aggregated to edit or admin: every tenant could read the cluster\'s traffic')


def check_dockerfile(folder, annotations, f):
    path = os.path.join(folder, '..', 'hack/images/bundle.Dockerfile')
    if not os.path.isfile(path):
        return
    with open(path) as stream:
        labels = dict(re.findall(r'([a-z0-9.-]+\.(?:v1|versions))="([^"]*)"', stream.read()))
    f.error(labels == annotations, f'{path}: its labels are not what metadata/annotations.yaml says')


def check_scorecard(folder, annotations, f):
    config = annotations.get('operators.operatorframework.io.test.config.v1')
    if config is None:
        return
    path = os.path.join(folder, config, 'config.yaml')
    if not f.error(os.path.isfile(path), f'{path}: it is missing'):
        return
    d = load(path, f) or {}
    f.error(d.get('kind') == 'Configuration' and str(d.get('apiVersion')).startswith('scorecard.operatorframework.io/'),
            f'{path}: it is no configuration of the scorecard')
    tests = [t for s in d.get('stages') or [] for t in s.get('tests') or []]
    f.error(tests and all(t.get('image') and t.get('entrypoint') for t in tests), f'{path}: a test has no image or no entrypoint')


def validate(folder):
    f = Findings()
    annotations = check_annotations(folder, f)
    manifests = os.path.join(folder, 'manifests')
    if f.error(os.path.isdir(manifests), f'{manifests}: it is missing'):
        objects = []
        for name in sorted(os.listdir(manifests)):
            path = os.path.join(manifests, name)
            d = load(path, f)
            if d:
                check_object(path, d, f)
                objects.append((path, d))
        csvs = [(p, d) for p, d in objects if d.get('kind') == 'ClusterServiceVersion']
        crds = [(p, d) for p, d in objects if d.get('kind') == 'CustomResourceDefinition']
        f.error(len(csvs) == 1, f'{manifests}: there are {len(csvs)} ClusterServiceVersions, not one')
        names = [(d.get('kind'), at(d, 'metadata.name')) for _, d in objects]
        for n in sorted({n for n in names if names.count(n) > 1}, key=str):
            f.error(False, f'{manifests}: {n[0]} {n[1]} is there twice')
        for path, crd in crds:
            check_crd(path, crd, f)
        for path, csv in csvs[:1]:
            check_csv(path, csv, [d for _, d in crds], {n for k, n in names if k == 'ServiceAccount'}, f)
    check_dockerfile(folder, annotations, f)
    check_scorecard(folder, annotations, f)
    return f


def main(arguments):
    if arguments[:1] == ['write'] and len(arguments) <= 2:
        write(arguments[1] if len(arguments) == 2 else os.path.join(HOME, 'bundle'))
        return 0
    if arguments[:1] == ['validate'] and len(arguments) == 2:
        f = validate(arguments[1])
        for text in f.errors:
            print('error: ' + text)
        for text in f.warnings:
            print('warning: ' + text)
        print(f'{len(f.errors)} errors, {len(f.warnings)} warnings')
        return 1 if f.errors else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
