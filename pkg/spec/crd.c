/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CustomResourceDefinition, read off the loader's table. Nothing of it is written twice: what a
 * flag allows, the schema allows. Text stands in double quotes, where JSON's escapes are YAML's.
 */
#include <stdlib.h>

#include "pkg/spec/internal.h"

#define FIELD_DEPTH 14 /* columns before the fields of spec */

static const struct {
	const char *path, *description;
} objects[] = {
	{"spec.limits", "Bounds of what a loader may use. What goes beyond is cut or left out, and "
			"counted in its metrics."},
	{"spec.delivery", "How messages reach the callback; without one, nothing here matters."},
	{"spec.delivery.batch", "Several messages in one POST, as lines of JSON."},
	{"spec.delivery.spool", "A buffer on the node's disk for when the callback is down longer. "
				"It outlives a loader that dies, not one that is replaced."},
	{"spec.filter", "Only messages that fit all of these."},
};

/* ---- text ---- */

static void put_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static void line(FILE *out, int depth, const char *fmt, ...) PRINTF(3, 4);

static void line(FILE *out, int depth, const char *fmt, ...)
{
	va_list ap;

	fprintf(out, "%*s", depth, "");
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fputc('\n', out);
}

static void quoted_line(FILE *out, int depth, const char *key, const char *text)
{
	fprintf(out, "%*s%s: ", depth, "", key);
	put_quoted(out, text);
	fputc('\n', out);
}

static void rule(FILE *out, int depth, const char *expression, const char *message)
{
	quoted_line(out, depth, "- rule", expression);
	quoted_line(out, depth + 2, "message", message);
}

/* The path of the flag that text begins with, "--body-bytes"; NULL: none, or it has no path. */
static const char *path_of_flag(const char *text, size_t *ret_len)
{
	size_t n, len;
	const struct spec_option *o = spec_options(&n);

	if (strncmp(text, "--", 2) != 0)
		return NULL;
	len = strspn(text + 2, "abcdefghijklmnopqrstuvwxyz-");
	for (size_t i = 0; i < n; i++)
		if (o[i].path && strlen(o[i].flag) == len &&
			memcmp(o[i].flag, text + 2, len) == 0) {
			*ret_len = len + 2;
			return o[i].path;
		}
	return NULL;
}

/* The help of the flag, said of the resource. */
/* Words of the command line, and what they are in a resource. */
static const char *const other_words[][2] = {
	{"Repeatable. ", ""},
	{"Repeatable; what", "What"},
	{"these go into --callback-header-file",
		"these are a header of callbackSecretRef.headersKey"},
	{"--spool-dir", "a loader's spool"},
	{"--check shows which that is", "each loader's log says which that is"},
};

static const char *other_word(const char *p, size_t *ret_len)
{
	for (size_t i = 0; i < ARRAY_SIZE(other_words); i++) {
		*ret_len = strlen(other_words[i][0]);
		if (strncmp(p, other_words[i][0], *ret_len) == 0)
			return other_words[i][1];
	}
	return NULL;
}

static void put_description(FILE *out, int depth, const struct spec_option *o)
{
	CLEANUP(freep)
	char *text = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&text, &size);

	if (!memory)
		return;
	for (const char *p = o->help; *p;) {
		size_t len = 0;
		const char *word = path_of_flag(p, &len);

		if (!word)
			word = other_word(p, &len);
		if (word) {
			fputs(word, memory);
			p += len;
		} else {
			fputc(*p++, memory);
		}
	}
	if (o->type == SPEC_SIZE)
		fputs(" In bytes.", memory);
	if (o->type == SPEC_DURATION)
		fputs(" As text, with unit ms, s, m or h.", memory);
	if (o->type == SPEC_NAMES && o->names)
		fputs(" An empty list is the same as none.", memory);
	fclose(memory);
	quoted_line(out, depth, "description", text);
}

/* ---- one field ---- */

