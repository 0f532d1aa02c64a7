/* SPDX-License-Identifier: Apache-2.0 */
/* probe: the plan, as a pure function of what a kernel offers; files of capture records. No kernel
 * is asked. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "pkg/probe/probe.h"

/* ---- the plan ---- */

#define BIT(hook) (1U << (hook))
#define ALL	  (BIT(PROBE_HOOK_MAX) - 1)

static struct probe_offer offer_of(uint32_t works, uint32_t storage)
{
	struct probe_offer offer = {0};

	for (int i = 0; i < PROBE_HOOK_MAX; i++) {
		offer.works[i] = works >> i & 1;
		offer.storage[i] = storage >> i & 1;
		if (!offer.works[i])
			snprintf(offer.reason[i], sizeof(offer.reason[i]), "reason-%d", i);
	}
	return offer;
}

static const struct {
	uint32_t works, storage;
	enum probe_family family;
	bool partial;
	int result;
	enum probe_hook egress, ingress;
	bool socket_storage;
} plans[] = {
	/* the best of all, state in the sockets */
	{ALL, ALL, PROBE_AUTO, false, 0, PROBE_FENTRY, PROBE_FEXIT, true},
	/* one of the two cannot use the sockets: both use the table */
	{ALL, ALL & ~BIT(PROBE_FEXIT), PROBE_AUTO, false, 0, PROBE_FENTRY, PROBE_FEXIT, false},
	/* each row of the table by itself, per direction */
	{ALL & ~BIT(PROBE_FENTRY), 0, PROBE_AUTO, false, 0, PROBE_KPROBE, PROBE_FEXIT, false},
	{ALL & ~BIT(PROBE_FEXIT), 0, PROBE_AUTO, false, 0, PROBE_FENTRY, PROBE_CLEANUP, false},
	{BIT(PROBE_KPROBE) | BIT(PROBE_KRETPROBE), 0, PROBE_AUTO, false, 0, PROBE_KPROBE,
		PROBE_KRETPROBE, false},
	{BIT(PROBE_TRACEPOINT) | BIT(PROBE_CGROUP_SKB), ALL, PROBE_AUTO, false, 0, PROBE_TRACEPOINT,
		PROBE_CGROUP_SKB, true},
	{BIT(PROBE_FENTRY) | BIT(PROBE_CGROUP_SKB), ALL, PROBE_AUTO, false, 0, PROBE_FENTRY,
		PROBE_CGROUP_SKB, true},
	/* a family is forced, also where better is there */
	{ALL, ALL, PROBE_FAMILY_KPROBE, false, 0, PROBE_KPROBE, PROBE_CLEANUP, true},
	{ALL, ALL, PROBE_FAMILY_TRACEPOINT, false, 0, PROBE_TRACEPOINT, PROBE_CGROUP_SKB, true},
	{ALL, ALL, PROBE_FAMILY_FENTRY, false, 0, PROBE_FENTRY, PROBE_FEXIT, true},
	{ALL & ~BIT(PROBE_KPROBE), ALL, PROBE_FAMILY_KPROBE, false, -ENOTSUP, PROBE_NONE,
		PROBE_NONE, false},
	/* one direction is missing */
	{BIT(PROBE_KPROBE), 0, PROBE_AUTO, false, -ENOTSUP, PROBE_NONE, PROBE_NONE, false},
	{BIT(PROBE_KPROBE), 0, PROBE_AUTO, true, 0, PROBE_KPROBE, PROBE_NONE, false},
	{BIT(PROBE_FEXIT), BIT(PROBE_FEXIT), PROBE_AUTO, true, 0, PROBE_NONE, PROBE_FEXIT, true},
	{0, 0, PROBE_AUTO, true, -ENOTSUP, PROBE_NONE, PROBE_NONE, false},
};

START_TEST(plan_is_the_best_that_works)
{
	struct probe_offer offer = offer_of(plans[_i].works, plans[_i].storage);
	struct probe_plan plan = {.egress = 99, .ingress = 99};
	struct err err = {0};
	int r = probe_plan(&offer, plans[_i].family, plans[_i].partial, &plan, &err);

	ck_assert_int_eq(r, plans[_i].result);
	if (r) {
		ck_assert_int_eq(plan.egress, 99);
		ck_assert_ptr_nonnull(strstr(err.text, "this kernel offers no hook"));
		ck_assert_ptr_nonnull(strstr(err.text, "reason-"));
		return;
	}
	ck_assert_int_eq(plan.egress, plans[_i].egress);
	ck_assert_int_eq(plan.ingress, plans[_i].ingress);
	ck_assert_int_eq(plan.socket_storage, plans[_i].socket_storage);
}
END_TEST

