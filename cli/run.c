/*
 * run.c - `umbra run`: options to struct vmm_config.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <regex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "vmm/shim_abi.h"
#include "vmm/vmm.h"

#define MEMORY_MIN	(16ull << 20)
#define SHADOW_MAX	(1ull << 24)		/* 64 GiB of tables */
#define TRACE_MAX	(1u << 20)

enum {
	OPT_MMU = 256, OPT_POPULATE, OPT_SHADOW_PAGES, OPT_KICK, OPT_FILL, OPT_PREFETCH, OPT_NUMA, OPT_NUMA_FAKE, OPT_MEMBIND, OPT_PREFERRED,
	OPT_CPUNODEBIND, OPT_HOST_PAGES, OPT_LARGE, OPT_LINK_AHEAD, OPT_NODE_TABLES, OPT_FILL_LINEAR, OPT_AUDIT, OPT_EXPECT,
	OPT_TIMEOUT, OPT_STATS, OPT_SHIM, OPT_GATES, OPT_HELPER, OPT_HELPER_CPUS, OPT_HELPER_TEST, OPT_SAMPLE, OPT_HEURISTIC, OPT_TABLE, OPT_NO_TABLE, OPT_TRACE_EXITS, OPT_INITDOMAIN, OPT_NO_FAST,
	OPT_TRACE, OPT_VCPU_CPUS, OPT_SYMBOLS, OPT_NO_REBOOT, OPT_CONTROL, OPT_PROFILE, OPT_PROFILE_HZ, OPT_FAULT_MAP,
	OPT_VNUMA,
};

