/*
 * guest.h - the support library of the tiny PV64 kernels: tests and verdicts, hypercalls, traps, page tables, user mode.
 *
 * A kernel is one or more files of TEST()s. start.S brings the vCPU to guest_main(), which runs them in link order; each
 * prints `ok NAME`, `FAIL NAME why` or `skip NAME why`, and the last line is `VERDICT pass` or `VERDICT fail`.
 * Everything runs on one vCPU. The kernels also boot as dom0 of a real Xen (tests/guests/on-xen), which is how what they
 * expect has been checked; what is umbra's own asks on_umbra() first.
 */
#ifndef TESTS_GUESTS_GUEST_H
#define TESTS_GUESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <xen/xen.h>
#include <xen/callback.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

#define PAGE	4096ul
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

struct guest_test {
	const char *name;
	void (*run)(void);
};
#define TEST(fn) \
	static void fn(void); \
	static const struct guest_test test_##fn __attribute__((used, section(".tests"), aligned(16))) = { #fn, fn }; \
	static void fn(void)

/* The first failure of a test is the one printed. */
void test_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void test_skip(const char *why);
bool test_failed(void);
#define expect(cond, ...) \
	do { \
		if (!(cond)) \
			test_fail(__VA_ARGS__); \
	} while (0)
#define expect_eq(got, want) \
	do { \
		int64_t got_ = (int64_t)(got), want_ = (int64_t)(want); \
		if (got_ != want_) \
			test_fail("%s:%d: %s is %ld (0x%lx), not %ld", __FILE_NAME__, __LINE__, #got, (long)got_, \
				  (unsigned long)got_, (long)want_); \
	} while (0)

void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));	/* one line to console_io; %d %u %x %s %c %p, l */
void guest_main(void);
void guest_end(bool pass) __attribute__((noreturn));			/* verdict and poweroff */
/* Value of `key=` on the command line; NULL if it is not there. Valid until the next call. */
const char *option(const char *key);
uint64_t option_number(const char *key, uint64_t otherwise);
bool on_umbra(void);

/* ---- start of day ---------------------------------------------------------------------------------------------------- */

extern struct start_info *start_info;
extern uint64_t start_rsp, start_rflags;	/* as the domain builder left them */
extern struct shared_info *shared_info;		/* mapped by guest_main() */
extern char image_start[], image_end[], virt_base[];

extern struct vcpu_info *vcpu_info_at;		/* where VCPUOP_register_vcpu_info moved it; NULL: not */
static inline struct vcpu_info *this_vcpu(void)
{
	return vcpu_info_at ? vcpu_info_at : &shared_info->vcpu_info[0];
}

/* ---- hypercalls ------------------------------------------------------------------------------------------------------- */

long hypercall(unsigned nr, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);
#define PTR(p)	((uint64_t)(uintptr_t)(p))
#define hcall1(nr, a)			hypercall(__HYPERVISOR_##nr, (uint64_t)(a), 0, 0, 0, 0)
#define hcall2(nr, a, b)		hypercall(__HYPERVISOR_##nr, (uint64_t)(a), (uint64_t)(b), 0, 0, 0)
#define hcall3(nr, a, b, c)		hypercall(__HYPERVISOR_##nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0)
#define hcall4(nr, a, b, c, d)		hypercall(__HYPERVISOR_##nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), \
						  (uint64_t)(d), 0)
long mmuext(unsigned cmd, uint64_t arg1, uint64_t arg2);
long mmu_update_one(uint64_t ptr, uint64_t val);
long update_va(uint64_t va, uint64_t pte, uint64_t flags);

/* ---- traps ------------------------------------------------------------------------------------------------------------- */

/* What the entry stubs save; from rip on it is what Xen pushed. */
struct regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;	/* cs: the selector in bits 0-15, the saved upcall mask in 32-39 */
};
enum { VEC_EVENT = 256, VEC_FAILSAFE, VEC_SYSCALL, VEC_SYSCALL32, NR_VECTORS };
#define GATE_NOBODY		0x6f	/* int N gates: DPL 0 */
#define GATE_KERNEL_ONLY	0x70	/* DPL 1 */
#define GATE_USER		0x71	/* DPL 3 */
#define GATE_MASKS		0x73	/* DPL 3, disables events on entry */
#define GATE_EXIT		0x80	/* DPL 3, how user code comes back to user_run() */

#define RFLAGS_TF	(1ul << 8)
#define RFLAGS_IF	(1ul << 9)
#define RFLAGS_DF	(1ul << 10)
#define RFLAGS_IOPL	(3ul << 12)
#define RFLAGS_AC	(1ul << 18)
#define PF_P	1u
#define PF_W	2u
#define PF_U	4u
#define PF_RSVD	8u
#define PF_I	16u

struct seen {		/* the last trap that a probe caught */
	int vector;	/* -1: none */
	uint64_t error, cr2, rip;
	unsigned count;
	struct regs regs;
};
extern struct seen seen;
void traps_init(void);
void traps_context(struct vcpu_guest_context *c);	/* the same handlers for another vCPU */
void seen_clear(void);
/* A hook sees every trap of its vector first; true: handled, go back to regs. */
typedef bool trap_hook_fn(struct regs *regs);
void trap_hook(unsigned vector, trap_hook_fn *fn);
/* An instruction that may fault: the fault is noted in `seen` and execution goes on behind it. */
#define PROBED(insn) \
	"771:\t" insn "\n772:\n" \
	"\t.pushsection .extable, \"a\"\n\t.quad 771b, 772b\n\t.popsection\n"
