/*
 * recycle.pml - a page of the pool shows table X, is dropped, and shows table Y afterwards.
 *
 * Built like shadow_zap(), mmu/kick.c and mmu/pool.c. `page` has one entry. It is linked by one entry of another page that
 * stays, `parent`. cpu 0 drops it and gives its kicks out in part; cpu 1 drops the leaf by way of the rmap and owes that
 * kick; a fault elsewhere found the page while it showed X and installs late. A processor caches links, and entries by
 * the page they lie in, as KVM's own shadow of our tables does. It may see in X and in Y only what belongs there: rule 5.
 *
 * REUSE_AT_ONCE	a dropped page is free before any kick
 * NO_LINK_KICK		the entry that linked it is cleared and not kicked
 * NO_ENTRY_KICK	the entries of the page are cleared and not kicked
 * ONE_HOLD		only the cpu that dropped the page holds it, not the one that owes a kick of an entry of it
 * PART_DRAIN		holds end although only a part of the kicks was given out
 * HOLD_LATE		the page is declared dead before the cpu that drops it has its hold
 * NO_GENERATION	a fault does not look whether the page is still what it found
 */
#define NONE		0
#define X		1
#define Y		2

mtype = { FREE, LIVE, DEAD };

mtype state = LIVE;
byte shows = X;			/* whose table */
byte gen, entry = X;		/* the page's generation and its entry: NONE, or what belongs to X or Y */
byte holds;			/* by any list of any cpu */
bool link_x = true, link_y;	/* entries of `parent` */
bool page_lock, bucket_lock;

bool cached_link_x, cached_link_y;	/* the processor's */
byte cached_entry;

/* [cpu] */
bool kick_link[2], kick_entry[2];
bool collect_page[2], collect_parent[2], drain_page[2], drain_parent[2], release_page[2], release_parent[2];

inline lock(l)		{ atomic { !l -> l = true } }
inline unlock(l)	{ l = false }

inline give_back()
{
	assert(state == DEAD && entry == NONE && !link_x);
	state = FREE
}

inline hold_put()
{
	holds--;
	if
	:: holds == 0 && state == DEAD -> give_back()
	:: else
	fi
}

inline hold_page(c)
{
	if
	:: !collect_page[c] -> collect_page[c] = true; holds++
	:: else
	fi
}

/* kick_entry() of the leaf, of the link */
inline owe_entry(c)
{
#ifdef ONE_HOLD
	atomic {
		kick_entry[c] = true;
		if
		:: c == 0 -> hold_page(c)
		:: else -> collect_page[c] = true
		fi
	}
#else
	atomic { kick_entry[c] = true; hold_page(c) }
#endif
}

inline owe_link(c)
{
	atomic { kick_link[c] = true; collect_parent[c] = true; hold_page(c) }
}

/* Bucket lock. */
inline remove_entry(c)
{
#ifdef NO_ENTRY_KICK
	atomic { hold_page(c) };
#else
	owe_entry(c);
#endif
	entry = NONE
}

/* mmu_kick_next(): one page or all, then the processor forgets, then mmu_kick_done(). */
inline some_kicks(c)
{
	bool gave_link, gave_entry;

	atomic {
		if
		:: collect_page[c] -> gave_entry = kick_entry[c];
			kick_entry[c] = false;
			collect_page[c] = false;
			drain_page[c] = true
		:: collect_parent[c] -> gave_link = kick_link[c];
			kick_link[c] = false;
			collect_parent[c] = false;
			drain_parent[c] = true
		:: gave_entry = kick_entry[c];
			gave_link = kick_link[c];
			kick_entry[c] = false;
			kick_link[c] = false;
			drain_page[c] = drain_page[c] || collect_page[c];
			drain_parent[c] = drain_parent[c] || collect_parent[c];
			collect_page[c] = false;
			collect_parent[c] = false
		fi;
		if
#ifdef PART_DRAIN
		:: true ->
#else
		:: !collect_page[c] && !collect_parent[c] ->
#endif
			release_page[c] = drain_page[c];
			release_parent[c] = drain_parent[c];
			drain_page[c] = false;
			drain_parent[c] = false
		:: else
		fi
	}
	if
	:: gave_link -> cached_link_x = false; gave_link = false
	:: else
	fi;
	if
	:: gave_entry -> cached_entry = NONE; gave_entry = false
	:: else
	fi;
	atomic {
		release_parent[c] = false;
		if
		:: release_page[c] ->
			release_page[c] = false;
#ifdef ONE_HOLD
			if
			:: c == 0 -> hold_put()
			:: else
			fi
#else
			hold_put()
#endif
		:: else
		fi
	}
}

#define OWES(c)	(collect_page[c] || collect_parent[c] || drain_page[c] || drain_parent[c])

active proctype cpu0()
{
	/* shadow_zap() */
#ifndef HOLD_LATE
	atomic { hold_page(0) };
#endif
	lock(page_lock);
	gen++;
#ifdef REUSE_AT_ONCE
	state = FREE;
#else
	state = DEAD;
#endif
#ifdef HOLD_LATE
	atomic { hold_page(0) };
#endif
#ifndef NO_LINK_KICK
	owe_link(0);
#endif
	link_x = false;
	lock(bucket_lock);
	if
	:: entry == X -> remove_entry(0)
	:: else
	fi;
	unlock(bucket_lock);
	unlock(page_lock);
	do
	:: OWES(0) -> some_kicks(0)
	:: !OWES(0) -> break
	:: state == FREE -> break
	od;
	/* The page may have to wait for the other cpu's kicks. */
	atomic { state == FREE -> state = LIVE; shows = Y };
	link_y = true;
	lock(page_lock);
	if
	:: entry == NONE -> entry = Y
	:: else
	fi;
	unlock(page_lock);
	do
	:: OWES(0) -> some_kicks(0)
	:: !OWES(0) -> break
	od
}

active proctype cpu1()
{
	lock(bucket_lock);
	if
	:: entry == X && state != FREE -> remove_entry(1)
	:: else
	fi;
	unlock(bucket_lock);
	do
	:: OWES(1) -> some_kicks(1)
	:: !OWES(1) -> break
	od
}

/* fill_leaf(): lock_place() looks at the generation. */
active proctype fault()
{
	byte found = gen;

	lock(page_lock);
	if
#ifdef NO_GENERATION
	:: state == LIVE && entry == NONE -> entry = X
#else
	:: state == LIVE && gen == found && entry == NONE -> entry = X
#endif
	:: else
	fi;
	unlock(page_lock)
}

active proctype processor()
{
end:	do
	:: atomic { link_x -> cached_link_x = true }
	:: atomic { link_y -> cached_link_y = true }
	:: atomic { (cached_link_x || cached_link_y) && cached_entry == NONE -> cached_entry = entry }
	:: atomic { cached_link_x -> assert(cached_entry != Y) }
	:: atomic { cached_link_y -> assert(cached_entry != X) }
	od
}
