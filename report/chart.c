/* Scales, legends, bars and dots. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/chart.h"

#define BAR_PITCH	50	/* px from one bar to the next, label included */
#define BAR_HEIGHT	20
#define LABEL_BASE	18	/* of the label's text, from the bar's top edge */
#define AXIS_HEIGHT	24
#define LINE_ROOM	310	/* px of a line of text on a narrow page, and of characters in it */
#define LABEL_CHAR	8
#define NOTE_CHAR	7
#define LABEL_LEAST	6	/* characters of it that are always shown */
#define DIGIT_ROOM	2.5	/* per cent of the width that a digit needs inside its segment, on a narrow page */

const struct series chart_classes[MODEL_CLASSES] = {
	{ .name = "hidden", .colour = 1 }, { .name = "true, by exit", .colour = 4 }, { .name = "PT-write", .colour = 2 },
	{ .name = "other", .colour = 7 },
};

struct scale scale_for(double max)
{
	struct scale s = { 1, 0.5 };
	double power;

	if (!(max > 0) || !isfinite(max))
		return s;
	power = pow(10, floor(log10(max / 4)));
	s.step = max / 4 / power;
	s.step = power * (s.step <= 1 + 1e-9 ? 1 : s.step <= 2 ? 2 : s.step <= 5 ? 5 : 10);
	s.max = ceil(max / s.step - 1e-9) * s.step;
	return s;
}

void chart_legend(struct text *t, const struct series *series, unsigned n)
{
	text_put(t, "<ul class=\"legend\">");
	for (unsigned i = 0; i < n; i++)
		text_put(t, "<li><span class=\"key k%u\"></span>%s</li>", series[i].colour, series[i].name);
	text_put(t, "</ul>\n");
}

/* Lines at the ticks and their numbers below; the outermost stay inside the drawing. */
static void put_axis(struct text *t, struct scale s, int bottom, bool times)
{
	unsigned steps = lrint(s.max / s.step);
	char n[NUMBER_SIZE];

	for (unsigned i = 0; i <= steps; i++) {
		double x = 100.0 * i / steps;

		text_put(t, "<line class=\"grid\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"0\" y2=\"%d\"/>", x, x, bottom);
		text_put(t, "<text class=\"tick\" x=\"%.3f%%\" y=\"%d\" text-anchor=\"%s\">%s</text>\n", x, bottom + 16,
			 i == 0 ? "start" : i == steps ? "end" : "middle", times ? duration(n, i * s.step) : number(n, i * s.step));
	}
}

static void begin_svg(struct text *t, const char *title, int height)
{
	text_put(t, "<svg role=\"img\" width=\"100%%\" height=\"%d\" aria-label=\"", height);
	text_escaped(t, title);
	text_put(t, "\">\n");
}

/* Characters that a note of ours shows: an entity is one. */
static int shown_length(const char *s)
{
	int n = 0;

	for (; *s; s++) {
		if (*s == '&')
			s += strcspn(s, ";");
		n += (*s & 0xc0) != 0x80;
	}
	return n;
}

/* The label at the left, the note at the right end of the line above a bar. A label that would run into the note on a
 * narrow page is cut off; pointing at it shows all. */
static void put_label(struct text *t, int y, const char *label, const char *note)
{
	int left = (LINE_ROOM - shown_length(note) * NOTE_CHAR) / LABEL_CHAR;
	size_t room = left > LABEL_LEAST ? left : LABEL_LEAST, n = strlen(label);
	char cut[sizeof ((struct bar *)0)->label];

	text_put(t, "<text class=\"label\" x=\"0\" y=\"%d\">", y + LABEL_BASE);
	if (n > room) {
		for (n = room < sizeof cut ? room : sizeof cut - 1; n && (label[n] & 0xc0) == 0x80; n--)
			;
		snprintf(cut, sizeof cut, "%.*s", (int)n, label);
		text_put(t, "<title>");
		text_escaped(t, label);
		text_put(t, "</title>");
		text_escaped(t, cut);
		text_put(t, "&#8230;");
	} else {
		text_escaped(t, label);
	}
	text_put(t, "</text><text class=\"note\" x=\"100%%\" y=\"%d\" text-anchor=\"end\">%s</text>\n", y + LABEL_BASE, note);
}