static void put_number(FILE *out, int depth, const struct spec_option *o)
{
	char expression[128], message[128];
	uint64_t value = 0;

	line(out, depth, "type: integer");
	line(out, depth, "format: int64");
	line(out, depth, "minimum: %llu", (unsigned long long)(o->or_zero ? 0 : o->min));
	line(out, depth, "maximum: %llu", (unsigned long long)o->max);
	if (o->fallback && num_parse_size(span_str(o->fallback), 0, UINT64_MAX, &value) == 0)
		line(out, depth, "default: %llu", (unsigned long long)value);
	if (!o->or_zero)
		return;
	snprintf(expression, sizeof(expression), "self == 0 || self >= %llu",
		(unsigned long long)o->min);
	snprintf(message, sizeof(message), "must be 0, or %llu to %llu", (unsigned long long)o->min,
		(unsigned long long)o->max);
	line(out, depth, "x-kubernetes-validations:");
	rule(out, depth, expression, message);
}

static void put_duration(FILE *out, int depth, const struct spec_option *o)
{
	char expression[256], message[128];

	line(out, depth, "type: string");
	line(out, depth, "maxLength: 16");
	line(out, depth, "pattern: '^(0|[0-9]+(ms|s|m|h))$'");
	if (o->fallback)
		quoted_line(out, depth, "default", o->fallback);
	snprintf(expression, sizeof(expression),
		"%sduration(self) >= duration('%llums') && duration(self) <= duration('%llums')",
		o->or_zero ? "duration(self) == duration('0s') || " : "",
		(unsigned long long)o->min, (unsigned long long)o->max);
	snprintf(message, sizeof(message), "must be %s%llums to %llums", o->or_zero ? "0, or " : "",
		(unsigned long long)o->min, (unsigned long long)o->max);
	line(out, depth, "x-kubernetes-validations:");
	rule(out, depth, expression, message);
}

static size_t choices_of(const struct spec_option *o)
{
	size_t n = 0;

	while (o->choices[n])
		n++;
	return n;
}

static void put_choices(FILE *out, int depth, const struct spec_option *o)
{
	line(out, depth, "type: string");
	line(out, depth, "enum:");
	for (size_t i = 0; o->choices[i]; i++)
		line(out, depth, "- \"%s\"", o->choices[i]); /* "off" is no boolean */
}

static void put_string(FILE *out, int depth, const struct spec_option *o)
{
	line(out, depth, "type: string");
	line(out, depth, "maxLength: %llu", (unsigned long long)o->max);
	if (o->fallback && o->fallback[0])
		quoted_line(out, depth, "default", o->fallback);
	if (strcmp(o->value, "URL") != 0)
		return;
	line(out, depth, "x-kubernetes-validations:");
	rule(out, depth,
		"self == '' || (isURL(self) && url(self).getScheme() in ['http', 'https'] && "
		"url(self).getHost() != '')",
		"must be an http or https URL with a host");
	/* as spec_url_fault() has it */
	rule(out, depth, "!self.matches('^[^/]*//[^/?]*@')",
		"user and password are not allowed in it: they go into the Secret");
	rule(out, depth, "!self.matches('[[:cntrl:] #]')",
		"a blank, control character or # is not allowed in it");
}

