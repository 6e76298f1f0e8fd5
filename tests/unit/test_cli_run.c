/*
 * test_cli_run.c - what `umbra run` makes of its options. vmm_run() is replaced: it keeps the configuration.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "vmm/vmm.h"

#define RAN	55

static struct vmm_config seen;
static bool ran;

void vmm_config_init(struct vmm_config *config)
{
	*config = (struct vmm_config){ .memory = 512ull << 20, .vcpus = 1, .fast_cmdline = true, .large = true,
				       .table = true };
}

int vmm_run(const struct vmm_config *config)
{
	seen = *config;
	ran = true;
	return RAN;
}

int vmm_doctor(FILE *to)
{
	return RAN;
}

/* Runs `umbra run` with the words of `line`; what it says on stderr goes into `said`. */
static char said[1024];
static int run(const char *line)
{
	static char words[512];	/* the configuration borrows from it */
	char *argv[32] = { (char[]){ "umbra run" } }, *save;
	int argc = 1, r, err = dup(STDERR_FILENO);
	FILE *f = tmpfile();

	assert_non_null(f);
	snprintf(words, sizeof words, "%s", line);
	for (char *p = strtok_r(words, " ", &save); p; p = strtok_r(NULL, " ", &save))
		argv[argc++] = p;
	fflush(stderr);
	dup2(fileno(f), STDERR_FILENO);
	ran = false;
	r = cli_run(argc, argv);
	fflush(stderr);
	dup2(err, STDERR_FILENO);
	close(err);
	rewind(f);
	said[fread(said, 1, sizeof said - 1, f)] = 0;
	fclose(f);
	return r;
}

static void defaults(void **state)
{
	assert_int_equal(run("-k vmlinuz"), RAN);
	assert_string_equal(seen.kernel, "vmlinuz");
	assert_null(seen.initrd);
	assert_int_equal(seen.memory, 512 << 20);
	assert_true(seen.fast_cmdline && seen.table && seen.large && !seen.on_reboot_exit && !seen.initdomain);
	assert_string_equal(said, "");
}

static void every_option(void **state)
{
	assert_int_equal(run("--kernel=k --initrd=i --append=a=b --memory=1G --vcpus=1 --mmu=shadow --shadow-pages=48"
			     " --fill=eager --prefetch=17 --large=off --kick=rewrite --audit=3 --expect=^ok$"
			     " --timeout=500ms --stats=/tmp/none.json --no-table --symbols=S --trace-exits=9"
			     " --initdomain --no-fast-cmdline --no-reboot -v"), RAN);
	assert_string_equal(seen.initrd, "i");
	assert_string_equal(seen.cmdline, "a=b");
	assert_string_equal(seen.symbols, "S");
	assert_string_equal(seen.expect, "^ok$");
	assert_string_equal(seen.stats, "/tmp/none.json");
	assert_int_equal(seen.memory, 1 << 30);
	assert_int_equal(seen.shadow_pages, 48);
	assert_int_equal(seen.fill, MMU_FILL_EAGER);
	assert_int_equal(seen.prefetch, MMU_PREFETCH_AROUND);
	assert_int_equal(seen.prefetch_n, 17);
	assert_int_equal(seen.kick, VMM_KICK_REWRITE);
	assert_int_equal(seen.audit, 3);
	assert_int_equal(seen.trace_exits, 9);
	assert_true(seen.timeout == 0.5);
	assert_true(seen.initdomain && seen.on_reboot_exit && seen.verbose);
	assert_false(seen.large || seen.table || seen.fast_cmdline || seen.quiet);
}

static void profile(void **state)
{
	assert_int_equal(run("-k k"), RAN);
	assert_null(seen.profile);
	assert_int_equal(run("-k k --profile=/tmp/none.folded --profile-hz=97"), RAN);
	assert_string_equal(seen.profile, "/tmp/none.folded");
	assert_int_equal(seen.profile_hz, 97);
}

static void control(void **state)
{
	assert_int_equal(run("-k k"), RAN);
	assert_null(seen.control);
	assert_int_equal(run("-k k --control=off"), RAN);
	assert_string_equal(seen.control, "");
	assert_int_equal(run("-k k --control=./g.sock"), RAN);
	assert_string_equal(seen.control, "./g.sock");
}

static void quiet(void **state)
{
	assert_int_equal(run("-k k -q"), RAN);
	assert_true(seen.quiet && !seen.table);
	assert_int_equal(run("-k k -q --table"), RAN);
	assert_true(seen.quiet && seen.table);
}

/* Each is refused with code 2, runs nothing and says why. */
static void absurd_values(void **state)
{
	static const struct {
		const char *options, *says;
	} cases[] = {
		{ "", "a kernel is needed" },
		{ "-k k extra", "'extra' belongs to no option" },
		{ "-k k --memory=5", "--memory=5: at least 16M are needed (a number alone is bytes" },
		{ "-k k -m 4M", "--memory=4M: at least 16M are needed\n" },
		{ "-k k -m 16777217", "not a multiple of 4K" },
		{ "-k k -m 16777216T", "more than 64 bits" },
		{ "-k k -m 1000T", "this host has" },
		{ "-k k -m many", "a size is needed" },
		{ "-k k -c 0", "out of range" },
		{ "-k k -c 33", "a number from 1 to 32" },
		{ "-k k -c 99999999999999999999", "out of range" },
		{ "-k k --mmu=both", "not one of: shadow, nested" },
		{ "-k k --mmu=nested --vcpus=2", "one vCPU" },
		{ "-k k --shadow-pages=47", "from 48 to" },
		{ "-k k --shadow-pages=99999999", "out of range" },
		{ "-k k --kick=hard", "not one of: auto, flush, rewrite, table" },
		{ "-k k --fill=full", "not one of: lazy, eager" },
		{ "-k k --prefetch=0", "a number from 1 to 511" },
		{ "-k k --prefetch=512", "a number from 1 to 511" },
		{ "-k k --large=maybe", "not one of: on, off" },
		{ "-k k --audit=4", "from 0 to 3" },
		{ "-k k --audit=-1", "from 0 to 3" },
		{ "-k k --expect=a(b", "not a POSIX extended regular expression" },
		{ "-k k --expect=", "matches anything" },
		{ "-k k --timeout=0", "at least 1ms" },
		{ "-k k --timeout=-5s", "a time is needed" },
		{ "-k k --timeout=9999999h", "longer than a year" },
		{ "-k k --stats=/nonexistent/x.json", "cannot write there: No such file" },
		{ "-k k --stats=/tmp", "not a file" },
		{ "-k k --trace-exits=1000000000", "out of range" },
		{ "-k k --profile=/nonexistent/x", "umbra run: --profile=/nonexistent/x: cannot write there" },
		{ "-k k --profile-hz=10001", "a number from 1 to 10000" },
		{ "-k k --control=", "a path of 1 to 103 bytes is needed, or off" },
		{ "-k k --control=/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a path of 1 to 103 bytes" },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		int r = run(cases[i].options);

		if (r != VMM_EXIT_USAGE || ran || !strstr(said, cases[i].says) || strncmp(said, "umbra run: ", 11))
			fail_msg("'%s': exit %d, said '%s'", cases[i].options, r, said);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults), cmocka_unit_test(every_option), cmocka_unit_test(quiet),
		cmocka_unit_test(control), cmocka_unit_test(profile),
		cmocka_unit_test(absurd_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
