/*
 * update.pml - one entry: the guest changes its gPTE, others install the sPTE, processors cache it.
 *
 * Built like mmu/update.c, mmu/entry.c, mmu/fault.c, mmu/prebuild.c and the ring of vmm/shim.c. A version of the gPTE is a
 * number; odd ones are not present. cpu 0 changes the entry, both cpus access it by way of their TLBs, the helper thread
 * prebuilds. An access may show no version older than the last whose update was over before the access began: rule 1.
 *
 * PREBUILD_READS_EARLY	rule 6: the helper reads the gPTE, then takes the page lock, and does not look again
 * FAULT_READS_EARLY	the same in a fault
 * FIX_BEFORE_STORE	rule 6: an update brings the shadow in line first and stores the gPTE afterwards
 * KICK_BEFORE_STORE	rule 3: the kick is over before the sPTE is taken away
 * NO_KICK		rule 3: the sPTE is taken away and nobody is told
 * KICK_ONE		rule 3: only the TLB of the cpu at work is kicked
 * FLUSH_STAYS_IN	a flush by the shim does not exit although a present entry was changed
 */
#define VERSIONS	4
#define PRESENT(v)	((v) % 2 == 0)
#define NONE		255	/* an absent sPTE, an empty TLB */

byte gpte, spte = NONE, tlb[2] = NONE;
byte done;			/* the last version whose update is over */
bool page_lock;
bool owed;			/* cpu 0 owes a kick of the entry */
bool ring, removed;		/* the shim's: a line waits; what it overwrote was present */
bool finished;

inline lock(l)		{ atomic { !l -> l = true } }
inline unlock(l)	{ l = false }

/* entry_sync(): the page lock is held. */
inline sync_entry()
{
	if
	:: spte != NONE && spte != gpte ->
#ifdef KICK_BEFORE_STORE
		tlb[0] = NONE;
		tlb[1] = NONE;
		spte = NONE
#else
		owed = true;		/* queued before the change: rule 3 */
		spte = NONE
#endif
	:: else
	fi
}

/* What cpu 0 does before it enters the guest. */
inline run_kicks()
{
	if
	:: owed ->
#ifndef NO_KICK
		tlb[0] = NONE;
#ifndef KICK_ONE
		tlb[1] = NONE;
#endif
#endif
		owed = false
	:: else
	fi
}

/* mmu_updated() */
inline fix_shadow()
{
	lock(page_lock);
	sync_entry();
	unlock(page_lock)
}

/* An access by cpu c that sees `seen`; a fault installs. */
inline access(c, seen, read)
{
	do
	:: atomic { tlb[c] != NONE -> seen = tlb[c]; break }
	:: atomic { tlb[c] == NONE && spte != NONE -> tlb[c] = spte }
	:: atomic { tlb[c] == NONE && spte == NONE } ->
		read = gpte;
		if
		:: !PRESENT(read) -> seen = read; break		/* a true fault */
		:: else
		fi;
		lock(page_lock);
#ifndef FAULT_READS_EARLY
		read = gpte;
#endif
		if
		:: spte == NONE && PRESENT(read) -> spte = read
		:: else
		fi;
		unlock(page_lock)
	od
}

active proctype cpu0()
{
	byte old, seen, read;

	do
	:: gpte == VERSIONS -> break
	:: gpte < VERSIONS ->	/* an update that the VMM does: mmu_update() */
#ifdef FIX_BEFORE_STORE
		fix_shadow();
		gpte++;
#else
		gpte++;
		fix_shadow();
#endif
		run_kicks();
		done = gpte;
		access(0, seen, read);
		assert(seen == gpte)
	:: gpte < VERSIONS ->	/* the shim stores, and flushes if what was there could have been cached */
		old = gpte;
		gpte++;
		ring = true;
		removed = removed || PRESENT(old);
		if
#ifdef FLUSH_STAYS_IN
		:: true
#else
		:: !removed
#endif
		:: removed ->	/* the exit: shim_sync_in(), then mmu_flush() */
			if
			:: ring -> fix_shadow(); ring = false
			:: else
			fi;
			removed = false;
			run_kicks()
		fi;
		done = gpte;
		access(0, seen, read);
		assert(seen == gpte)
	:: ring ->		/* any other exit */
		fix_shadow();
		ring = false;
		removed = false;
		run_kicks()
	od;
	finished = true
}

active proctype cpu1()
{
	byte low, seen, read;

	do
	:: finished -> break
	:: low = done;
	   access(1, seen, read);
	   assert(seen >= low && seen <= gpte)
	od
}

/* mmu_prebuild(): only tries locks. */
active proctype helper()
{
	byte read;

	do
	:: finished -> break
	:: spte == NONE ->
#ifdef PREBUILD_READS_EARLY
		read = gpte;
#endif
		if
		:: atomic { !page_lock -> page_lock = true };
#ifndef PREBUILD_READS_EARLY
			read = gpte;
#endif
			if
			:: spte == NONE && PRESENT(read) -> spte = read
			:: else
			fi;
			unlock(page_lock)
		:: page_lock
		fi
	od
}