static double sum_of(const double *values, unsigned n)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += values[i] > 0 ? values[i] : 0;
	return sum;
}

static void put_bar(struct text *t, int y, const struct bar *bar, const struct series *series, unsigned n, double max)
{
	double at = 0;
	char text[NUMBER_SIZE];

	for (unsigned i = 0; i < n; i++) {
		double width = 100 * bar->values[i] / max;

		if (!(width > 0))
			continue;
		number(text, bar->values[i]);
		text_put(t, "<rect class=\"f%u\" x=\"%.3f%%\" y=\"%d\" width=\"%.3f%%\" height=\"%d\"><title>%s: %s</title></rect>",
			 series[i].colour, at, y, width, BAR_HEIGHT, series[i].name, text);
		if (!series[i].quiet && width >= DIGIT_ROOM * strlen(text))
			text_put(t, "<text class=\"on k%ut\" x=\"%.3f%%\" y=\"%d\" text-anchor=\"middle\">%s</text>", series[i].colour,
				 at + width / 2, y + 14, text);
		at += width;
	}
	text_put(t, "\n");
}

void chart_bars(struct text *t, const char *title, const struct series *series, unsigned nr_series, const struct bar *bars,
		unsigned nr_bars)
{
	int bottom = nr_bars * BAR_PITCH;
	double max = 0;
	struct scale s;

	for (unsigned i = 0; i < nr_bars; i++)
		max = fmax(max, sum_of(bars[i].values, nr_series));
	s = scale_for(max);
	begin_svg(t, title, bottom + AXIS_HEIGHT);
	put_axis(t, s, bottom, false);
	for (unsigned i = 0; i < nr_bars; i++) {
		put_label(t, i * BAR_PITCH, bars[i].label, bars[i].note);
		put_bar(t, i * BAR_PITCH + BAR_PITCH - BAR_HEIGHT - 6, &bars[i], series, nr_series, s.max);
	}
	text_put(t, "</svg>\n");
}

static void put_times(struct text *t, int y, const struct model_cell *c, const double *times, unsigned n, double max)
{
	char text[NUMBER_SIZE];

	text_put(t, "<line class=\"range\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"%d\" y2=\"%d\"/>", 100 * c->min / max,
		 100 * c->max / max, y, y);
	for (unsigned i = 0; i < n; i++)
		if (times[i] <= max)
			text_put(t, "<circle class=\"dot\" cx=\"%.3f%%\" cy=\"%d\" r=\"4\"><title>%s</title></circle>",
				 100 * times[i] / max, y, duration(text, times[i]));
	text_put(t, "<line class=\"median\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"%d\" y2=\"%d\"/>\n", 100 * c->median / max,
		 100 * c->median / max, y - 10, y + 10);
}

void chart_times(struct text *t, const struct model *m, const struct model_block *b)
{
	const struct model_row *row = model_row(b, "time");
	unsigned bars = 0;
	double max = 0;
	struct scale s;
	int y = 0;

	for (unsigned i = 0; row && i < m->nr_modes; i++)
		if (row->of[i].samples) {
			bars++;
			max = fmax(max, row->of[i].max);
		}
	if (!bars)
		return;
	s = scale_for(max);
	begin_svg(t, "times", bars * BAR_PITCH + AXIS_HEIGHT);
	put_axis(t, s, bars * BAR_PITCH, true);
	for (unsigned i = 0; i < m->nr_modes; i++) {
		const struct model_cell *c = &row->of[i];
		char note[120], n[3][NUMBER_SIZE];

		if (!c->samples)
			continue;
		if (isnan(c->ratio))
			snprintf(note, sizeof note, "%s", duration(n[0], c->median));
		else
			snprintf(note, sizeof note, "%s &#183; %s&#215;%s", duration(n[0], c->median), number(n[1], c->ratio),
				 c->p < m->real_below ? " &#9733;" : "");
		put_label(t, y, m->modes[i].name, note);
		put_times(t, y + BAR_PITCH - BAR_HEIGHT / 2 - 6, c, b->times[i], b->nr_times[i], s.max);
		y += BAR_PITCH;
	}
	text_put(t, "</svg>\n");
}
