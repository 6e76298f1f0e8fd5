/*
 * workload.h - the program that guests run: tests that verify their own data, and small measurements.
 *
 * Static, needs 128 MB and one CPU, runs natively as well. A subtest runs in a process of its own, so it may crash or
 * leave maps, handlers and children's files behind. What it feeds its digest depends on nothing but its code (no pids,
 * addresses, times, CPU features), so digests of any two machines are equal.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE	4096ul

struct digest { uint64_t h; };

#define DIGEST_INIT	((struct digest){ 0xcbf29ce484222325ull })	/* FNV-1a, 64 bits */

void digest_bytes(struct digest *d, const void *data, size_t len);
void digest_u64(struct digest *d, uint64_t v);
/* What the file holds; -1 and errno. */
int digest_file(struct digest *d, const char *path);

struct rng { uint64_t s; };	/* splitmix64; any seed */

uint64_t rng_next(struct rng *r);
void rng_fill(struct rng *r, void *buf, size_t len);

struct subtest {
	const char *name;
	/* NULL: passed. Else why not, in words; the string is used before the process ends. */
	const char *(*run)(struct digest *d);
};

#define SUBTEST_TIMEOUT_S	120

/* Tables end with a subtest without a name. */
extern const struct subtest memory_tests[], process_tests[], io_tests[], cpu_tests[];

/* Formats the answer of a failed subtest; one buffer per process. */
const char *why(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(cond, ...) do { if (!(cond)) return why(__VA_ARGS__); } while (0)
/* Passes on what another check had to say. */
#define TRY(expr) do { const char *w_ = (expr); if (w_) return w_; } while (0)

/* The answer of a subtest that this kernel cannot run. Such a subtest leaves its digest alone. */
const char *skip(const char *reason);

/* Waits for `pid` and demands that it exit with `code`. */
const char *child_expect(pid_t pid, int code);
/* A file without a name on tmpfs, of `size` bytes; -1 and errno. */
int scratch_file(size_t size);

/* Touching memory that may not be there. One thread at a time. */
struct probe {
	int signo;		/* 0: the access went through */
	int code;		/* SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR ... */
	uintptr_t addr;		/* si_addr */
	unsigned long error;	/* page-fault error code: 1 present, 2 write, 4 user, 16 fetch */
};

struct probe probe_read(const volatile void *p);
struct probe probe_write(volatile void *p, uint8_t value);
struct probe probe_call(void *code, int *result);

/* Measurements: the clock, and the verdict on one that could not be made (errno says why; returns the exit status). */
uint64_t bench_now_ns(void);
int bench_fail(const char *name, const char *what);

/* Commands. Arguments as in main(); return the exit status. */
int selftest_main(int argc, char **argv);
int forks_main(int argc, char **argv);
int micro_main(int argc, char **argv);
int spin_main(int argc, char **argv);
int shared_main(int argc, char **argv);
int idle_main(int argc, char **argv);
int compile_main(int argc, char **argv);
int kbuild_main(int argc, char **argv);
int boot_main(int argc, char **argv);
int command_main(int argc, char **argv);
int exec_child_main(int argc, char **argv);

#endif
