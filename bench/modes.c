/* Modes: named sets of flags, and the peers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define UMBRA(name_, flags_, what_)	{ .name = name_, .what = what_, .kind = MODE_UMBRA, .flags = flags_ }

static const struct mode known[] = {
	UMBRA("nested", "--mmu=nested",
	      "the processor walks the guest's own tables; the second level is KVM's: EPT or NPT where the host has it"),
	UMBRA("lazy", "--fill=lazy", "shadow paging: entries are built at faults, one by one"),
	UMBRA("kvm8", "--fill=lazy --prefetch=kvm8", "lazy, and KVM's prefetch: the aligned 8"),
	UMBRA("xen32", "--fill=lazy --prefetch=xen32", "lazy, and Xen's prefetch: 32 forward"),
	UMBRA("eager", "--fill=eager", "entries are built when the VMM takes up the guest's updates"),
	UMBRA("helper", "--helper=on", "a thread on another core prebuilds entries"),
	UMBRA("off-lazy", "--shim=off --fill=lazy", "every hypercall exits; entries are built at faults"),
	UMBRA("off-eager", "--shim=off --fill=eager", "every hypercall exits; explicit updates build entries"),
	UMBRA("off-eager-8", "--shim=off --fill=eager --prefetch=8",
	      "off-eager, and 8 entries on both sides of a fault"),
	UMBRA("shim", "--shim=on --gates=vmm --fill=lazy",
	      "hypercalls inside the guest; entries are built at faults"),
	UMBRA("shim-eager", "--shim=on --gates=vmm --fill=eager", "... and when the VMM next takes up the updates"),
	UMBRA("shim-eager-8", "--shim=on --gates=vmm --fill=eager --prefetch=8",
	      "shim-eager, and 8 entries on both sides of a fault"),
	UMBRA("shim-kvm8", "--shim=on --gates=vmm --fill=lazy --prefetch=kvm8",
	      "shim, and KVM's prefetch: the aligned 8"),
	UMBRA("shim-xen32", "--shim=on --gates=vmm --fill=lazy --prefetch=xen32",
	      "shim, and Xen's prefetch: 32 forward"),
	UMBRA("gates", "--shim=on --gates=invm --fill=lazy",
	      "shim; system calls, returns to user mode and true faults inside the guest too"),
	UMBRA("gates-eager", "--shim=on --gates=invm --fill=eager",
	      "... and entries are built when the VMM next takes up the updates"),
	UMBRA("gates-eager-8", "--shim=on --gates=invm --fill=eager --prefetch=8",
	      "gates-eager, and 8 entries on both sides of a fault"),
	{ .name = "native", .what = "the workload on the host itself", .kind = MODE_NATIVE, .flags = "" },
	{ .name = "tcg", .what = "the same kernel and initrd under QEMU's software emulation", .kind = MODE_TCG, .flags = "" },
	{ .name = "kvm", .what = "the same under QEMU with KVM, where that has EPT or NPT", .kind = MODE_KVM, .flags = "" },
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
	return add(list, &(struct mode){ .name = text, .what = "given by --mode", .kind = MODE_UMBRA, .flags = flags,
					 .users = true });
}

static int parse_counts(const char *text, unsigned out[VCPU_COUNTS])
{
	unsigned n = 0;
	char *end;

	for (;; text = end + 1) {
		unsigned long c = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;

		if (c < 1 || c > VCPUS_MAX || n == VCPU_COUNTS || (*end && *end != ','))
			return -EINVAL;
		for (unsigned i = 0; i < n; i++)
			if (out[i] == c)
				return -EINVAL;
		out[n++] = c;
		if (!*end)
			return n;
	}
}

static int add_with_vcpus(struct mode_list *list, struct mode mode, unsigned vcpus)
{
	size_t name = strlen(mode.name) + 8, flags = strlen(mode.flags) + 8;
	int r;

	mode.owned = malloc(name + flags);
	if (!mode.owned)
		return -ENOMEM;
	snprintf(mode.owned, name, "%s-c%u", mode.name, vcpus);
	snprintf(mode.owned + name, flags, "%s -c %u", mode.flags, vcpus);
	mode.name = mode.owned;
	mode.flags = mode.owned + name;
	r = add(list, &mode);
	if (r)
		free(mode.owned);
	return r;
}

int modes_by_vcpus(struct mode_list *list, const char *counts)
{
	struct mode_list grown = { NULL };
	unsigned vcpus[VCPU_COUNTS];
	int n = parse_counts(counts, vcpus), r = n < 0 ? n : 0;

	for (unsigned i = 0; i < list->n && !r; i++) {
		if (list->at[i].kind != MODE_UMBRA)
			r = add(&grown, &list->at[i]);
		else
			for (int c = 0; c < n && !r; c++)
				r = add_with_vcpus(&grown, list->at[i], vcpus[c]);
	}
	if (r) {
		modes_release(&grown);
		return r;
	}
	free(list->at);
	*list = grown;
	return 0;
}

void modes_release(struct mode_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		free(list->at[i].owned);
	free(list->at);
	*list = (struct mode_list){ NULL };
}

void modes_help(void)
{
	printf("modes\n");
	for (unsigned i = 0; i < NR_KNOWN; i++)
		printf("  %-13s %s%s%s\n", known[i].name, known[i].what, *known[i].flags ? ": " : "", known[i].flags);
	printf("  --mode 'NAME=FLAGS' adds one with any flags of 'umbra run'\n");
}
