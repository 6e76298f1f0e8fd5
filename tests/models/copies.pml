/*
 * copies.pml - one word of one frame, which moves and has copies, while processors on two nodes and the VMM write it.
 *
 * Built like mmu/pmap.c, mmu/replica.c, mmu/write.c and prepare_write() of mmu/fault.c. Processors 0 and 1 walk the tables of
 * node 0, processor 2 those of node 1. A store writes the next version and then tells everybody; who was told of a version
 * and loads an older one has read a place that is not the frame's, or a store was lost. What the mover gets back it
 * overwrites at once. What is under the frame lock is one step here; accesses by a TLB and kicks come in between.
 *
 * NO_SETTLE	rule 10: who collapses the copies may let the guest write at once
 * OWN_KICKS	rule 10: ... when its own kicks are done, whatever others owe
 * STORE_ONE	rule 10: the VMM stores to the copy that is kept alone
 * NO_DROP	rule 10: leaves of the other copies stay
 * KICK_LATE	rule 9: a move is committed before its kicks
 * NO_ADOPT	rule 9: ... when its own kicks are done, whatever others owe
 * COPY_FIRST	rule 9: it copies outside the frame lock
 */
#define VERSIONS	2
#define NONE		3		/* no place: an absent sPTE, an empty TLB */
#define LOST		0		/* what a place holds that is somebody else's */

mtype = { SINGLE, MOVING, REPLICA, SETTLING };
mtype state = SINGLE;

byte mem[3];			/* by place */
byte pmap, copy[2];
byte version = 1, told = 1;
byte spte[2] = NONE;		/* by node */
bool writable[2];
byte tlb[3] = NONE;		/* by processor */
bool tlb_writable[3];
bool kick[10];			/* cpu * 2 + node: the leaf of that node's tables was taken away. cpus: 3 processors, mover, updater */
bool before[5];			/* by cpu: owed when the copies became one */

#define NODE(p)		((p) / 2)
#define OWES(c)		(kick[(c) * 2] || kick[(c) * 2 + 1])

#ifdef NO_SETTLE
#define SETTLED		true
#else
#define SETTLED		(!before[0] && !before[1] && !before[2] && !before[3] && !before[4])
#endif

/* leaf_remove(). Frame lock. */
inline drop(c, n)
{
	if
	:: spte[n] != NONE -> kick[c * 2 + n] = true; spte[n] = NONE; writable[n] = false
	:: else
	fi
}

inline collapse(c, keep)
{
#ifndef NO_DROP
	drop(c, 0);
	drop(c, 1);
#endif
#ifdef OWN_KICKS
	before[c] = OWES(c);
#else
	before[0] = OWES(0);
	before[1] = OWES(1);
	before[2] = OWES(2);
	before[3] = OWES(3);
	before[4] = OWES(4);
#endif
	pmap = keep;
	state = SETTLING
}

inline settle()
{
	if
	:: state == SETTLING && SETTLED -> state = SINGLE; copy[0] = 0; copy[1] = 0
	:: else
	fi
}

/* One processor after the other forgets. */
inline run_kicks(c)
{
	if
	:: OWES(c) ->
		atomic { if :: kick[c * 2] -> tlb[0] = NONE; tlb_writable[0] = false :: else fi };
		atomic { if :: kick[c * 2] -> tlb[1] = NONE; tlb_writable[1] = false :: else fi };
		atomic {
			if :: kick[c * 2 + 1] -> tlb[2] = NONE; tlb_writable[2] = false :: else fi;
			kick[c * 2] = false;
			kick[c * 2 + 1] = false;
			before[c] = false
		}
	:: else
	fi
}

inline adopt(c, n)
{
	kick[c * 2 + n] = kick[n] || kick[2 + n] || kick[4 + n] || kick[6 + n] || kick[8 + n]
}

