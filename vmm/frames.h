/*
 * frames.h - what every guest frame is used as, where the processor walks the guest's own tables (docs/nested.md). Not for
 * other modules.
 *
 * The rules are Xen's (xen/arch/x86/mm.c, get_page_type()): a frame is at any time a table of one level, or writable memory,
 * or neither, and keeps its type while anybody uses it as such. A table is validated when it becomes one and every later
 * store to it is checked, so a table that the processor can reach names nothing but
 *   - tables of the level below,
 *   - in level 1: frames of the guest, writable ones only with W,
 *   - in the hole of level 4: what the VMM put there.
 * As no table can be mapped writable, the guest cannot change one but through here.
 *
 * One lock inside; any thread may call. Nothing here calls KVM: what has to be forgotten by processors is told to `owner`.
 */
#ifndef UMBRA_VMM_FRAMES_H
#define UMBRA_VMM_FRAMES_H

#include "mmu/mmu.h"

/* Tables by their level. */
enum frame_type { FRAME_NONE, FRAME_L1, FRAME_L2, FRAME_L3, FRAME_L4, FRAME_WRITABLE };

struct frames;

/* Called with the lock held, from the function that made the change; must not call back. `arg` is that function's. */
struct frames_owner {
	/* Something was taken away from a present entry: index, or MMU_ENTRIES for the whole table (a frame became a table:
	 * nothing that a processor or KVM keeps of its earlier lives may show). Before the guest runs again. */
	void (*changed)(void *arg, gfn_t table, unsigned index);
	/* A frame gets a new type: translations that were cached since frames_flushed() must go before the guest runs again. */
	void (*retyped)(void *arg);
};

struct frames_config {
	void *ram;
	uint64_t ram_frames, nr_gfns;	/* frames from ram_frames on can only be writable memory: shared_info */
	const uint64_t (*hole)[16];	/* [enum mmu_mode]: entries of L4 slots 256-271 */
	const struct frames_owner *owner;
};

/* Counters, under the lock: X(name, "what"). */
#define FRAMES_COUNTERS(X) \
	X(validated,	"frames that became page tables, each checked entry by entry") \
	X(checked,	"stores to page tables checked") \
	X(refused,	"stores, pins and loads refused") \
	X(retyped,	"changes of a frame's type that needed a TLB flush")

struct frames_stats {
#define X(name, what) uint64_t name;
	FRAMES_COUNTERS(X)
#undef X
};

/* 0 or -ENOMEM. */
int frames_create(const struct frames_config *config, struct frames **out);
void frames_destroy(struct frames *f);

/* One more user of the frame as `type`. Tables are validated, with all below them. -EINVAL: it is something else, or what it
 * holds is no table of that kind; nothing has changed then, but for U bits. */
int frames_get(struct frames *f, gfn_t gfn, enum frame_type type, void *arg);
void frames_put(struct frames *f, gfn_t gfn, enum frame_type type);
/* The guest's pin, a user like any other but at most one per frame. -EINVAL. */
int frames_pin(struct frames *f, gfn_t gfn, unsigned level, void *arg);
int frames_unpin(struct frames *f, gfn_t gfn);

/* Stores an entry, checked and with U if the frame is a table. preserve_ad: A and D of the old one stay. -EINVAL. */
int frames_store(struct frames *f, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad, void *arg);
/* The same if the entry still holds `old`; -EAGAIN: it does not. */
int frames_exchange(struct frames *f, gfn_t table, unsigned index, uint64_t old, uint64_t gpte, void *arg);
/* The entry; 0 if out of range. */
uint64_t frames_read(struct frames *f, gfn_t table, unsigned index);

/* Gives a level-4 table, which the caller keeps, the hole of that mode. */
void frames_set_hole(struct frames *f, gfn_t l4, enum mmu_mode mode, void *arg);
enum frame_type frames_type(struct frames *f, gfn_t gfn);
/* Every processor that runs the guest has flushed its TLB, and KVM has heard of what `changed` told. */
void frames_flushed(struct frames *f);

void frames_stats(struct frames *f, struct frames_stats *out);
/* Counts all references anew and compares. `held`: level-4 tables that callers hold, `nr_held` of them, repeated ones
 * repeatedly; `kept`: the same for writable frames. How many frames are wrong; the first one is described in `why`. */
unsigned frames_audit(struct frames *f, const gfn_t *held, unsigned nr_held, const gfn_t *kept, unsigned nr_kept, char *why,
		      size_t size);

#endif
