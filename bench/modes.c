/* Modes: named sets of flags, and the peers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

static const struct mode known[] = {
	{ "off-lazy", "every hypercall exits; entries are built at faults", MODE_UMBRA, "--shim=off --fill=lazy" },
	{ "off-eager", "every hypercall exits; explicit updates build entries", MODE_UMBRA, "--shim=off --fill=eager" },
	{ "off-eager-8", "off-eager, and 8 entries on both sides of a fault", MODE_UMBRA,
	  "--shim=off --fill=eager --prefetch=8" },
	{ "shim", "hypercalls inside the guest; entries are built at faults", MODE_UMBRA,
	  "--shim=on --gates=vmm --fill=lazy" },
	{ "shim-eager", "... and when the VMM next takes up the updates", MODE_UMBRA,
	  "--shim=on --gates=vmm --fill=eager" },
	{ "shim-eager-8", "shim-eager, and 8 entries on both sides of a fault", MODE_UMBRA,
	  "--shim=on --gates=vmm --fill=eager --prefetch=8" },
	{ "shim-kvm8", "shim, and KVM's prefetch: the aligned 8", MODE_UMBRA,
	  "--shim=on --gates=vmm --fill=lazy --prefetch=kvm8" },
	{ "shim-xen32", "shim, and Xen's prefetch: 32 forward", MODE_UMBRA,
	  "--shim=on --gates=vmm --fill=lazy --prefetch=xen32" },
	{ "gates", "shim; system calls, returns to user mode and true faults inside the guest too", MODE_UMBRA,
	  "--shim=on --gates=invm --fill=lazy" },
	{ "gates-eager", "... and entries are built when the VMM next takes up the updates", MODE_UMBRA,
	  "--shim=on --gates=invm --fill=eager" },
	{ "gates-eager-8", "gates-eager, and 8 entries on both sides of a fault", MODE_UMBRA,
	  "--shim=on --gates=invm --fill=eager --prefetch=8" },
	{ "native", "the workload on the host itself", MODE_NATIVE, "" },
	{ "tcg", "the same kernel and initrd under QEMU's software emulation", MODE_TCG, "" },
};

#define NR_KNOWN	(sizeof known / sizeof *known)

static int add(struct mode_list *list, const struct mode *mode)
{
	struct mode *grown;

	for (unsigned i = 0; i < list->n; i++)
		if (!strcmp(list->at[i].name, mode->name))
			return -EEXIST;
	grown = realloc(list->at, (list->n + 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	list->at = grown;
	list->at[list->n++] = *mode;
	return 0;
}

int modes_add_names(struct mode_list *list, const char *names, char *bad)
{
	while (*names) {
		size_t len = strcspn(names, ",");
		unsigned i = 0;
		int r;

		while (i < NR_KNOWN && (strlen(known[i].name) != len || memcmp(known[i].name, names, len)))
			i++;
		if (i == NR_KNOWN) {
			snprintf(bad, 32, "%.*s", (int)len, names);
			return -ENOENT;
		}
		r = add(list, &known[i]);
		if (r && r != -EEXIST)
			return r;
		names += len + (names[len] == ',');
	}
	return 0;
}

int modes_define(struct mode_list *list, char *text)
{
	char *flags = strchr(text, '=');
	unsigned words = 0;

	if (!flags || flags == text)
		return -EINVAL;
	*flags++ = 0;
	for (const char *p = flags; *(p += strspn(p, " ")); p += strcspn(p, " "))
		words++;
	if (words > MODE_FLAGS)
		return -EINVAL;
	for (unsigned i = 0; i < NR_KNOWN; i++)
		if (!strcmp(known[i].name, text))
			return -EEXIST;
	return add(list, &(struct mode){ text, "given by --mode", MODE_UMBRA, flags });
}

void modes_help(void)
{
	printf("modes\n");
	for (unsigned i = 0; i < NR_KNOWN; i++)
		printf("  %-13s %s%s%s\n", known[i].name, known[i].what, *known[i].flags ? ": " : "", known[i].flags);
	printf("  --mode 'NAME=FLAGS' adds one with any flags of 'umbra run'\n");
}
