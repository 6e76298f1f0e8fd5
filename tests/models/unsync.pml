/*
 * unsync.pml - a flush that the shim may let go: vCPU 0 writes a leaf table directly, and looks whether a flush has anything
 * to do, while two other vCPUs come out of the guest, flush, and go in again.
 *
 * Built like flush_idle() of vmm/shim_code.c, shim_owes(), publish_unsync() and shim_sync_out() of vmm/shim.c. The table is
 * writable while it is listed; who flushes compares it with its shadow, and takes it off the list. When a flush of vCPU 0 is
 * over, by an exit or without, its access does not show what the table said before its last store.
 *
 * NO_EPOCH	the look does not ask whether anybody began to owe meanwhile (a bug this project had)
 * EPOCH_LATE	who leaves the guest counts up the epoch after its work, not before
 * NO_OWES	nobody looks at owes
 * PUBLISH_LATE	owes is cleared before it is published that a table is out of sync
 * NO_VERSION	who saw no such table clears the word whatever others have published since
 */
#define STORES		2
#define NONE		255	/* an absent sPTE, an empty TLB */

byte gpte, spte, tlb;		/* versions; only vCPU 0 caches */
bool listed;
bool owes[3], pending[3];
byte version;
bool epoch;			/* somebody has counted it up since the look began */
bool word;			/* a table is out of sync */

inline leave(me)
{
	owes[me] = true;
#ifndef EPOCH_LATE
	epoch = true
#endif
}

/* mmu_flush(): what was taken away is kicked on the way in; kicks that others owe are taken over. */
inline flush(me)
{
	atomic {	/* the frame lock; flush.pml is about what happens under it */
		if
		:: listed && spte != NONE && spte != gpte -> spte = NONE; pending[me] = true
		:: else
		fi;
		listed = false
	};
	atomic { pending[me] = pending[me] || pending[0] || pending[1] || pending[2] }
}

inline publish()
{
	was = version;
	if
	:: listed -> atomic { version++; word = true }
	:: else ->
		atomic {
			if
#ifdef NO_VERSION
			:: true -> word = false
#else
			:: version == was -> word = false
			:: else
#endif
			fi
		}
	fi;
	was = 0
}

inline enter(me)
{
#ifdef EPOCH_LATE
	epoch = true;
#endif
#ifdef PUBLISH_LATE
	owes[me] = pending[me];
	publish();
#else
	publish();
	owes[me] = pending[me];
#endif
	atomic {	/* the gate's kicks reach everybody */
		if
		:: pending[me] -> tlb = NONE; pending[me] = false
		:: else
		fi
	}
}

inline look()
{
	idle = true;
	epoch = false;
#ifndef NO_OWES
	if
	:: owes[1] -> idle = false
	:: else
	fi;
	if
	:: owes[2] -> idle = false
	:: else
	fi;
#endif
	if
	:: word -> idle = false
	:: else
	fi;
#ifndef NO_EPOCH
	if
	:: epoch -> idle = false
	:: else
	fi;
#endif
	epoch = false
}

inline access()
{
	do
	:: atomic { tlb != NONE -> shown = tlb; break }
	:: atomic { tlb == NONE && spte != NONE -> tlb = spte }
	:: atomic { tlb == NONE && spte == NONE } ->
		leave(0);
		atomic {
			if
			:: spte == NONE -> spte = gpte
			:: else
			fi
		};
		enter(0)
	od
}

active proctype writer()
{
	byte was, shown;
	bool idle;

	do
	:: gpte == STORES -> break
	:: gpte < STORES ->
		do	/* the store, through a leaf that a fault has made writable */
		:: atomic { listed -> gpte++; break }
		:: atomic { !listed } -> leave(0); listed = true; enter(0)
		od;
		look();
		if
		:: atomic { idle -> idle = false }
		:: else -> leave(0); flush(0); enter(0)
		fi;
		access();
		atomic { assert(shown == gpte); shown = 0 }
	od
}

proctype other(byte me; byte rounds)
{
	byte n, was;

	do
	:: n == rounds -> break
	:: n < rounds ->
		n++;
		leave(me);
		if
		:: flush(me)
		:: listed = true	/* its own PT write */
		:: true
		fi;
		enter(me)
	od
}

init
{
	atomic { run other(1, 2); run other(2, 1) }
}
