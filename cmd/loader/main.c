/* SPDX-License-Identifier: Apache-2.0 */
/* ebpfdump-loader: flags, and what they ask for. */
#include <stdio.h>

#include "cmd/loader/loader.h"

int main(int argc, char **argv)
{
	struct err err = {0};
	struct spec spec;

	if (spec_parse_args(&spec, argc, argv, &err)) {
		fprintf(stderr, "ebpfdump-loader: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (spec.help) {
		spec_print_help(stdout);
		return EXIT_OK;
	}
	if (spec.version) {
		puts("ebpfdump-loader " EBPFDUMP_VERSION);
		return EXIT_OK;
	}
	if (spec.reference) {
		spec_print_reference(stdout);
		puts("\n## Metrics\n");
		return ledger_reference(stdout) ? EXIT_FAILED : EXIT_OK;
	}
	if (spec.check)
		return loader_check(&spec);
	return spec.replay ? loader_replay(&spec) : loader_run(&spec);
}
