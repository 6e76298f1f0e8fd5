/* stats_ept.c - violations of the second level, KVM's own counters and frame types in the JSON report. Unknown is null. */
#include <jansson.h>

#include "vmm/ept.h"
#include "vmm/nested.h"
#include "vmm/stats.h"

static json_t *count_or_null(int64_t n)
{
	return n < 0 ? json_null() : json_integer(n);
}

json_t *stats_kvm_json(const struct kvm_counts *k)
{
	json_t *o = json_object();

#define X(name, what) json_object_set_new(o, #name, count_or_null(k->name));
	KVM_VM_COUNTS(X)
	KVM_VCPU_COUNTS(X)
#undef X
	return o;
}

json_t *stats_ept_json(const struct vm *vm, const struct mmu_stats *m, const struct kvm_counts *k)
{
	struct ept e;
	json_t *o = json_object();

	ept_count(vm, m, k, &e);
	json_object_set_new(o, "kind", json_string(ept_kind_name(e.kind)));
	json_object_set_new(o, "violations", count_or_null(e.violations));
	if (e.kind == EPT_MEASURED) {	/* what the violations were for: the host decides on the size of pages */
		json_object_set_new(o, "pages_4k", count_or_null(k->pages_4k));
		json_object_set_new(o, "pages_2m", count_or_null(k->pages_2m));
	}
	if (e.kind == EPT_MODELLED) {
		json_object_set_new(o, "page_table_frames", json_integer(e.tables));
		json_object_set_new(o, "violations_2m", json_integer(e.violations_2m));
		json_object_set_new(o, "violations_at_most", json_integer(e.at_most));
	}
	return o;
}

/* What stays the same for all parts of a run. */
void stats_ept_describe(const struct vm *vm, json_t *ept)
{
	json_object_set_new(ept, "references_per_tlb_miss",
			    json_pack("{si si si}", "shadow_4k", EPT_REFS_SHADOW, "second_level_4k", EPT_REFS_4K,
				      "second_level_2m", EPT_REFS_2M));
	json_object_set_new(ept, "host_memory",
			    json_pack("{sI sI sb}", "frames", (json_int_t)vm->ram_frames, "populated_frames_at_start",
				      (json_int_t)vm->populated, "populate", vm->config->populate));
}

/* null in shadow mode. */
json_t *stats_frames_json(const struct vm *vm)
{
	struct frames_stats s;
	json_t *o;

	if (!vm->nested)
		return json_null();
	frames_stats(vm->nested->frames, &s);
	o = json_object();
#define X(name, what) json_object_set_new(o, #name, json_integer(s.name));
	FRAMES_COUNTERS(X)
#undef X
	return o;
}