static const struct argp_option options[] = {
	{ NULL, 0, NULL, 0, "The guest:", 1 },
	{ "kernel", 'k', "FILE", 0, "Kernel: bzImage or ELF64 with Xen PV notes (required)", 1 },
	{ "initrd", 'i', "FILE", 0, "Initial RAM disk", 1 },
	{ "append", 'p', "CMDLINE", 0, "Kernel command line", 1 },
	{ "memory", 'm', "SIZE", 0, "Guest memory in bytes or with K, M, G, T (default 512M)", 1 },
	{ "vcpus", 'c', "N", 0, "Virtual processors, 1 to 32; more than the host has cores works (default 1)", 1 },
	{ "vcpu-cpus", OPT_VCPU_CPUS, "LIST|any", 0, "Host CPUs to pin the vCPUs to, in turn; any: none (default: consecutive "
	  "ones if this process may use more CPUs than there are vCPUs, and there are several vCPUs)", 1 },
	{ "initdomain", OPT_INITDOMAIN, NULL, 0, "Tell the guest it is the initial domain (SIF_INITDOMAIN)", 1 },
	{ "no-fast-cmdline", OPT_NO_FAST, NULL, 0, "Do not add what makes a stock kernel fast to its command line", 1 },
	{ "no-reboot", OPT_NO_REBOOT, NULL, 0, "A reboot of the guest ends the run", 1 },

	{ NULL, 0, NULL, 0, "Memory virtualization:", 2 },
	{ "mmu", OPT_MMU, "MODE", 0, "shadow: the processor walks our shadow tables (default); nested: the "
	  "guest's own, and KVM does the rest", 2 },
	{ "shadow-pages", OPT_SHADOW_PAGES, "N", 0, "Shadow pool in 4 KiB pages (default: chosen from --memory)", 2 },
	{ "fill", OPT_FILL, "HOW", 0, "lazy: build entries at faults (default); eager: also when the guest updates "
	  "its tables", 2 },
	{ "prefetch", OPT_PREFETCH, "HOW", 0, "At a fault also build: off (default), kvm8 (the aligned 8), xen32 (32 "
	  "forward) or N on both sides", 2 },
	{ "populate", OPT_POPULATE, NULL, 0, "Allocate all of the guest's memory before it runs", 2 },
	{ "numa", OPT_NUMA, "POLICY", 0, "Which NUMA nodes memory comes from: off (default), local, interleave, bind; and what moves later: migrate, replicate, balance, auto; 'help' explains", 2 },
	{ "numa-fake", OPT_NUMA_FAKE, "N", 0, "A test: pretends that this host has N NUMA nodes, 2 to 8", 2 },
	{ "membind", OPT_MEMBIND, "NODES", 0, "... from these nodes only: 0,2-3 or all", 2 },
	{ "preferred", OPT_PREFERRED, "NODE", 0, "... from this node while it has some", 2 },
	{ "cpunodebind", OPT_CPUNODEBIND, "NODES", 0, "vCPUs run on the processors of these nodes", 2 },
	{ "vnuma", OPT_VNUMA, "N|host", 0, "Tell the guest of N NUMA nodes, or as many as the host has; each bound to one of the host's "
	  "(default: none)", 2 },
	{ "host-pages", OPT_HOST_PAGES, "huge|small", 0, "Pages behind the guest's memory; huge, the default, is a wish", 2 },
	{ "large", OPT_LARGE, "on|off", 0, "2 MiB shadow entries where possible (default on)", 2 },
	{ "fill-linear", OPT_FILL_LINEAR, "on|off", 0, "At a fault in the kernel's map of all memory, build the whole table's "
	  "entries (default off)", 2 },
	{ "link-ahead", OPT_LINK_AHEAD, "on|off", 0, "Link tables that have a shadow already when a root is loaded, and into "
	  "the roots of both modes at one fault (default on)", 2 },
	{ "node-tables", OPT_NODE_TABLES, "on|off", 0, "Where pages and vCPUs move between NUMA nodes: shadow tables for each node, in "
	  "its memory (default on)", 2 },
	{ "shim", OPT_SHIM, "on|off|LIST", 0, "Hypercalls done inside the guest, without an exit: all, none, or some of mmu, mmuext, "
	  "multicall, stack, segment, timer, misc, iret (default on)", 2 },
	{ "gates", OPT_GATES, "auto|vmm|invm", 0, "Where system calls, returns to user mode and page faults of user code are passed on: "
	  "in umbra, inside the guest without an exit, or what is faster here (auto, default)", 2 },
	{ "helper", OPT_HELPER, "on|off|auto", 0, "Threads on other cores that prebuild shadow entries ahead of the guest; auto: only "
	  "while a core is free for it (default off)", 2 },
	{ "heuristic", OPT_HEURISTIC, "NAME[,KEY=N...]", 0, "What it prebuilds; repeatable; 'auto' gives each as much say as it is worth, "
	  "'help' lists them", 2 },
	{ "helper-cpus", OPT_HELPER_CPUS, "LIST", 0, "A helper thread on each of these host CPUs, sharing the vCPUs (default one, on "
	  "any)", 2 },
	{ "helper-test", OPT_HELPER_TEST, "KEY=N[,...]", 0, "Tests: queue=N leaves room for so few events, delay=US waits up to so long before "
	  "each look", 2 },
	{ "sample", OPT_SAMPLE, "N", 0, "Of about so many entries that were built unasked one shows whether it is used (default 16, 0 "
	  "none)", 2 },
	{ "kick", OPT_KICK, "METHOD", 0, "How changed entries take effect: auto (default), flush, rewrite, table", 2 },
	{ "audit", OPT_AUDIT, "0..3", 0, "Check the shadow against the guest's tables while running (default 0)", 2 },

	{ NULL, 0, NULL, 0, "The run:", 3 },
	{ "expect", OPT_EXPECT, "REGEX", 0, "The console must print a line that matches this extended regular "
	  "expression", 3 },
	{ "timeout", OPT_TIMEOUT, "TIME", 0, "End the run after this long: 500ms, 60s, 2m, 1h", 3 },
	{ "stats", OPT_STATS, "FILE", 0, "Write configuration and counters as JSON", 3 },
	{ "fault-map", OPT_FAULT_MAP, NULL, 0, "... and where and when faults came, for 'umbra report'", 3 },
	{ "profile", OPT_PROFILE, "FILE", 0, "Sample where the guest spends its time: folded stacks into FILE, a flame graph "
	  "into FILE.svg", 3 },
	{ "profile-hz", OPT_PROFILE_HZ, "N", 0, "Samples per second, 1 to 10000 (default 499)", 3 },
	{ "control", OPT_CONTROL, "PATH|off", 0, "Socket that answers 'umbra stat' and 'umbra top' (default: "
	  "<pid>.sock in $XDG_RUNTIME_DIR/umbra or /run/umbra)", 3 },
	{ "table", OPT_TABLE, NULL, 0, "Print the counters to stderr at the end (default)", 3 },
	{ "no-table", OPT_NO_TABLE, NULL, 0, "Do not print the counters", 3 },
	{ "symbols", OPT_SYMBOLS, "FILE", 0, "System.map of the kernel, for crash dumps and profiles (default: the kernel's own tables)", 3 },
	{ "trace", OPT_TRACE, "FILE", 0, "Record page-table updates, pins, root loads and faults, for 'umbra replay'", 3 },
	{ "trace-exits", OPT_TRACE_EXITS, "N", 0, "Exits to keep for a crash dump (default 64)", 3 },
	{ "verbose", 'v', NULL, 0, "Say more on stderr", 3 },
	{ "quiet", 'q', NULL, 0, "Errors only on stderr, no table", 3 },
	{ NULL },
};

