/*
 * profile_stack.c - the callers of a kernel function, by the call instructions that return addresses stand behind.
 */
#include <string.h>

#include "vmm/profile.h"
#include "vmm/symbols.h"

#define STACK_WORDS	1024u		/* looked through, at most */
#define CHUNK		64u		/* words read at once */
#define WINDOW		96u		/* words within which a call that is not quite certain counts */
#define JUMP_CODE	2048u		/* bytes of a function looked at */
#define FUNCTION_MAX	65536u
#define KERNEL_TEXT	0xffffffff80000000ull

enum call { CALL_UNKNOWN, NO_CALL, INDIRECT_CALL, DIRECT_CALL };

struct walk {
	const struct symbols *syms;
	struct profile_cache *cache;
	profile_read_fn *read;
	void *arg;
	uint64_t rsp;
	uint32_t at, have;		/* word looked at next; words read so far */
	bool ended;			/* no more can be read */
	uint64_t word[STACK_WORDS];
};

/* The word at `i`. False: the stack, or what we look at of it, ends before. */
static bool word_at(struct walk *w, uint32_t i, uint64_t *out)
{
	while (i >= w->have) {
		uint32_t n = CHUNK - (w->rsp / 8 + w->have) % CHUNK;	/* up to where the next page could begin */

		if (w->ended || w->have + n > STACK_WORDS ||
		    w->read(w->arg, w->rsp + 8ull * w->have, w->word + w->have, 8ull * n)) {
			w->ended = true;
			return false;
		}
		w->have += n;
	}
	*out = w->word[i];
	return true;
}

static bool is_thunk(const struct symbols *syms, uint64_t target)
{
	char name[32];

	return !strncmp(symbols_name(syms, target, name, sizeof name), "__x86_indirect_thunk", 20);
}

/*
 * The instruction before `ret`: call rel32 (E8, 5 bytes), or call r/m64 (FF /2: 2 bytes, 3 with REX or disp8, 6 and 7 with
 * disp32; SDM vol. 2A, CALL). A call of a thunk is one through a pointer.
 */
static enum call look_before(struct walk *w, uint64_t ret, uint64_t *target)
{
	uint8_t code[7];
	uint64_t start;
	int32_t rel;

	if (!symbols_start(w->syms, ret - 1, &start) || w->read(w->arg, ret - 7, code, 7))
		return NO_CALL;
	if (code[2] == 0xe8) {
		memcpy(&rel, code + 3, 4);
		*target = ret + (int64_t)rel;
		if (is_thunk(w->syms, *target))
			return INDIRECT_CALL;
		if (symbols_start(w->syms, *target, &start) && start == *target)
			return DIRECT_CALL;
	}
	if ((code[5] == 0xff && (code[6] & 0xf8) == 0xd0) ||			/* call *%reg */
	    (code[4] == 0xff && (code[5] & 0xf8) == 0x50) ||			/* call *disp8(%reg) */
	    (code[1] == 0xff && ((code[2] & 0xf8) == 0x90 || code[2] == 0x15)) ||	/* call *disp32(%reg), *disp32(%rip) */
	    (code[0] == 0xff && code[1] == 0x14))				/* call *disp32(,%reg,8) */
		return INDIRECT_CALL;
	return NO_CALL;
}

static enum call call_before(struct walk *w, uint64_t ret, uint64_t *target)
{
	struct profile_call *c = &w->cache->calls[ret % PROFILE_CACHE];

	if (ret < KERNEL_TEXT)
		return NO_CALL;
	if (c->kind == CALL_UNKNOWN || c->ret != ret) {
		c->ret = ret;
		c->kind = look_before(w, ret, &c->target);
	}
	*target = c->target;
	return c->kind;
}

/* Whether the code from `from` on has a jmp or jcc rel32 to the function at `to`: the other part of a function that the
 * compiler split, or one that `from` ends with. */
static bool look_for_jump(struct walk *w, uint64_t from, uint64_t to)
{
	uint8_t code[JUMP_CODE];
	uint64_t start, target;
	unsigned have = 0;
	int32_t rel;

	for (unsigned n; have < JUMP_CODE; have += n) {		/* a page at a time: the next need not be there */
		n = 4096 - (from + have) % 4096;
		if (n > JUMP_CODE - have)
			n = JUMP_CODE - have;
		if (w->read(w->arg, from + have, code + have, n))
			break;
	}
	for (unsigned i = 1; i + 5 <= have; i++) {
		if (code[i] != 0xe9 && (code[i - 1] != 0x0f || (code[i] & 0xf0) != 0x80))
			continue;
		memcpy(&rel, code + i + 1, 4);
		target = from + i + 5 + (int64_t)rel;
		if (target >= to && target - to < FUNCTION_MAX && symbols_start(w->syms, target, &start) && start == to)
			return symbols_start(w->syms, from + i, &start) && start == from;
	}
	return false;
}

static bool jumps_to(struct walk *w, uint64_t from, uint64_t to)
{
	struct profile_jump *j = &w->cache->jumps[(from ^ to >> 4) % PROFILE_CACHE];

	if (j->from != from || j->to != to)
		*j = (struct profile_jump){ from, to, look_for_jump(w, from, to) };
	return j->answer;
}

struct candidate {
	uint64_t ret;		/* 0: none */
	uint32_t next;		/* place on the stack behind it */
};

/* Finds the return address into the caller of the function at `callee` (0: any call through a pointer). */
static bool find_caller(struct walk *w, uint64_t callee, uint64_t *ret)
{
	struct candidate by_pointer = { 0 }, by_jump = { 0 }, *best;
	uint64_t word, target;

	for (uint32_t i = w->at; word_at(w, i, &word); i++) {
		enum call c = call_before(w, word, &target);
		struct candidate this = { word, i + 1 };

		if (c == DIRECT_CALL && target == callee) {
			w->at = i + 1;
			*ret = word;
			return true;
		}
		if (i - w->at >= WINDOW)
			continue;
		if (c == INDIRECT_CALL && !by_pointer.ret)
			by_pointer = this;
		if (c == DIRECT_CALL && callee && !by_jump.ret && jumps_to(w, target, callee))
			by_jump = this;
		if (!callee && by_pointer.ret)
			break;
	}
	best = by_jump.ret ? &by_jump : &by_pointer;
	w->at = best->next;
	*ret = best->ret;
	return best->ret;
}

void profile_walk(struct profile_stack *stack, uint64_t rip, uint64_t rsp, const struct symbols *syms,
		  struct profile_cache *cache, profile_read_fn *read, void *arg)
{
	struct walk w = { .syms = syms, .cache = cache, .read = read, .arg = arg, .rsp = rsp };
	uint64_t callee = 0, ret;

	if (!syms || rsp % 8 || (rip && !symbols_start(syms, rip, &callee)))
		return;
	while (stack->depth < PROFILE_DEPTH && find_caller(&w, callee, &ret)) {
		symbols_start(syms, ret - 1, &callee);
		stack->frame[stack->depth++] = (struct profile_frame){ callee, PROFILE_KERNEL };
	}
}