/* Where a thread can be stopped inside a program, the kprobes come before fentry and fexit. */
START_TEST(plan_of_a_kernel_that_preempts)
{
	struct probe_offer offer = offer_of(ALL, 0);
	struct probe_plan plan;
	struct err err = {0};
	uint32_t seen = 0;

	offer.preempts = true;
	for (unsigned i = 0; i < PROBE_HOOK_MAX; i++)
		seen |= BIT(probe_hook_order(true, i));
	ck_assert_uint_eq(seen, ALL);
	ck_assert_int_eq(probe_plan(&offer, PROBE_AUTO, false, &plan, &err), 0);
	ck_assert_int_eq(plan.egress, PROBE_KPROBE);
	ck_assert_int_eq(plan.ingress, PROBE_CLEANUP);
	offer.works[PROBE_KPROBE] = offer.works[PROBE_CLEANUP] = false;
	ck_assert_int_eq(probe_plan(&offer, PROBE_AUTO, false, &plan, &err), 0);
	ck_assert_int_eq(plan.egress, PROBE_FENTRY);
	ck_assert_int_eq(plan.ingress, PROBE_KRETPROBE);
	offer.works[PROBE_KRETPROBE] = false;
	ck_assert_int_eq(probe_plan(&offer, PROBE_AUTO, false, &plan, &err), 0);
	ck_assert_int_eq(plan.ingress, PROBE_FEXIT);
	/* who insists gets it */
	ck_assert_int_eq(probe_plan(&offer, PROBE_FAMILY_FENTRY, false, &plan, &err), 0);
	ck_assert_int_eq(plan.egress, PROBE_FENTRY);
	ck_assert_int_eq(plan.ingress, PROBE_FEXIT);
}
END_TEST

START_TEST(plan_of_any_offer_uses_only_what_works)
{
	struct probe_offer offer = offer_of((uint32_t)_i, ALL);
	struct probe_plan plan;
	struct err err = {0};

	if (probe_plan(&offer, PROBE_AUTO, true, &plan, &err))
		return;
	ck_assert(plan.egress != PROBE_NONE || plan.ingress != PROBE_NONE);
	if (plan.egress != PROBE_NONE) {
		ck_assert(offer.works[plan.egress]);
		ck_assert_int_eq(probe_hook_direction(plan.egress), CAPTURE_EGRESS);
	}
	if (plan.ingress != PROBE_NONE) {
		ck_assert(offer.works[plan.ingress]);
		ck_assert_int_eq(probe_hook_direction(plan.ingress), CAPTURE_INGRESS);
	}
}
END_TEST