static const struct cli_choice kick_choices[] = {
	{ "auto", VMM_KICK_AUTO }, { "flush", VMM_KICK_FLUSH }, { "rewrite", VMM_KICK_REWRITE },
	{ "table", VMM_KICK_TABLE }, { NULL },
};
static const struct cli_choice fill_choices[] = {
	{ "lazy", MMU_FILL_LAZY }, { "eager", MMU_FILL_EAGER }, { NULL },
};
static const struct cli_choice prefetch_choices[] = {
	{ "off", MMU_PREFETCH_OFF }, { "kvm8", MMU_PREFETCH_KVM8 }, { "xen32", MMU_PREFETCH_XEN32 }, { NULL },
};
static const struct cli_choice switch_choices[] = { { "on", true }, { "off", false }, { NULL } };
static const struct cli_choice helper_choices[] = {
	{ "off", VMM_HELPER_OFF }, { "on", VMM_HELPER_ON }, { "auto", VMM_HELPER_AUTO }, { NULL },
};
static const struct cli_choice gates_choices[] = { { "auto", VMM_GATES_AUTO }, { "vmm", VMM_GATES_VMM }, { "invm", VMM_GATES_INVM },
						  { NULL } };
static const struct cli_choice page_choices[] = { { "huge", true }, { "small", false }, { NULL } };
static const struct cli_choice mmu_choices[] = { { "shadow", VMM_MMU_SHADOW }, { "nested", VMM_MMU_NESTED }, { NULL } };

/* "umbra run: --OPTION=VALUE: what is wrong". Returns EINVAL, with which argp_parse() then returns. */
__attribute__((format(printf, 3, 4)))
static error_t bad_value(const char *option, const char *value, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "umbra run: --%s=%s: ", option, value);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EINVAL;
}

static error_t parse_choice(const char *option, const char *arg, const struct cli_choice *choices, int *out)
{
	char list[96] = "";
	size_t n = 0;

	if (!cli_parse_choice(arg, choices, out))
		return 0;
	for (; choices->name && n < sizeof list; choices++)
		n += snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", choices->name);
	return bad_value(option, arg, "not one of: %s", list);
}

static error_t parse_number(const char *option, const char *arg, uint64_t min, uint64_t max, uint64_t *out)
{
	int r = cli_parse_uint(arg, min, max, out);

	if (!r)
		return 0;
	return bad_value(option, arg, "%sa number from %" PRIu64 " to %" PRIu64 " is needed",
			 r == -ERANGE ? "out of range: " : "", min, max);
}

/* on, off, or names separated by commas. */
static error_t parse_shim(const char *arg, unsigned *out)
{
	static const char *const names[] = {
#define X(name, what) #name,
		SHIM_FEATURES(X)
#undef X
	};
	char copy[128], *save, *word;

	*out = 0;
	if (!strcmp(arg, "off"))
		return 0;
	if (!strcmp(arg, "on")) {
		*out = (1u << SHIM_BITS) - 1;
		return 0;
	}
	if (strlen(arg) >= sizeof copy || !*arg)
		return bad_value("shim", arg, "on, off, or a list of names is needed");
	strcpy(copy, arg);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		unsigned i = 0;

		while (i < SHIM_BITS && strcmp(word, names[i]))
			i++;
		if (i == SHIM_BITS)
			return bad_value("shim", arg, "'%s' is none of on, off, mmu, mmuext, multicall, stack, segment, timer, misc, "
					 "iret", word);
		*out |= 1u << i;
	}
	return 0;
}

