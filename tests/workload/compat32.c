/*
 * A 32-bit program without a C library: int $0x80, the vDSO's fast system call, TLS descriptors, fork and signals in
 * compatibility mode. Exits with 0, or with the number of the check that failed.
 */
#define NULL	((void *)0)

enum {	/* arch/x86/entry/syscalls/syscall_32.tbl */
	NR_exit = 1, NR_fork = 2, NR_waitpid = 7, NR_getpid = 20, NR_kill = 37, NR_munmap = 91, NR_mprotect = 125,
	NR_rt_sigaction = 174, NR_mmap2 = 192, NR_set_thread_area = 243,
};

enum { AT_SYSINFO = 32, SIGUSR1 = 10, SIGSEGV = 11, PAGE = 4096, PAGES = 200 };

static int sys3(int nr, int a, int b, int c)
{
	int ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

static char *map_pages(void)
{
	int ret;
	/* six arguments: ebp is the last, so it is saved by hand */
	asm volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp"
		     : "=a"(ret) : "a"(NR_mmap2), "b"(0), "c"(PAGES * PAGE), "d"(3), "S"(0x22), "D"(-1) : "memory");
	return (char *)ret;
}

static volatile int usr1_seen, segv_seen;
static char *segv_page;

static void handle_usr1(int sig)
{
	usr1_seen++;
}

static void handle_segv(int sig)
{
	segv_seen++;
	sys3(NR_mprotect, (int)segv_page, PAGE, 3);
}

static int handle(int sig, void (*handler)(int))
{
	struct { void (*handler)(int); unsigned long flags; void *restorer; unsigned long mask[2]; } sa = {
		.handler = handler,
	};
	int ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(NR_rt_sigaction), "b"(sig), "c"(&sa), "d"(0), "S"(8) : "memory");
	return ret;
}

static int check(const unsigned *stack)
{
	/* flags: 32 bit, limit in pages, useable */
	struct { unsigned entry, base, limit, flags; } desc = { -1u, 0, 0xfffff, 0x51 };
	int status = 0, pid = sys3(NR_getpid, 0, 0, 0), word = 0x7735, got;
	void *vsyscall = NULL;
	const unsigned *v;
	char *p;

	if (pid <= 0)
		return 1;
	for (v = stack + 1 + stack[0] + 1; *v; v++)	/* over argv, then environment, to the auxiliary vector */
		;
	for (v++; v[0]; v += 2)
		if (v[0] == AT_SYSINFO)
			vsyscall = (void *)v[1];
	for (int i = 0; vsyscall && i < 300; i++) {
		asm volatile("call *%1" : "=a"(got) : "r"(vsyscall), "a"(NR_getpid) : "memory", "ecx", "edx");
		if (got != pid || sys3(NR_getpid, 0, 0, 0) != pid)
			return 2;
	}

	p = map_pages();
	if ((unsigned)p > -4096u)
		return 3;
	for (int i = 0; i < PAGES; i++)
		p[i * PAGE] = i;
	got = sys3(NR_fork, 0, 0, 0);
	if (!got) {
		for (int i = 0; i < PAGES; i++) {
			if (p[i * PAGE] != (char)i)
				sys3(NR_exit, 1, 0, 0);
			p[i * PAGE] = ~i;
		}
		sys3(NR_exit, 21, 0, 0);
	}
	if (got < 0 || sys3(NR_waitpid, got, (int)&status, 0) != got || status != 21 << 8)
		return 4;
	for (int i = 0; i < PAGES; i++)
		if (p[i * PAGE] != (char)i)
			return 5;

	desc.base = (unsigned)&word;
	if (sys3(NR_set_thread_area, (int)&desc, 0, 0))
		return 6;
	asm volatile("mov %1, %%gs" : "=m"(word) : "r"(desc.entry << 3 | 3), "m"(word));
	for (int i = 0; i < 50; i++) {
		sys3(NR_getpid, 0, 0, 0);
		asm volatile("mov %%gs:0, %0" : "=r"(got) : "m"(word));
		if (got != 0x7735)
			return 7;
	}

	if (handle(SIGUSR1, handle_usr1) || handle(SIGSEGV, handle_segv))
		return 8;
	for (int i = 0; i < 20; i++)
		sys3(NR_kill, pid, SIGUSR1, 0);
	if (usr1_seen != 20)
		return 9;
	segv_page = p;
	if (sys3(NR_mprotect, (int)p, PAGE, 1))
		return 10;
	*(volatile char *)p = 77;
	if (segv_seen != 1 || *(volatile char *)p != 77)
		return 11;
	return sys3(NR_munmap, (int)p, PAGES * PAGE, 0) ? 12 : 0;
}

__attribute__((used, noreturn)) static void start(const unsigned *stack)
{
	sys3(NR_exit, check(stack), 0, 0);
	__builtin_unreachable();
}

asm(".globl _start\n"
    "_start:\n"
    "	mov	%esp, %eax\n"
    "	and	$-16, %esp\n"
    "	sub	$12, %esp\n"
    "	push	%eax\n"
    "	call	start\n");
