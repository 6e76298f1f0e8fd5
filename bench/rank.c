/*
 * rank.c - the Mann-Whitney U test.
 *
 * Exact: of all ways to choose which na of the ranks are a's, the share whose rank sum is at least as far from its mean as
 * the one seen. Counted by dynamic programming over the ranks, doubled so that the means of ties are whole numbers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/rank.h"

struct value {
	double v;
	unsigned rank2;			/* twice the rank, ties share the mean of theirs */
	int of_a;
};

static int by_value(const void *x, const void *y)
{
	const struct value *a = x, *b = y;

	return (a->v > b->v) - (a->v < b->v);
}

/* Sorts and ranks. Returns the sum of t^3 - t over the ties. */
static double rank(struct value *all, unsigned n)
{
	double ties = 0;

	qsort(all, n, sizeof *all, by_value);
	for (unsigned i = 0, j; i < n; i = j) {
		for (j = i; j < n && all[j].v == all[i].v; j++)
			;
		for (unsigned k = i; k < j; k++)
			all[k].rank2 = i + 1 + j;
		ties += pow(j - i, 3) - (j - i);
	}
	return ties;
}

/* ways[k][s]: so many choices of k of the ranks seen so far sum to s (doubled). All counts are exact in a double. */
static double exact(const struct value *all, unsigned n, unsigned na, unsigned sum2)
{
	enum { SUMS = RANK_EXACT * (RANK_EXACT + 1) + 1 };
	double (*ways)[SUMS] = calloc(na + 1, sizeof *ways), total = 0, far = 0;
	int mean2 = na * (n + 1), away = abs((int)sum2 - mean2);

	if (!ways)
		return NAN;
	ways[0][0] = 1;
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = i < na ? i + 1 : na; k; k--)
			for (unsigned s = SUMS - 1; s >= all[i].rank2; s--)
				ways[k][s] += ways[k - 1][s - all[i].rank2];
	for (int s = 0; s < SUMS; s++) {
		total += ways[na][s];
		far += abs(s - mean2) >= away ? ways[na][s] : 0;
	}
	free(ways);
	return far / total;
}

static double approximate(unsigned n, unsigned na, unsigned sum2, double ties)
{
	double nb = n - na, mean = na * (n + 1) / 2.0;
	double variance = na * nb / 12.0 * (n + 1 - ties / ((double)n * (n - 1)));
	double away = fabs(sum2 / 2.0 - mean) - 0.5;

	if (variance <= 0 || away < 0)
		return 1;
	return erfc(away / sqrt(2 * variance));
}

double rank_test(const double *a, unsigned na, const double *b, unsigned nb)
{
	struct value all[RANK_MAX];
	unsigned n = na + nb, sum2 = 0;
	double ties;

	if (!na || !nb || n > RANK_MAX)
		return NAN;
	for (unsigned i = 0; i < n; i++)
		all[i] = (struct value){ i < na ? a[i] : b[i - na], 0, i < na };
	ties = rank(all, n);
	for (unsigned i = 0; i < n; i++)
		sum2 += all[i].of_a ? all[i].rank2 : 0;
	return n <= RANK_EXACT ? exact(all, n, na, sum2) : approximate(n, na, sum2, ties);
}

double rank_least(unsigned na, unsigned nb)
{
	double choices = 1;

	if (!na || !nb)
		return NAN;
	for (unsigned i = 1; i <= na; i++)
		choices = choices * (nb + i) / i;
	return 2 / choices;
}

void rank_holm(double *p, unsigned n)
{
	unsigned left = 0;
	double least, floor = 0;

	for (unsigned i = 0; i < n; i++)
		left += !isnan(p[i]);
	/* smallest first; those done are marked by a sign */
	for (; left; left--) {
		unsigned at = n;

		for (unsigned i = 0; i < n; i++)
			if (!isnan(p[i]) && !signbit(p[i]) && (at == n || p[i] < p[at]))
				at = i;
		least = p[at] * left;
		floor = fmax(floor, fmin(least, 1));
		p[at] = -floor;
	}
	for (unsigned i = 0; i < n; i++)
		p[i] = fabs(p[i]);
}
