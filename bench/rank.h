/*
 * rank.h - is one set of measurements really different from another? The Mann-Whitney U test, which assumes nothing about
 * their distribution.
 */
#ifndef UMBRA_BENCH_RANK_H
#define UMBRA_BENCH_RANK_H

/* The two-sided probability of ranks at least as uneven as these if both sets came from one distribution. Exact, with
 * ties too, up to RANK_EXACT values in all; above by the normal approximation (corrected for ties and continuity). NaN: a
 * set is empty. Both together at most RANK_MAX. */
#define RANK_EXACT	40u
#define RANK_MAX	256u
double rank_test(const double *a, unsigned na, const double *b, unsigned nb);

/* The smallest value that rank_test() can give for sets of that size. */
double rank_least(unsigned na, unsigned nb);

/* Several tests of one question: corrects their p for their number (Holm 1979), in place. NaN stay and do not count. */
void rank_holm(double *p, unsigned n);

#endif
