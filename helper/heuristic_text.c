/* heuristic_text.c - a configured heuristic in the words of the command line, every parameter said. */
#include <inttypes.h>

#include "helper/heuristic.h"

const char *heuristic_text(const struct heuristic_config *h, char text[static HEURISTIC_TEXT])
{
	int n = snprintf(text, HEURISTIC_TEXT, "%s", h->name);

	for (unsigned i = 0; i < HELPER_MAX_PARAMS && h->ops && h->ops->params[i].name && n < HEURISTIC_TEXT; i++)
		n += snprintf(text + n, HEURISTIC_TEXT - n, ",%s=%" PRIu64, h->ops->params[i].name, h->value[i]);
	return text;
}
