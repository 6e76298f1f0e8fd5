/*
 * page.h - a model as HTML.
 */
#ifndef UMBRA_REPORT_PAGE_H
#define UMBRA_REPORT_PAGE_H

#include "report/model.h"
#include "report/text.h"

void page_begin(struct text *t, const char *title);
/* `source`: the file it comes from, for its reader. */
void page_part(struct text *t, const struct model *m, const char *source);
void page_end(struct text *t);

#endif
