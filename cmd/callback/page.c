/* SPDX-License-Identifier: Apache-2.0 */
/* The assembler reads the files in: no tool, and no generated source. */
#include "cmd/callback/page.h"

#define EMBED(name, file)                                                  \
	__asm__(".section .rodata\n"                                       \
		".global page_" #name "\n"                                 \
		"page_" #name ": .incbin \"cmd/callback/page/" file "\"\n" \
		".byte 0\n"                                                \
		".previous\n");                                            \
	extern const char page_##name[]

EMBED(html, "index.html");
EMBED(css, "page.css");
EMBED(js, "page.js");
EMBED(icon, "icon.svg");

void page_files(struct receiver_file files[PAGE_FILES])
{
	const struct receiver_file all[PAGE_FILES] = {
		{"/", "text/html; charset=utf-8", span_str(page_html)},
		{"/page.css", "text/css; charset=utf-8", span_str(page_css)},
		{"/page.js", "text/javascript; charset=utf-8", span_str(page_js)},
		{"/icon.svg", "image/svg+xml", span_str(page_icon)},
	};

	memcpy(files, all, sizeof(all));
}
