#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: docs.py BUILD-FOLDER

README and docs: links lead somewhere, make targets and files that are named exist, flags are ones of the programs, and every
block of commands is run, or says that it needs a cluster. A block is marked by the first words behind its fence:

    sh           run here, in a copy of the tree, as one script; it must succeed
    sh run       each line by itself: what has not ended by then gets Ctrl-C after some seconds, and must end well
    sh suite     make targets that test/run.sh runs anyway
    sh cluster   needs a cluster, a registry or a machine of its own: only its syntax is checked
    console      a session as it looks: commands behind $, and output; only the commands' syntax is checked

Ends with `N passed, N failed`."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HOME = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..'))
passed = failed = 0


def check(name, good, detail=''):
    global passed, failed
    print('ok' if good else 'not ok', name)
    if good:
        passed += 1
    else:
        failed += 1
        print('    ' + str(detail)[:2000].replace('\n', '\n    '))


def pages():
    listed = subprocess.run(['git', '-c', 'safe.directory=*', '-C', HOME, 'ls-files', '-co', '--exclude-standard', 'README.md', 'docs/*.md'],
                            capture_output=True, text=True).stdout.split()
    for name in sorted(set(listed)):
        with open(os.path.join(HOME, name)) as f:
            yield name, f.read()


def anchors(text):
    """As GitHub makes them of headings."""
    found = set()
    for title in re.findall(r'^#+ (.+)$', re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S), re.M):
        title = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', title)
        found.add(re.sub(r' ', '-', re.sub(r'[^\w\- ]', '', title.lower())))
    return found


def links(texts):
    for name, text in texts.items():
        bad = []
        for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)):
            if re.match(r'[a-z]+:', target):
                continue
            path, _, anchor = target.partition('#')
            full = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            if not os.path.exists(os.path.join(HOME, full)):
                bad.append(target)
            elif anchor and full in texts and anchor not in anchors(texts[full]):
                bad.append(target + ': no such heading')
        check(f'{name}: links lead somewhere', not bad, '\n'.join(bad))


def names(texts, build):
    targets = set(re.findall(r'^  ([a-z0-9-]+) ', subprocess.run(['make', '-s', 'help'], cwd=HOME, capture_output=True, text=True).stdout, re.M))
    makefile = ''.join(open(os.path.join(HOME, f)).read() for f in ('Makefile', 'hack/deploy.mk'))
    helps = ''
    for program in ('loader', 'operator', 'callback'):
        helps += subprocess.run([os.path.join(build, 'ebpfdump-' + program), '--help'], capture_output=True, text=True).stdout
    flags = set(re.findall(r'--[a-z][a-z0-9-]+', helps))
    for name, text in texts.items():
        wanted = {w for line in re.findall(r'(?:`|^ {4}|^)make ((?:[a-z0-9-]+ ?)+)', text, re.M) for w in line.split()[:1]}
        missing = {w for w in wanted if w not in targets and not re.search(rf'^{w}\b[^=]*:', makefile, re.M)}
        check(f'{name}: its make targets exist', not missing, missing)
        files = set(re.findall(r'`((?:hack|test|config|bundle|docs|pkg|cmd|bpf)/[A-Za-z0-9_./-]*[A-Za-z0-9_])/?`', text))
        missing = {f for f in files if not os.path.exists(os.path.join(HOME, f))}
        check(f'{name}: files that it names exist', not missing, missing)
        used = set()
        for line in re.findall(r'build/ebpfdump-(?:loader|operator|callback)[^\n`]*', text):
            used |= set(re.findall(r'(?<!\S)--[a-z][a-z0-9-]+', re.split(r'[|>#]', line)[0]))
        check(f'{name}: flags in its commands exist', used <= flags, used - flags)


def copy_of_tree(folder, build):
    tree = os.path.join(folder, 'ebpfdump')
    os.mkdir(tree)
    subprocess.run([os.path.join(HOME, 'test/build/export.sh'), tree], check=True)
    os.symlink(os.path.realpath(build), os.path.join(tree, 'build'))
    return tree


