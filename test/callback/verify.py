#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: verify.py DOCUMENT KEY BODY SIGNATURE

Takes the examples of how a signature is verified out of docs/CALLBACK.md and runs each: it must accept the signature, and
refuse another one and another body. Prints a line for each language.
"""
import pathlib
import re
import subprocess
import sys

COMMANDS = {"python": ["python3", "-"], "javascript": ["node", "-"], "perl": ["perl", "-"]}
CALLS = {
    "python": "import sys\nprint('yes' if signed(open({key!r}, 'rb').read().rstrip(b'\\r\\n'), open({body!r}, 'rb').read(), {signature!r}) else 'no')",
    "javascript": "const fs = require('fs');\nconst k = fs.readFileSync({key!r}, 'latin1').replace(/[\\r\\n]+$/, '');\n"
                  "console.log(signed(Buffer.from(k, 'latin1'), fs.readFileSync({body!r}), {signature!r}) ? 'yes' : 'no');",
    "perl": "sub slurp {{ local $/; open(my $f, '<:raw', shift) or die; <$f> }}\n(my $k = slurp({key!r})) =~ s/[\\r\\n]+$//;\n"
            "print signed($k, slurp({body!r}), {signature!r}) ? 'yes' : 'no';",
}


def main():
    document, key, body, signature = sys.argv[1:]
    text = pathlib.Path(document).read_text(encoding="utf-8")
    examples = dict(re.findall(r"```(python|javascript|perl)\n(.*?)```", text, re.S))
    other = pathlib.Path(body + ".other")
    other.write_bytes(pathlib.Path(body).read_bytes() + b" ")
    bad = []
    for language, command in COMMANDS.items():
        answers = []
        for b, s in ((body, signature), (body, signature[:-1] + ("0" if signature[-1] != "0" else "1")), (body, "sha256="), (body, ""),
                     (str(other), signature)):
            program = examples[language] + "\n" + CALLS[language].format(key=key, body=b, signature=s)
            done = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
            answers.append(done.stdout.strip() or done.stderr.strip())
        if answers == ["yes", "no", "no", "no", "no"]:
            print(f"ok {language}")
        else:
            bad.append(f"{language}: {answers}")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