START_TEST(missing_hooks_are_named)
{
	struct err err = {0};
	uint32_t mask = 7;

	ck_assert_int_eq(probe_parse_missing("", &mask, &err), 0);
	ck_assert_uint_eq(mask, 0);
	ck_assert_int_eq(probe_parse_missing("fentry,kretprobe", &mask, &err), 0);
	ck_assert_uint_eq(mask, BIT(PROBE_FENTRY) | BIT(PROBE_KRETPROBE));
	ck_assert_int_eq(probe_parse_missing("ring", &mask, &err), 0);
	ck_assert_uint_eq(mask, PROBE_MISSING_RING);
	ck_assert_int_eq(probe_parse_missing("fentry,kretprobe", &mask, &err), 0);
	ck_assert_int_eq(probe_parse_missing("fentry,typo", &mask, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'typo'"));
	ck_assert_uint_eq(mask, BIT(PROBE_FENTRY) | BIT(PROBE_KRETPROBE));
}
END_TEST

/* ---- files ---- */

static char file[] = "/tmp/ebpfdump-probe-XXXXXX";

static void make_file(void)
{
	int fd;

	snprintf(file, sizeof(file), "/tmp/ebpfdump-probe-XXXXXX");
	fd = mkstemp(file);

	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void remove_file(void)
{
	unlink(file);
}

static struct capture_record record_of(uint32_t captured)
{
	return (struct capture_record){
		.version = CAPTURE_VERSION,
		.type = CAPTURE_DATA,
		.size = sizeof(struct capture_record) + captured,
		.time_ns = 1000 + captured,
		.connection = 42,
		.seq = captured,
		.length = captured + 1,
		.captured = captured,
		.flags = CAPTURE_F_SEQ,
		.family = 2,
	};
}

static const uint32_t sizes[] = {0, 1, 7, 8, 9, 4095, 4096, 4097, CAPTURE_DATA_MAX};

/* Writes one record of each size; the wall clock steps in their midst. */
static void write_file(void)
{
	struct capture_writer *w;
	struct err err = {0};
	char data[CAPTURE_DATA_MAX];

	ck_assert_int_eq(capture_writer_open(file, &w, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct capture_record rec = record_of(sizes[i]);

		memset(data, 'a' + (int)i, sizeof(data));
		ck_assert_int_eq(
			capture_writer_add(w, &rec, data, i < 4 ? 5000000000 : -7000000000, &err),
			0);
	}
	ck_assert_int_eq(capture_writer_close(w, &err), 0);
}

/* The file as memory, with a page behind it that must not be touched is the sanitizer's work: exact
 * size. */
static char *load(size_t *ret_len)
{
	FILE *f = fopen(file, "re");
	char *p;
	long len;

	ck_assert_ptr_nonnull(f);
	fseek(f, 0, SEEK_END);
	len = ftell(f);
	rewind(f);
	p = malloc((size_t)len);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(fread(p, 1, (size_t)len, f), (size_t)len);
	fclose(f);
	*ret_len = (size_t)len;
	return p;
}

static void expect_all(struct capture_reader *r)
{
	const struct capture_record *rec;
	const char *data;
	int64_t offset;
	struct err err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct capture_record want = record_of(sizes[i]);

		ck_assert_int_eq(capture_reader_next(r, &rec, &data, &offset, &err), 1);
		ck_assert_mem_eq(rec, &want, sizeof(want));
		ck_assert_int_eq(offset, i < 4 ? 5000000000 : -7000000000);
		for (uint32_t k = 0; k < sizes[i]; k++)
			ck_assert_int_eq(data[k], 'a' + (int)i);
	}
	ck_assert_int_eq(capture_reader_next(r, &rec, &data, &offset, &err), 0);
}

START_TEST(what_is_written_is_read)
{
	struct capture_reader *r;
	struct err err = {0};
	size_t len;
	char *p;

	write_file();
	ck_assert_int_eq(capture_reader_open(file, &r, &err), 0);
	expect_all(r);
	capture_reader_close(r);

	p = load(&len);
	ck_assert_int_eq(capture_reader_open_memory(p, len, &r, &err), 0);
	expect_all(r);
	capture_reader_close(r);
	free(p);
}
END_TEST

START_TEST(a_file_cut_anywhere_is_refused_with_its_offset)
{
	size_t len, boundaries = 0;
	char *p;

	write_file();
	p = load(&len);
	/* every place in the small records, then some in the large ones */
	for (size_t cut = 0; cut < len; cut += cut < 2000 ? 1 : 997) {
		const struct capture_record *rec;
		struct capture_reader *r = NULL;
		struct err err = {0};
		const char *data;
		int64_t offset;
		char *copy = malloc(cut ? cut : 1);
		int n;

		memcpy(copy, p, cut);
		n = capture_reader_open_memory(copy, cut, &r, &err);
		ck_assert_int_eq(n, cut < 24 ? -EBADMSG : 0);
		while (n == 0 && (n = capture_reader_next(r, &rec, &data, &offset, &err)) == 1)
			n = 0;
		if (n == 0 && r)
			boundaries++;
		else
			ck_assert_ptr_nonnull(strstr(err.text, "offset "));
		capture_reader_close(r);
		free(copy);
	}
	/* a file that ends between two records is whole: header, clock, and the small records */
	ck_assert_uint_ge(boundaries, 5);
	ck_assert_uint_le(boundaries, 12);
	free(p);
}
END_TEST

static const struct {
	size_t offset; /* in the first data record */
	uint8_t value;
	const char *says;
} damages[] = {
	{0, 0xff, "unknown version"},
	{2, 9, "unknown type"},
	{3, 9, "unknown direction"},
	{4, 1, "contradicts"},
	{40, 0xff, "more bytes captured than there were"},
	{43, 0xff, "more bytes than a record can hold"},
};

START_TEST(a_damaged_record_is_refused)
{
	const struct capture_record *rec;
	struct capture_reader *r;
	struct err err = {0};
	const char *data;
	int64_t offset;
	size_t len;
	char *p;
	/* header, clock record, then the one with 0 bytes */
	size_t at = 24 + sizeof(struct capture_record);

	write_file();
	p = load(&len);
	p[at + damages[_i].offset] = (char)damages[_i].value;
	if (damages[_i].offset == 40) {
		/* consistent with the size (136 + 255), not with length */
		p[at + 4] = (char)0x87;
		p[at + 5] = 1;
	}
	ck_assert_int_eq(capture_reader_open_memory(p, len, &r, &err), 0);
	ck_assert_int_eq(capture_reader_next(r, &rec, &data, &offset, &err), -EBADMSG);
	ck_assert_msg(strstr(err.text, damages[_i].says) != NULL, "%s", err.text);
	ck_assert_ptr_nonnull(strstr(err.text, "offset 160: "));
	capture_reader_close(r);
	free(p);
}
END_TEST

START_TEST(a_foreign_file_is_refused)
{
	static const char pcap[] = "\xd4\xc3\xb2\xa1 this is another kind of file altogether";
	struct capture_reader *r;
	struct err err = {0};
	size_t len;
	char *p;

	ck_assert_int_eq(capture_reader_open_memory(pcap, sizeof(pcap), &r, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "no file of capture records"));
	ck_assert_int_eq(capture_reader_open("/nonexistent/file", &r, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/file"));

	write_file();
	p = load(&len);
	p[8] = 77;
	ck_assert_int_eq(capture_reader_open_memory(p, len, &r, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "version 77"));
	p[8] = CAPTURE_VERSION;
	p[16] = 1;
	ck_assert_int_eq(capture_reader_open_memory(p, len, &r, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "byte order"));
	free(p);
}
END_TEST

START_TEST(a_full_disk_is_reported)
{
	struct capture_record rec = record_of(CAPTURE_DATA_MAX);
	static const char data[CAPTURE_DATA_MAX];
	struct capture_writer *w;
	struct err err = {0};
	int r = 0;

	if (access("/dev/full", W_OK))
		ck_abort_msg("/dev/full is missing on this machine");
	ck_assert_int_eq(capture_writer_open("/dev/full", &w, &err), 0);
	for (int i = 0; i < 200 && r == 0; i++)
		r = capture_writer_add(w, &rec, data, 0, &err);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, "/dev/full"));
	(void)capture_writer_close(w, &err);
}
END_TEST

START_TEST(unknown_interfaces_are_told)
{
	const char *names[] = {"lo", "nosuchdev0"};
	struct probe_options options = {.interfaces = names, .n_interfaces = 2};

	ck_assert_uint_eq(probe_unknown_interfaces(&options), 2);
	options.n_interfaces = 1;
	ck_assert_uint_eq(probe_unknown_interfaces(&options), 0);
	options.n_interfaces = 0;
	ck_assert_uint_eq(probe_unknown_interfaces(&options), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("probe");
	TCase *plan = tcase_create("plan"), *files = tcase_create("files");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(plan, plan_is_the_best_that_works, 0, ARRAY_SIZE(plans));
	tcase_add_loop_test(plan, plan_of_any_offer_uses_only_what_works, 0, ALL + 1);
	tcase_add_test(plan, plan_of_a_kernel_that_preempts);
	tcase_add_test(plan, missing_hooks_are_named);
	tcase_add_test(plan, unknown_interfaces_are_told);
	suite_add_tcase(s, plan);
	tcase_add_checked_fixture(files, make_file, remove_file);
	tcase_add_test(files, what_is_written_is_read);
	tcase_add_test(files, a_file_cut_anywhere_is_refused_with_its_offset);
	tcase_add_loop_test(files, a_damaged_record_is_refused, 0, ARRAY_SIZE(damages));
	tcase_add_test(files, a_foreign_file_is_refused);
	tcase_add_test(files, a_full_disk_is_reported);
	tcase_set_timeout(files, 60);
	suite_add_tcase(s, files);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