static error_t parse_memory(const char *arg, uint64_t *out)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), bytes;
	char text[CLI_SIZE_TEXT];
	int r = cli_parse_size(arg, &bytes);

	if (r == -ERANGE)
		return bad_value("memory", arg, "more than 64 bits can say");
	if (r)
		return bad_value("memory", arg, "a size is needed: digits, then K, M, G, T or nothing for bytes");
	if (bytes < MEMORY_MIN)
		return bad_value("memory", arg, "at least 16M are needed%s",
				 arg[strspn(arg, "0123456789")] ? "" : " (a number alone is bytes: add M or G)");
	if (bytes > host)
		return bad_value("memory", arg, "this host has %s", cli_size_text(host, text));
	if (bytes % MMU_PAGE_SIZE)
		return bad_value("memory", arg, "not a multiple of 4K");
	*out = bytes;
	return 0;
}

static error_t parse_prefetch(const char *arg, struct vmm_config *config)
{
	uint64_t n;
	int kind;

	if (!cli_parse_choice(arg, prefetch_choices, &kind)) {
		config->prefetch = kind;
		return 0;
	}
	if (cli_parse_uint(arg, 1, MMU_ENTRIES - 1, &n))
		return bad_value("prefetch", arg, "not one of: off, kvm8, xen32, a number from 1 to %u",
				 MMU_ENTRIES - 1);
	config->prefetch = MMU_PREFETCH_AROUND;
	config->prefetch_n = n;
	return 0;
}

static error_t parse_timeout(const char *arg, double *out)
{
	int r = cli_parse_time(arg, out);

	if (r == -ERANGE)
		return bad_value("timeout", arg, "longer than a year");
	if (r)
		return bad_value("timeout", arg, "a time is needed, such as 500ms, 60s, 2m, 1h");
	if (*out < 1e-3)
		return bad_value("timeout", arg, "at least 1ms; leave --timeout out for a run without one");
	return 0;
}

static error_t parse_expect(const char *arg, const char **out)
{
	char why[128];
	regex_t regex;
	int r = regcomp(&regex, arg, REG_EXTENDED | REG_NOSUB);

	if (r) {
		regerror(r, &regex, why, sizeof why);
		return bad_value("expect", arg, "not a POSIX extended regular expression: %s", why);
	}
	regfree(&regex);
	if (!*arg)
		return bad_value("expect", arg, "matches anything: say what the console has to print");
	*out = arg;
	return 0;
}

/* What would otherwise be found out only when the run is over and its counters are lost. */
static error_t parse_output(const char *option, const char *arg, const char **out)
{
	char dir[4096];
	struct stat st;

	if (!*arg || strlen(arg) >= sizeof dir)
		return bad_value(option, arg, "the name of a file is needed");
	if (!stat(arg, &st) && !S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))
		return bad_value(option, arg, "not a file");
	strcpy(dir, arg);
	if (access(dirname(dir), W_OK | X_OK))
		return bad_value(option, arg, "cannot write there: %s", strerror(errno));
	*out = arg;
	return 0;
}

static error_t parse_control(const char *arg, const char **out)
{
	if (!*arg || strlen(arg) + strlen(".new") >= VMM_SOCKET_PATH)
		return bad_value("control", arg, "a path of 1 to %zu bytes is needed, or off",
				 VMM_SOCKET_PATH - 1 - strlen(".new"));
	*out = strcmp(arg, "off") ? arg : "";
	return 0;
}

