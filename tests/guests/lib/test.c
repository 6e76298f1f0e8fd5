/*
 * test.c - start of day, running the tests, the verdict.
 */
#include "lib/guest.h"
#include "lib/print.h"

struct shared_info *shared_info;
struct vcpu_info *vcpu_info_at;
static uint8_t shared_info_page[4096] __attribute__((aligned(4096)));

extern const struct guest_test tests_start[], tests_end[];

static char why[256];
static bool failed, skipped;

void test_fail(const char *fmt, ...)
{
	va_list ap;

	if (failed)
		return;
	failed = true;
	va_start(ap, fmt);
	why[format_line(why, sizeof(why) - 1, fmt, ap)] = 0;
	va_end(ap);
}

void test_skip(const char *reason)
{
	size_t n = strlen(reason);

	skipped = true;
	memcpy(why, reason, n + 1);
}

bool test_failed(void)
{
	return failed;
}

void guest_end(bool pass)
{
	struct sched_shutdown off = { .reason = SHUTDOWN_poweroff };

	say("VERDICT %s", pass ? "pass" : "fail");
	for (;;)
		hcall2(sched_op, SCHEDOP_shutdown, PTR(&off));
}

const char *option(const char *key)
{
	static char value[128];
	size_t n = strlen(key);
	const char *s = (const char *)start_info->cmd_line;

	while (*s) {
		while (*s == ' ')
			s++;
		if (!strncmp(s, key, n) && s[n] == '=') {
			size_t i = 0;

			for (s += n + 1; *s && *s != ' ' && i < sizeof(value) - 1; s++)
				value[i++] = *s;
			value[i] = 0;
			return value;
		}
		while (*s && *s != ' ')
			s++;
	}
	return NULL;
}

uint64_t option_number(const char *key, uint64_t otherwise)
{
	const char *s = option(key);
	uint64_t n = 0;

	if (!s || !*s)
		return otherwise;
	for (; *s >= '0' && *s <= '9'; s++)
		n = n * 10 + (uint64_t)(*s - '0');
	return n;
}

bool on_umbra(void)
{
	uint32_t r[4];

	forced_cpuid(0x4000ff00, 0, r);
	return r[0] == 1 && r[1] == 0x72626d75;
}

uint64_t system_time(void)
{
	volatile struct vcpu_time_info *t = &this_vcpu()->time;
	uint32_t version;
	uint64_t delta, ns;

	do {
		version = t->version;
		asm volatile("lfence" ::: "memory");
		delta = rdtsc() - t->tsc_timestamp;
		delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
		ns = t->system_time + (uint64_t)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
		asm volatile("" ::: "memory");
	} while (version & 1 || version != t->version);
	return ns;
}

void events_unmask(void)
{
	asm volatile("" ::: "memory");
	this_vcpu()->evtchn_upcall_mask = 0;
	asm volatile("" ::: "memory");
	if (this_vcpu()->evtchn_upcall_pending)
		hcall2(xen_version, XENVER_version, 0);
}

void guest_main(void)
{
	const char *only;
	char wanted[64] = "";
	unsigned count[3] = { 0 };	/* ok, failed, skipped */
	long r;

	if (strncmp(start_info->magic, "xen-", 4)) {
		say("FAIL start_info bad magic");
		guest_end(false);
	}
	shared_info = (struct shared_info *)shared_info_page;
	r = update_va(PTR(shared_info_page), start_info->shared_info | PTE_DATA, UVMF_INVLPG);
	if (r) {
		say("FAIL shared_info cannot be mapped: %ld", r);
		guest_end(false);
	}
	traps_init();
	if (option("list")) {
		for (const struct guest_test *t = tests_start; t < tests_end; t++)
			say("test %s", t->name);
		guest_end(true);
	}
	only = option("only");
	if (only)
		memcpy(wanted, only, strlen(only) < sizeof(wanted) ? strlen(only) + 1 : 0);
	for (const struct guest_test *t = tests_start; t < tests_end; t++) {
		if (wanted[0] && strcmp(wanted, t->name))
			continue;
		if (option("verbose"))
			say("... %s", t->name);
		failed = skipped = false;
		t->run();
		if (failed)
			say("FAIL %s %s", t->name, why);
		else if (skipped)
			say("skip %s %s", t->name, why);
		else
			say("ok %s", t->name);
		count[failed ? 1 : skipped ? 2 : 0]++;
	}
	say("%u ok, %u failed, %u skipped", count[0], count[1], count[2]);
	guest_end(!count[1] && count[0]);
}
