/*
 * flush.pml - a leaf table out of sync: cpu 0 writes it directly, both cpus flush.
 *
 * Built like mmu/sync.c, mmu/kick.c and prepare_write() of mmu/fault.c. The table has one entry of interest; the `window` is
 * the leaf through which the guest writes the table. What a flush promises: when it is over, the cpu that asked for it sees
 * what it wrote before, also if another cpu made the change and still owes the kick (kick_adopt()). cpu 2 works by way of
 * the rmap, under no lock but the bucket's: it drops the leaf (a move) and takes W from the window (dirty logging).
 *
 * NO_ADOPT		a flush does not take over the kicks others owe
 * QUEUE_AFTER_CHANGE	a kick is queued after the change, so that another cpu may see one and not the other
 * NO_RELIST		a table leaves the list while a processor may still write it by a cached window
 * SETTLED_LATE		whether one may is asked after the comparison, not before
 * UNLIST_BETWEEN	a table that stays leaves the list for a moment (the race of two writers that this project had)
 * NO_FLUSH_LOCK	a second flush does not wait for the first, whose list was emptied
 * GIVEN_FORGOTTEN	adopting overlooks kicks that were given out and are not done
 */
#define WRITES		2	/* by cpu 0 */
#define ROUNDS		1	/* of cpu 1 */
#define NONE		255
#define NEVER		255

byte gpte, spte, tlb[2];	/* versions, as in update.pml */
byte done;
bool window, wtlb[2];		/* the leaf that maps the table is writable; a processor has it cached so */
bool unsync, wprot = true;
bool listed, on_list;		/* FRAME_LISTED; really on the list */
byte nr_listed;
bool frame_lock, page_lock, flush_lock, bucket_lock;
byte clock = 1, w_clock, oldest[3] = NEVER;
bool kick_w[3], kick_e[3], given_w[3], given_e[3];
inline lock(l)		{ atomic { !l -> l = true } }
inline unlock(l)	{ l = false }

inline owe(c)
{
	if
	:: oldest[c] == NEVER -> oldest[c] = clock
	:: else
	fi
}

inline run_kicks(c)
{
	if
	:: kick_w[c] || kick_e[c] ->
		atomic {
			given_w[c] = kick_w[c];
			given_e[c] = kick_e[c];
			kick_w[c] = false;
			kick_e[c] = false
		}
		if
		:: given_w[c] -> wtlb[0] = false; wtlb[1] = false
		:: else
		fi;
		if
		:: given_e[c] -> tlb[0] = NONE; tlb[1] = NONE
		:: else
		fi;
		atomic {
			given_w[c] = false;
			given_e[c] = false;
			clock++;
			oldest[c] = NEVER;
			if	/* only the order of clocks matters: keep the numbers, hence the states, few */
			:: oldest[0] == NEVER && oldest[1] == NEVER && oldest[2] == NEVER && w_clock < clock ->
				w_clock = 0;
				clock = 1
			:: else
			fi
		}
	:: else
	fi
}

/* leaf_set_rights() and leaf_remove(): the bucket lock is held. */
inline take_w(c)
{
#ifdef QUEUE_AFTER_CHANGE
	window = false;
	atomic { owe(c); kick_w[c] = true };
#else
	atomic { owe(c); kick_w[c] = true };
	window = false;
#endif
	w_clock = clock
}

inline remove_leaf(c)
{
#ifdef QUEUE_AFTER_CHANGE
	spte = NONE;
	atomic { owe(c); kick_e[c] = true }
#else
	atomic { owe(c); kick_e[c] = true };
	spte = NONE
#endif
}

/* frame_refresh() of a table in sync */
inline write_protect(c)
{
	lock(bucket_lock);
	wprot = true;
	if
	:: window -> take_w(c)
	:: else
	fi;
	unlock(bucket_lock)
}

/* entry_sync() under the page lock */
inline compare(c)
{
	lock(page_lock);
	if
	:: spte != NONE && spte != gpte ->
		lock(bucket_lock);
		if
		:: spte != NONE -> remove_leaf(c)
		:: else
		fi;
		unlock(bucket_lock)
	:: else
	fi;
	unlock(page_lock)
}

#define PAST(c)	(oldest[c] == NEVER || oldest[c] > w_clock)
#define SETTLED	(PAST(0) && PAST(1) && PAST(2))