static void put_names(FILE *out, int depth, const struct spec_option *o)
{
	line(out, depth, "type: array");
	line(out, depth, "x-kubernetes-list-type: set");
	line(out, depth, "maxItems: %d", SPEC_NAMES_MAX);
	if (o->names) {
		line(out, depth, "default:");
		for (size_t i = 0; o->names[i]; i++)
			line(out, depth, "- %s", o->names[i]);
	}
	line(out, depth, "items:");
	line(out, depth + 2, "type: string");
	line(out, depth + 2, "minLength: %llu", (unsigned long long)o->min);
	line(out, depth + 2, "maxLength: %llu", (unsigned long long)o->max);
	if (o->name == SPEC_NAME_INTERFACE)
		line(out, depth + 2, "pattern: '^[^/:\\s]+$'");
	if (o->name == SPEC_NAME_HEADER)
		line(out, depth + 2, "pattern: '^[A-Za-z0-9!#$%%&''*+.^_`|~-]+$'");
	if (o->name == SPEC_NAME_HOST)
		line(out, depth + 2, "pattern: '^[^/:@\\s]+$'");
	if (o->name == SPEC_NAME_LABEL)
		line(out, depth + 2, "pattern: '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'");
	if (o->name == SPEC_NAME_INTERFACE) {
		line(out, depth, "x-kubernetes-validations:");
		rule(out, depth, "self.all(i, i != '.' && i != '..')", "must not be . or ..");
	} else if (o->names) {
		line(out, depth, "x-kubernetes-validations:");
		rule(out, depth, "self.size() == 1 || !self.exists(n, n.lowerAscii() == 'none')",
			"none stands alone");
	}
}

static void put_field(FILE *out, int depth, const char *name, const struct spec_option *o)
{
	line(out, depth, "%s:", name);
	depth += 2;
	put_description(out, depth, o);
	switch (o->type) {
	case SPEC_FLAG:
		line(out, depth, "type: boolean");
		line(out, depth, "default: false");
		break;
	case SPEC_UINT:
	case SPEC_SIZE:
		put_number(out, depth, o);
		break;
	case SPEC_DURATION:
		put_duration(out, depth, o);
		break;
	case SPEC_STRING:
		put_string(out, depth, o);
		break;
	case SPEC_CHOICE:
		put_choices(out, depth, o);
		if (o->fallback)
			quoted_line(out, depth, "default", o->fallback);
		break;
	case SPEC_CHOICES:
		line(out, depth, "type: array");
		line(out, depth, "x-kubernetes-list-type: set");
		line(out, depth, "maxItems: %zu", choices_of(o));
		line(out, depth, "items:");
		put_choices(out, depth + 2, o);
		break;
	case SPEC_NAMES:
		put_names(out, depth, o);
		break;
	}
}

/* ---- the tree ---- */

static const char *description_of(const char *path, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(objects); i++)
		if (strlen(objects[i].path) == len && memcmp(objects[i].path, path, len) == 0)
			return objects[i].description;
	return "Further options.";
}

/* Whether an earlier row has been in this object. */
static bool seen_before(const struct spec_option *o, size_t i, const char *path, size_t len)
{
	for (size_t j = 0; j < i; j++)
		if (o[j].path && strncmp(o[j].path, path, len) == 0 && o[j].path[len] == '.')
			return true;
	return false;
}

/* The fields below path[0..len). Paths are few levels deep. */
static void put_fields(FILE *out, int depth, const char *path, size_t len)
{
	size_t n;
	const struct spec_option *o = spec_options(&n);

	for (size_t i = 0; i < n; i++) {
		const char *p = o[i].path, *dot;
		size_t way;

		if (!p || strncmp(p, path, len) != 0 || p[len] != '.')
			continue;
		dot = strchr(p + len + 1, '.');
		if (!dot) {
			put_field(out, depth, p + len + 1, &o[i]);
			continue;
		}
		way = (size_t)(dot - p);
		if (seen_before(o, i, p, way))
			continue;
		line(out, depth, "%.*s:", (int)(way - len - 1), p + len + 1);
		quoted_line(out, depth + 2, "description", description_of(p, way));
		line(out, depth + 2, "type: object");
		line(out, depth + 2, "properties:");
		put_fields(out, depth + 4, p, way);
	}
}

/* ---- what is not the loader's ---- */

