/* trace.c - the last exits of a vCPU, kept in a ring, and what a crash dump shows of it. */
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "vmm/symbols.h"
#include "vmm/vm.h"

/* Called after every exit, before it is handled. */
void trace_exit(struct vcpu *v, const struct gate_exit *e)
{
	struct exit_record *r;

	if (!v->trace_size)
		return;
	r = &v->trace[v->trace_at++ % v->trace_size];
	*r = (struct exit_record){
		.tsc = v->exit_tsc,
		.rip = v->regs.r.rip,
		.kind = e->event,
		.vector = e->vector,
		.error_code = e->error_code,
		.mode = v->mode,
		.info = e->event == GATE_SYSCALL_IN ? v->regs.r.rax : e->cr2,
	};
}

static void print_record(struct vcpu *v, const struct exit_record *r, uint64_t now, FILE *to)
{
	const char *who = r->mode == MMU_USER ? "user" : "kernel";
	double us = v->vm->tsc_khz ? (double)(now - r->tsc) * 1000 / v->vm->tsc_khz : 0;
	const char *call;
	char name[128];

	fprintf(to, "  %10.1f us  %-6s  %-34s ", us, who, symbols_name(v->vm->symbols, r->rip, name, sizeof name));
	switch (r->kind) {
	case GATE_EXCEPTION:
		fprintf(to, "exception %u error %#x", r->vector, r->error_code);
		if (r->vector == 14)
			fprintf(to, " at %#llx", (unsigned long long)r->info);
		break;
	case GATE_SYSCALL_IN:
		call = r->mode == MMU_KERNEL ? xen_hypercall_name(r->info < COUNTERS_HYPERCALLS ? r->info : 0) : NULL;
		fprintf(to, "%s %llu%s%s", r->mode == MMU_KERNEL ? "hypercall" : "syscall", (unsigned long long)r->info,
			call ? " " : "", call ? call : "");
		break;
	case GATE_SYSCALL32_IN:
		fprintf(to, "32-bit syscall");
		break;
	case GATE_INTERRUPTED:
		fprintf(to, "interrupted");
		break;
	case GATE_KICKED:
		fprintf(to, "kicked");
		break;
	default:
		fprintf(to, "failed");
	}
	fputc('\n', to);
}

static void print_regs(struct vcpu *v, FILE *to)
{
	const struct kvm_regs *r = &v->regs.r;
	char name[128];

	fprintf(to, "  rip %04x:%016llx  %s\n", v->regs.cs, r->rip, symbols_name(v->vm->symbols, r->rip, name, sizeof name));
	fprintf(to, "  rsp %04x:%016llx  rflags %08llx  %s mode, events %s\n", v->regs.ss, r->rsp, r->rflags,
		v->mode == MMU_USER ? "user" : "kernel", atomic_load(&v->info)->evtchn_upcall_mask ? "masked" : "open");
	fprintf(to, "  rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", r->rax, r->rbx, r->rcx, r->rdx);
	fprintf(to, "  rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n", r->rsi, r->rdi, r->rbp, r->r8);
	fprintf(to, "  r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n", r->r9, r->r10, r->r11, r->r12);
	fprintf(to, "  r13 %016llx r14 %016llx r15 %016llx\n", r->r13, r->r14, r->r15);
	fprintf(to, "  fs  %016llx gs  %016llx (user %016llx)\n", (unsigned long long)v->fs_base,
		(unsigned long long)v->gs_base[MMU_KERNEL], (unsigned long long)v->gs_base[MMU_USER]);
	fprintf(to, "  cr2 %016llx guest root tables: kernel gfn %#llx, user gfn %#llx\n",
		(unsigned long long)v->run->s.regs.sregs.cr2, (unsigned long long)v->l4[MMU_KERNEL].n,
		(unsigned long long)v->l4[MMU_USER].n);
}

/* The stack, with what looks like return addresses named. */
static void print_stack(struct vcpu *v, FILE *to)
{
	uint64_t sp = v->regs.r.rsp & ~7ull, word;
	char name[128];

	for (unsigned i = 0; i < 32; i++) {
		if (guest_get(v, sp + i * 8, &word))
			break;
		fprintf(to, "  %016llx: %016llx", (unsigned long long)(sp + i * 8), (unsigned long long)word);
		if (v->vm->symbols && word >= 0xffffffff80000000)
			fprintf(to, "  %s", symbols_name(v->vm->symbols, word, name, sizeof name));
		fputc('\n', to);
	}
}

void dump_vcpu(struct vcpu *v, FILE *to)
{
	uint64_t now = __rdtsc();
	uint8_t code[16];
	size_t got = 0;

	fprintf(to, "--- vCPU %u ---\n", v->id);
	print_regs(v, to);
	if (guest_fetch(v, v->regs.r.rip, code, sizeof code, &got) == 0) {
		fprintf(to, "  code:");
		for (size_t i = 0; i < got; i++)
			fprintf(to, " %02x", code[i]);
		fputc('\n', to);
	}
	fprintf(to, "stack:\n");
	print_stack(v, to);
	if (v->l4[v->mode].n != MMU_NO_GFN.n) {
		fprintf(to, "walk of cr2:\n");
		v->vm->paging->dump_walk(v, v->mode, (gva_t){ v->run->s.regs.sregs.cr2 }, to);
	}
	if (v->trace_size) {
		unsigned n = v->trace_at < v->trace_size ? v->trace_at : v->trace_size;

		fprintf(to, "last %u exits, oldest first:\n", n);
		for (unsigned i = v->trace_at - n; i != v->trace_at; i++)
			print_record(v, &v->trace[i % v->trace_size], now, to);
	}
	fflush(to);
}
