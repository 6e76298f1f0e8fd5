/*
 * idle.pml - a flush that the shim may let go: two vCPUs change one entry and cache it; one of them looks whether a flush
 * has anything to do, and is stopped by a signal amid that look.
 *
 * Built like flush_idle() of vmm/shim_code.c, shim_sync_in(), shim_sync_out() and drain() of vmm/shim.c. Every version of
 * the gPTE is present and differs from the last, so every store is a removal. When a flush is over, by an exit or without,
 * no access of either vCPU shows a version older than the last that had been stored, by either, before the flush began.
 *
 * MUST_FIRST	must_flush is looked at before the counts: a signal in between makes it true (a bug this project had)
 * NO_MUST	it is not looked at
 * OWES_FIRST	owes is looked at before the counts
 * NO_OWES	it is not looked at
 * OWES_LATE	a vCPU that has left the guest takes up the rings before it says that it owes
 * OWES_SHORT	it says that it owes nothing when it goes in, not when its kicks are over
 * OWES_DROPPED	kicks done in the middle of an exit end it, whatever the vCPU does next
 * COUNT_EARLY	the shim counts a removal before the line is in the ring
 */
#define VERSIONS	2
#define NONE		255	/* an absent sPTE, an empty TLB */
#define SIGNALS		1	/* for vCPU 0, amid the shim */

byte gpte, spte, tlb[2];
byte stored;			/* the last version whose store is over: the hypercall has returned */
byte done;			/* the last version whose flush is over */
byte head[2], tail[2];		/* of the rings */
byte removals[2], seen[2];
bool owes[2], must_flush[2];
bool pending[2], given[2];	/* kicks to be given to the gate, and given but not known to be over */
bool ring_lock[2];
byte signals;

inline lock(l)		{ atomic { !l -> l = true } }
inline unlock(l)	{ l = false }

/* mmu_updated(): what another cpu has taken away and not kicked yet is taken over. */
inline fix_shadow(by)
{
	atomic {		/* the page lock */
		if
		:: spte != NONE && spte != gpte ->
			pending[by] = true;
			spte = NONE
		:: else ->
			if
			:: pending[1 - by] || given[1 - by] -> pending[by] = true
			:: else
			fi
		fi
	}
}

inline drain(by, o)
{
	lock(ring_lock[o]);
	count = removals[o];
	upto = head[o];
	if
	:: tail[o] != upto -> fix_shadow(by); tail[o] = upto
	:: else
	fi;
	seen[o] = count;
	count = 0;
	upto = 0;
	unlock(ring_lock[o])
}

inline leave(me)
{
	given[me] = false;
#ifdef OWES_LATE
	drain(me, me);
	owes[me] = true
#else
	owes[me] = true;
	drain(me, me)
#endif
}

/* By way of the gate, whose kicks reach both. */
inline enter(me)
{
	must_flush[me] = false;
	atomic {
		given[me] = pending[me];
		pending[me] = false
	};
#ifdef OWES_SHORT
	owes[me] = false;
#else
	owes[me] = given[me];
#endif
	if
	:: atomic { given[me] -> tlb[1 - me] = NONE; tlb[me] = NONE }
	:: else
	fi
}

/* A signal stops the vCPU in the shim: it goes on as it is, without the gate. */
inline signal(me)
{
	if
	:: true
	:: me == 0 && signals < SIGNALS ->
		signals++;
		owes[me] = true;
		drain(me, me);
		must_flush[me] = pending[me];
		owes[me] = pending[me] || given[me]
	fi
}

inline raise(to, version)
{
	atomic {
		if
		:: version > to -> to = version
		:: else
		fi;
		version = 0
	}
}

/* A hypercall that the shim does: store(). */
inline store(me)
{
	signal(me);
#ifdef COUNT_EARLY
	removals[me]++;
	head[me]++;
#else
	head[me]++;
	signal(me);
	removals[me]++;
#endif
	signal(me)
}

inline look_at_counts(me)
{
	if
	:: removals[0] != seen[0] -> idle = false
	:: else
	fi;
	signal(me);
	if
	:: removals[1] != seen[1] -> idle = false
	:: else
	fi;
	signal(me)
}

inline look_at_owes(me)
{
#ifndef NO_OWES
	if
	:: owes[1 - me] -> idle = false
	:: else
	fi;
	signal(me)
#else
	true
#endif
}

inline look_at_must(me)
{
#ifndef NO_MUST
	if
	:: must_flush[me] -> idle = false
	:: else
	fi;
	signal(me)
#else
	true
#endif
}

inline flush_idle(me)
{
	idle = true;
#ifdef MUST_FIRST
	look_at_must(me);
#endif
#ifdef OWES_FIRST
	look_at_owes(me);
#endif
	look_at_counts(me);
#ifndef OWES_FIRST
	look_at_owes(me);
#endif
#ifndef MUST_FIRST
	look_at_must(me);
#endif
}

/* mmu_flush() on the thread of a vCPU that has left the guest. */
inline flush(me)
{
	drain(me, 1 - me);
	atomic {
		if
		:: pending[1 - me] || given[1 - me] -> pending[me] = true
		:: else
		fi
	}
}

/* An exit, which may be due to another flush; the one at hand needs an exit that is. */
inline exit(me)
{
	leave(me);
#ifdef OWES_DROPPED
	atomic { pending[me] = false; tlb[me] = NONE; tlb[1 - me] = NONE };
	owes[me] = false;
#endif
	if
	:: flush(me)
	:: mine == 0
	fi;
	enter(me)
}

inline access(me)
{
	do
	:: atomic { tlb[me] != NONE -> shown = tlb[me]; break }
	:: atomic { tlb[me] == NONE && spte != NONE -> tlb[me] = spte }
	:: atomic { tlb[me] == NONE && spte == NONE } ->
		leave(me);
		atomic {
			if
			:: spte == NONE -> spte = gpte
			:: else
			fi
		};
		enter(me)
	od
}

inline checked_access(me)
{
	low = done;
	access(me);
	assert(shown >= low);
	atomic { low = 0; shown = 0 }
}

proctype vcpu(byte me)
{
	byte mine, count, upto, low, shown;
	bool idle;

	do
	:: gpte == VERSIONS && stored == VERSIONS -> break
	:: atomic { gpte < VERSIONS -> gpte++; mine = gpte };
		store(me);
		raise(stored, mine)
	:: me == 0 && done < stored ->	/* vCPU 1 flushes by exits */
		mine = stored;
		flush_idle(me);
		if
		:: atomic { idle -> idle = false }
		:: else -> exit(me)
		fi;
		raise(done, mine)
	:: checked_access(me)
	:: exit(me)
	od;
	checked_access(me)
}

init
{
	atomic { run vcpu(0); run vcpu(1) }
}
