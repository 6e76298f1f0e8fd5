/*
 * chart.h - drawings as inline SVG. Widths are per cent of the page's, heights and text are pixels, so that nothing is
 * squeezed on a narrow page. Colours are classes that the page's style defines for light and dark.
 */
#ifndef UMBRA_REPORT_CHART_H
#define UMBRA_REPORT_CHART_H

#include "report/model.h"
#include "report/text.h"

/* An axis from 0 to `max` with a tick every `step`: 1, 2 or 5 times a power of ten, 2 to 4 steps. max <= 0: 1. */
struct scale {
	double max, step;
};
struct scale scale_for(double max);

#define CHART_SERIES	8u

/* What a chart's colours stand for. */
struct series {
	const char *name;		/* our own text */
	unsigned colour;		/* 1..8 */
	bool quiet;			/* no number on it */
};
void chart_legend(struct text *t, const struct series *series, unsigned n);

/* A bar, stacked of one value per series; NaN draws nothing. */
struct bar {
	char label[84];			/* a file's text */
	char note[60];			/* behind the label, our own */
	double values[CHART_SERIES];
};
void chart_bars(struct text *t, const char *title, const struct series *series, unsigned nr_series, const struct bar *bars,
		unsigned nr_bars);

/* The times of each mode: a dot per sample, a line from the least to the most, a mark at the median. */
void chart_times(struct text *t, const struct model *m, const struct model_block *b);

/* Faults per second over time, by class; all modes on the same scales. */
void chart_over_time(struct text *t, const struct model *m);

/* Faults over guest addresses and time; all modes on the same scales. */
void chart_heat(struct text *t, const struct model *m);

/* The colours of fault classes, in the order of a model_map's. */
extern const struct series chart_classes[MODEL_CLASSES];

#endif