#define probe(insn, ...) \
	do { \
		seen_clear(); \
		asm volatile(PROBED(insn) __VA_ARGS__); \
	} while (0)
int probe_read(uint64_t va, uint64_t *value);	/* the vector, -1 if it went through */
int probe_write(uint64_t va, uint64_t value);
int probe_fetch(uint64_t va);			/* calls va, where a `ret` should stand */
#define expect_trap(vec, err) \
	do { \
		expect_eq(seen.vector, vec); \
		expect_eq(seen.error, err); \
	} while (0)

/* ---- page tables ------------------------------------------------------------------------------------------------------- */

#define PTE_P	(1ul << 0)
#define PTE_W	(1ul << 1)
#define PTE_U	(1ul << 2)
#define PTE_A	(1ul << 5)
#define PTE_D	(1ul << 6)
#define PTE_PS	(1ul << 7)
#define PTE_NX	(1ul << 63)
#define PTE_ADDR	0x000ffffffffff000ul
#define PTE_RO_DATA	(PTE_P | PTE_U | PTE_A | PTE_D | PTE_NX)
#define PTE_DATA	(PTE_RO_DATA | PTE_W)
#define PTE_TABLE	(PTE_P | PTE_W | PTE_U | PTE_A | PTE_D)

uint64_t va_to_mfn(const void *va);	/* of the kernel image, boot region and page pool */
void *mfn_to_va(uint64_t mfn);		/* NULL: not mapped at virt_base */
static inline uint64_t pte_make(uint64_t mfn, uint64_t flags) { return mfn << 12 | flags; }
static inline uint64_t mach(const void *va) { return va_to_mfn(va) << 12 | ((uint64_t)(uintptr_t)va & 4095); }
/* Zeroed, writable pages of the pool, and back to it. The pool holds PAGE_POOL pages. */
#define PAGE_POOL	700
void *page_alloc(void);
void page_free(void *page);
/* A page from the pool, remapped read-only, as page tables have to be. */
uint64_t *table_alloc(void);
void table_free(uint64_t *table);
uint64_t *root_va(void);		/* the running kernel root */
/* Entry for `va` at `level` (1: leaf table), as a read-only pointer; NULL if a table above it is missing. */
uint64_t *pte_of(uint64_t *root, uint64_t va, unsigned level);
/* Stores the leaf entry for `va` by mmu_update, making tables on the way. */
int map_page(uint64_t *root, uint64_t va, uint64_t pte);
/* A root of our own that shares the kernel's L3s: L4 slots of the running root copied, then pinned. */
uint64_t *root_clone(void);
/* An empty root for user mode, pinned, and loaded with MMUEXT_NEW_USER_BASEPTR by user_init(). */
extern uint64_t *user_root;

#define TEST_VA		0x0000100000000000ul	/* L4 slot 32: nothing of ours is there */
#define HIGH_TEST_VA	0xffff880000000000ul	/* first slot above Xen's hole */

/* ---- user mode ---------------------------------------------------------------------------------------------------------- */

#define USER_CODE	0x0000000000400000ul	/* user_code.S, mapped in both roots; below 4 GiB for compat code */
#define USER_DATA	0x0000000000500000ul	/* two data pages in both roots, the second one the stack */
#define USER_STACK_TOP	(USER_DATA + 0x2000)
void user_init(void);
/* Runs user code until it traps or makes a syscall. Only rip, rsp, cs, ss, rflags and the general registers count.
 * Returns what brought it back: a vector. `regs` then holds the frame. */
int user_run(struct regs *regs);
/* The same from scratch: rip = address of `code` in the user mapping. */
int user_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi);
/* The same for 32-bit code. */
int user32_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi);
/* Linux's selectors: those that transitions inside the VM serve. linux_user_init(): user_init(), and a GDT with them. */
#define LINUX_USER_CS	0x33
#define LINUX_USER_SS	0x2b
void linux_user_init(void);
int linux_user_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi);
extern uint64_t iret_flags;		/* iret_context.flags of every iret: 0 or VGCF_in_syscall */
extern uint8_t *user_data;		/* kernel's own mapping of the data pages */
uint64_t user_address(const char *code);

/* Remaps a pool page: flags are PTE_DATA or PTE_RO_DATA. */
void page_protect(void *page, uint64_t flags);

/* ---- misc ----------------------------------------------------------------------------------------------------------------- */

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
uint64_t random64(uint64_t *state);	/* xorshift64*; *state not 0 */
uint64_t system_time(void);		/* ns, from the vCPU's pvclock page */
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}
/* cpuid behind Xen's forced-emulation prefix */
static inline void forced_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid"
		     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}
static inline void events_mask(void)
{
	this_vcpu()->evtchn_upcall_mask = 1;
	asm volatile("" ::: "memory");
}
/* As Linux does it: unmask, then look, then ask for the upcall that may have been missed. */
void events_unmask(void);

#endif
