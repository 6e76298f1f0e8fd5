/*
 * user.c - user mode: a root of its own, code and two data pages mapped in it, entered by HYPERVISOR_iret.
 */
#include "lib/guest.h"

uint64_t *user_root;
uint8_t *user_data;

extern char user_text[], user_text_start[], user_text_end[];
void user_enter(const struct regs *regs);
void user_frame_set(struct regs *frame);

uint64_t user_address(const char *code)
{
	return USER_CODE + (PTR(code) - PTR(user_text_start));
}

static void user_map(uint64_t va, uint64_t pte)
{
	int r = map_page(user_root, va, pte);

	if (!r)
		r = map_page(root_va(), va, pte);
	if (r) {
		say("FAIL mapping user memory at %lx: %d", va, r);
		guest_end(false);
	}
}

void user_init(void)
{
	long r;

	if (user_root)
		return;
	hcall2(vm_assist, VMASST_CMD_enable, VMASST_TYPE_m2p_strict);	/* Xen shows it to user mode otherwise */
	user_root = table_alloc();
	r = mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(user_root), 0);
	if (!r)
		r = mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(user_root), 0);
	if (r) {
		say("FAIL user root: %ld", r);
		guest_end(false);
	}
	for (uint64_t off = 0; off < PTR(user_text_end) - PTR(user_text_start); off += 4096)
		user_map(USER_CODE + off, pte_make(va_to_mfn(user_text_start + off), PTE_P | PTE_U | PTE_A));
	user_data = page_alloc();
	user_map(USER_DATA, pte_make(va_to_mfn(user_data), PTE_DATA));
	user_map(USER_DATA + 4096, pte_make(va_to_mfn(page_alloc()), PTE_DATA));
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

int user_run(struct regs *regs)
{
	struct regs in = *regs;

	user_frame_set(regs);
	user_enter(&in);
	return (int)regs->vector;
}

void linux_user_init(void)
{
	static uint64_t *gdt;
	uint64_t frame;
	long r;

	user_init();
	if (gdt)
		return;
	gdt = page_alloc();
	gdt[LINUX_USER_SS / 8] = 0x00cff3000000ffff;
	gdt[LINUX_USER_CS / 8] = 0x00affb000000ffff;
	page_protect(gdt, PTE_RO_DATA);
	frame = va_to_mfn(gdt);
	r = hcall2(set_gdt, PTR(&frame), 512);
	if (r) {
		say("FAIL set_gdt: %ld", r);
		guest_end(false);
	}
}

static int user_start(struct regs *regs, const char *code, uint16_t cs, uint16_t ss, uint64_t rdi, uint64_t rsi)
{
	memset(regs, 0, sizeof(*regs));
	regs->rip = user_address(code);
	regs->cs = cs;
	regs->ss = ss;
	regs->rsp = USER_STACK_TOP;
	regs->rflags = RFLAGS_IF | 2;
	regs->rdi = rdi;
	regs->rsi = rsi;
	return user_run(regs);
}

int user_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi)
{
	return user_start(regs, code, FLAT_USER_CS64, FLAT_USER_SS64, rdi, rsi);
}

int user32_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi)
{
	return user_start(regs, code, FLAT_USER_CS32, FLAT_USER_SS64, rdi, rsi);
}

int linux_user_call(struct regs *regs, const char *code, uint64_t rdi, uint64_t rsi)
{
	return user_start(regs, code, LINUX_USER_CS, LINUX_USER_SS, rdi, rsi);
}
