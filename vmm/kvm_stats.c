/* kvm_stats.c - reading KVM's binary statistics (Documentation/virt/kvm/api.rst, 4.134). */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/kvm_stats.h"
#include "vmm/vm.h"

#define NAME_MAX_BYTES	256u	/* KVM says how long names may be; more than this it has never said */
#define DESCS_MAX	4096u

static const char *const vm_names[] = {
#define X(name, what) #name,
	KVM_VM_COUNTS(X)
};
static const char *const vcpu_names[] = {
	KVM_VCPU_COUNTS(X)
#undef X
};
#define NR_VM	(sizeof vm_names / sizeof *vm_names)
#define NR_VCPU	(sizeof vcpu_names / sizeof *vcpu_names)
_Static_assert(sizeof(struct kvm_counts) == (NR_VM + NR_VCPU) * sizeof(int64_t), "in the order of the lists");

/* One file of statistics; where the wanted ones are in it, -1: not there. */
struct source {
	int fd;
	int64_t at[NR_VM > NR_VCPU ? NR_VM : NR_VCPU];
};

struct kvm_stats {
	struct source vm;
	unsigned nr_vcpus;
	struct source vcpu[];
};

static void find_names(struct source *s, const struct kvm_stats_header *h, const char *const *names, unsigned n)
{
	_Alignas(struct kvm_stats_desc) char buffer[sizeof(struct kvm_stats_desc) + NAME_MAX_BYTES];
	struct kvm_stats_desc *d = (struct kvm_stats_desc *)buffer;
	size_t bytes = sizeof *d + h->name_size;

	for (unsigned i = 0; i < h->num_desc; i++) {
		if (pread(s->fd, buffer, bytes, h->desc_offset + i * bytes) != (ssize_t)bytes)
			return;
		buffer[bytes - 1] = 0;
		if (d->size != 1)	/* a histogram */
			continue;
		for (unsigned k = 0; k < n; k++)
			if (!strcmp(d->name, names[k]))
				s->at[k] = (int64_t)h->data_offset + d->offset;
	}
}

static void open_source(struct source *s, int of, const char *const *names, unsigned n)
{
	struct kvm_stats_header h;

	for (unsigned k = 0; k < sizeof s->at / sizeof *s->at; k++)
		s->at[k] = -1;
	s->fd = ioctl(of, KVM_GET_STATS_FD, NULL);
	if (s->fd >= 0 && pread(s->fd, &h, sizeof h, 0) == sizeof h && h.name_size <= NAME_MAX_BYTES &&
	    h.num_desc <= DESCS_MAX)
		find_names(s, &h, names, n);
}

struct kvm_stats *kvm_stats_open(const struct vm *vm)
{
	struct kvm_stats *s = calloc(1, sizeof *s + vm->nr_vcpus * sizeof *s->vcpu);

	if (!s)
		return NULL;
	s->nr_vcpus = vm->nr_vcpus;
	open_source(&s->vm, vm->fd, vm_names, NR_VM);
	for (unsigned i = 0; i < s->nr_vcpus; i++)
		open_source(&s->vcpu[i], vm->vcpus[i].fd, vcpu_names, NR_VCPU);
	return s;
}

void kvm_stats_close(struct kvm_stats *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->nr_vcpus; i++)
		if (s->vcpu[i].fd >= 0)
			close(s->vcpu[i].fd);
	if (s->vm.fd >= 0)
		close(s->vm.fd);
	free(s);
}

static void add(int64_t *to, const struct source *s, unsigned k)
{
	uint64_t value;

	if (s->at[k] < 0 || pread(s->fd, &value, sizeof value, s->at[k]) != sizeof value)
		return;
	*to = (*to < 0 ? 0 : *to) + (int64_t)value;
}

void kvm_stats_read(const struct kvm_stats *s, struct kvm_counts *out)
{
	int64_t *to = (int64_t *)out;

	for (unsigned k = 0; k < NR_VM + NR_VCPU; k++)
		to[k] = -1;
	if (!s)
		return;
	for (unsigned k = 0; k < NR_VM; k++)
		add(&to[k], &s->vm, k);
	for (unsigned i = 0; i < s->nr_vcpus; i++)
		for (unsigned k = 0; k < NR_VCPU; k++)
			add(&to[NR_VM + k], &s->vcpu[i], k);
}

void kvm_stats_subtract(struct kvm_counts *c, const struct kvm_counts *from)
{
#define X(name, what) c->name = c->name < 0 || from->name < 0 ? -1 : c->name - from->name;
	struct kvm_counts now = *c;

	KVM_VM_COUNTS(X)
	KVM_VCPU_COUNTS(X)
#undef X
	c->pages_4k = now.pages_4k;
	c->pages_2m = now.pages_2m;
	c->pages_1g = now.pages_1g;
}