static error_t parse_numa(const char *arg, struct numa_config *config)
{
	char why[160];

	if (numa_policy_parse(arg, config, why, sizeof why))
		return bad_value("numa", arg, "%s", why);
	return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct vmm_config *config = state->input;
	uint64_t n = 0;
	int choice = 0;
	error_t r = 0;

	switch (key) {
	case 'k':
		config->kernel = arg;
		break;
	case 'i':
		config->initrd = arg;
		break;
	case 'p':
		config->cmdline = arg;
		break;
	case 'm':
		return parse_memory(arg, &config->memory);
	case 'c':
		r = parse_number("vcpus", arg, 1, VMM_MAX_VCPUS, &n);
		config->vcpus = n;
		break;
	case OPT_MMU:
		r = parse_choice("mmu", arg, mmu_choices, &choice);
		config->mmu = choice;
		break;
	case OPT_SHADOW_PAGES:
		return parse_number("shadow-pages", arg, MMU_POOL_MIN, SHADOW_MAX, &config->shadow_pages);
	case OPT_KICK:
		r = parse_choice("kick", arg, kick_choices, &choice);
		config->kick = choice;
		break;
	case OPT_FILL:
		r = parse_choice("fill", arg, fill_choices, &choice);
		config->fill = choice;
		break;
	case OPT_PREFETCH:
		return parse_prefetch(arg, config);
	case OPT_HELPER:
		r = parse_choice("helper", arg, helper_choices, &choice);
		config->helper = choice;
		break;
	case OPT_VCPU_CPUS:
		config->vcpus_float = !strcmp(arg, "any");
		if (!config->vcpus_float && cli_parse_list(arg, sysconf(_SC_NPROCESSORS_CONF) - 1, config->vcpu_cpus,
							   VMM_MAX_VCPUS, &config->nr_vcpu_cpus))
			return bad_value("vcpu-cpus", arg, "any, or numbers and ranges from 0 to %ld are needed, such as 0,2-3",
					 sysconf(_SC_NPROCESSORS_CONF) - 1);
		break;
	case OPT_HELPER_CPUS:
		if (cli_parse_list(arg, sysconf(_SC_NPROCESSORS_CONF) - 1, config->helper_cpus, VMM_MAX_VCPUS,
				   &config->nr_helper_cpus))
			return bad_value("helper-cpus", arg, "numbers or ranges from 0 to %ld are needed, such as 0,2-3",
					 sysconf(_SC_NPROCESSORS_CONF) - 1);
		break;
	case OPT_SAMPLE:
		r = parse_number("sample", arg, 0, 1 << 20, &n);
		config->sample_every = n;
		break;
	case OPT_HELPER_TEST:
		if (cli_parse_pairs(arg, (const char *const []){ "queue", "delay", NULL },
				    (unsigned *const []){ &config->helper_queue, &config->helper_delay_us }, 1000000))
			return bad_value("helper-test", arg, "queue=N and delay=MICROSECONDS are known, up to 1000000");
		break;
	case OPT_HEURISTIC: {
		char why[128];

		if (!strcmp(arg, "help")) {
			heuristic_help(stdout);
			exit(0);
		}
		if (config->nr_heuristics == HELPER_MAX_HEURISTICS)
			return bad_value("heuristic", arg, "more than %u", HELPER_MAX_HEURISTICS);
		if (heuristic_parse(arg, &config->heuristics[config->nr_heuristics], why, sizeof why))
			return bad_value("heuristic", arg, "%s", why);
		config->nr_heuristics++;
		return 0;
	}
	case OPT_GATES:
		r = parse_choice("gates", arg, gates_choices, &choice);
		config->gates = choice;
		break;
	case OPT_SHIM:
		return parse_shim(arg, &config->shim);
	case OPT_POPULATE:
		config->populate = true;
		break;
	case OPT_NUMA:
		if (!strcmp(arg, "help")) {
			numa_policy_help(stdout);
			exit(0);
		}
		return parse_numa(arg, &config->numa);
	case OPT_NUMA_FAKE:
		r = parse_number("numa-fake", arg, 2, NUMA_MAX_PLACES, &n);
		config->numa_fake = n;
		break;
	case OPT_MEMBIND:
		if (numa_parse_nodes(arg, &config->numa.membind))
			return bad_value("membind", arg, "not a list of nodes such as 0,2-3");
		break;
	case OPT_PREFERRED:
		r = parse_number("preferred", arg, 0, NUMA_MAX_NODES - 1, &n);
		config->numa.preferred = n;
		break;
	case OPT_CPUNODEBIND:
		if (numa_parse_nodes(arg, &config->numa.cpunodebind))
			return bad_value("cpunodebind", arg, "not a list of nodes such as 0,2-3");
		break;
	case OPT_VNUMA:
		config->vnuma = VMM_VNUMA_HOST;
		if (!strcmp(arg, "host"))
			break;
		if (cli_parse_uint(arg, 1, NUMA_MAX_NODES, &n))
			return bad_value("vnuma", arg, "want a number of nodes from 1 to %u, or host", NUMA_MAX_NODES);
		config->vnuma = n;
		break;
	case OPT_HOST_PAGES:
		r = parse_choice("host-pages", arg, page_choices, &choice);
		config->huge = choice;
		break;
	case OPT_LARGE:
		r = parse_choice("large", arg, switch_choices, &choice);
		config->large = choice;
		break;
	case OPT_FILL_LINEAR:
		r = parse_choice("fill-linear", arg, switch_choices, &choice);
		config->fill_linear = choice;
		break;
	case OPT_LINK_AHEAD:
		r = parse_choice("link-ahead", arg, switch_choices, &choice);
		config->link_ahead = choice;
		break;
	case OPT_NODE_TABLES:
		r = parse_choice("node-tables", arg, switch_choices, &choice);
		config->node_tables = choice;
		break;
	case OPT_AUDIT:
		r = parse_number("audit", arg, 0, 3, &n);
		config->audit = n;
		break;
	case OPT_EXPECT:
		return parse_expect(arg, &config->expect);
	case OPT_TIMEOUT:
		return parse_timeout(arg, &config->timeout);
	case OPT_STATS:
		return parse_output("stats", arg, &config->stats);
	case OPT_TRACE:
		return parse_output("trace", arg, &config->trace);
	case OPT_PROFILE:
		return parse_output("profile", arg, &config->profile);
	case OPT_PROFILE_HZ:
		r = parse_number("profile-hz", arg, 1, 10000, &n);
		config->profile_hz = n;
		break;
	case OPT_CONTROL:
		return parse_control(arg, &config->control);
	case OPT_FAULT_MAP:
		config->fault_map = true;
		break;
	case OPT_TABLE:
		config->table = true;
		break;
	case OPT_NO_TABLE:
		config->table = false;
		break;
	case OPT_TRACE_EXITS:
		r = parse_number("trace-exits", arg, 0, TRACE_MAX, &n);
		config->trace_exits = n;
		break;
	case OPT_INITDOMAIN:
		config->initdomain = true;
		break;
	case OPT_NO_FAST:
		config->fast_cmdline = false;
		break;
	case OPT_SYMBOLS:
		config->symbols = arg;
		break;
	case OPT_NO_REBOOT:
		config->on_reboot_exit = true;
		break;
	case 'v':
		config->verbose = true;
		config->quiet = false;
		break;
	case 'q':
		config->quiet = true;
		config->verbose = config->table = false;
		break;
	case ARGP_KEY_ARG:
		fprintf(stderr, "umbra run: '%s' belongs to no option; the kernel's command line goes into --append\n",
			arg);
		return EINVAL;
	case ARGP_KEY_END:
		if (!config->numa.policy && (config->numa.membind || config->numa.preferred >= 0 || config->numa.cpunodebind))
			config->numa.policy = numa_policy_find("bind");
		if (config->vnuma && (config->numa.policy || config->nr_vcpu_cpus || config->vcpus_float)) {
			fputs("umbra run: --vnuma binds memory and vCPUs to nodes and keeps them there: leave --numa, --membind, --preferred, "
			      "--cpunodebind and --vcpu-cpus out\n", stderr);
			return EINVAL;
		}
		if (config->fault_map && !config->stats) {
			fputs("umbra run: --fault-map goes into the file of --stats=FILE, which is not given\n", stderr);
			return EINVAL;
		}
		if (config->mmu == VMM_MMU_NESTED && config->vcpus > 1)
			return bad_value("mmu", "nested", "this mode runs one vCPU: leave --vcpus out");
		if (config->trace && config->mmu == VMM_MMU_NESTED)
			return bad_value("trace", config->trace, "heuristics see nothing with --mmu=nested");
		if (config->kernel && *config->kernel)
			break;
		fputs("umbra run: a kernel is needed: --kernel=FILE ('scripts/fetch-kernel' gets Debian's)\n", stderr);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return r;
}

int cli_run(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "Boots a guest. Its console is stdin and stdout; on a terminal Ctrl-a x leaves, Ctrl-a h lists "
		       "the keys.\v"
		       "Exit codes: 0 the guest powered off and --expect was met, 1 error, 2 usage, 3 the guest "
		       "crashed, 4 --expect was not met, 77 the host lacks what is needed ('umbra doctor'), 124 "
		       "timeout.",
	};
	struct vmm_config config;

	vmm_config_init(&config);
	if (argp_parse(&argp, argc, argv, 0, NULL, &config))
		return VMM_EXIT_USAGE;
	config.nr_heuristics = heuristics_resolve(config.heuristics, config.nr_heuristics, &config.feedback);
	return vmm_run(&config);
}