/* Multi-line literals, already at their columns. */
static const char head[] =
	"# SPDX-License-Identifier: Apache-2.0\n"
	"# Generated from the options table: make crd\n"
	"apiVersion: apiextensions.k8s.io/v1\n"
	"kind: CustomResourceDefinition\n"
	"metadata:\n"
	"  name: ebpfdumps.research.dynatrace.com\n"
	"  labels:\n"
	"    app.kubernetes.io/name: ebpfdump-operator\n"
	"    app.kubernetes.io/part-of: ebpfdump\n"
	"spec:\n"
	"  group: research.dynatrace.com\n"
	"  scope: Namespaced\n"
	"  names:\n"
	"    kind: EbpfDump\n"
	"    listKind: EbpfDumpList\n"
	"    plural: ebpfdumps\n"
	"    singular: ebpfdump\n"
	"    shortNames: [ebd]\n"
	"    categories: [dynatrace]\n"
	"  versions:\n"
	"  - name: v1alpha1\n"
	"    served: true\n"
	"    storage: true\n"
	"    subresources:\n"
	"      status: {}\n"
	"    additionalPrinterColumns:\n"
	"    - name: Accepted\n"
	"      type: string\n"
	"      description: Whether this is the one EbpfDump of the cluster that is acted on.\n"
	"      jsonPath: .status.conditions[?(@.type==\"Accepted\")].status\n"
	"    - name: Ready\n"
	"      type: string\n"
	"      description: Whether every node's loader captures.\n"
	"      jsonPath: .status.conditions[?(@.type==\"Ready\")].status\n"
	"    - name: Nodes\n"
	"      type: string\n"
	"      description: Nodes whose loader is ready, of those that shall have one.\n"
	"      jsonPath: .status.nodes\n"
	"    - name: Interfaces\n"
	"      type: string\n"
	"      description: The network devices that are captured from; none means all.\n"
	"      jsonPath: .spec.interfaces\n"
	"    - name: Reason\n"
	"      type: string\n"
	"      priority: 1\n"
	"      description: Why it is ready or not.\n"
	"      jsonPath: .status.conditions[?(@.type==\"Ready\")].reason\n"
	"    - name: Age\n"
	"      type: date\n"
	"      jsonPath: .metadata.creationTimestamp\n"
	"    schema:\n"
	"      openAPIV3Schema:\n"
	"        description: \"Captures the HTTP messages of all nodes and writes each as a line of "
	"JSON to the loaders' logs, or POSTs it to a callback. One EbpfDump of a cluster is acted on, "
	"the oldest; the others say Conflict.\"\n"
	"        type: object\n"
	"        required: [spec]\n"
	"        properties:\n"
	"          apiVersion:\n"
	"            description: Version of the schema of this object.\n"
	"            type: string\n"
	"          kind:\n"
	"            description: The kind of this object.\n"
	"            type: string\n"
	"          metadata:\n"
	"            type: object\n"
	"          spec:\n"
	"            description: What is captured, and where it goes.\n"
	"            type: object\n"
	"            x-kubernetes-validations:\n"
	"            - rule: \"!has(self.callbackSecretRef) || (has(self.callback) && self.callback "
	"!= '')\"\n"
	"              message: \"callbackSecretRef needs a callback\"\n"
	"            properties:\n";

#define KEY(name, text)                                   \
	"                  " name ":\n"                   \
	"                    description: \"" text "\"\n" \
	"                    type: string\n"              \
	"                    minLength: 1\n"              \
	"                    maxLength: 253\n"            \
	"                    pattern: '^[-._a-zA-Z0-9]+$'\n"

#define QUANTITIES(name, text)                                     \
	"                  " name ":\n"                            \
	"                    description: \"" text "\"\n"          \
	"                    type: object\n"                       \
	"                    maxProperties: 16\n"                  \
	"                    additionalProperties:\n"              \
	"                      anyOf:\n"                           \
	"                      - type: integer\n"                  \
	"                      - type: string\n"                   \
	"                      x-kubernetes-int-or-string: true\n" \
	"                      minimum: 0\n"                       \
	"                      maxLength: 32\n"                    \
	"                      pattern: "                          \
	"'^(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE][0-9]+))?$'\n"