def here(body):
    """As root there may be no sudo."""
    return re.sub(r'^sudo ', '', body, flags=re.M) if os.geteuid() == 0 else body


def run_block(body, build):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', here(body)], cwd=copy_of_tree(folder, build), capture_output=True, text=True,
                              timeout=300, stdin=subprocess.DEVNULL)
        return done.returncode == 0, body + done.stdout[-800:] + done.stderr[-800:]


def begin(process, output):
    """Until it captures, or has ended."""
    for _ in range(600):
        with open(output.name) as said:
            if process.poll() is not None or 'capturing' in said.read():
                return
        time.sleep(0.1)


def run_lines(body, build):
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_tree(folder, build)
        for line in here(body).splitlines():
            with open(os.path.join(folder, 'output'), 'w+') as output:
                process = subprocess.Popen(['bash', '-c', line], cwd=tree, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                           start_new_session=True)
                begin(process, output)
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                output.seek(0)
                if process.wait() not in (0, 130, -signal.SIGINT):
                    return False, f'{line}: status {process.returncode}\n{output.read()[-800:]}'
    return True, ''


def blocks(texts, build):
    ran = 0
    for name, text in texts.items():
        loose = re.findall(r'^ {4}(?:\$ )?(?:sudo|make|build/|curl|kubectl|hack/|test/|git|docker|openssl|python3)\b.*$',
                           re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S), re.M)
        check(f'{name}: commands stand in marked blocks', not loose, '\n'.join(loose))
        for number, (mark, body) in enumerate(re.findall(r'^```([^\n]*)\n(.*?)^```$', text, re.M | re.S), 1):
            words = mark.split()
            what = f'{name}, block {number} ({mark or "no mark"})'
            if words[:1] in (['bash'], ['shell'], ['zsh']) or (words[:1] == ['sh'] and words[1:] not in ([], ['run'], ['suite'], ['cluster'])):
                check(what, False, 'commands are marked sh, sh run, sh suite, sh cluster or console')
            elif words[:1] == ['console']:
                script = '\n'.join(re.findall(r'^\$ (.*)$', body, re.M))
                done = subprocess.run(['sh', '-n'], input=script, capture_output=True, text=True)
                check(what + ': the commands are well-formed', script and done.returncode == 0, done.stderr)
            elif words == ['sh', 'cluster']:
                done = subprocess.run(['bash', '-n'], input=body, capture_output=True, text=True)
                check(what + ': the commands are well-formed', done.returncode == 0, done.stderr)
            elif words == ['sh', 'suite']:
                with open(os.path.join(HOME, 'test/run.sh')) as f:
                    suites = f.read()
                asked = [t for line in body.splitlines() for t in re.sub('#.*', '', line).split()[1:]]
                check(what + ': suites that are run', asked and all(re.search(rf'\b{t}\b', suites) for t in asked), asked)
            elif words == ['sh']:
                ran += 1
                check(what + ': it runs', *run_block(body, build))
            elif words == ['sh', 'run']:
                ran += 1
                check(what + ': it runs', *run_lines(body, build))
    check('some blocks were run', ran >= 7, ran)


everything = dict(pages())
check('the pages that a user looks for are there', {f'docs/{n}.md' for n in (
    'SETUP', 'DEPLOYMENT', 'TESTING', 'EBPF-TESTING', 'TROUBLESHOOTING', 'SECURITY', 'CONTRIBUTING', 'CHANGELOG', 'OLM', 'CALLBACK', 'OPERATOR',
    'REFERENCE', 'ARCHITECTURE')} <= set(everything))
check('the README is a screen and a half', len(everything['README.md'].splitlines()) <= 110, len(everything['README.md'].splitlines()))
links(everything)
names(everything, sys.argv[1])
blocks(everything, sys.argv[1])
print(f'{passed} passed, {failed} failed')
sys.exit(1 if failed else 0)
