/* text.c - numbers and words in tables for people. */
#include <inttypes.h>
#include <string.h>

#include "vmm/vmm.h"

const char *vmm_number_text(uint64_t n, char to[static VMM_NUMBER_TEXT])
{
	char digits[24], *p = to;
	int len = snprintf(digits, sizeof digits, "%" PRIu64, n);

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			*p++ = ' ';
		*p++ = digits[i];
	}
	*p = 0;
	return to;
}

int vmm_phrase_length(const char *text, unsigned room)
{
	size_t phrase = 0, word = 0;

	if (strlen(text) <= room)
		return strlen(text);
	for (size_t i = 0; i <= room; i++) {
		if (strchr(",:;(", text[i]))
			phrase = i;
		if (text[i] == ' ')
			word = i;
	}
	return phrase ? phrase : word;
}