inline resync(c, quiet)
{
	lock(frame_lock);
	unsync = false;
	write_protect(c);
	quiet = SETTLED;
	compare(c);
#ifdef SETTLED_LATE
	quiet = SETTLED;
#endif
#ifdef NO_RELIST
	quiet = true;
#endif
	if
	:: quiet -> listed = false; nr_listed--
	:: !quiet ->
#ifdef UNLIST_BETWEEN
		listed = false;
		nr_listed--;
		listed = true;
		nr_listed++;
#endif
		on_list = true
	fi;
	unlock(frame_lock)
}

#ifdef GIVEN_FORGOTTEN
#define OWES_W(c)	(kick_w[c])
#define OWES_E(c)	(kick_e[c])
#else
#define OWES_W(c)	(kick_w[c] || given_w[c])
#define OWES_E(c)	(kick_e[c] || given_e[c])
#endif

inline adopt_from(c, from)
{
	atomic {	/* both kick locks */
		if
		:: OWES_W(from) -> owe(c); kick_w[c] = true
		:: else
		fi;
		if
		:: OWES_E(from) -> owe(c); kick_e[c] = true
		:: else
		fi
	}
}

inline adopt(c)
{
#ifndef NO_ADOPT
	adopt_from(c, (c + 1) % 3);
	adopt_from(c, (c + 2) % 3)
#else
	skip
#endif
}

inline flush(c, quiet)
{
	if
	:: nr_listed > 0 ->
#ifndef NO_FLUSH_LOCK
		lock(flush_lock);
#endif
		if
		:: atomic { on_list -> on_list = false };
		   resync(c, quiet)
		:: else
		fi;
#ifndef NO_FLUSH_LOCK
		unlock(flush_lock)
#endif
	:: else
	fi;
	adopt(c);
	run_kicks(c)
}

/* mmu_invlpg() of the entry */
inline invlpg(c)
{
	if
	:: nr_listed > 0 && listed ->
		lock(frame_lock);
		compare(c);
		unlock(frame_lock)
	:: else
	fi;
	adopt(c);
	run_kicks(c)
}

/* A read access to what the entry maps. */
inline access(c, seen)
{
	do
	:: atomic { tlb[c] != NONE -> seen = tlb[c]; break }
	:: atomic { tlb[c] == NONE && spte != NONE -> tlb[c] = spte }
	:: atomic { tlb[c] == NONE && spte == NONE } ->
		lock(page_lock);
		if
		:: spte == NONE -> spte = gpte
		:: else
		fi;
		unlock(page_lock)
	od
}

/* A store to the table through the window: version `gpte + 1`. */
inline write()
{
	do
	:: atomic { wtlb[0] -> gpte++; break }
	:: atomic { !wtlb[0] && window -> wtlb[0] = true }
	:: atomic { !wtlb[0] && !window } ->	/* prepare_write(), then the leaf */
		lock(frame_lock);
		if
		:: !unsync ->
			unsync = true;
			if
			:: !listed -> listed = true; nr_listed++; on_list = true
			:: else
			fi;
			wprot = false
		:: else
		fi;
		unlock(frame_lock);
		lock(bucket_lock);
		if
		:: !wprot && unsync -> window = true
		:: else		/* again */
		fi;
		unlock(bucket_lock);
		run_kicks(0)
	od
}

active proctype cpu0()
{
	byte seen;
	bool quiet;

	do
	:: gpte == WRITES -> break
	:: gpte < WRITES ->
		write();
		if
		:: true -> flush(0, quiet)
		:: true -> invlpg(0)
		fi;
		done = gpte;
		access(0, seen);
		atomic { assert(seen == gpte); seen = 0; quiet = false }
	od
}

active proctype cpu1()
{
	byte n, low, seen;
	bool quiet;

	do
	:: n == ROUNDS -> break
	:: n < ROUNDS ->
		n++;
		if
		:: true -> flush(1, quiet); quiet = false
		:: true ->
			low = done;
			access(1, seen);
			atomic { assert(seen >= low && seen <= gpte); seen = 0; low = 0 }
		fi
	od
}

active proctype cpu2()
{
	lock(bucket_lock);
	if
	:: window -> take_w(2)
	:: spte != NONE -> remove_leaf(2)
	:: true
	fi;
	unlock(bucket_lock);
	run_kicks(2)
}