/* mmu_fault(), and the kicks that it owes. */
inline fault(p, write)
{
	atomic {
		if
		:: write && state == REPLICA -> collapse(p, copy[NODE(p)])
		:: else
		fi;
		if
		:: write -> settle()
		:: else
		fi;
		if
		:: state == MOVING || (write && state != SINGLE)	/* MMU_AGAIN */
		:: else ->
			spte[NODE(p)] = (state == REPLICA -> copy[NODE(p)] : pmap);
			writable[NODE(p)] = writable[NODE(p)] || write
		fi
	};
	run_kicks(p)
}

/* An instruction of the guest. */
inline access(p, write, low)
{
	do
	:: atomic { tlb[p] != NONE && (!write || tlb_writable[p]) ->
		if
		:: write && version < VERSIONS -> version++; mem[tlb[p]] = version; told = version
		:: write && version >= VERSIONS
		:: !write -> assert(mem[tlb[p]] >= low)
		fi;
		break }
	:: atomic { !(tlb[p] != NONE && (!write || tlb_writable[p])) &&
		    spte[NODE(p)] != NONE && (!write || writable[NODE(p)]) ->
		tlb[p] = spte[NODE(p)]; tlb_writable[p] = writable[NODE(p)] }
	:: atomic { !(tlb[p] != NONE && (!write || tlb_writable[p])) &&
		    !(spte[NODE(p)] != NONE && (!write || writable[NODE(p)])) -> tlb[p] = NONE; tlb_writable[p] = false };
		fault(p, write)
	od
}

/* mmu_write() on the thread of processor p: the other copies one after the other, while no fault gets the frame lock. */
inline vmm_store(p)
{
	atomic {
		if
		:: version < VERSIONS ->
			if
			:: state == REPLICA -> collapse(p, copy[NODE(p)])
			:: else
			fi;
			settle();
			version++;
			mem[pmap] = version;
#ifndef STORE_ONE
			if
			:: state == SETTLING -> mem[copy[0]] = version; mem[copy[1]] = version
			:: else
			fi;
#endif
			told = version
		:: else
		fi
	};
	run_kicks(p)
}

/* `all`: it writes, too. */
proctype processor(byte p; byte rounds; bool all)
{
	byte n, low;

	do
	:: n == rounds -> break
	:: n < rounds ->
		n++;
		if
		:: low = told; access(p, false, low)
		:: all -> access(p, true, low)
		:: all -> vmm_store(p)
		fi;
		low = 0
	od
}

/* Takes a leaf away for a reason of its own, and is slow with the kick. */
proctype updater()
{
	atomic { drop(4, 1) };
	run_kicks(4)
}

inline lose(place)
{
	if
	:: place != pmap && !(state == REPLICA && (place == copy[0] || place == copy[1])) -> mem[place] = LOST
	:: else
	fi
}

proctype mover()
{
	byte to, had;
	bool held;

	atomic { drop(3, 0); drop(3, 1); state = MOVING };
#ifndef NO_ADOPT
	atomic { adopt(3, 0); adopt(3, 1) };
#endif
#ifndef KICK_LATE
	run_kicks(3);
#endif
#ifdef COPY_FIRST
	had = mem[pmap];
#endif
	atomic {
		to = (pmap + 1) % 3;
#ifndef COPY_FIRST
		had = mem[pmap];
#endif
		mem[to] = had;
		if
		:: copy[0] = pmap; copy[1] = to; state = REPLICA; held = true
		:: copy[0] = to; copy[1] = pmap; state = REPLICA; held = true
		:: pmap = to; state = SINGLE; lose(0); lose(1); lose(2)
		fi;
		to = 0;
		had = 0
	};
#ifdef KICK_LATE
	run_kicks(3);
#endif
	do	/* mmu_collapse() */
	:: !held -> break
	:: held ->
		atomic {
			if
			:: state == REPLICA -> collapse(3, pmap)
			:: else
			fi;
			settle();
			if
			:: state == SINGLE -> held = false; lose(0); lose(1); lose(2)
			:: else
			fi
		};
		run_kicks(3)
	od
}

init
{
	atomic {
		mem[0] = 1;
		run processor(0, 1, true); run processor(1, 1, true); run processor(2, 2, false);
		run updater(); run mover()
	}
}
