/* SPDX-License-Identifier: Apache-2.0 */
/* ebpfdump-operator: flags, and what they ask for. */
#include <stdio.h>

#include "cmd/operator/operator.h"

int main(int argc, char **argv)
{
	struct spec_operator spec;
	struct err err = {0};

	if (spec_parse(&spec_operator, &spec, argc, argv, &err)) {
		fprintf(stderr, "ebpfdump-operator: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (spec.help) {
		spec_help(&spec_operator, stdout);
	} else if (spec.version) {
		puts("ebpfdump-operator " EBPFDUMP_VERSION);
	} else if (spec.reference) {
		spec_reference(&spec_operator, stdout);
		puts("\n## Metrics\n");
		return app_reference(&spec, stdout) ? EXIT_FAILED : EXIT_OK;
	} else if (spec.crd) {
		spec_print_crd(stdout);
	} else {
		return operator_run(&spec);
	}
	return EXIT_OK;
}
