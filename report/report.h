/*
 * report.h - a page of drawings from what `umbra compare` and `umbra run --stats` wrote.
 */
#ifndef UMBRA_REPORT_H
#define UMBRA_REPORT_H

/* Reads the files and writes one self-contained HTML page to `out`; "-" is stdout. The counters of single runs are put
 * beside each other, each comparison has a part of its own. Says what is wrong on stderr, behind `program`. 0 or -errno. */
int report_write(const char *program, const char *const *in, unsigned n, const char *out);

#endif