static const char secret[] =
	"              callbackSecretRef:\n"
	"                description: \"A Secret in the operator's namespace, for the callback. It "
	"is mounted into the loaders, read-only; a change of it takes effect without a restart.\"\n"
	"                type: object\n"
	"                required: [name]\n"
	"                x-kubernetes-validations:\n"
	"                - rule: \"has(self.headersKey) || has(self.hmacKey) || has(self.caKey) || "
	"has(self.certKey)\"\n"
	"                  message: \"at least one of headersKey, hmacKey, caKey, certKey is "
	"needed\"\n"
	"                - rule: \"has(self.certKey) == has(self.privateKeyKey)\"\n"
	"                  message: \"certKey and privateKeyKey come together\"\n"
	"                properties:\n"
	"                  name:\n"
	"                    description: Name of the Secret.\n"
	"                    type: string\n"
	"                    minLength: 1\n"
	"                    maxLength: 253\n"
	"                    pattern: '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'\n";

static const char secret_keys[] = KEY("headersKey",
	"Key whose value is sent as headers with each POST, a line Name: value "
	"each.") KEY("hmacKey", "Key whose value signs each body (X-Ebpfdump-Signature).")
	KEY("caKey",
		"Key of certificates in PEM that the callback's certificate is checked against, "
		"instead of the system's.")
		KEY("certKey", "Key of the client's certificate in PEM.")
			KEY("privateKeyKey", "Key of the private key to it in PEM.");

#define LABEL_NAME  "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
#define LABEL_KEY   "'^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?" LABEL_NAME "$'"
#define LABEL_VALUE "'^(" LABEL_NAME ")?$'"

static const char placement[] =
	"              nodeSelector:\n"
	"                description: Only nodes with these labels get a loader. None given - every "
	"Linux node.\n"
	"                type: object\n"
	"                maxProperties: 32\n"
	"                x-kubernetes-validations:\n"
	"                - rule: \"self.all(k, k.size() <= 317 && k.matches(" LABEL_KEY "))\"\n"
	"                  message: \"a key must be a label's: name or prefix/name\"\n"
	"                additionalProperties:\n"
	"                  type: string\n"
	"                  maxLength: 63\n"
	"                  pattern: " LABEL_VALUE "\n"
	"              tolerations:\n"
	"                description: Taints that loaders put up with. None given - all of them.\n"
	"                type: array\n"
	"                maxItems: 32\n"
	"                x-kubernetes-list-type: atomic\n"
	"                items:\n"
	"                  description: A toleration, as of a pod.\n"
	"                  type: object\n"
	"                  x-kubernetes-validations:\n"
	"                  - rule: \"has(self.key) || (has(self.operator) && self.operator == "
	"'Exists')\"\n"
	"                    message: \"without a key, operator must be Exists\"\n"
	"                  - rule: \"!has(self.operator) || self.operator != 'Exists' || "
	"!has(self.value) || self.value == ''\"\n"
	"                    message: \"with operator Exists there is no value\"\n"
	"                  - rule: \"!has(self.tolerationSeconds) || (has(self.effect) && self.effect "
	"== 'NoExecute')\"\n"
	"                    message: \"tolerationSeconds needs effect NoExecute\"\n"
	"                  properties:\n"
	"                    key:\n"
	"                      description: The taint's key; none matches all keys.\n"
	"                      type: string\n"
	"                      minLength: 1\n"
	"                      maxLength: 317\n"
	"                      pattern: " LABEL_KEY "\n"
	"                    operator:\n"
	"                      description: How key and value are compared.\n"
	"                      type: string\n"
	"                      enum: [Exists, Equal]\n"
	"                    value:\n"
	"                      description: The taint's value, with operator Equal.\n"
	"                      type: string\n"
	"                      maxLength: 63\n"
	"                      pattern: " LABEL_VALUE "\n"
	"                    effect:\n"
	"                      description: The taint's effect; none matches all.\n"
	"                      type: string\n"
	"                      enum: [NoSchedule, PreferNoSchedule, NoExecute]\n"
	"                    tolerationSeconds:\n"
	"                      description: How long a NoExecute taint is put up with.\n"
	"                      type: integer\n"
	"                      format: int64\n"
	"                      minimum: 0\n"
	"              image:\n"
	"                description: The loaders' image, instead of the operator's choice.\n"
	"                type: string\n"
	"                minLength: 1\n"
	"                maxLength: 512\n"
	"                pattern: '^[^\\s]+$'\n"
	"              priorityClassName:\n"
	"                description: Priority of the loaders' pods. None given - none; "
	"system-node-critical lets them push workloads off a full node.\n"
	"                type: string\n"
	"                minLength: 1\n"
	"                maxLength: 253\n"
	"                pattern: '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'\n"
	"              resources:\n"
	"                description: \"What a loader's container asks for and may use. None given: 50m "
	"of CPU and 96Mi of memory, and a limit of memory that follows from the limits above.\"\n"
	"                type: object\n"
	"                properties:\n" QUANTITIES("requests", "What is set aside for it.")
		QUANTITIES("limits", "What it may not exceed.");

