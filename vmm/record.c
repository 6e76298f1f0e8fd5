/* record.c - --trace: what the helper's threads, or without them the vCPUs', see goes to a file (feed.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helper/trace.h"
#include "vmm/stats.h"
#include "vmm/vm.h"

static const uint64_t *trace_table(void *arg, gfn_t table)
{
	struct vm *vm = arg;

	return mmu_gfn_hva(vm->mmu, table);
}

static void tap(void *arg, unsigned source, const struct helper_event *events, unsigned n)
{
	struct vm *vm = arg;

	for (unsigned i = 0; i < n; i++)
		trace_event(vm->trace, source, &events[i]);
}

int record_start(struct vm *vm, struct helper_config *helper)
{
	char *text = stats_config_text(vm);
	struct trace_config c = { .path = vm->config->trace, .config = text, .nr_sources = vm->nr_vcpus,
				  .nr_gfns = vm->nr_gfns, .table = trace_table, .arg = vm };
	int r = text ? trace_create(&c, &vm->trace) : -ENOMEM;

	free(text);
	helper->tap = tap;
	helper->tap_arg = vm;
	if (r)
		fprintf(stderr, "umbra: --trace=%s: %s\n", vm->config->trace, strerror(-r));
	return r;
}

void record_stop(struct vm *vm)
{
	struct trace_totals totals;
	char *text = stats_result_text(vm);
	int r = trace_close(vm->trace, text ? text : "{}", &totals);

	free(text);
	vm->trace = NULL;
	if (r)
		fprintf(stderr, "umbra: --trace=%s: %s: the trace is not whole\n", vm->config->trace, strerror(-r));
	else if (totals.lost)
		fprintf(stderr, "umbra: --trace=%s: %llu of %llu events found no room and are lost\n", vm->config->trace,
			(unsigned long long)totals.lost, (unsigned long long)(totals.records + totals.lost));
	else if (!vm->config->quiet)
		fprintf(stderr, "umbra: the trace is in %s: %llu records, %llu bytes\n", vm->config->trace,
			(unsigned long long)totals.records, (unsigned long long)totals.bytes);
}
