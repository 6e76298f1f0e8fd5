/*
 * breakpoints.c - what breakpoints of the debug registers fire on, and that nothing of how they are done shows.
 */
#include "lib/guest.h"

#define DR6_CLEAR	0xffff0ff0ul
#define DR7_WRITE	1ul
#define DR7_ACCESS	3ul
#define DR7_LEN(bytes)	((bytes) == 8 ? 2ul : (bytes) - 1ul)

static volatile unsigned hits;
static volatile uint64_t hit_rip, hit_dr6;

static bool count_hit(struct regs *r)
{
	hits++;
	hit_rip = r->rip;
	hit_dr6 = hcall1(get_debugreg, 6);
	hcall2(set_debugreg, 6, DR6_CLEAR);
	return true;
}

/* Breakpoint `i` on data. */
static void arm(unsigned i, const volatile void *at, unsigned bytes, uint64_t kind)
{
	hits = 0;
	trap_hook(1, count_hit);
	expect_eq(hcall2(set_debugreg, 6, DR6_CLEAR), 0);
	expect_eq(hcall2(set_debugreg, i, PTR(at)), 0);
	expect_eq(hcall2(set_debugreg, 7, 0x400 | 1ul << i * 2 | (kind | DR7_LEN(bytes) << 2) << (16 + i * 4)), 0);
}

static unsigned disarm(unsigned i)
{
	unsigned n = hits;

	expect_eq(hcall2(set_debugreg, 7, 0), 0);
	hcall2(set_debugreg, i, 0);
	trap_hook(1, NULL);
	return n;
}

static volatile uint64_t words[8];

TEST(watch_fires_behind_the_store)
{
	uint64_t behind;

	arm(2, &words[1], 4, DR7_WRITE);
	asm volatile("movl $7, %1\n1: nop\n leaq 1b(%%rip), %0" : "=r"(behind), "+m"(*(volatile uint32_t *)&words[1]));
	expect_eq(disarm(2), 1);
	expect_eq(hit_rip, behind);
	expect_eq(hit_dr6 & 0xf, 4);
	expect(!(hit_dr6 & 1 << 14), "a single step in DR6: %lx", hit_dr6);
}

TEST(watch_sees_the_bytes_it_names)
{
	volatile uint8_t *b = (volatile uint8_t *)&words[2];

	arm(0, b + 4, 4, DR7_WRITE);
	b[3] = 1;
	b[8] = 1;
	expect_eq(hits, 0);
	b[7] = 1;
	expect_eq(hits, 1);
	asm volatile("movw $5, %0" : "=m"(*(volatile uint16_t *)(b + 3)));
	expect_eq(hits, 2);
	asm volatile("movb %0, %%al" :: "m"(b[5]) : "rax");
	expect_eq(disarm(0), 2);
}

TEST(watch_reads)
{
	uint64_t v;

	words[3] = 9;
	arm(3, &words[3], 8, DR7_ACCESS);
	asm volatile("movq %1, %0; nop" : "=r"(v) : "m"(words[3]));
	expect_eq(v, 9);
	expect_eq(hits, 1);
	asm volatile("leaq %1, %0; nop" : "=r"(v) : "m"(words[3]));
	expect_eq(disarm(3), 1);
}

TEST(watch_the_stack)
{
	static uint64_t stack[512] __attribute__((aligned(16)));	/* the handler runs on it, below what is watched */

	arm(1, &stack[511], 8, DR7_WRITE);
	asm volatile("movq %%rsp, %%rbx\n movq %0, %%rsp\n pushq $0x55\n nop\n movq %%rbx, %%rsp"
		     :: "r"(stack + 512) : "rbx", "memory");
	expect_eq(disarm(1), 1);
	expect_eq(stack[511], 0x55);
}

TEST(watch_string_stores)
{
	static uint8_t from[64];
	void *to = (void *)words, *f = from;
	uint64_t n = 64;

	for (unsigned i = 0; i < 64; i++)
		from[i] = i + 1;
	arm(0, &words[5], 1, DR7_WRITE);
	asm volatile("rep movsb; nop" : "+D"(to), "+S"(f), "+c"(n) :: "memory");
	expect_eq(disarm(0), 1);
	expect_eq(words[7], 0x403f3e3d3c3b3a39);
}

/* Flags as an armed guest sees them. */
TEST(armed_flags)
{
	uint64_t flags;

	arm(0, &words[6], 8, DR7_WRITE);
	asm volatile("pushfq; popq %0" : "=r"(flags));
	expect(!(flags & 0x100), "TF shows in %lx", flags);
	asm volatile("stc; pushfq; popq %0; pushq %0; popfq; nop" : "=r"(flags) :: "cc");
	expect(flags & 1, "CF is lost: %lx", flags);
	expect_eq(hits, 0);
	words[6] = 1;
	asm volatile("nop" ::: "memory");
	expect_eq(disarm(0), 1);
}

TEST(armed_across_hypercalls)
{
	arm(0, &words[4], 8, DR7_WRITE);
	for (unsigned i = 0; i < 3; i++) {
		expect_eq(hcall2(xen_version, 0, 0) > 0, 1);
		words[4] = i;
	}
	asm volatile("nop" ::: "memory");
	expect_eq(disarm(0), 3);
}

static volatile unsigned steps_outside;

static bool step_hook(struct regs *r)
{
	if (r->rip >> 39 == 0xffff828000000000 >> 39)
		steps_outside++;
	hits++;
	return true;
}

/* The hypercall is one instruction, or a function, of the guest's; nothing of the hypervisor's is stepped through. */
TEST(single_step_over_hypercalls)
{
	long version;

	hits = steps_outside = 0;
	trap_hook(1, step_hook);
	asm volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
	version = hcall2(xen_version, 0, 0);
	asm volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
	trap_hook(1, NULL);
	expect(version > 0, "xen_version gives %ld", version);
	expect(hits > 3, "%u steps", hits);
	expect_eq(steps_outside, 0);
	hcall2(set_debugreg, 6, DR6_CLEAR);
}
