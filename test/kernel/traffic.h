/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic: what the checks share. Plain messages, exchanges on a connection of which both ends are
 * ours, and the lists of checks.
 */
#ifndef EBPFDUMP_TEST_KERNEL_TRAFFIC_H
#define EBPFDUMP_TEST_KERNEL_TRAFFIC_H

#include "test/kernel/harness.h"

#define CRLF "\r\n"

/* The loader under test and its flags. */
extern char *const *loader_argv;
/* What gather() found last: too large for a stack. */
extern struct seen seen;

/* Ingress is seen as packets: what the reader does with them does not matter. */
bool by_packets(void);

/* "METHOD path" with a body of n letters (0: none, and no Content-Length). */
struct text request(const char *method, const char *path, size_t n, uint32_t seed);
struct text response(int status, size_t n, uint32_t seed);
/* Behind the head. */
const char *body_of(const struct text *t);
/* Of exchange i of connection `id`, request (0) or response (1): what fill() takes. */
uint32_t seed_of(int id, int i, int which);

/* Client to server, then back. Small messages only: one thread does both. */
bool exchange(struct conn *k, const struct text *req, const struct text *resp);
/* A GET and its answer. As the last of a connection its place tells whether the streams are in
 * step. */
bool exchange_plain(struct conn *k, const char *path);
/* Compares what exchange_plain() made: the i-th of each view. */
void compare_plain(const struct conn *k, const struct seen *s, int i, const char *path);
/* Two of them on a connection of its own, compared. */
void exchange_over(enum net net);

/* A scripted conversation: who ('c' or 's') sends what. */
struct line {
	char from;
	const char *text;
};
bool converse(struct conn *k, const struct line *lines, size_t n);

/* Connections that check_early and check_half go on with: opened before the loader starts. */
void open_early(void);
void open_half(void);
void check_simple(void);

/* Each ends with a check without a name. Those of runs_checks start loaders of their own. */
extern const struct check messages_checks[], calls_checks[], ledger_checks[], runs_checks[];

#endif