#define NODES(name, text)                             \
	"              " name ":\n"                   \
	"                description: \"" text "\"\n" \
	"                type: integer\n"             \
	"                format: int32\n"             \
	"                minimum: 0\n"

static const char status[] =
	"          status:\n"
	"            description: What became of it; written by the operator.\n"
	"            type: object\n"
	"            properties:\n"
	"              observedGeneration:\n"
	"                description: The generation of the spec that this status is about.\n"
	"                type: integer\n"
	"                format: int64\n"
	"                minimum: 0\n"
	"              nodes:\n"
	"                description: \"Nodes whose loader is ready, of those that shall have one: "
	"2/3.\"\n"
	"                type: string\n"
	"                maxLength: 32\n" NODES(
		"desiredNodes", "Nodes that shall have a loader.") NODES("readyNodes",
		"Nodes whose loader is ready.") NODES("updatedNodes",
		"Nodes whose loader has the present spec.") "              conditions:\n"
							    "                description: \"Accepted, Ready, Progressing, Degraded.\"\n"
							    "                type: array\n"
							    "                maxItems: 8\n"
							    "                x-kubernetes-list-type: map\n"
							    "                x-kubernetes-list-map-keys: [type]\n"
							    "                items:\n"
							    "                  description: A condition as of metav1.\n"
							    "                  type: object\n"
							    "                  required: [type, status, reason, message, lastTransitionTime]\n"
							    "                  properties:\n"
							    "                    type:\n"
							    "                      description: What it is about.\n"
							    "                      type: string\n"
							    "                      maxLength: 316\n"
							    "                      pattern: "
							    "'^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$'\n"
							    "                    status:\n"
							    "                      description: Whether it is so.\n"
							    "                      type: string\n"
							    "                      enum: [\"True\", \"False\", Unknown]\n"
							    "                    reason:\n"
							    "                      description: Why, in a word.\n"
							    "                      type: string\n"
							    "                      minLength: 1\n"
							    "                      maxLength: 1024\n"
							    "                      pattern: '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'\n"
							    "                    message:\n"
							    "                      description: Why, for people.\n"
							    "                      type: string\n"
							    "                      maxLength: 32768\n"
							    "                    lastTransitionTime:\n"
							    "                      description: When status last changed.\n"
							    "                      type: string\n"
							    "                      format: date-time\n"
							    "                    observedGeneration:\n"
							    "                      description: The generation of the spec that it is about.\n"
							    "                      type: integer\n"
							    "                      format: int64\n"
							    "                      minimum: 0\n";

void spec_print_crd(FILE *out)
{
	fputs(head, out);
	put_fields(out, FIELD_DEPTH, "spec", 4);
	fputs(secret, out);
	fputs(secret_keys, out);
	fputs(placement, out);
	fputs(status, out);
}
