/*
 * away.pml - a frame that moves away and comes home while the shim stores to it by its number.
 *
 * Built like store() and set_pin() of vmm/shim_code.c and mover_run() of vmm/mover_run.c. The frame is one word, at home or at its
 * other place; every store writes a new value. What is promised: the last store is found where the frame stands, whoever made
 * it, and a frame that the shim has pinned does not move.
 *
 * LOOK_FIRST	the shim looks at AWAY before it says that it is inside, as a processor may without the full fence
 * NO_WAIT	the mover does not wait for a shim that is inside
 * ASK_FIRST	the mover looks whether one is inside before it sets AWAY
 * CLEAR_EARLY	AWAY is taken off before the frame has arrived at home
 * PLAIN_PIN	the shim pins by a load and a store, so that an AWAY set in between is lost
 * PIN_UNSEEN	the mover sets AWAY whether the frame is pinned or not
 */
#define ROUNDS	3
#define HOME	0
#define OTHER	1

byte word[2], pmap = HOME, last;
byte level;			/* the byte in `pins`: the level ... */
bool away;			/* ... and AWAY; one step of a process reads or changes both */
bool inside, moving, pinned_by_shim;
bool shim_over, mover_over;

/* mmu_update(): under the frame lock; put off while the frame moves. */
inline vmm_store(v)
{
	atomic { !moving -> word[pmap] = v; last = v }
}

active proctype shim()
{
	byte v = 0, seen_level;
	bool seen;

	do
	:: v < ROUNDS ->
		v++;
#ifdef LOOK_FIRST
		seen = away;
		inside = true;
#else
		inside = true;
		seen = away;
#endif
		if
		:: seen ->
			inside = false;
			vmm_store(v)
		:: else ->
			atomic { word[HOME] = v; last = v }
			inside = false
		fi
	:: v < ROUNDS ->		/* pins it, and unpins it */
		v++;
#ifdef PLAIN_PIN
		seen = away;
		atomic {
			level = 1;
			away = false;	/* the byte as it was read, with the level */
			pinned_by_shim = !seen
		}
#else
		atomic {
			level = 1;
			pinned_by_shim = !away
		}
#endif
		atomic {
			level = 0;
			pinned_by_shim = false
		}
	:: v >= ROUNDS -> break
	od;
	shim_over = true
}

inline set_away(ok)
{
	atomic {
#ifdef PIN_UNSEEN
		ok = true;
		away = true
#else
		ok = level == 0;
		if
		:: ok -> away = true
		:: else
		fi
#endif
	}
}

inline go(to)
{
	moving = true;
	word[to] = word[pmap];
	atomic {
		assert(!pinned_by_shim);
		pmap = to;
		moving = false
	}
}

active proctype mover()
{
	byte round = 0;
	bool ok, out;

	do
	:: round < ROUNDS ->
		round++;
#ifdef ASK_FIRST
		out = !inside;
#endif
		set_away(ok);
#ifdef NO_WAIT
		out = true;
#else
#ifndef ASK_FIRST
		out = !inside;		/* or it is given up */
#endif
#endif
		if
		:: ok && out ->
			go(OTHER);
#ifdef CLEAR_EARLY
			away = false;
			go(HOME)
#else
			go(HOME);
			away = false
#endif
		:: ok && !out -> away = false
		:: else
		fi
	:: round >= ROUNDS -> break
	od;
	mover_over = true
}

active proctype judge()
{
	shim_over && mover_over;
	assert(word[pmap] == last)
}
